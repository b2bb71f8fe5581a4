// What an exported file says about itself.

const KEY = "nanodet_d2";
const FORMAT_VERSION = 1;
const FIELDS = [
  "kind", "class_names", "strides", "reg_max", "input",
  "score_threshold", "nms_threshold", "max_detections",
];
const INPUT_FIELDS = ["name", "height", "width", "channel_order", "mean", "std", "resize"];

/** Something the user can put right; its message is shown as it is. */
export class UserError extends Error {}

/** Reads the json of an export; throws a UserError that names `source` if it cannot be used. */
export function parseMetadata(text, source) {
  let content;
  try {
    content = JSON.parse(text);
  } catch (error) {
    throw new UserError(`The metadata of ${source} is not json: ${error.message}`);
  }
  const missing = FIELDS.filter((name) => content?.[name] === undefined);
  missing.push(...INPUT_FIELDS.filter((name) => content?.input?.[name] === undefined));
  if (missing.length) throw new UserError(`The metadata of ${source} lacks ${missing.join(", ")}.`);
  if (content.format_version !== FORMAT_VERSION) {
    throw new UserError(
      `The metadata of ${source} has format version ${content.format_version}; ` +
        `this page reads version ${FORMAT_VERSION}.`,
    );
  }
  if (content.kind !== "raw") {
    throw new UserError(
      `${source} is an export of the kind “${content.kind}”; this page needs the kind “raw”.`,
    );
  }
  if (content.input.resize !== "stretch") {
    throw new UserError(`${source} wants its pictures resized by “${content.input.resize}”, ` +
      "which this page cannot do; it can “stretch”.");
  }
  const nms = content.nms ?? "plain"; // of files from before it was written
  const canVote = typeof content.vote_threshold === "number" &&
    ["number", "undefined"].includes(typeof content.vote_power); // 1 before it was written
  if (nms !== "plain" && !(nms === "voting" && canVote)) {
    throw new UserError(`${source} wants the NMS “${nms}”, which this page cannot do; it can ` +
      "“plain”, and “voting” with numbers as vote_threshold and vote_power.");
  }
  return content;
}

/**
 * The metadata json inside an ONNX file, or null. An ONNX file is a protocol buffer, whose field 14
 * holds one message {1: key, 2: value} for each entry of metadata_props.
 */
export function embeddedMetadata(bytes) {
  try {
    for (const field of fields(bytes)) {
      if (field.number !== 14 || !field.value) continue;
      const entry = {};
      for (const part of fields(field.value)) entry[part.number] = part.value;
      const decoder = new TextDecoder();
      if (decoder.decode(entry[1]) === KEY) return decoder.decode(entry[2]);
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // no protocol buffer: no metadata
  }
  return null;
}

/** The fields of a protocol buffer message; `value` is set for those with a length. */
function* fields(bytes) {
  let at = 0;
  function varint() {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      if (at >= bytes.length || scale > 2 ** 63) throw new RangeError("broken number");
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  }
  while (at < bytes.length) {
    const tag = varint();
    const number = Math.floor(tag / 8);
    const sizes = { 1: 8, 5: 4 };
    const wire = tag % 8;
    if (wire === 0) {
      varint();
      yield { number };
      continue;
    }
    const size = wire === 2 ? varint() : sizes[wire];
    if (size === undefined || at + size > bytes.length) throw new RangeError("broken field");
    yield { number, value: wire === 2 ? bytes.subarray(at, at + size) : undefined };
    at += size;
  }
}
