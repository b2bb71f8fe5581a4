// The page: what the user does, and what they see.
import * as ort from "./ort/ort.wasm.min.mjs";
import { openCamera } from "./camera.js";
import { ClassFilter } from "./classes.js";
import { Detector } from "./detector.js";
import { classColor, drawDetections } from "./draw.js";
import { UserError } from "./metadata.js";

const DEFAULT_MODEL = document.body.dataset.model; // the build writes it; may be empty
const MAX_THREADS = 4;
const TILES = { size: 640, overlap: 0.2, whole: true };

/** What the page shows; `result` is that of `Detector.detect` for `image`. */
export const state = { detector: null, image: null, result: null, camera: null };

const element = (id) => document.getElementById(id);
const canvas = element("canvas");
const context = canvas.getContext("2d");
const scratch = new OffscreenCanvas(1, 1); // where pixels are read, so that nothing flickers
const scratchContext = scratch.getContext("2d", { willReadFrequently: true });
const classes = new ClassFilter(element("classes"), render);
const threads = globalThis.crossOriginIsolated
  ? Math.min(MAX_THREADS, navigator.hardwareConcurrency || 1)
  : 1;
ort.env.wasm.numThreads = threads;
ort.env.wasm.wasmPaths = new URL("ort/", import.meta.url).href;

// One task at a time: a new picture waits for the one in the network.
let last = Promise.resolve();
function enqueue(task) {
  last = last.then(task).catch(showError);
  return last;
}

function showError(error) {
  console.error(error);
  const known = error instanceof UserError;
  element("error").textContent = known ? error.message : `Something went wrong: ${error.message}`;
  element("error").hidden = false;
}

const clearError = () => (element("error").hidden = true);
const say = (text) => (element("status").textContent = text);

async function loadDefaultModel() {
  if (!DEFAULT_MODEL) return say("No model lies beside this page: choose an exported ONNX file.");
  say("Loading the model…");
  const model = await fetch(DEFAULT_MODEL);
  if (!model.ok) throw new UserError(`${DEFAULT_MODEL} is not there: the server says ${model.status}.`);
  const json = await fetch(`${DEFAULT_MODEL}.json`);
  await useModel(await model.arrayBuffer(), DEFAULT_MODEL, json.ok ? await json.text() : null);
}

async function loadModel(files) {
  const model = files.find((file) => file.name.endsWith(".onnx"));
  if (!model) throw new UserError("Choose an ONNX file: a name that ends in .onnx.");
  const json = files.find((file) => file.name.endsWith(".json"));
  say(`Loading ${model.name}…`);
  await useModel(await model.arrayBuffer(), model.name, json ? await json.text() : null);
}

async function useModel(buffer, name, json) {
  const before = state.detector;
  try {
    state.detector = await Detector.load(ort, new Uint8Array(buffer), name, json);
    state.result = null; // of another model
    classes.use(state.detector.metadata.class_names);
    await before?.release();
  } finally {
    describeModel();
  }
  if (state.image && !state.camera) await detect(state.image);
}

function describeModel() {
  if (!state.detector) return say("No model is loaded: choose an exported ONNX file.");
  const { metadata } = state.detector;
  const { height, width } = metadata.input;
  say(
    `${metadata.name ?? state.detector.name}: ${metadata.class_names.length} classes, input ` +
      `${width} × ${height} px, ${threads} thread${threads > 1 ? "s" : ""} of WebAssembly.`,
  );
}

async function showPicture(file) {
  stopCamera();
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new UserError(`${file.name} is no picture that this browser can read.`);
  }
  let pixels;
  try {
    pixels = pixelsOf(bitmap, bitmap.width, bitmap.height);
  } finally {
    bitmap.close(); // gives its memory back now, and not when the garbage collector comes by
  }
  await detect(pixels);
}

/** Pixels (ImageData) of whatever a canvas can draw. */
function pixelsOf(source, width, height) {
  Object.assign(scratch, { width, height });
  scratchContext.drawImage(source, 0, 0, width, height);
  return scratchContext.getImageData(0, 0, width, height);
}

