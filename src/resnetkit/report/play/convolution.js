/**
 * The layers of a residual network, on one image or on four at once.
 *
 * Values are channels-last and the images vary fastest: [(pixel * channels + channel) * lanes +
 * lane]. Four lanes and four output channels give sixteen sums that stay in registers; nothing is
 * multiplied with padding.
 *
 * @typedef {object} Layer a convolution with its normalization folded in, or the head.
 * @property {number} inputs channels
 * @property {number} outputs channels
 * @property {number} kernel side: 1, or 3 with padding 1
 * @property {number} stride
 * @property {Float64Array} weights (outputs / 4, kernel * kernel, inputs, 4), rounded up
 * @property {Float64Array} biases (outputs), rounded up to fours
 *
 * @typedef {object} Maps
 * @property {number} channels
 * @property {number} height
 * @property {number} width
 * @property {number} lanes images: 1 or 4
 * @property {Float64Array} values
 */

/**
 * Returns a layer whose weights are in the order that `convolve` reads.
 *
 * @param {{inputs: number, outputs: number, kernel: number, stride: number}} shape
 * @param {(output: number, input: number, tap: number) => number} weight
 * @param {(output: number) => number} bias
 * @returns {Layer}
 */
export function makeLayer(shape, weight, bias) {
  const { inputs, outputs, kernel } = shape;
  const taps = kernel * kernel;
  const groups = Math.ceil(outputs / 4);
  const weights = new Float64Array(groups * 4 * taps * inputs);
  const biases = new Float64Array(groups * 4);
  for (let output = 0; output < outputs; output++) {
    biases[output] = bias(output);
    for (let input = 0; input < inputs; input++) {
      for (let tap = 0; tap < taps; tap++) {
        const row = ((output >> 2) * taps + tap) * inputs + input;
        weights[4 * row + (output & 3)] = weight(output, input, tap);
      }
    }
  }
  return { ...shape, weights, biases };
}

/**
 * Returns the convolution of maps: 1x1, or 3x3 with padding 1.
 *
 * @param {Layer} layer
 * @param {Maps} x
 * @returns {Maps}
 */
export function convolve(layer, x) {
  const { kernel, stride } = layer;
  const height = Math.ceil(x.height / stride);
  const width = Math.ceil(x.width / stride);
  const channels = layer.biases.length;
  const values = new Float64Array(height * width * channels * x.lanes);
  const sumTaps = x.lanes === 4 ? sumTapsOfFour : sumTapsOfOne;
  const padding = kernel >> 1;
  const taps = new Int32Array(2 * kernel * kernel); // of one pixel: where weights and inputs begin
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      let count = 0;
      for (let tap = 0; tap < kernel * kernel; tap++) {
        const y = row * stride + ((tap / kernel) | 0) - padding;
        const z = column * stride + (tap % kernel) - padding;
        if (y < 0 || y >= x.height || z < 0 || z >= x.width) continue;
        taps[count++] = tap * layer.inputs * 4;
        taps[count++] = (y * x.width + z) * layer.inputs * x.lanes;
      }
      sumTaps(layer, x.values, taps, count, values, (row * width + column) * channels * x.lanes);
    }
  }
  return { channels, height, width, lanes: x.lanes, values };
}

