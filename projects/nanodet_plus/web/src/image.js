// From a picture to the network's input.

// Coordinates have 5 fractional bits, as in OpenCV's warp: the result is equal to the last bit, except
// where a coordinate lies halfway between two steps and its rounding hangs on the last bit of a double.
const FRACTION_BITS = 5;
const ONE = 1 << FRACTION_BITS;
const HALF = 1 << (2 * FRACTION_BITS - 1);

/**
 * Resizes by pixel index, without half-pixel centres: output pixel i is input pixel
 * i * input size / output size, bilinear, black outside. cv2.resize would shift the picture.
 *
 * @param {{data: Uint8ClampedArray, width: number, height: number}} image RGBA, as ImageData.
 * @param {number} height of the output
 * @param {number} width of the output
 * @returns {Uint8Array} height x width x 3, RGB
 */
export function stretch(image, height, width) {
  const { data } = image;
  const columns = sourceOf(width, image.width);
  const rows = sourceOf(height, image.height);
  const result = new Uint8Array(height * width * 3);
  let at = 0;
  for (const row of rows) {
    for (const column of columns) {
      const first = 4 * (row.index * image.width + column.index);
      const below = row.hasNext ? first + 4 * image.width : -1;
      for (let channel = 0; channel < 3; channel++) {
        const upper = blend(data, first + channel, column);
        const lower = below < 0 ? 0 : blend(data, below + channel, column);
        result[at++] = (upper * (ONE - row.weight) + lower * row.weight + HALF) >> (2 * FRACTION_BITS);
      }
    }
  }
  return result;
}

function blend(data, at, column) {
  const next = column.hasNext ? data[at + 4] : 0;
  return data[at] * (ONE - column.weight) + next * column.weight;
}

/** Of each output position: the input position before it, and the weight (of 32) of the next. */
function sourceOf(outputSize, inputSize) {
  return Array.from({ length: outputSize }, (_, i) => {
    const position = roundHalfToEven(i * (inputSize / outputSize) * ONE);
    const index = position >> FRACTION_BITS;
    if (index >= inputSize) return { index: inputSize - 1, weight: ONE, hasNext: false }; // black
    return { index, weight: position & (ONE - 1), hasNext: index + 1 < inputSize };
  });
}

function roundHalfToEven(x) {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}

/**
 * @param {Uint8Array} rgb height x width x 3
 * @param {object} input `input` of the metadata: channel_order, mean and std in that order
 * @returns {Float32Array} 3 x height x width, normalised
 */
export function normalize(rgb, input) {
  const area = input.height * input.width;
  const result = new Float32Array(3 * area);
  for (let channel = 0; channel < 3; channel++) {
    const source = input.channel_order === "RGB" ? channel : 2 - channel;
    const mean = input.mean[channel];
    const scale = 1 / input.std[channel];
    for (let i = 0; i < area; i++) result[channel * area + i] = (rgb[3 * i + source] - mean) * scale;
  }
  return result;
}