async function detect(image) {
  if (!state.camera) show(image, null); // a frame of the camera waits for its boxes
  // A camera's pictures are small, and many.
  const tiles = element("tiles").checked && !state.camera ? TILES : null;
  const result = state.detector ? await state.detector.detect(image, tiles) : null;
  show(image, result);
}

function show(image, result) {
  Object.assign(state, { image, result });
  render();
}

async function toggleCamera() {
  if (state.camera) return stopCamera();
  state.camera = await openCamera(element("video"));
  element("camera-button").textContent = "Stop camera";
  element("camera-button").setAttribute("aria-pressed", "true");
  cameraLoop(state.camera).catch((error) => {
    stopCamera();
    showError(error);
  });
}

async function cameraLoop(camera) {
  let previous = performance.now();
  let interval = null; // smoothed, in milliseconds
  while (state.camera === camera) {
    await enqueue(async () => {
      const frame = camera.frame();
      if (state.camera === camera) await detect(pixelsOf(frame.source, frame.width, frame.height));
    });
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    interval = interval === null ? now - previous : 0.8 * interval + 0.2 * (now - previous);
    previous = now;
    if (state.camera === camera) element("fps").textContent = `${(1000 / interval).toFixed(1)} /s`;
  }
}

function stopCamera() {
  state.camera?.stop();
  state.camera = null;
  element("fps").textContent = "–";
  element("camera-button").textContent = "Start camera";
  element("camera-button").setAttribute("aria-pressed", "false");
}

function render() {
  const threshold = Number(element("threshold").value) / 100;
  element("threshold-value").textContent = `${Math.round(100 * threshold)} %`;
  if (!state.image) return;
  const { width, height } = state.image;
  canvas.hidden = false;
  element("placeholder").hidden = true;
  element("stage").classList.add("filled");
  Object.assign(canvas, { width, height });
  context.putImageData(state.image, 0, 0);
  if (!state.result) return;

  const names = state.detector.metadata.class_names;
  const shown = state.result.detections.filter(
    ({ score, classIndex }) => score > threshold && classes.shows(classIndex),
  );
  const unit = Math.max(1, width / (canvas.clientWidth || width));
  drawDetections(context, shown, names, unit);
  canvas.setAttribute("aria-label", summary(shown, names));
  element("rows").replaceChildren(...shown.map((found) => rowOf(found, names)));
  element("nothing").hidden = shown.length > 0;
  element("nothing").textContent = "Nothing of these classes above this score.";
  for (const [part, value] of Object.entries(state.result.milliseconds)) {
    element(`time-${part}`).textContent = `${value.toFixed(value < 10 ? 1 : 0)} ms`;
  }
}

function summary(detections, names) {
  const counts = new Map();
  for (const { classIndex } of detections) {
    counts.set(names[classIndex], (counts.get(names[classIndex]) ?? 0) + 1);
  }
  const list = [...counts].map(([name, count]) => `${count} ${name}`).join(", ");
  return `Picture with ${detections.length} detections${list && `: ${list}`}`;
}

function rowOf({ box, score, classIndex }, names) {
  const row = document.createElement("tr");
  const swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.background = classColor(classIndex);
  row.insertCell().append(swatch, names[classIndex]);
  row.insertCell().textContent = `${(100 * score).toFixed(1)} %`;
  row.insertCell().textContent = box.map(Math.round).join(", ");
  return row;
}

function onFiles(input, task) {
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // so that the same file can be chosen again
    if (files.length) begin(() => task(files));
  });
}

function begin(task) {
  clearError();
  return enqueue(task);
}

onFiles(element("image-input"), ([file]) => showPicture(file));
onFiles(element("model-input"), loadModel);
element("camera-button").addEventListener("click", () => begin(toggleCamera));
element("threshold").addEventListener("input", render);
element("tiles").addEventListener("change", () =>
  begin(async () => {
    if (state.image && !state.camera) await detect(state.image);
  }));
addEventListener("resize", render);
const stage = element("stage");
stage.addEventListener("dragover", (event) => {
  event.preventDefault();
  stage.classList.add("over");
});
stage.addEventListener("dragleave", () => stage.classList.remove("over"));
stage.addEventListener("drop", (event) => {
  event.preventDefault();
  stage.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) begin(() => showPicture(file));
});
begin(loadDefaultModel);
