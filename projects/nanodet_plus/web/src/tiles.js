// Large pictures in slices; the same rule as nanodet_d2/runtime/tiles.py, which explains it. Boxes
// are [x0, y0, x1, y1], pixels of the picture. What is found is {box, score, classIndex}.

const EDGE = 0.02;
const SAME = 0.5;
const TRUST = 0.5;

/** Where slices begin along a side. */
function starts(length, size, overlap) {
  if (length <= size) return [0];
  const step = Math.max(1, Math.floor(size * (1 - overlap)));
  const last = length - size;
  const count = Math.ceil(last / step);
  return Array.from({ length: count + 1 }, (_, i) => Math.floor((i * last) / count));
}

/**
 * The slices of a picture, row by row, those of the smallest size first, and last, if wanted, the
 * whole picture.
 *
 * @param {{size: number, overlap: number, whole: boolean, levels?: number}} tiles
 * @returns {number[][]} boxes
 */
export function slices(height, width, tiles) {
  const found = [];
  for (let level = 0; level < (tiles.levels ?? 1); level++) {
    const size = tiles.size * 2 ** level;
    if (level > 0 && size >= Math.max(height, width)) break;
    for (const y of starts(height, size, tiles.overlap)) {
      for (const x of starts(width, size, tiles.overlap)) {
        found.push([x, y, Math.min(x + size, width), Math.min(y + size, height)]);
      }
    }
  }
  if (tiles.whole && found.length > 1) found.push([0, 0, width, height]);
  return found;
}

/** The pixels of a slice, as ImageData has them. */
export function crop({ data, width }, [x0, y0, x1, y1]) {
  const row = 4 * (x1 - x0);
  const part = new Uint8ClampedArray(row * (y1 - y0));
  for (let y = y0; y < y1; y++) {
    const first = 4 * (y * width + x0);
    part.set(data.subarray(first, first + row), row * (y - y0));
  }
  return { data: part, width: x1 - x0, height: y1 - y0 };
}

const common = (a, b) => {
  const low = [Math.max(a[0], b[0]), Math.max(a[1], b[1])];
  return [...low, Math.max(low[0], Math.min(a[2], b[2])), Math.max(low[1], Math.min(a[3], b[3]))];
};
const around = (a, b) =>
  [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])];
const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
const equal = (a, b) => a.every((value, i) => value === b[i]);

/** Whether a box ends at an edge of its slice that is within the picture. */
function isCut(box, slice, image) {
  const limits = [image.width, image.height];
  return [0, 1].some((axis) => {
    const margin = EDGE * (slice[axis + 2] - slice[axis]);
    return (
      (slice[axis] > 0 && box[axis] < slice[axis] + margin) ||
      (slice[axis + 2] < limits[axis] && box[axis + 2] > slice[axis + 2] - margin)
    );
  });
}

/** Whether a box and one that is kept, with a better score, are of the same object. */
function isSame(one, kept, nmsThreshold) {
  if (one.classIndex !== kept.classIndex) return false;
  const seen = common(one.known, kept.known);
  const [mine, theirs] = [common(one.box, seen), common(kept.box, seen)];
  const overlap = area(common(mine, theirs));
  const iou = overlap / Math.max(area(mine) + area(theirs) - overlap, 1e-9);
  if (!one.cut && !kept.cut) return iou > nmsThreshold;
  if (!one.cut) {
    return one.score > TRUST * kept.score && overlap > SAME * Math.max(area(theirs), 1e-9);
  }
  if (!kept.cut) return overlap > SAME * Math.max(area(mine), 1e-9);
  return !equal(one.known, kept.known) && iou > SAME;
}

/**
 * One list of what was found in the slices.
 *
 * @param {object[][]} found of each slice, in its own pixels
 * @param {number[][]} places the slices
 * @param {{width: number, height: number}} image
 * @returns {{box: number[], score: number, classIndex: number}[]} best first
 */
export function merge(found, places, image, nmsThreshold) {
  const all = found.flatMap((list, i) =>
    list.map(({ box, score, classIndex }) => {
      const moved = box.map((value, k) => value + places[i][k % 2]);
      const cut = isCut(moved, places[i], image);
      const known = cut ? places[i] : [0, 0, image.width, image.height];
      return { box: moved, score, classIndex, cut, known };
    }));
  let kept = [];
  for (const one of all.sort((a, b) => b.score - a.score)) {
    const same = kept.filter((other) => isSame(one, other, nmsThreshold));
    if (!same.length) {
      kept.push(one);
    } else if (same.every((other) => other.cut)) {
      const [best, ...parts] = same;
      let { box, known } = one;
      if (one.cut) {
        box = same.reduce((joined, other) => around(joined, other.box), box);
        known = same.reduce((joined, other) => around(joined, other.known), known);
      }
      Object.assign(best, { box, known, cut: one.cut });
      kept = kept.filter((other) => !parts.includes(other));
    }
  }
  return kept.map(({ box, score, classIndex }) => ({ box, score, classIndex }));
}
