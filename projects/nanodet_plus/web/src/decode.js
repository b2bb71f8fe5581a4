// Raw output to detections; the same steps as nanodet_d2/runtime/decode_numpy.py, which explains
// them. Boxes are [x0, y0, x1, y1]. Letters: P priors, C classes, R reg_max.

/** Number of priors of an input. */
export function countPriors(height, width, strides) {
  return strides.reduce((sum, s) => sum + Math.ceil(height / s) * Math.ceil(width / s), 0);
}

/** P times [x, y, stride], level by level, row by row; `offset` is of strides. */
export function makePriors(height, width, strides, offset = 0) {
  const priors = [];
  for (const stride of strides) {
    for (let y = 0; y < height; y += stride) {
      for (let x = 0; x < width; x += stride) {
        priors.push([x + offset * stride, y + offset * stride, stride]);
      }
    }
  }
  return priors;
}

/** The mean of 0…R, weighted by the softmax of R + 1 logits. */
function expectedBin(logits, start, count) {
  let largest = -Infinity;
  for (let i = 0; i < count; i++) largest = Math.max(largest, logits[start + i]);
  let sum = 0;
  let weighted = 0;
  for (let i = 0; i < count; i++) {
    const weight = Math.exp(logits[start + i] - largest);
    sum += weight;
    weighted += weight * i;
  }
  return weighted / sum;
}

/** The box of one prior, clipped to the input, of 4 (R + 1) logits from `start` on. */
export function decodeBox(logits, start, prior, regMax, height, width) {
  const [x, y, stride] = prior;
  const [left, top, right, lower] = [0, 1, 2, 3].map(
    (side) => expectedBin(logits, start + side * (regMax + 1), regMax + 1) * stride,
  );
  const clip = (value, limit) => Math.min(Math.max(value, 0), limit);
  return [clip(x - left, width), clip(y - top, height), clip(x + right, width), clip(y + lower, height)];
}

export function iou(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const overlap = Math.max(width, 0) * Math.max(height, 0);
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return overlap / Math.max(area(a) + area(b) - overlap, 1e-9);
}

/**
 * Class-wise NMS of candidates {box, score, classIndex}; the kept ones, best first.
 *
 * With a `vote` each of them moves to the mean of itself and of those that it suppressed with an
 * IoU above its `threshold`, weighted by their scores to its `power`.
 */
export function suppress(candidates, nmsThreshold, maxDetections, vote = null) {
  const kept = [];
  const voters = []; // of each kept one
  for (const candidate of [...candidates].sort((a, b) => b.score - a.score)) {
    if (kept.length >= maxDetections) break;
    const rival = kept.findIndex(
      (other) =>
        other.classIndex === candidate.classIndex && iou(other.box, candidate.box) > nmsThreshold,
    );
    if (rival < 0) {
      kept.push(candidate);
      voters.push([candidate]);
    } else if (vote !== null && iou(kept[rival].box, candidate.box) > vote.threshold) {
      voters[rival].push(candidate);
    }
  }
  return kept.map((found, i) => ({ ...found, box: weightedMean(voters[i], vote?.power) }));
}

/** The mean box of candidates, weighted by powers of their scores; the first one's weight is 1. */
function weightedMean(candidates, power) {
  if (candidates.length === 1) return candidates[0].box;
  const weights = candidates.map(({ score }) => (score / candidates[0].score) ** power);
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return [0, 1, 2, 3].map(
    (side) => candidates.reduce((sum, { box }, i) => sum + box[side] * weights[i], 0) / total,
  );
}

/**
 * Detections of one raw output.
 *
 * @param {Float32Array} raw P x (C + 4 (R + 1)): class scores, then box logits
 * @param {object} metadata of the exported file
 * @param {{width: number, height: number}} image to whose pixels the boxes are scaled
 * @returns {{box: number[], score: number, classIndex: number}[]} best first
 */
export function detect(raw, metadata, image) {
  const { input, strides, reg_max: regMax, score_threshold: threshold } = metadata;
  const { height, width } = input;
  const numClasses = metadata.class_names.length;
  const length = numClasses + 4 * (regMax + 1);
  const candidates = [];
  makePriors(height, width, strides, metadata.prior_offset ?? 0).forEach((prior, p) => {
    const start = p * length;
    let box = null; // most priors have no candidate, and their boxes need no decoding
    for (let classIndex = 0; classIndex < numClasses; classIndex++) {
      const score = raw[start + classIndex];
      if (!(score > threshold)) continue;
      box ??= decodeBox(raw, start + numClasses, prior, regMax, height, width);
      candidates.push({ box, score, classIndex });
    }
  });
  const scale = [image.width / width, image.height / height];
  const vote = metadata.nms === "voting"
    ? { threshold: metadata.vote_threshold, power: metadata.vote_power ?? 1 } : null;
  return suppress(candidates, metadata.nms_threshold, metadata.max_detections, vote)
    .map((found) => ({ ...found, box: found.box.map((value, i) => value * scale[i % 2]) }))
    .filter(({ box }) => box[2] > box[0] && box[3] > box[1]);
}
