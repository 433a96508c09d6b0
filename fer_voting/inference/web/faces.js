// From boxes to what the network takes, and from what it gives to what is shown; as fer_voting/inference/recognizer.py.

import { roundHalfEven } from "./centerface.js";

/** The whole pixels of a frame that are cut out for a face: a square as far as it lies in the frame; null if nowhere. */
export function faceSquare(box, margin, width, height) {
  const half = ((1 + margin) * Math.max(box.width, box.height)) / 2;
  const x = box.left + box.width / 2;
  const y = box.top + box.height / 2;
  const square = {
    left: Math.max(roundHalfEven(x - half), 0),
    top: Math.max(roundHalfEven(y - half), 0),
    right: Math.min(roundHalfEven(x + half), width),
    bottom: Math.min(roundHalfEven(y + half), height),
  };
  const inside = box.width > 0 && box.height > 0 && square.left < square.right && square.top < square.bottom;
  return inside ? square : null;
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
