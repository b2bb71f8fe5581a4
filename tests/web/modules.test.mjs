// Unit tests of the page's modules, run by `node --test`. test_web.py names in NANODET_CASES a json
// of inputs with the values that the Python code gives for them.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import * as decode from "../../projects/nanodet_plus/web/src/decode.js";
import { Detector } from "../../projects/nanodet_plus/web/src/detector.js";
import { normalize, stretch } from "../../projects/nanodet_plus/web/src/image.js";
import {
  UserError,
  embeddedMetadata,
  parseMetadata,
} from "../../projects/nanodet_plus/web/src/metadata.js";
import { crop, merge, slices } from "../../projects/nanodet_plus/web/src/tiles.js";

const path = process.env.NANODET_CASES;
const cases = path ? JSON.parse(readFileSync(path, "utf8")) : null;
const fromPython = { skip: cases ? false : "NANODET_CASES is not set: run test_web.py" };

const METADATA = {
  format_version: 1,
  kind: "raw",
  class_names: ["cat", "dog"],
  strides: [8, 16],
  reg_max: 1,
  input: {
    name: "data", height: 16, width: 16, channel_order: "BGR",
    mean: [0, 0, 0], std: [1, 1, 1], resize: "stretch",
  },
  score_threshold: 0.5,
  nms_threshold: 0.6,
  max_detections: 100,
};

function gray(rows) {
  const data = rows.flat().flatMap((value) => [value, value, value, 255]);
  return { data: Uint8ClampedArray.from(data), width: rows[0].length, height: rows.length };
}

const grays = (rgb) => [...rgb].filter((_, i) => i % 3 === 0);

function close(actual, expected, tolerance) {
  assert.equal(actual.length, expected.length);
  expected.forEach((value, i) => assert.ok(Math.abs(actual[i] - value) <= tolerance, `value ${i}`));
}

test("half the size takes every other pixel", () => {
  const image = gray([[0, 10, 20, 30], [40, 50, 60, 70], [80, 90, 100, 110], [120, 130, 140, 150]]);
  assert.deepEqual(grays(stretch(image, 2, 2)), [0, 20, 80, 100]);
});

test("twice the size blends neighbours, and black outside", () => {
  assert.deepEqual(grays(stretch(gray([[100, 200]]), 1, 4)), [100, 150, 200, 100]);
  assert.deepEqual(grays(stretch(gray([[64]]), 1, 128)).at(-1), 0); // rounds to beyond the edge
});

test("channels are ordered and normalised as the metadata says", () => {
  const rgb = Uint8Array.of(10, 20, 30);
  const input = { height: 1, width: 1, mean: [1, 2, 3], std: [1, 2, 4] };
  assert.deepEqual([...normalize(rgb, { ...input, channel_order: "RGB" })], [9, 9, 6.75]);
  assert.deepEqual([...normalize(rgb, { ...input, channel_order: "BGR" })], [29, 9, 1.75]);
});

test("priors lie at multiples of the stride, row by row, and cover a partial cell", () => {
  const priors = decode.makePriors(9, 16, [8, 16]);
  assert.deepEqual(priors, [[0, 0, 8], [8, 0, 8], [0, 8, 8], [8, 8, 8], [0, 0, 16]]);
  assert.equal(decode.countPriors(9, 16, [8, 16]), priors.length);
});

test("a distance is the mean of the bins times the stride", () => {
  const even = [0, 0, 0, 0, 0, 0, 0, 0]; // four sides of two bins: each distance is 0.5
  assert.deepEqual(decode.decodeBox(even, 0, [8, 8, 8], 1, 16, 16), [4, 4, 12, 12]);
  assert.deepEqual(decode.decodeBox(even, 0, [0, 8, 8], 1, 16, 16), [0, 4, 4, 12]); // clipped
  close(decode.decodeBox([1000, 0, 0, 1000, 0, 0, 0, 0], 0, [8, 8, 8], 1, 16, 16), [8, 0, 12, 12], 0);
});

