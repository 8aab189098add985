/**
 * Fully connected networks on two spirals, trained in the browser: with shortcuts or without.
 *
 *     const settings = {...DEFAULT_SETTINGS, depth: 20, shortcut: true};
 *     const trainer = createTrainer(settings, createSpirals({seed: 0}));
 *     trainer.measure()                  // -> EpochResult of the network as it is
 *     trainer.trainEpoch()               // -> EpochResult after one more epoch
 *     trainer.decisionMap(40)            // -> Uint8Array (40 * 40), 255 * probability of class 1:
 *                                        //    row by row from y = 1 to -1, x from -1 to 1
 *
 * @typedef {object} Settings
 * @property {number} depth hidden layers, 2 to 30, an even number: a block has two layers
 * @property {boolean} shortcut whether a block computes relu(F(x) + x), or relu(F(x))
 * @property {boolean} normalization whether batch normalization follows each layer
 * @property {"he" | "xavier"} initialization
 * @property {number} lr learning rate of gradient descent with momentum 0.9
 * @property {number} seed of the initial weights and the order of the points
 *
 * @typedef {object} Spirals
 * @property {Float64Array} points (N, 2), from -1 to 1
 * @property {Uint8Array} labels (N): 0 or 1
 *
 * @typedef {object} EpochResult
 * @property {number} epoch epochs trained, 0 for the untrained network
 * @property {number} loss cross-entropy over the training points
 * @property {number} error over the training points, in percent
 * @property {number[]} gradientNorms of the loss by the weights of each layer, from the input: mean
 *   over the batches of the epoch; the first layer, `depth` layers, the last
 * @property {boolean} finite false when the loss or a gradient is not finite: training has ended
 */

import { createModel, crossEntropy, lossAndGradients, predict, step } from "./dense.js";
import { normal, shuffled, uniform } from "./random.js";

export const DEFAULT_SETTINGS = {
  depth: 20,
  shortcut: true,
  normalization: true,
  initialization: "he",
  lr: 0.02,
  seed: 0,
};
export const MOST_LAYERS = 30;
const BATCH = 32;
const POINTS = 320;
const TURNS = 1.5; // of each arm
const NOISE = 0.015;

/**
 * Returns the points of two arms of a spiral, which alternate.
 *
 * @param {{seed: number, count?: number}} options
 * @returns {Spirals}
 */
export function createSpirals({ seed, count = POINTS }) {
  const random = uniform(seed);
  const labels = Uint8Array.from({ length: count }, (_, i) => i % 2);
  const points = new Float64Array(2 * count);
  labels.forEach((label, i) => {
    const along = Math.sqrt((i + 0.5) / count); // equally dense all along the arm
    const angle = 2 * Math.PI * TURNS * along + Math.PI * label;
    points[2 * i] = 0.92 * along * Math.cos(angle) + NOISE * normal(random);
    points[2 * i + 1] = 0.92 * along * Math.sin(angle) + NOISE * normal(random);
  });
  return { points, labels };
}

/**
 * Returns a sentence that says why settings are impossible; null when they are possible.
 *
 * @param {Settings} settings
 * @returns {string | null}
 */
export function settingsError({ depth, initialization, lr, seed }) {
  if (!Number.isInteger(depth / 2) || depth < 2 || depth > MOST_LAYERS) {
    return `The depth is ${depth}: expected an even number from 2 to ${MOST_LAYERS}.`;
  }
  if (initialization !== "he" && initialization !== "xavier") {
    return `The initialization is ${initialization}: expected he or xavier.`;
  }
  if (!(lr > 0 && lr < Infinity)) return `The learning rate is ${lr}: expected a number above 0.`;
  return Number.isInteger(seed) ? null : `The seed is ${seed}: expected a whole number.`;
}

/**
 * Returns a network and its training; see the head of this file.
 *
 * @param {Settings} settings
 * @param {Spirals} spirals
 */
export function createTrainer(settings, spirals) {
  const error = settingsError(settings);
  if (error) throw new RangeError(error);
  const random = uniform(settings.seed + 1);
  const model = createModel(settings, random);
  let epoch = 0;
  const result = (gradientNorms) => {
    const { loss, error } = lossAndError(predict(model, spirals.points), spirals.labels);
    const finite = [loss, ...gradientNorms].every(Number.isFinite);
    return { epoch, loss, error, gradientNorms, finite };
  };
  return {
    model,
    measure: () => result(gradientNormsOf(structuredClone(model), spirals)),
    trainEpoch: () => {
      const batches = batchesOf(spirals, shuffled(spirals.labels.length, random));
      const norms = batches.map((batch) => trainBatch(model, batch, settings.lr));
      epoch += 1;
      return result(columnMeans(norms));
    },
    decisionMap: (side) => decisionMap(model, side),
  };
}

/** Returns batches of points in a certain order. */
function batchesOf({ points, labels }, order) {
  return Array.from({ length: Math.ceil(order.length / BATCH) }, (_, index) => {
    const indices = order.slice(index * BATCH, (index + 1) * BATCH);
    return {
      points: Float64Array.from(indices.flatMap((i) => [points[2 * i], points[2 * i + 1]])),
      labels: Uint8Array.from(indices, (i) => labels[i]),
    };
  });
}

/** Makes one step, and returns the norm of the gradient of each layer's weights before it. */
function trainBatch(model, batch, lr) {
  const norms = gradientNormsOf(model, batch);
  step(model, lr);
  return norms;
}

/** Returns the norm of the gradient of each layer's weights. */
function gradientNormsOf(model, { points, labels }) {
  lossAndGradients(model, points, labels);
  return model.layers.map(({ weight }) => Math.hypot(...weight.gradient));
}

/** Returns the mean of each column of rows. */
function columnMeans(rows) {
  return rows[0].map((_, i) => rows.reduce((sum, row) => sum + row[i] / rows.length, 0));
}

/** Returns the mean cross-entropy of logits, and how many are wrong, in percent. */
function lossAndError(logits, labels) {
  const wrong = logits.reduce((sum, logit, i) => sum + (logit > 0 !== labels[i] > 0), 0);
  return { loss: crossEntropy(logits, labels).loss, error: (100 * wrong) / labels.length };
}

/** Returns the probability of class 1 in the middle of each cell of a square. */
function decisionMap(model, side) {
  const points = new Float64Array(2 * side * side);
  for (let i = 0; i < side * side; i++) {
    points[2 * i] = ((i % side) + 0.5) * (2 / side) - 1;
    points[2 * i + 1] = 1 - (Math.floor(i / side) + 0.5) * (2 / side);
  }
  return Uint8Array.from(predict(model, points), (logit) => 255 / (1 + Math.exp(-logit)));
}
