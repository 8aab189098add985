/**
 * Fully connected networks with and without shortcuts: forward, backward, steps.
 *
 * The first layer takes a point to `WIDTH` units, blocks of two layers follow, and the last layer
 * gives one logit. A layer is scale * normalized(W x) + bias, or W x + bias without normalization.
 * Values are Float64Array (count, units), row by row.
 *
 * @typedef {object} Parameter
 * @property {Float64Array} values
 * @property {Float64Array} gradient of the loss
 * @property {Float64Array} velocity of momentum
 *
 * @typedef {object} Layer
 * @property {number} inputs units
 * @property {number} outputs units
 * @property {Parameter} weight (outputs, inputs)
 * @property {Parameter} bias (outputs)
 * @property {Parameter | null} scale (outputs) of the normalization; null without
 * @property {Float64Array} mean running mean of W x, for use after training
 * @property {Float64Array} variance running variance, unbiased
 *
 * @typedef {object} Model
 * @property {Layer[]} layers first layer, two for each block, last layer
 * @property {boolean} shortcut whether a block computes relu(F(x) + x), or relu(F(x))
 */

import { normal } from "./random.js";

export const WIDTH = 16;
const EPSILON = 1e-5; // of the normalization, and the share of a batch in the running statistics:
const SHARE = 0.1; // those of torch.nn.BatchNorm1d
const MOMENTUM = 0.9;

/**
 * Returns a network with initial weights.
 *
 * @param {object} options depth, shortcut, normalization and initialization: Settings of spiral.js
 * @param {() => number} random uniform
 * @returns {Model}
 */
export function createModel({ depth, shortcut, normalization, initialization }, random) {
  const layer = (inputs, outputs, isNormalized) => {
    const deviation = Math.sqrt(initialization === "he" ? 2 / inputs : 2 / (inputs + outputs));
    return {
      inputs,
      outputs,
      weight: parameter(inputs * outputs, () => deviation * normal(random)),
      bias: parameter(outputs, () => 0),
      scale: isNormalized ? parameter(outputs, () => 1) : null,
      mean: new Float64Array(outputs),
      variance: new Float64Array(outputs).fill(1),
    };
  };
  const hidden = Array.from({ length: depth }, () => layer(WIDTH, WIDTH, normalization));
  return {
    layers: [layer(2, WIDTH, normalization), ...hidden, layer(WIDTH, 1, false)],
    shortcut,
  };
}

function parameter(size, value) {
  return {
    values: Float64Array.from({ length: size }, value),
    gradient: new Float64Array(size),
    velocity: new Float64Array(size),
  };
}

/** Returns the parameters of a network. */
export function parametersOf(model) {
  return model.layers.flatMap(({ weight, bias, scale }) => [weight, bias, scale].filter(Boolean));
}

/**
 * Returns the logits of points, as after training: with the running statistics.
 *
 * @param {Model} model
 * @param {Float64Array} points (count, 2)
 * @returns {Float64Array} (count)
 */
export function predict(model, points) {
  return forward(model, points, false).logits;
}

/**
 * Returns the mean cross-entropy of a batch, and writes the gradients of all parameters.
 *
 * The normalization uses the statistics of the batch, and its running statistics are updated.
 *
 * @param {Model} model
 * @param {Float64Array} points (count, 2)
 * @param {Uint8Array} labels (count): 0 or 1
 * @returns {number}
 */
export function lossAndGradients(model, points, labels) {
  const { logits, records } = forward(model, points, true);
  const { loss, gradient } = crossEntropy(logits, labels);
  backward(model, records, gradient);
  return loss;
}

/**
 * Returns the mean cross-entropy of logits, and its gradient by the logits.
 *
 * @param {Float64Array} logits of class 1
 * @param {Uint8Array} labels
 * @returns {{loss: number, gradient: Float64Array}}
 */
export function crossEntropy(logits, labels) {
  let loss = 0;
  const gradient = logits.map((logit, i) => {
    const toward = labels[i] ? -logit : logit; // log(1 + exp(toward)) without overflow:
    loss += (Math.max(toward, 0) + Math.log1p(Math.exp(-Math.abs(toward)))) / logits.length;
    return (1 / (1 + Math.exp(-logit)) - labels[i]) / logits.length;
  });
  return { loss, gradient };
}

/** Makes a step of gradient descent with momentum. */
export function step(model, lr) {
  for (const { values, gradient, velocity } of parametersOf(model)) {
    for (let i = 0; i < values.length; i++) {
      velocity[i] = MOMENTUM * velocity[i] + gradient[i];
      values[i] -= lr * velocity[i];
    }
  }
}

/** Returns the logits, and for each layer what its backward pass needs. */
function forward(model, points, isTraining) {
  const { layers, shortcut } = model;
  const records = [];
  const run = (layer, x) => {
    const record = runLayer(layer, x, isTraining);
    records.push(record);
    return record.output;
  };
  let x = relu(run(layers[0], points));
  for (let i = 1; i < layers.length - 1; i += 2) {
    const residual = run(layers[i + 1], relu(run(layers[i], x)));
    if (shortcut) add(residual, x);
    x = relu(residual);
  }
  return { logits: run(layers.at(-1), x), records };
}

