// The live network: layers against slow and obvious twins, changes, the worker's protocol.
import assert from "node:assert/strict";
import { test } from "node:test";

import {
  averagePool,
  convolve,
  makeLayer,
  subsampleAndPad,
} from "../../src/resnetkit/report/play/convolution.js";
import {
  createNetwork,
  largest,
  softmax,
  testError,
} from "../../src/resnetkit/report/play/network.js";
import { networkServer } from "../../src/resnetkit/report/play/network_worker.js";
import { decodeIntegers, unpackDigits } from "../../src/resnetkit/report/play/packed.js";
import { normal, uniform } from "../../src/resnetkit/report/play/random.js";

/** Maps of random values. */
function randomMaps(channels, height, width, lanes, random) {
  const values = Float64Array.from({ length: channels * height * width * lanes }, () =>
    normal(random),
  );
  return { channels, height, width, lanes, values };
}

/** A value of maps; zero outside. */
function at(maps, lane, channel, row, column) {
  if (row < 0 || column < 0 || row >= maps.height || column >= maps.width) return 0;
  const pixel = row * maps.width + column;
  return maps.values[(pixel * maps.channels + channel) * maps.lanes + lane];
}

/** Calls a function with each position of maps. */
function eachPosition(maps, visit) {
  for (let lane = 0; lane < maps.lanes; lane++)
    for (let channel = 0; channel < maps.channels; channel++)
      for (let row = 0; row < maps.height; row++)
        for (let column = 0; column < maps.width; column++) visit(lane, channel, row, column);
}

for (const kernel of [1, 3])
  for (const stride of [1, 2])
    for (const lanes of [1, 4])
      test(`convolution: kernel ${kernel}, stride ${stride}, lanes ${lanes}`, () => {
        const random = uniform(10 * kernel + stride);
        const [inputs, outputs, padding] = [3, 8, kernel >> 1];
        const draw = Float64Array.from({ length: outputs * inputs * kernel ** 2 }, () =>
          normal(random),
        );
        const weight = (output, input, tap) => draw[(output * inputs + input) * kernel ** 2 + tap];
        const layer = makeLayer({ inputs, outputs, kernel, stride }, weight, (output) => output);
        const x = randomMaps(inputs, 5, 4, lanes, random);
        const y = convolve(layer, x);
        assert.deepEqual([y.channels, y.height, y.width], [8, Math.ceil(5 / stride), 4 / stride]);
        eachPosition(y, (lane, output, row, column) => {
          let sum = output;
          for (let tap = 0; tap < kernel ** 2; tap++)
            for (let input = 0; input < inputs; input++)
              sum +=
                weight(output, input, tap) *
                at(
                  x,
                  lane,
                  input,
                  row * stride + Math.floor(tap / kernel) - padding,
                  column * stride + (tap % kernel) - padding,
                );
          assert.ok(Math.abs(sum - at(y, lane, output, row, column)) < 1e-12);
        });
      });

test("option A takes every second pixel and adds zeros", () => {
  const x = randomMaps(2, 5, 4, 4, uniform(1));
  const y = subsampleAndPad(x, { stride: 2, before: 1, outputs: 4 });
  assert.deepEqual([y.channels, y.height, y.width], [4, 3, 2]);
  eachPosition(y, (lane, channel, row, column) => {
    const isZero = channel === 0 || channel === 3;
    const expected = isZero ? 0 : at(x, lane, channel - 1, 2 * row, 2 * column);
    assert.equal(at(y, lane, channel, row, column), expected);
  });
});

test("pooling averages the pixels of a channel", () => {
  const x = randomMaps(3, 2, 2, 4, uniform(2));
  const y = averagePool(x);
  eachPosition(y, (lane, channel) => {
    let sum = 0;
    for (const [row, column] of [[0, 0], [0, 1], [1, 0], [1, 1]]) {
      sum += at(x, lane, channel, row, column);
    }
    assert.ok(Math.abs(at(y, lane, channel, 0, 0) - sum / 4) < 1e-15);
  });
});

