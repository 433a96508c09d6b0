// From boxes to what the network takes, and from what it gives to what is shown; as fer_voting/inference/recognizer.py.

import { roundHalfEven } from "./centerface.js";

/** The whole pixels that are cut out for a face, a square that may reach beyond the frame; null if it lies outside. */
export function faceSquare(box, margin, width, height) {
  const half = ((1 + margin) * Math.max(box.width, box.height)) / 2;
  const x = box.left + box.width / 2;
  const y = box.top + box.height / 2;
  const [left, top, right, bottom] = [x - half, y - half, x + half, y + half].map(roundHalfEven);
  const inside = Math.max(left, 0) < Math.min(right, width) && Math.max(top, 0) < Math.min(bottom, height);
  return box.width > 0 && box.height > 0 && inside ? { left, top, right, bottom } : null;
}

/** Where the ten crops lie in a face of `size` pixels: five positions, then the same of the mirrored face. */
export function cropRegions(size) {
  const side = Math.round((size * 5) / 6);
  const margin = size - side;
  const middle = roundHalfEven(margin / 2);
  const corners = [[0, 0], [0, margin], [margin, 0], [margin, margin], [middle, middle]];
  return [false, true].flatMap((mirrored) => corners.map(([top, left]) => ({ top, left, side, mirrored })));
}

export function argmax(values) {
  return values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
}

export function softmax(logits) {
  const most = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}
