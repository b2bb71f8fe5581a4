// The camera, as a source of frames.
import { UserError } from "./metadata.js";

const REFUSALS = {
  NotAllowedError: "The camera was refused. Allow it for this page in the browser's settings.",
  NotFoundError: "No camera was found on this device.",
  NotReadableError: "The camera is in use by another program.",
};

/**
 * Starts the camera in a video element.
 *
 * @returns {Promise<{frame: () => {source, width, height}, stop: () => void}>} `frame` throws a
 *   UserError once the camera has gone
 */
export async function openCamera(video) {
  if (!navigator.mediaDevices) {
    throw new UserError("Browsers give a page the camera over https or on localhost only.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 640 }, height: { ideal: 480 } },
    });
  } catch (error) {
    throw new UserError(REFUSALS[error.name] ?? `The camera does not start: ${error.message}`);
  }
  video.srcObject = stream;
  await video.play();
  return {
    frame() {
      if (!stream.active) throw new UserError("The camera stopped.");
      return { source: video, width: video.videoWidth, height: video.videoHeight };
    },
    stop() {
      for (const track of stream.getTracks()) track.stop();
      video.srcObject = null;
    },
  };
}