/** Integers in the form that decodeIntegers reads, by way of a text of zeros and ones. */
function encodeIntegers(integers, bits) {
  const digits = integers.map((value) => (value + 2 ** (bits - 1)).toString(2).padStart(bits, "0"));
  const text = digits.join("");
  const bytes = text.match(/.{1,8}/g)?.map((byte) => parseInt(byte.padEnd(8, "0"), 2)) ?? [];
  return Buffer.from(bytes).toString("base64");
}

test("integers of any number of bits are read", () => {
  for (const bits of [2, 7, 16, 17, 20, 23, 24]) {
    const limit = 2 ** (bits - 1) - 1;
    const random = uniform(bits);
    const draw = () => Math.floor(2 * random() * limit) - limit;
    const draws = Array.from({ length: 50 }, draw);
    const integers = [limit, -limit, 0, ...draws];
    const decoded = decodeIntegers(encodeIntegers(integers, bits), bits, integers.length);
    assert.deepEqual([...decoded], integers);
  }
});

const floats = (values) => Buffer.from(Float32Array.from(values).buffer).toString("base64");

/** A packed network of two blocks of four channels on images of 2x2 pixels, and two classes. */
function smallNetwork(kind, name = "small") {
  const layers = [
    { inputs: 1, outputs: 4, kernel: 3, stride: 1 },
    ...Array.from({ length: 4 }, () => ({ inputs: 4, outputs: 4, kernel: 3, stride: 1 })),
    { inputs: 4, outputs: 2, kernel: 1, stride: 1 },
  ];
  const random = uniform(5);
  const sizes = layers.map(({ inputs, outputs, kernel }) => inputs * outputs * kernel ** 2);
  const count = sizes.reduce((sum, size) => sum + size);
  const channels = layers.reduce((sum, { outputs }) => sum + outputs, 0);
  const integers = Array.from({ length: count }, () => Math.round((2 * random() - 1) * 32767));
  const block = (index, stage) => ({
    name: `layer${stage - 1}.${index}`,
    stage: `stage${stage}`,
    removable: true,
    layers: [2 * index + 1, 2 * index + 2],
    shortcut: { kind },
  });
  return {
    name,
    classes: ["0", "1"],
    image: [1, 2, 2],
    mean: [100],
    std: [50],
    layers,
    blocks: [block(0, 2), block(1, 2)],
    bits: 16,
    weights: encodeIntegers(integers, 16),
    scales: floats(Array(channels).fill(1 / 32767)),
    biases: floats(Array(channels).fill(0.125)),
  };
}

const PIXELS = Uint8Array.of(0, 50, 200, 255);
const DIGITS = {
  count: 70,
  pixels: Buffer.from(Array.from({ length: 280 }, (_, i) => (i * i * 37) % 256)).toString("base64"),
  labels: Array.from({ length: 70 }, (_, i) => i % 2),
};

for (const kind of ["identity", "none"]) {
  test(`blocks of kind ${kind} add up, and can be switched off or exchanged`, () => {
    const network = createNetwork(smallNetwork(kind));
    const whole = network.run(PIXELS);
    assert.deepEqual(whole.stages.map(({ name }) => name), ["stem", "stage2"]);
    assert.deepEqual(whole.stages[0].values, whole.blocks[0].x.values);
    assert.deepEqual(whole.stages[1].values, whole.blocks[1].output.values);
    for (const { x, shortcut, residual, sum, output } of whole.blocks) {
      const skipped = kind === "none" ? residual.values.map(() => 0) : x.values;
      residual.values.forEach((value, i) => {
        assert.ok(Math.abs(value + skipped[i] - sum.values[i]) < 1e-6);
        assert.equal(output.values[i], Math.max(sum.values[i], 0));
      });
      assert.equal(shortcut === null, kind === "none");
    }
    const off = network.run(PIXELS, { off: ["layer1.0", "layer1.1"] });
    assert.ok(off.blocks.every(({ residual }) => residual.values.every((value) => value === 0)));
    assert.deepEqual(off.stages[1].values, whole.stages[0].values);
    const exchanged = network.logits(PIXELS, { exchanged: ["layer1.0", "layer1.1"] });
    const [first, second] = smallNetwork(kind).blocks;
    const blocks = [{ ...second, name: "a" }, { ...first, name: "b" }];
    const moved = { ...smallNetwork(kind), blocks };
    assert.deepEqual(exchanged, createNetwork(moved).logits(PIXELS));
    assert.notDeepEqual(exchanged, whole.logits);
    assert.deepEqual(network.logits(PIXELS), whole.logits);
  });
}

