/**
 * A trained residual network in the browser: images of 8x8 pixels -> logits, feature maps, blocks.
 *
 * The packed network is what `pack_network` of weights.py returns. Blocks have the names of
 * probes/lesions ("layer1.0"), stages those of the feature maps ("stem", "stage2", ...).
 *
 *     const network = createNetwork(packed);
 *     network.name                       // "resnet20"
 *     network.blocks                     // [{name: "layer1.0", stage: "stage2", removable: true}]
 *     network.run(pixels, change)        // -> Answer: everything, for one image
 *     network.logits(pixels, change)     // -> number[]: the logits alone
 *     network.logitsOfAll(images, change) // -> number[][]: of several images, faster
 *     network.check(change)              // throws what the others would
 *     softmax(logits)                    // -> number[]: probabilities
 *
 *     const digits = unpackDigits(packedDigits);   // of packed.js, from `pack_digits`
 *     digits.count; digits.pixels(index); digits.label(index);
 *     testError(network, digits, change) // -> {wrong, count, error}: error in percent
 *
 * @typedef {object} Change what is changed in the network; {} for nothing.
 * @property {string[]} [off] names of removable blocks: F(x) = 0, so that the shortcut remains; in
 *   a plain network, as in probes/lesions, the input of the block is its output.
 * @property {[string, string]} [exchanged] names of two removable blocks of one stage.
 *
 * @typedef {object} FeatureMap
 * @property {number} channels
 * @property {number} height
 * @property {number} width
 * @property {Float32Array} values (channels, height, width)
 *
 * @typedef {object} BlockAnswer
 * @property {string} name of the place in the network: after an exchange, other weights run there.
 * @property {FeatureMap} x input of the block
 * @property {FeatureMap | null} shortcut what the shortcut gives; null in a plain block
 * @property {FeatureMap} residual F(x), zero where the block is off
 * @property {FeatureMap} sum F(x) + shortcut, before relu; in a plain block F(x), or x if it is off
 * @property {FeatureMap} output relu(sum)
 *
 * @typedef {object} Answer
 * @property {number[]} logits (K)
 * @property {number} predicted index of the largest logit
 * @property {(FeatureMap & {name: string})[]} stages stem, stage2, stage3, stage4
 * @property {BlockAnswer[]} blocks
 *
 * Unknown names, blocks that change the shape, and two blocks of different stages are a RangeError.
 */

import { add, averagePool, convolve, makeLayer, relu, subsampleAndPad } from "./convolution.js";
import { decodeFloats, decodeIntegers } from "./packed.js";

const LANES = 4; // images that are computed at once
const DIGITS_PER_STEP = 32;

/** Returns a network that computes; see the head of this file. */
export function createNetwork(packed) {
  const layers = unpackLayers(packed);
  const normalize = normalization(packed);
  const blocks = packed.blocks.map((block) => ({ ...block, ...layersOf(block, layers) }));
  const network = { stem: layers[0], blocks, head: layers.at(-1), classes: packed.classes.length };
  const runLanes = (images, change, observe) =>
    forward({ ...network, blocks: changedBlocks(blocks, change) }, normalize(images), observe);
  return {
    name: packed.name,
    classes: packed.classes,
    blocks: packed.blocks.map(({ name, stage, removable }) => ({ name, stage, removable })),
    run: (pixels, change = {}) => answer(blocks, (observe) => runLanes([pixels], change, observe)),
    logits: (pixels, change = {}) => runLanes([pixels], change)[0],
    logitsOfAll: (images, change = {}) =>
      lanesOf(images).flatMap((lanes) => runLanes(lanes, change)),
    check: (change) => void changedBlocks(blocks, change),
  };
}

/** Returns images in fours; those that are left over, one by one. */
function lanesOf(images) {
  const whole = images.length - (images.length % LANES);
  const fours = Array.from({ length: whole / LANES }, (_, i) =>
    images.slice(i * LANES, (i + 1) * LANES),
  );
  return [...fours, ...images.slice(whole).map((pixels) => [pixels])];
}

/** Returns the layers of a packed network in their order: stem, blocks, head. */
function unpackLayers(packed) {
  const sizes = packed.layers.map((shape) => shape.inputs * shape.outputs * shape.kernel ** 2);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const integers = decodeIntegers(packed.weights, packed.bits, total);
  const scales = decodeFloats(packed.scales);
  const biases = decodeFloats(packed.biases);
  let weight = 0; // where the weights and the channels of a layer begin
  let channel = 0;
  return packed.layers.map((shape, index) => {
    const [first, firstChannel] = [weight, channel];
    weight += sizes[index];
    channel += shape.outputs;
    const taps = shape.kernel ** 2;
    return makeLayer(
      shape,
      (output, input, tap) =>
        integers[first + (output * shape.inputs + input) * taps + tap] *
        scales[firstChannel + output],
      (output) => biases[firstChannel + output],
    );
  });
}

/** Returns the layers of F, and the shortcut as a function; null in a plain block. */
function layersOf(block, layers) {
  const { shortcut } = block;
  const kinds = {
    none: null,
    identity: (x) => x,
    pad: (x) => subsampleAndPad(x, shortcut),
    projection: (x) => convolve(layers[shortcut.layer], x),
  };
  return { convolutions: block.layers.map((index) => layers[index]), skip: kinds[shortcut.kind] };
}

