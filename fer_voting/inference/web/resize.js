// Pillow's antialiased bilinear resize, equal to that of Pillow 13 in every bit (libImaging/Resample.c, 8 bits a
// channel): the filter's support grows with the scale, its weights are fixed-point numbers, and what the first pass
// gives is rounded to 8 bits before the second. Earlier versions always make the horizontal pass first.

const PRECISION_BITS = 32 - 8 - 2;
const HALF = 1 << (PRECISION_BITS - 1);

/** For each of `outSize` pixels: the first pixel of the input that it sees, how many, and their weights. */
function coefficients(inSize, outSize) {
  const scale = inSize / outSize;
  const support = Math.max(scale, 1); // the triangle's is 1 at a scale of 1
  const size = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(outSize);
  const count = new Int32Array(outSize);
  const weights = new Int32Array(outSize * size);
  const exact = new Float64Array(size);
  for (let out = 0; out < outSize; out++) {
    const center = (out + 0.5) * scale;
    const low = Math.max(Math.trunc(center - support + 0.5), 0);
    const high = Math.min(Math.trunc(center + support + 0.5), inSize);
    let sum = 0;
    for (let i = 0; i < high - low; i++) {
      const distance = Math.abs((i + low - center + 0.5) * (1 / support));
      exact[i] = distance < 1 ? 1 - distance : 0;
      sum += exact[i];
    }
    for (let i = 0; i < high - low; i++) {
      const weight = sum === 0 ? exact[i] : exact[i] / sum;
      weights[out * size + i] = Math.trunc(0.5 + weight * (1 << PRECISION_BITS)); // none is negative
    }
    first[out] = low;
    count[out] = high - low;
  }
  return { first, count, weights, size };
}

/** The sum of weighted pixels as 8 bits. */
function rounded(sum) {
  return Math.min(Math.max(sum >> PRECISION_BITS, 0), 255);
}

// A picture below is {width, height, data}, data Uint8Array of RGB.

function horizontally(picture, width) {
  if (width === picture.width) return picture;
  const data = new Uint8Array(width * picture.height * 3);
  const { first, count, weights, size } = coefficients(picture.width, width);
  for (let y = 0; y < picture.height; y++) {
    for (let x = 0; x < width; x++) {
      let red = HALF;
      let green = HALF;
      let blue = HALF;
      let from = (y * picture.width + first[x]) * 3;
      for (let i = 0; i < count[x]; i++, from += 3) {
        const weight = weights[x * size + i];
        red += picture.data[from] * weight;
        green += picture.data[from + 1] * weight;
        blue += picture.data[from + 2] * weight;
      }
      const to = (y * width + x) * 3;
      data[to] = rounded(red);
      data[to + 1] = rounded(green);
      data[to + 2] = rounded(blue);
    }
  }
  return { width, height: picture.height, data };
}

function vertically(picture, height) {
  if (height === picture.height) return picture;
  const row = picture.width * 3;
  const data = new Uint8Array(row * height);
  const { first, count, weights, size } = coefficients(picture.height, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < row; x++) {
      let sum = HALF;
      let from = first[y] * row + x;
      for (let i = 0; i < count[y]; i++, from += row) sum += picture.data[from] * weights[y * size + i];
      data[y * row + x] = rounded(sum);
    }
  }
  return { width: picture.width, height, data };
}

/** The region's pixels without A; black where it reaches beyond the image. */
function cut(image, { left, top, right, bottom }) {
  const width = right - left;
  const height = bottom - top;
  const data = new Uint8Array(width * height * 3);
  const [first, last] = [Math.max(left, 0), Math.min(right, image.width)];
  for (let y = Math.max(top, 0); y < Math.min(bottom, image.height); y++) {
    let from = (y * image.width + first) * 4;
    let to = ((y - top) * width + first - left) * 3;
    for (let x = first; x < last; x++, from += 4) {
      data[to++] = image.data[from];
      data[to++] = image.data[from + 1];
      data[to++] = image.data[from + 2];
    }
  }
  return { width, height, data };
}

/** A square region, turned clockwise by an angle about its centre, as Pillow's bilinear transform; RGBA, upright. */
export function turned(image, { left, top, right, bottom }, degrees) {
  const side = right - left;
  const radians = (degrees * Math.PI) / 180;
  const [cos, sin, half] = [Math.cos(radians), Math.sin(radians), side / 2];
  const firstX = (left + right) / 2 - half * cos + half * sin;
  const firstY = (top + bottom) / 2 - half * sin - half * cos;
  const data = new Uint8ClampedArray(side * side * 4);
  const clipX = (x) => Math.min(Math.max(x, 0), image.width - 1);
  for (let row = 0, to = 0; row < side; row++) {
    for (let column = 0; column < side; column++, to += 4) {
      const x = cos * (column + 0.5) - sin * (row + 0.5) + firstX;
      const y = sin * (column + 0.5) + cos * (row + 0.5) + firstY;
      if (!(x >= 0 && x < image.width && y >= 0 && y < image.height)) continue;
      const [x0, y0] = [Math.floor(x - 0.5), Math.floor(y - 0.5)];
      const [dx, dy] = [x - 0.5 - x0, y - 0.5 - y0];
      const upper = Math.max(y0, 0) * image.width;
      const lower = y0 + 1 < image.height ? (y0 + 1) * image.width : upper;
      const places = [upper + clipX(x0), upper + clipX(x0 + 1), lower + clipX(x0), lower + clipX(x0 + 1)];
      for (let channel = 0; channel < 3; channel++) {
        const [a, b, c, d] = places.map((place) => image.data[4 * place + channel]);
        const above = a + (b - a) * dx;
        data[to + channel] = Math.trunc(above + (c + (d - c) * dx - above) * dy);
      }
    }
  }
  return { width: side, height: side, data };
}

/**
 * Part of a picture, resized.
 *
 * @param {{width: number, height: number, data: Uint8ClampedArray}} image RGBA, of which A is not looked at
 * @param {number} width of the result in pixels
 * @param {number} height of the result in pixels
 * @param {{left: number, top: number, right: number, bottom: number}} [region] whole pixels; all of it by default.
 *   Nothing outside of it is looked at, as if it had been cut out before. Beyond the picture it is black.
 * @returns {Uint8Array} RGB, row by row
 */
export function resize(image, width, height, region) {
  const picture = cut(image, region ?? { left: 0, top: 0, right: image.width, bottom: image.height });
  const lower = picture.height - height;
  if (lower > 0 && lower > (picture.width - width) * 2) return horizontally(vertically(picture, height), width).data;
  return vertically(horizontally(picture, width), height).data;
}