/** Writes the gradients of all parameters, given that of the logits. */
function backward({ layers, shortcut }, records, gradient) {
  const last = layers.length - 1;
  let ofX = backwardLayer(layers[last], records[last], gradient);
  for (let i = last - 2; i > 0; i -= 2) {
    const ofSum = throughRelu(ofX, records[i + 2].x);
    const ofInner = backwardLayer(layers[i + 1], records[i + 1], ofSum);
    ofX = backwardLayer(layers[i], records[i], throughRelu(ofInner, records[i + 1].x));
    if (shortcut) add(ofX, ofSum);
  }
  backwardLayer(layers[0], records[0], throughRelu(ofX, records[1].x));
}

/** Returns the output of a layer, with what its backward pass needs. */
function runLayer(layer, x, isTraining) {
  const output = multiply(layer, x);
  if (!layer.scale) {
    addToRows(output, layer.bias.values);
    return { x, output };
  }
  const statistics = isTraining ? batchStatistics(layer, output) : layer;
  const inverse = statistics.variance.map((variance) => 1 / Math.sqrt(variance + EPSILON));
  const normalized = output; // in place
  const scaled = new Float64Array(output.length);
  for (let i = 0; i < output.length; i++) {
    const unit = i % layer.outputs;
    normalized[i] = (output[i] - statistics.mean[unit]) * inverse[unit];
    scaled[i] = normalized[i] * layer.scale.values[unit] + layer.bias.values[unit];
  }
  return { x, normalized, inverse, output: scaled };
}

/** Returns mean and variance of each unit over a batch, and updates the running statistics. */
function batchStatistics(layer, values) {
  const { outputs } = layer;
  const count = values.length / outputs;
  const mean = new Float64Array(outputs);
  const variance = new Float64Array(outputs);
  for (let i = 0; i < values.length; i++) mean[i % outputs] += values[i] / count;
  for (let i = 0; i < values.length; i++) {
    variance[i % outputs] += (values[i] - mean[i % outputs]) ** 2 / count;
  }
  for (let unit = 0; unit < outputs; unit++) {
    const unbiased = (variance[unit] * count) / (count - 1);
    layer.mean[unit] += SHARE * (mean[unit] - layer.mean[unit]);
    layer.variance[unit] += SHARE * (unbiased - layer.variance[unit]);
  }
  return { mean, variance };
}

/** Writes the gradients of a layer's parameters, and returns that of its input. */
function backwardLayer(layer, record, gradient) {
  sumRows(layer.bias.gradient, gradient);
  if (layer.scale) gradient = backwardNormalization(layer, record, gradient);
  const { inputs, outputs } = layer;
  const { values: weights, gradient: ofWeights } = layer.weight;
  const { x } = record;
  const ofX = new Float64Array(x.length);
  ofWeights.fill(0);
  for (let row = 0, first = 0; first < x.length; row++, first += inputs) {
    for (let output = 0; output < outputs; output++) {
      const value = gradient[row * outputs + output];
      if (value === 0) continue; // behind a relu, half of them
      for (let input = 0, w = output * inputs; input < inputs; input++, w++) {
        ofWeights[w] += value * x[first + input];
        ofX[first + input] += value * weights[w];
      }
    }
  }
  return ofX;
}

/** Writes the gradient of the scale, and returns that of W x: Ioffe and Szegedy 2015, sec. 3. */
function backwardNormalization({ outputs, scale, bias }, { normalized, inverse }, gradient) {
  sumRows(scale.gradient, gradient.map((value, i) => value * normalized[i]));
  const count = gradient.length / outputs;
  const [ofScale, ofBias] = [scale.gradient, bias.gradient];
  const before = new Float64Array(gradient.length);
  for (let i = 0; i < gradient.length; i++) {
    const unit = i % outputs;
    const along = ofBias[unit] + normalized[i] * ofScale[unit];
    before[i] = scale.values[unit] * inverse[unit] * (gradient[i] - along / count);
  }
  return before;
}

/** Returns W x for each row. */
function multiply({ inputs, outputs, weight }, x) {
  const weights = weight.values;
  const product = new Float64Array((x.length / inputs) * outputs);
  for (let row = 0, first = 0; first < x.length; row++, first += inputs) {
    for (let output = 0, w = 0; output < outputs; output++) {
      let sum = 0;
      for (let input = 0; input < inputs; input++, w++) sum += weights[w] * x[first + input];
      product[row * outputs + output] = sum;
    }
  }
  return product;
}

/** Adds values to a sum, in place. */
function add(sum, values) {
  for (let i = 0; i < sum.length; i++) sum[i] += values[i];
}

/** Adds a row to each row, in place. */
function addToRows(values, row) {
  for (let i = 0; i < values.length; i++) values[i] += row[i % row.length];
}

/** Writes the sum of all rows. */
function sumRows(sum, values) {
  sum.fill(0);
  for (let i = 0; i < values.length; i++) sum[i % sum.length] += values[i];
}

function relu(values) {
  const output = new Float64Array(values.length);
  for (let i = 0; i < values.length; i++) output[i] = Math.max(values[i], 0);
  return output;
}

/** Returns the gradient before a relu, given the gradient after it and its output. */
function throughRelu(gradient, output) {
  const before = new Float64Array(gradient.length);
  for (let i = 0; i < gradient.length; i++) before[i] = output[i] > 0 ? gradient[i] : 0;
  return before;
}