test("boxes suppress worse ones of their own class only", () => {
  const found = [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 5]].flatMap((box, i) =>
    [0, 1].map((classIndex) => ({ box, score: 0.9 - 0.1 * i - 0.01 * classIndex, classIndex })),
  );
  const kept = decode.suppress(found, 0.6, 100);
  assert.deepEqual(kept.map(({ score }) => score.toFixed(2)), ["0.90", "0.89", "0.70", "0.69"]);
  assert.equal(decode.suppress(found, 0.6, 1).length, 1);
  assert.deepEqual(decode.suppress([], 0.6, 100), []);
  assert.equal(decode.iou([0, 0, 0, 0], [0, 0, 0, 0]), 0);
});

test("voting moves a box to the mean of those that it suppressed", () => {
  const found = [
    [[0, 0, 10, 10], 0.9], [[0, 0, 10, 8], 0.6], [[0, 0, 10, 6.2], 0.5], [[40, 40, 50, 50], 0.4],
    [[0, 0, 10, 9], 0.3],
  ].map(([box, score]) => ({ box, score, classIndex: 0 }));
  const [first, last] = decode.suppress(found, 0.6, 100, { threshold: 0.65, power: 1 });
  close(first.box, [0, 0, 10, (0.9 * 10 + 0.6 * 8 + 0.3 * 9) / 1.8], 1e-12); // 0.62 votes not
  assert.deepEqual([first.score, last.box], [0.9, [40, 40, 50, 50]]);
  const [early] = decode.suppress(found, 0.6, 2, { threshold: 0.65, power: 2 }); // NMS ended before the last one
  close(early.box, [0, 0, 10, (0.81 * 10 + 0.36 * 8) / 1.17], 1e-12);
  assert.deepEqual(decode.suppress(found, 0.6, 100).map(({ box }) => box), [[0, 0, 10, 10], [40, 40, 50, 50]]);
  assert.deepEqual(decode.suppress([], 0.6, 100, { threshold: 0.65, power: 4 }), []);
});

test("detections come in pixels of the picture; none is an empty list", () => {
  const raw = new Float32Array(5 * (2 + 8));
  assert.deepEqual(decode.detect(raw, METADATA, { width: 32, height: 8 }), []);
  raw[3 * 10 + 1] = 0.75; // the prior at (8, 8), a dog
  const [found] = decode.detect(raw, METADATA, { width: 32, height: 8 });
  assert.deepEqual(found, { box: [8, 2, 24, 6], score: 0.75, classIndex: 1 });
});

test("metadata that cannot be used is refused in words", () => {
  const refused = (change, pattern) => {
    const text = JSON.stringify({ ...METADATA, ...change });
    assert.throws(() => parseMetadata(text, "m.onnx"), (error) => {
      assert.ok(error instanceof UserError);
      assert.match(error.message, pattern);
      return true;
    });
  };
  assert.deepEqual(parseMetadata(JSON.stringify(METADATA), "m.onnx"), METADATA);
  assert.throws(() => parseMetadata("{", "m.onnx"), /m\.onnx is not json/);
  assert.throws(() => parseMetadata("null", "m.onnx"), /lacks kind/);
  refused({ strides: undefined, input: {} }, /lacks strides, name, height/);
  refused({ format_version: 2 }, /version 2; this page reads version 1/);
  refused({ kind: "end2end" }, /needs the kind “raw”/);
  refused({ input: { ...METADATA.input, resize: "letterbox" } }, /“letterbox”/);
  refused({ nms: "soft" }, /the NMS “soft”, which this page cannot do/);
  refused({ nms: "voting" }, /“voting” with numbers as vote_threshold/);
  refused({ nms: "voting", vote_threshold: 0.65, vote_power: "8" }, /and vote_power/);
  const old = { ...METADATA, nms: "voting", vote_threshold: 0.65 }; // from before vote_power
  assert.deepEqual(parseMetadata(JSON.stringify(old), "m.onnx"), old);
});

test("metadata is found inside an ONNX file", () => {
  const field = (number, content) => {
    const bytes = typeof content === "string" ? [...new TextEncoder().encode(content)] : content;
    assert.ok(bytes.length < 16384);
    return [number * 8 + 2, (bytes.length & 127) | 128, bytes.length >> 7, ...bytes];
  };
  const entry = (key, value) => field(14, [...field(1, key), ...field(2, value)]);
  const long = "é".repeat(300);
  const file = [8, 10, ...field(2, "exporter"), ...entry("author", "x"), ...entry("nanodet_d2", long)];
  assert.equal(embeddedMetadata(Uint8Array.from(file)), long);
  assert.equal(embeddedMetadata(Uint8Array.from(file.slice(0, 20))), null);
  assert.equal(embeddedMetadata(new TextEncoder().encode("no model at all")), null);
});

