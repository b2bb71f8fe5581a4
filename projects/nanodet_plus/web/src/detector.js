// An exported ONNX file in onnxruntime-web.
import { countPriors, detect } from "./decode.js";
import { normalize, stretch } from "./image.js";
import { UserError, embeddedMetadata, parseMetadata } from "./metadata.js";
import { crop, merge, slices } from "./tiles.js";

export class Detector {
  /**
   * @param {object} ort onnxruntime-web
   * @param {Uint8Array} bytes of the ONNX file
   * @param {string} name of the file, for messages
   * @param {string | null} beside the json that lies beside it, if the file has none inside
   */
  static async load(ort, bytes, name, beside = null) {
    const text = embeddedMetadata(bytes) ?? beside;
    let session;
    try {
      session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    } catch (error) {
      throw new UserError(`${name} is no ONNX model that this page can run: ${error.message}`);
    }
    try {
      return await Detector.#warm(ort, session, text, name);
    } catch (error) {
      await session.release();
      throw error;
    }
  }

  static async #warm(ort, session, text, name) {
    if (text === null) {
      throw new UserError(
        `${name} carries no metadata, so its output cannot be read. Export it with ` +
          `“nanodet-d2 export”, or choose it together with its file ${name}.json.`,
      );
    }
    const detector = new Detector(ort, session, parseMetadata(text, name), name);
    await detector.detect({ data: new Uint8ClampedArray(4), width: 1, height: 1 });
    return detector; // warm, and known to return what its metadata promises
  }

  constructor(ort, session, metadata, name) {
    Object.assign(this, { ort, session, metadata, name });
    const { name: input } = metadata.input;
    if (!session.inputNames.includes(input)) {
      throw new UserError(`${name} has no input “${input}”, which its metadata names.`);
    }
  }

  /** Gives back the session's memory, which lies outside of JavaScript's. */
  release() {
    return this.session.release();
  }

  /**
   * @param {ImageData} image
   * @param {{size, overlap, whole} | null} tiles cuts a large picture into slices
   * @returns {Promise<{detections: object[], milliseconds: {prepare, network, decode, total}}>}
   */
  async detect(image, tiles = null) {
    return tiles ? this.#detectInSlices(image, tiles) : this.#detectOnce(image);
  }

  async #detectInSlices(image, tiles) {
    const begin = performance.now();
    const places = slices(image.height, image.width, tiles);
    const milliseconds = { prepare: 0, network: 0, decode: 0, total: 0 };
    const found = [];
    for (const place of places) {
      const part = await this.#detectOnce(crop(image, place));
      found.push(part.detections);
      for (const key of Object.keys(milliseconds)) milliseconds[key] += part.milliseconds[key];
    }
    const detections = merge(found, places, image, this.metadata.nms_threshold);
    milliseconds.total = performance.now() - begin;
    return { detections, milliseconds };
  }

  async #detectOnce(image) {
    const { input } = this.metadata;
    const begin = performance.now();
    const data = normalize(stretch(image, input.height, input.width), input);
    const prepared = performance.now();
    const tensor = new this.ort.Tensor("float32", data, [1, 3, input.height, input.width]);
    const output = (await this.session.run({ [input.name]: tensor }))[this.session.outputNames[0]];
    const computed = performance.now();
    this.#checkShape(output.dims);
    const detections = detect(output.data, this.metadata, image);
    const end = performance.now();
    return {
      detections,
      milliseconds: {
        prepare: prepared - begin,
        network: computed - prepared,
        decode: end - computed,
        total: end - begin,
      },
    };
  }

  #checkShape(dims) {
    const { class_names: names, reg_max: regMax, strides, input } = this.metadata;
    const wanted = [1, countPriors(input.height, input.width, strides), names.length + 4 * (regMax + 1)];
    if (dims.length !== 3 || wanted.some((size, i) => dims[i] !== size)) {
      throw new UserError(
        `${this.name} returns ${dims.join(" × ")} values; its metadata promises ${wanted.join(" × ")}.`,
      );
    }
  }
}
