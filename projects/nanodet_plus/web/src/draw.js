// Boxes and labels on a canvas.

/** A colour of its own for each class; neighbours differ by the golden angle. */
export function classColor(index) {
  return `hsl(${(index * 137.508) % 360} 85% 58%)`;
}

/**
 * @param {CanvasRenderingContext2D} context of a canvas that shows the picture
 * @param {{box: number[], score: number, classIndex: number}[]} detections
 * @param {string[]} names of the classes
 * @param {number} unit pixels of the canvas that are one pixel of the screen
 */
export function drawDetections(context, detections, names, unit) {
  const size = 12 * unit;
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  context.lineJoin = "round";
  // The best are drawn last, on top of the others.
  for (const { box, score, classIndex } of [...detections].reverse()) {
    const [x0, y0, x1, y1] = box;
    const color = classColor(classIndex);
    context.lineWidth = 2 * unit;
    context.strokeStyle = color;
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);

    const text = `${names[classIndex]} ${Math.round(100 * score)} %`;
    const width = context.measureText(text).width + 0.8 * size;
    const height = 1.5 * size;
    const left = Math.max(0, Math.min(x0 - unit, context.canvas.width - width));
    const top = y0 >= height ? y0 - height : y0; // inside the box where there is no room above
    context.fillStyle = color;
    context.fillRect(left, top, width, height);
    context.fillStyle = "#101418";
    context.fillText(text, left + 0.4 * size, top + height / 2);
  }
}