test("a model that does not fit its metadata is refused", async () => {
  let released = 0;
  const release = async () => void released++;
  const names = { inputNames: ["data"], outputNames: ["y"] };
  const ortWith = (session) => ({
    Tensor: class {},
    InferenceSession: { create: async () => ({ ...names, release, ...session }) },
  });
  const load = (session, text) =>
    Detector.load(ortWith(session), new Uint8Array(), "m.onnx", text);
  const run = (dims) => ({ run: async () => ({ y: { dims, data: new Float32Array(50) } }) });
  const text = JSON.stringify(METADATA);
  await assert.rejects(load({}, null), /m\.onnx carries no metadata.*m\.onnx\.json/);
  await assert.rejects(load({ inputNames: ["images"] }, text), /no input “data”/);
  await assert.rejects(load(run([1, 5, 12]), text), /returns 1 × 5 × 12 values.*promises 1 × 5 × 10/);
  assert.equal(released, 3); // of the refused ones
  const detector = await load(run([1, 5, 10]), text);
  assert.deepEqual((await detector.detect(gray([[0]]))).detections, []);
  assert.equal(released, 3);
  await detector.release();
  assert.equal(released, 4);
});

test("pictures are stretched as in Python, to the last bit", fromPython, () => {
  for (const { image, width, height, input, rgb, tensor } of cases.images) {
    const rgba = { data: Uint8ClampedArray.from(image), width, height };
    const stretched = stretch(rgba, input.height, input.width);
    assert.deepEqual([...stretched], rgb);
    close(normalize(stretched, input), tensor, 1e-6);
  }
});

test("raw outputs are decoded as in Python", fromPython, () => {
  for (const { raw, metadata, image, boxes, scores, classes } of cases.outputs) {
    const found = decode.detect(Float32Array.from(raw), metadata, image);
    assert.ok(scores.length > 10);
    assert.deepEqual(found.map((x) => x.classIndex), classes);
    close(found.map((x) => x.score), scores, 0);
    close(found.flatMap((x) => x.box), boxes.flat(), 1e-3);
  }
});

test("a slice has the pixels of its place", () => {
  const image = gray([[1, 2, 3], [4, 5, 6], [7, 8, 9]]);
  const part = crop(image, [1, 0, 3, 2]);
  assert.deepEqual([part.width, part.height], [2, 2]);
  assert.deepEqual([...part.data].filter((_, i) => i % 4 === 0), [2, 3, 5, 6]);
});

test("a cut box gives way to the whole, and keeps its score", () => {
  const image = { width: 160, height: 100 };
  const places = slices(100, 160, { size: 100, overlap: 0.4, whole: false });
  assert.deepEqual(places, [[0, 0, 100, 100], [60, 0, 160, 100]]);
  const left = [{ box: [80, 20, 100, 60], score: 0.9, classIndex: 0 }];
  const right = [{ box: [20, 20, 70, 60], score: 0.6, classIndex: 0 }];
  const whole = { box: [80, 20, 130, 60], score: 0.9, classIndex: 0 };
  assert.deepEqual(merge([left, right], places, image, 0.6), [whole]);
  assert.deepEqual(merge([[], []], places, image, 0.6), []);
});

test("pictures are cut as in Python", fromPython, () => {
  for (const { height, width, tiles, places } of cases.slices) {
    assert.deepEqual(slices(height, width, tiles), places);
  }
});

test("slices are merged as in Python", fromPython, () => {
  for (const { found, places, image, boxes, scores, classes } of cases.merges) {
    const kept = merge(found, places, image, 0.6);
    assert.ok(scores.length > 10);
    assert.deepEqual(kept.map((x) => x.classIndex), classes);
    close(kept.map((x) => x.score), scores, 1e-6);
    close(kept.flatMap((x) => x.box), boxes.flat(), 1e-2);
  }
});