/** Returns a function from images of 0 to 255 to the input of a network. */
function normalization({ image, mean, std }) {
  const [channels, height, width] = image;
  const pixels = height * width;
  return (images) => {
    const lanes = images.length;
    const values = new Float64Array(channels * pixels * lanes);
    images.forEach((bytes, lane) => {
      for (let i = 0; i < channels * pixels; i++) {
        const channel = Math.floor(i / pixels);
        const center = mean[mean.length === channels ? channel : i]; // of a channel, or a pixel
        const at = ((i % pixels) * channels + channel) * lanes + lane;
        values[at] = (bytes[i] - center) / std[channel];
      }
    });
    return { channels, height, width, lanes, values };
  };
}

/** Returns the blocks after a change. */
function changedBlocks(blocks, { off = [], exchanged = null }) {
  const [first, second] = (exchanged ?? []).map((name) => removableBlock(blocks, name));
  if (first && first.stage !== second.stage) {
    throw new RangeError(`${first.name} and ${second.name} are in different stages.`);
  }
  for (const name of off) removableBlock(blocks, name);
  return blocks.map((block) => {
    const moved = block === first ? second : block === second ? first : block;
    return { ...moved, isOff: off.includes(block.name) };
  });
}

/** Returns a block that can be removed, by name. */
function removableBlock(blocks, name) {
  const block = blocks.find((candidate) => candidate.name === name);
  if (!block?.removable) throw new RangeError(`The block '${name}' cannot be changed.`);
  return block;
}

/**
 * Returns the logits of each lane.
 *
 * @param network stem, blocks and head
 * @param x normalized images
 * @param {(kind: string, values: object) => void} [observe] called with the stem and each block
 */
function forward(network, x, observe = () => {}) {
  x = relu(convolve(network.stem, x));
  observe("stem", x);
  for (const block of network.blocks) {
    const parts = runBlock(block, x);
    observe("block", parts);
    x = parts.output;
  }
  const { values, lanes } = convolve(network.head, averagePool(x));
  return Array.from({ length: lanes }, (_, lane) =>
    Array.from({ length: network.classes }, (_, index) => values[index * lanes + lane]),
  );
}

/** Returns relu(F(x) + shortcut(x)) with its parts; relu(F(x)) in a plain block. */
function runBlock(block, x) {
  const shortcut = block.skip && block.skip(x);
  if (block.isOff) {
    const sum = shortcut ?? x;
    const residual = { ...sum, values: new Float64Array(sum.values.length) };
    return { x, shortcut, residual, sum, output: relu(sum) };
  }
  const [first, second] = block.convolutions;
  const residual = convolve(second, relu(convolve(first, x)));
  const sum = shortcut ? add(residual, shortcut) : residual;
  return { x, shortcut, residual, sum, output: relu(sum) };
}

/** Returns everything that a network computes for one image. */
function answer(blocks, run) {
  const stages = [];
  const parts = [];
  const [logits] = run((kind, values) => {
    if (kind === "stem") stages.push({ name: "stem", ...featureMap(values) });
    else parts.push(values);
  });
  const maps = blocks.map(({ name }, index) => ({ name, ...mapEntries(parts[index]) }));
  blocks.forEach(({ stage }, index) => {
    if (stage !== blocks[index + 1]?.stage) stages.push({ name: stage, ...maps[index].output });
  });
  return { logits, predicted: largest(logits), stages, blocks: maps };
}

/** Returns the parts of a block as feature maps. */
function mapEntries(parts) {
  return Object.fromEntries(
    Object.entries(parts).map(([name, maps]) => [name, maps && featureMap(maps)]),
  );
}

/** Returns the maps of one image with the channels first. */
function featureMap({ channels, height, width, values }) {
  const pixels = height * width;
  const planes = new Float32Array(channels * pixels);
  for (let i = 0; i < planes.length; i++) {
    planes[(i % channels) * pixels + Math.floor(i / channels)] = values[i];
  }
  return { channels, height, width, values: planes };
}

/** Returns the index of the largest value. */
export function largest(values) {
  return values.reduce((best, value, index) => (value > values[best] ? index : best), 0);
}

/** Returns the probabilities of logits. */
export function softmax(logits) {
  const top = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - top));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

/**
 * Returns an iterator that computes a test error in small steps.
 *
 * @param network of `createNetwork`
 * @param digits of `unpackDigits`
 * @param {Change} change
 * @returns {Iterator<undefined, {wrong: number, count: number, error: number}>}
 */
export function testSteps(network, digits, change = {}) {
  network.check(change);
  return (function* steps() {
    let wrong = 0;
    for (let first = 0; first < digits.count; first += DIGITS_PER_STEP) {
      wrong += countWrong(network, digits, change, first);
      yield;
    }
    return { wrong, count: digits.count, error: (100 * wrong) / digits.count };
  })();
}

/** Returns how many of the digits of a step are mistaken. */
function countWrong(network, digits, change, first) {
  const count = Math.min(DIGITS_PER_STEP, digits.count - first);
  const indices = Array.from({ length: count }, (_, i) => first + i);
  const logits = network.logitsOfAll(indices.map(digits.pixels), change);
  return indices.filter((index, i) => largest(logits[i]) !== digits.label(index)).length;
}

/**
 * Returns the test error of a network, in percent, with the numbers of which it is made.
 *
 * @param network of `createNetwork`
 * @param digits of `unpackDigits`
 * @param {Change} change
 * @returns {{wrong: number, count: number, error: number}}
 */
export function testError(network, digits, change = {}) {
  const steps = testSteps(network, digits, change);
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}