test("four images at once answer as one by one", () => {
  const network = createNetwork(smallNetwork("identity"));
  const digits = unpackDigits(DIGITS);
  const images = Array.from({ length: 7 }, (_, i) => digits.pixels(i));
  const alone = images.map((pixels) => network.logits(pixels));
  network.logitsOfAll(images).forEach((logits, i) => {
    logits.forEach((logit, k) => assert.ok(Math.abs(logit - alone[i][k]) < 1e-12));
  });
});

test("the error is that of the largest logits", () => {
  const network = createNetwork(smallNetwork("identity"));
  const digits = unpackDigits(DIGITS);
  let wrong = 0;
  for (let i = 0; i < 70; i++) wrong += network.run(digits.pixels(i)).predicted !== i % 2;
  assert.ok(wrong > 0 && wrong < 70);
  assert.deepEqual(testError(network, digits), { wrong, count: 70, error: wrong / 0.7 });
});

test("impossible changes are a RangeError", () => {
  const packed = smallNetwork("identity");
  packed.blocks[1].stage = "stage3";
  const network = createNetwork(packed);
  assert.throws(() => network.run(PIXELS, { off: ["layer9.0"] }), RangeError);
  const exchanged = ["layer1.0", "layer1.1"];
  assert.throws(() => network.logits(PIXELS, { exchanged }), /in different stages/);
  packed.blocks[0].removable = false;
  const fixed = createNetwork(packed);
  assert.throws(() => fixed.check({ off: ["layer1.0"] }), /'layer1.0' cannot be changed/);
  fixed.check({ off: ["layer1.1"] });
});

test("softmax does not overflow", () => {
  assert.deepEqual(softmax([1000, 1000]), [0.5, 0.5]);
  assert.equal(largest(softmax([-5, 3, 2])), 1);
});

test("the worker answers the last question about each network", () => {
  const [posted, turns] = [[], []];
  const handle = networkServer(
    (message) => posted.push(structuredClone(message)),
    (turn) => turns.push(turn),
  );
  const packed = [smallNetwork("identity", "resnet"), smallNetwork("none", "plain")];
  handle({ type: "open", networks: packed, digits: DIGITS });
  assert.deepEqual(posted, [{ type: "opened", networks: ["resnet", "plain"] }]);
  const ask = (id, network, change) => handle({ type: "error", id, network, change });
  ask(1, "resnet", {});
  turns.shift()();
  ask(2, "resnet", { off: ["layer1.0"] });
  ask(3, "plain", {});
  ask(4, "resnet", { off: ["nothing"] });
  ask(5, "unknown", {});
  while (turns.length) turns.shift()();
  const digits = unpackDigits(DIGITS);
  const expected = testError(createNetwork(packed[0]), digits, { off: ["layer1.0"] });
  const answers = posted.filter(({ type }) => type === "error");
  assert.deepEqual(answers.map(({ id }) => id), [2, 3]);
  assert.deepEqual(
    answers[0],
    { type: "error", id: 2, network: "resnet", change: { off: ["layer1.0"] }, ...expected },
  );
  const failed = posted.filter(({ type }) => type === "failed");
  assert.deepEqual(failed.map(({ id }) => id), [4, 5]);
  ask(6, "plain", {});
  while (turns.length) turns.shift()();
  assert.equal(posted.at(-1).id, 6);
});
