// The face detector: CenterFace (Xu et al. 2019, arXiv:1911.03599) at one or two sizes of the frame, as
// fer_voting/inference/detector.py runs it.

import { resize } from "./resize.js";

const STRIDE = 32; // the network's sides are multiples of it
const CELL = 4; // pixels of the frame a cell of its maps
const MOST_IOU_OF_ONE_SIZE = 0.3;
const MOST_IOU = 0.3;
const MOST_INSIDE = 0.6;

/** Python's round: a half goes to the even neighbour. */
export function roundHalfEven(value) {
  const low = Math.floor(value);
  const rest = value - low;
  if (rest !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
}

/** The sides of the network's input at each size; a size that the next makes unnecessary is left out. */
export function inputSizes(width, height, longSides) {
  const longest = Math.max(width, height);
  const sides = longSides.map((side) => Math.min(side, longest));
  return sides
    .filter((side, i) => i === sides.length - 1 || sides[i + 1] >= 1.5 * side)
    .map((side) => {
      const scale = side / longest;
      const whole = (length) => Math.max(STRIDE, roundHalfEven((length * scale) / STRIDE) * STRIDE);
      return { width: whole(width), height: whole(height) };
    });
}

/** RGB, row by row, as the network takes it: float32 [3, H, W], 0 to 255. */
export function planes(rgb, width, height) {
  const area = width * height;
  const values = new Float32Array(3 * area);
  for (let i = 0; i < area; i++) {
    values[i] = rgb[3 * i];
    values[area + i] = rgb[3 * i + 1];
    values[2 * area + i] = rgb[3 * i + 2];
  }
  return values;
}

/** Boxes {left, top, right, bottom, score} in pixels of the network's input, of its maps' values. */
export function decode(heatmap, scale, offset, width, height, threshold) {
  const columns = width / CELL;
  const cells = columns * (height / CELL);
  const found = [];
  for (let cell = 0; cell < cells; cell++) {
    const score = heatmap[cell];
    if (!(score > threshold)) continue;
    const row = Math.floor(cell / columns);
    const column = cell % columns;
    const boxHeight = Math.exp(scale[cell]) * CELL;
    const boxWidth = Math.exp(scale[cells + cell]) * CELL;
    const x = (column + offset[cells + cell] + 0.5) * CELL;
    const y = (row + offset[cell] + 0.5) * CELL;
    const left = Math.min(Math.max(0, x - boxWidth / 2), width);
    const top = Math.min(Math.max(0, y - boxHeight / 2), height);
    const right = Math.min(left + boxWidth, width);
    const bottom = Math.min(top + boxHeight, height);
    found.push({ left, top, right, bottom, score });
  }
  return suppress(found);
}

/** Without the boxes that overlap a better one. */
function suppress(boxes) {
  const order = boxes.map((_, i) => i).sort((a, b) => boxes[b].score - boxes[a].score || b - a);
  const kept = [];
  for (const i of order) {
    const box = boxes[i];
    if (kept.every((better) => overlap(better, box).iou < MOST_IOU_OF_ONE_SIZE)) kept.push(box);
  }
  return kept;
}

/** Intersection over union, and over the smaller box. */
function overlap(a, b) {
  const width = Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left));
  const height = Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));
  const shared = width * height;
  const area = (box) => (box.right - box.left) * (box.bottom - box.top);
  const tiny = Number.MIN_VALUE;
  return {
    iou: shared / Math.max(area(a) + area(b) - shared, tiny),
    inside: shared / Math.max(Math.min(area(a), area(b)), tiny),
  };
}

/** The boxes of all sizes without those that overlap, or lie in, a better one; best first. */
export function merge(boxes) {
  const kept = [];
  for (const box of [...boxes].sort((a, b) => b.score - a.score)) {
    const worse = kept.some((better) => {
      const { iou, inside } = overlap(better, box);
      return iou > MOST_IOU || inside > MOST_INSIDE;
    });
    if (!worse) kept.push(box);
  }
  return kept;
}

/**
 * The faces of a frame.
 *
 * @param {{width: number, height: number, data: Uint8ClampedArray}} frame RGBA
 * @param {(planes: Float32Array, width: number, height: number) => Promise<{heatmap, scale, offset}>} network
 * @param {{threshold: number, longSides: number[]}} options
 * @returns {Promise<{left, top, width, height, score}[]>} in pixels of the frame, best first
 */
export async function detect(frame, network, { threshold, longSides }) {
  const boxes = [];
  for (const size of inputSizes(frame.width, frame.height, longSides)) {
    const rgb = resize(frame, size.width, size.height);
    const maps = await network(planes(rgb, size.width, size.height), size.width, size.height);
    const across = frame.width / size.width;
    const down = frame.height / size.height;
    for (const box of decode(maps.heatmap, maps.scale, maps.offset, size.width, size.height, threshold)) {
      boxes.push({
        left: box.left * across,
        top: box.top * down,
        right: box.right * across,
        bottom: box.bottom * down,
        score: box.score,
      });
    }
  }
  return merge(boxes.filter((box) => box.right - box.left >= 1 && box.bottom - box.top >= 1)).map((box) => ({
    left: box.left,
    top: box.top,
    width: box.right - box.left,
    height: box.bottom - box.top,
    score: box.score,
  }));
}
