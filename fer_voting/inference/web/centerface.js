// The face detector: CenterFace (Xu et al. 2019, arXiv:1911.03599) at one or two sizes of the frame, as
// fer_voting/inference/faces.py runs it.

import { resize } from "./resize.js";

const STRIDE = 32; // the network's sides are multiples of it
const CELL = 4; // pixels of the frame a cell of its maps
const MOST_LENGTH = 3; // times the width; a longer frame is searched in tiles
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
      const whole = (length) => Math.max(STRIDE, roundHalfEven((length * side) / longest / STRIDE) * STRIDE);
      return { width: whole(width), height: whole(height) };
    });
}

/** The parts of a frame in which faces are looked for: all of it, unless it is long. */
export function tiles(width, height, least) {
  const short = Math.min(width, height);
  const length = Math.max(width, height);
  const tile = Math.max(2 * short, least);
  if (length <= MOST_LENGTH * short || length <= tile) return [{ left: 0, top: 0, right: width, bottom: height }];
  const count = Math.ceil((length - tile) / (tile - short)) + 1;
  return Array.from({ length: count }, (_, number) => {
    const start = roundHalfEven((number * (length - tile)) / (count - 1));
    return width > height
      ? { left: start, top: 0, right: start + tile, bottom: height }
      : { left: 0, top: start, right: width, bottom: start + tile };
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

/** Boxes {left, top, right, bottom, score, points} in pixels of the network's input; several of each face. */
export function decode({ heatmap, scale, offset, landmarks }, width, height, threshold) {
  const columns = width / CELL;
  const cells = columns * (height / CELL);
  const found = [];
  for (let cell = 0; cell < cells; cell++) {
    const score = heatmap[cell];
    if (!(score > threshold)) continue;
    const boxHeight = Math.exp(scale[cell]) * CELL;
    const boxWidth = Math.exp(scale[cells + cell]) * CELL;
    const left = ((cell % columns) + offset[cells + cell] + 0.5) * CELL - boxWidth / 2;
    const top = (Math.floor(cell / columns) + offset[cell] + 0.5) * CELL - boxHeight / 2;
    const points = [0, 1, 2, 3, 4].map((point) => [
      left + landmarks[(2 * point + 1) * cells + cell] * boxWidth,
      top + landmarks[2 * point * cells + cell] * boxHeight,
    ]);
    found.push({ left, top, right: left + boxWidth, bottom: top + boxHeight, score, points });
  }
  return found;
}

/** Degrees by which a face is turned clockwise, by the directions of its eyes and from them to its mouth. */
export function angleOf([leftEye, rightEye, , leftMouth, rightMouth]) {
  const [right, down] = [0, 1].map((axis) => [
    rightEye[axis] - leftEye[axis],
    (leftMouth[axis] + rightMouth[axis] - leftEye[axis] - rightEye[axis]) / 2,
  ]);
  return (Math.atan2(down[0] - right[1], right[0] + down[1]) * 180) / Math.PI;
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

/** Whether there is a hint of a face that is too small for this size, apart from the faces found. */
export function hasHint(boxes, threshold, largest) {
  const small = (box) => Math.max(box.right - box.left, box.bottom - box.top) <= largest;
  return merge(boxes).some((box) => small(box) && box.score <= threshold);
}

/**
 * The faces of a frame. A larger size is looked at where the one before leaves a hint of a small face.
 *
 * @param {{width: number, height: number, data: Uint8ClampedArray}} frame RGBA
 * @param {(planes: Float32Array, width: number, height: number) => Promise<{heatmap, scale, offset, landmarks}>} network
 * @param {{threshold: number, longSides: number[], hint: number, largestHint: number}} options
 * @returns {Promise<{left, top, width, height, score, angle}[]>} in pixels of the frame, best first
 */
export async function detect(frame, network, { threshold, longSides, hint, largestHint }) {
  const boxes = [];
  for (const tile of tiles(frame.width, frame.height, longSides.at(-1))) {
    const [tileWidth, tileHeight] = [tile.right - tile.left, tile.bottom - tile.top];
    for (const { width, height } of inputSizes(tileWidth, tileHeight, longSides)) {
      const maps = await network(planes(resize(frame, width, height, tile), width, height), width, height);
      const across = tileWidth / width;
      const down = tileHeight / height;
      const here = decode(maps, width, height, Math.min(hint, threshold));
      for (const box of here) {
        if (box.score <= threshold) continue;
        boxes.push({
          left: box.left * across + tile.left,
          top: box.top * down + tile.top,
          right: box.right * across + tile.left,
          bottom: box.bottom * down + tile.top,
          score: box.score,
          points: box.points.map(([x, y]) => [x * across, y * down]),
        });
      }
      if (!hasHint(here, threshold, largestHint)) break;
    }
  }
  return merge(boxes.filter((box) => box.right - box.left >= 1 && box.bottom - box.top >= 1)).map((box) => ({
    left: box.left,
    top: box.top,
    width: box.right - box.left,
    height: box.bottom - box.top,
    score: box.score,
    angle: angleOf(box.points),
  }));
}