/** Writes all output channels of one pixel of four images. */
function sumTapsOfFour(layer, x, taps, count, out, at) {
  const { weights, biases, inputs, kernel } = layer;
  const groupSize = kernel * kernel * inputs * 4;
  for (let group = 0; group < biases.length; group += 4) {
    let a0 = biases[group], a1 = a0, a2 = a0, a3 = a0;
    let b0 = biases[group + 1], b1 = b0, b2 = b0, b3 = b0;
    let c0 = biases[group + 2], c1 = c0, c2 = c0, c3 = c0;
    let d0 = biases[group + 3], d1 = d0, d2 = d0, d3 = d0;
    for (let t = 0; t < count; t += 2) {
      let w = (group >> 2) * groupSize + taps[t];
      let i = taps[t + 1];
      for (const end = i + 4 * inputs; i < end; i += 4, w += 4) {
        const x0 = x[i], x1 = x[i + 1], x2 = x[i + 2], x3 = x[i + 3];
        const wa = weights[w], wb = weights[w + 1], wc = weights[w + 2], wd = weights[w + 3];
        a0 += wa * x0; a1 += wa * x1; a2 += wa * x2; a3 += wa * x3;
        b0 += wb * x0; b1 += wb * x1; b2 += wb * x2; b3 += wb * x3;
        c0 += wc * x0; c1 += wc * x1; c2 += wc * x2; c3 += wc * x3;
        d0 += wd * x0; d1 += wd * x1; d2 += wd * x2; d3 += wd * x3;
      }
    }
    const o = at + group * 4;
    out[o] = a0; out[o + 1] = a1; out[o + 2] = a2; out[o + 3] = a3;
    out[o + 4] = b0; out[o + 5] = b1; out[o + 6] = b2; out[o + 7] = b3;
    out[o + 8] = c0; out[o + 9] = c1; out[o + 10] = c2; out[o + 11] = c3;
    out[o + 12] = d0; out[o + 13] = d1; out[o + 14] = d2; out[o + 15] = d3;
  }
}

/** Writes all output channels of one pixel of one image. */
function sumTapsOfOne(layer, x, taps, count, out, at) {
  const { weights, biases, inputs, kernel } = layer;
  const groupSize = kernel * kernel * inputs * 4;
  for (let group = 0; group < biases.length; group += 4) {
    let a = biases[group], b = biases[group + 1], c = biases[group + 2], d = biases[group + 3];
    for (let t = 0; t < count; t += 2) {
      let w = (group >> 2) * groupSize + taps[t];
      let i = taps[t + 1];
      for (const end = i + inputs; i < end; i++, w += 4) {
        const value = x[i];
        a += weights[w] * value;
        b += weights[w + 1] * value;
        c += weights[w + 2] * value;
        d += weights[w + 3] * value;
      }
    }
    const o = at + group;
    out[o] = a; out[o + 1] = b; out[o + 2] = c; out[o + 3] = d;
  }
}

/**
 * Returns relu(x).
 *
 * @param {Maps} x
 * @returns {Maps}
 */
export function relu(x) {
  const values = new Float64Array(x.values.length);
  for (let i = 0; i < values.length; i++) values[i] = Math.max(x.values[i], 0);
  return { ...x, values };
}

/**
 * Returns a + b.
 *
 * @param {Maps} a
 * @param {Maps} b of the same shape
 * @returns {Maps}
 */
export function add(a, b) {
  const values = new Float64Array(a.values.length);
  for (let i = 0; i < values.length; i++) values[i] = a.values[i] + b.values[i];
  return { ...a, values };
}

/**
 * Returns the shortcut of option A: every second pixel, and zeros for the new channels.
 *
 * @param {Maps} x
 * @param {{stride: number, before: number, outputs: number}} options zero channels before those of
 *   the input, and channels of the output
 * @returns {Maps}
 */
export function subsampleAndPad(x, { stride, before, outputs }) {
  const height = Math.ceil(x.height / stride);
  const width = Math.ceil(x.width / stride);
  const size = x.channels * x.lanes;
  const values = new Float64Array(height * width * outputs * x.lanes);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const from = (row * x.width + column) * stride * size;
      const to = ((row * width + column) * outputs + before) * x.lanes;
      values.set(x.values.subarray(from, from + size), to);
    }
  }
  return { channels: outputs, height, width, lanes: x.lanes, values };
}

/**
 * Returns the mean of each channel over all pixels, as maps of one pixel.
 *
 * @param {Maps} x
 * @returns {Maps}
 */
export function averagePool(x) {
  const pixels = x.height * x.width;
  const values = new Float64Array(x.channels * x.lanes);
  for (let i = 0; i < x.values.length; i++) values[i % values.length] += x.values[i] / pixels;
  return { ...x, height: 1, width: 1, values };
}
