/**
 * The pixels of a face as the network knows them: what data/pixels.py and landmarks/align.py do with OpenCV.
 *
 * An image is {data, width, height, channels}: rows from the top, channels last, values of 0 to 255; those of a canvas
 * have 4 channels, the last of which does not count. Points are [x, y] in pixels, where 0 is the left (top) edge of an image.
 */

/** What each pixel along an axis counts in a resize to another length: [{first, weights}], as OpenCV has it. */
function mixing(from, to) {
  const step = from / to;
  return Array.from({length: to}, (_, i) => {
    if (step > 1) {  // INTER_AREA: the share of the new pixel that each old one covers.
      const left = i * step, right = Math.min(left + step, from), first = Math.floor(left), weights = [];
      for (let at = first; at < right; at++) weights.push((Math.min(at + 1, right) - Math.max(at, left)) / step);
      return {first, weights};
    }
    const place = clamp((i + .5) * step - .5, 0, from - 1), first = Math.floor(place), far = place - first;
    return {first, weights: far ? [1 - far, far] : [1]};  // INTER_LINEAR
  });
}

/** Resizes an image: an area average where it shrinks, bilinear where it grows; values stay real numbers. */
export function resize({data, width, height, channels}, newWidth, newHeight) {
  const rows = new Float32Array(height * newWidth * channels);
  mixing(width, newWidth).forEach(({first, weights}, x) => {
    for (let y = 0; y < height; y++) {
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        for (let k = 0; k < weights.length; k++) sum += weights[k] * data[(y * width + first + k) * channels + c];
        rows[(y * newWidth + x) * channels + c] = sum;
      }
    }
  });
  const line = newWidth * channels, result = new Float32Array(newHeight * line);
  mixing(height, newHeight).forEach(({first, weights}, y) => {
    for (let k = 0; k < weights.length; k++) {
      for (let x = 0; x < line; x++) result[y * line + x] += weights[k] * rows[(first + k) * line + x];
    }
  });
  return {data: result, width: newWidth, height: newHeight, channels};
}

/** The part of an image in a box {left, top, right, bottom} of whole pixels, its border continued to a square. */
export function cut({data, width, channels}, {left, top, right, bottom}, size) {
  const wide = right - left, high = bottom - top, side = Math.max(wide, high);
  const x0 = (side - wide) >> 1, y0 = (side - high) >> 1;
  const square = {data: new Uint8ClampedArray(side * side * channels), width: side, height: side, channels};
  for (let y = 0, at = 0; y < side; y++) {
    const row = (top + clamp(y - y0, 0, high - 1)) * width;
    for (let x = 0; x < side; x++) {
      const from = (row + left + clamp(x - x0, 0, wide - 1)) * channels;
      for (let c = 0; c < channels; c++) square.data[at++] = data[from + c];
    }
  }
  return rounded(resize(square, size, size));
}

/**
 * The rotation, scale and shift that bring points nearest to the template in the sense of least squares.
 *
 * As complex numbers it is z -> a z + b. Returns {a, b}, each [real, imaginary]; the template is in shares of the side.
 */
export function similarity(points, template, size) {
  const mean = (list, i) => list.reduce((sum, point) => sum + point[i], 0) / list.length;
  const target = template.map(([x, y]) => [x * size, y * size]);
  const [zx, zy, wx, wy] = [mean(points, 0), mean(points, 1), mean(target, 0), mean(target, 1)];
  let spread = 0, real = 0, imaginary = 0;
  points.forEach(([x, y], i) => {
    const [dx, dy, ex, ey] = [x - zx, y - zy, target[i][0] - wx, target[i][1] - wy];
    spread += dx * dx + dy * dy;
    real += dx * ex + dy * ey;
    imaginary += dx * ey - dy * ex;
  });
  const a = [real / spread, imaginary / spread];
  return {a, b: [wx - a[0] * zx + a[1] * zy, wy - a[1] * zx - a[0] * zy]};
}

/** An image through a similarity: a square, bilinear after an area average where it shrinks; its border continues. */
export function warp(image, {a, b}, size) {
  const scale = Math.hypot(...a);
  let [sx, sy] = [1, 1];
  if (scale < 1) {
    const [width, height] = [image.width, image.height].map(side => Math.max(Math.round(side * scale), 1));
    [sx, sy] = [width / image.width, height / image.height];
    image = rounded(resize(image, width, height));
  }
  const {data, width, height, channels} = image, square = a[0] * a[0] + a[1] * a[1];
  const result = {data: new Uint8ClampedArray(size * size * channels), width: size, height: size, channels};
  for (let v = 0, at = 0; v < size; v++) {
    for (let u = 0; u < size; u++) {
      const [p, q] = [u + .5 - b[0], v + .5 - b[1]];  // Back through a, and from a pixel's edge to its centre.
      const x = clamp((a[0] * p + a[1] * q) / square * sx - .5, 0, width - 1);
      const y = clamp((a[0] * q - a[1] * p) / square * sy - .5, 0, height - 1);
      const left = Math.floor(x), top = Math.floor(y), right = Math.min(left + 1, width - 1);
      const above = top * width, below = Math.min(top + 1, height - 1) * width, [fx, fy] = [x - left, y - top];
      for (let c = 0; c < channels; c++) {
        const pixel = (row, column) => data[(row + column) * channels + c];
        result.data[at++] = (pixel(above, left) * (1 - fx) + pixel(above, right) * fx) * (1 - fy)
            + (pixel(below, left) * (1 - fx) + pixel(below, right) * fx) * fy;
      }
    }
  }
  return result;
}

/** The values of an image in 4 channels as uint8 of 1 (grey, as OpenCV weighs and rounds) or 3 (red, green, blue). */
export function toChannels({data}, channels) {
  const values = new Uint8Array(data.length / 4 * channels);
  for (let i = 0, at = 0; i < data.length; i += 4) {
    if (channels === 3) {
      for (let c = 0; c < 3; c++) values[at++] = data[i + c];
    } else {
      values[at++] = (data[i] * 9798 + data[i + 1] * 19235 + data[i + 2] * 3735 + 16384) >> 15;
    }
  }
  return values;
}

/**
 * A face with a map laid over it, in the colours of the project's reports: orange is evidence for, blue against.
 *
 * Opacity is |value| over the map's largest; the face is grey and paler, so that colour means the map alone.
 */
export function overlay(face, map) {
  const side = face.width, values = resize(map, side, side).data, grey = toChannels(face, 1);
  const peak = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const data = new Uint8ClampedArray(side * side * 4);
  values.forEach((value, i) => {
    const opacity = peak > 0 && peak < Infinity ? .9 * Math.abs(value) / peak : 0;
    (value > 0 ? [244, 96, 24] : [44, 108, 236]).forEach((colour, c) => {
      data[4 * i + c] = (grey[i] * .72 + 56) * (1 - opacity) + colour * opacity;
    });
    data[4 * i + 3] = 255;
  });
  return {data, width: side, height: side, channels: 4};
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

function rounded(image) {
  return {...image, data: Uint8ClampedArray.from(image.data)};  // To the nearest, as OpenCV does.
}
