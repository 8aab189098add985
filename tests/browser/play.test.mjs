// The pure modules of the interactive page: state, texts, lines, charts, drawing.
import assert from "node:assert/strict";
import { test } from "node:test";

const PLAY = "../../src/resnetkit/report/play/";
const { defaultState, fitToNetworks, fitToRuns, formatState, parseState } = await import(
  `${PLAY}state.js`
);
const { createLanguage, particle, percent, significant } = await import(`${PLAY}language.js`);
const { errorCurve, lower, point, snapshotAt, withSeed } = await import(`${PLAY}series.js`);
const { niceTicks, powers, spread } = await import(`${PLAY}chart.js`);
const { countsOf, ink } = await import(`${PLAY}pad.js`);
const { blockView } = await import(`${PLAY}live.js`);
const { gradientChart, openTrain } = await import(`${PLAY}train.js`);

const ENGLISH = createLanguage({ texts: {}, plurals: {}, forms: [] });

test("a state survives the address", () => {
  const state = {
    ...defaultState(),
    view: "live",
    predict: "deep.same",
    depth: 20,
    shortcuts: ["A", "B"],
    seed: "1",
    epoch: 0,
    open: ["curves-20"],
    digit: "",
    off: ["layer1.1", "layer3.2"],
    normalization: false,
    lr: 0.5,
  };
  assert.deepEqual(parseState(formatState(state)), state);
  assert.equal(formatState(defaultState()), "");
  assert.equal(parseState("#train").view, "train");
});

test("what an address says is not believed", () => {
  const broken =
    "#depth=21&lr=3.3&off=layer1.1,<b>,layer9.0&block=%&predict=x.y&other=1&epoch=-1&__proto__=1";
  assert.deepEqual(parseState(broken), { ...defaultState(), off: ["layer1.1"] });
  assert.deepEqual(parseState("#view=elsewhere&drawn=00"), defaultState());
  assert.equal(parseState("#exchanged=layer1.0,layer1.1,layer1.2").exchanged.length, 2);
});

test("the name of a chapter changes the view and keeps the rest", () => {
  const state = { ...defaultState(), view: "live", pair: 56, off: ["layer2.1"] };
  assert.deepEqual(parseState("#explore", state), { ...state, view: "explore" });
  assert.deepEqual(parseState("#somewhere", state), state);
  assert.deepEqual(parseState("", state), defaultState());
  assert.deepEqual(parseState("#epoch=3", state), { ...defaultState(), epoch: 3 });
});

test("an epoch and a seed that no run has are replaced", () => {
  const runs = [{ seed: 0, epochs: [1, 2, 3] }, { seed: 1, epochs: [] }];
  const state = { ...defaultState(), epoch: 500, seed: "7" };
  assert.deepEqual(fitToRuns(state, runs), { ...state, epoch: 3, seed: "mean" });
  const possible = { ...state, epoch: 0, seed: "1" };
  assert.deepEqual(fitToRuns(possible, runs), possible);
});

test("a digit and blocks that the networks lack are replaced", () => {
  const block = (name) => ({
    name,
    stage: name.split(".")[0],
    removable: name === "layer1.0" || !name.endsWith(".0"),
  });
  const names = [1, 2, 3].flatMap((stage) => [0, 1, 2].map((i) => `layer${stage}.${i}`));
  const live = { digits: { count: 359 }, networks: { resnet20: { blocks: names.map(block) } } };
  const fitted = (change) => fitToNetworks({ ...defaultState(), ...change }, live);
  assert.deepEqual(fitted({ off: ["layer2.0", "layer2.7", "layer1.0", "layer2.1"] }).off, [
    "layer1.0",
    "layer2.1",
  ]);
  const exchanged = (...blocks) => fitted({ exchanged: blocks }).exchanged;
  assert.deepEqual(exchanged("layer1.1", "layer1.2"), ["layer1.1", "layer1.2"]);
  assert.deepEqual(exchanged("layer1.2", "layer2.1"), ["layer1.2"]);
  assert.deepEqual(exchanged("layer3.0", "layer2.1"), ["layer2.1"]);
  assert.deepEqual(exchanged("layer3.0", "layer3.9"), []);
  const digits = ["", "0", "358", "359", "9999"].map((digit) => fitted({ digit }).digit);
  assert.deepEqual(digits, ["", "0", "358", "0", "0"]);
});

test("texts have plural forms and Korean particles", () => {
  const forms = Array.from({ length: 200 }, (unused, n) => Number(n !== 1));
  const { _, ngettext } = createLanguage({
    texts: { "{name} wins": "{name:이/가} 이깁니다" },
    plurals: { "{number} block": ["{number} block", "{number} blocks"] },
    forms,
  });
  assert.equal(_("{name} wins", { name: "resnet-20" }), "resnet-20이 이깁니다");
  assert.equal(_("{name} wins", { name: "resnet-32" }), "resnet-32가 이깁니다");
  assert.equal(_("untranslated {x}", { x: 1 }), "untranslated 1");
  assert.deepEqual(
    [0, 1, 2, 101, 300].map((n) => ngettext("{number} block", "", n)),
    ["0 blocks", "1 block", "2 blocks", "101 blocks", "300 blocks"],
  );
  const words = {
    검증: "을",
    테스트: "를",
    "resnet-20": "을",
    "plain-44": "를",
    truck: "을",
    test: "를",
    "90 %": "를",
  };
  for (const [word, expected] of Object.entries(words))
    assert.equal(particle(word, "을", "를"), expected, word);
  assert.equal(particle("8", "으로", "로"), "로");
});

test("numbers are written for people", () => {
  assert.equal(percent(68.149), "68.1\u00a0%");
  assert.equal(percent(null), "–");
  assert.equal(significant(0.00001234), "1.2e-5");
  assert.equal(significant(12.345), "12.3");
});

const RUNS = [0, 1, 2].map((seed) => ({
  index: seed,
  seed,
  epochs: [1, 2],
  train_error: [80 + seed, seed === 2 ? null : 40],
  steps_per_epoch: 19,
  probes: { layers: { steps: [0, 61, 247] } },
}));

test("a point is the mean over the runs that have a value, and names them", () => {
  const [first, second] = errorCurve(RUNS, "train");
  assert.deepEqual(first, {
    x: 1,
    y: 81,
    low: 80,
    high: 82,
    source: { runs: [0, 1, 2], file: "metrics.jsonl", key: "epoch 1: train_error" },
  });
  assert.deepEqual(second.source.runs, [0, 1]);
  assert.equal(
    point(0, RUNS, () => null, "f", "k"),
    null,
  );
  assert.deepEqual(
    withSeed(RUNS, "1").map((run) => run.seed),
    [1],
  );
});

test("a moment of training shows the last measurement before it", () => {
  assert.deepEqual(
    [0, 3, 4, 12, 13].map((epoch) => snapshotAt(RUNS, epoch)),
    [0, 0, 61, 61, 247],
  );
  assert.equal(snapshotAt([], 3), null);
});

test("a difference within the margin is none", () => {
  assert.equal(lower(1, 1.9, 1), "same");
  assert.equal(lower(1, 2.1, 1), "first");
  assert.equal(lower(5, 2, 1), "second");
});

test("axes have round ticks, and labels do not cover each other", () => {
  assert.deepEqual(niceTicks(0, 100), [0, 25, 50, 75, 100]);
  assert.deepEqual(powers(0.02, 30), [0.01, 100]);
  const labels = [50, 52, 199, 200].map((y) => ({ y }));
  spread(labels, 10, 200);
  const heights = labels.map((label) => label.y).sort((a, b) => a - b);
  assert.ok(heights.every((y, i) => i === 0 || y - heights[i - 1] >= 15 - 1e-9));
  assert.ok(heights[0] >= 10 && heights.at(-1) <= 200);
});

test("ink becomes counts of 0 to 16, as in the data set", () => {
  const dots = new Uint8Array(32 * 32);
  ink(dots, [4, 16], [28, 16]);
  const counts = countsOf({ base: new Array(64).fill(0), dots });
  assert.equal(counts.length, 64);
  assert.ok(Math.max(...counts) <= 16);
  assert.ok(counts.slice(24, 40).some((count) => count > 6));
  assert.equal(
    counts.slice(0, 16).reduce((a, b) => a + b),
    0,
  );
});

test("a plain block that is off is drawn as its input, which is its output", () => {
  const map = (...values) => ({ channels: 1, values: Float32Array.from(values) });
  const [x, zero, residual] = [map(3, 4), map(0, 0), map(6, 8)];
  const plain = { x, shortcut: null, residual: zero, sum: x };
  const off = blockView(ENGLISH, plain, true);
  assert.deepEqual(off.maps, [
    [x, "x", "Input of the block"],
    [x, "x", "Output of the block"],
  ]);
  assert.equal(off.note, "This block is switched off: it hands its input on unchanged.");
  const on = blockView(ENGLISH, { ...plain, residual, sum: residual }, false);
  assert.deepEqual(
    on.maps.map(([, name]) => name),
    ["x", "F(x)"],
  );
  assert.match(on.note, /its output is F\(x\) alone/);
  const added = blockView(ENGLISH, { x, shortcut: x, residual, sum: map(9, 12) }, false);
  assert.deepEqual(added.signs, ["+", "="]);
  assert.match(added.note, /F\(x\) is 200\u00a0% as large/);
  assert.equal(blockView(ENGLISH, { ...plain, shortcut: x }, true).note, off.note);
});

test("the axis of the gradients is that of the networks that were trained", () => {
  const trained = { gradientNorms: new Array(22).fill(1) };
  const results = { plain: { gradientNorms: new Array(22).fill(0) }, residual: trained };
  const domain = (history) => gradientChart(ENGLISH, { layers: 4 }, { history }).domainX;
  assert.deepEqual(domain([]), [1, 6]);
  assert.deepEqual(domain([{ results }]), [1, 22]);
});

test("a training is announced when it begins, pauses and ends, and seldom in between", async () => {
  const announced = [];
  const context = {
    ...ENGLISH,
    announce: (text) => announced.push(text),
    redraw() {},
    redrawSoon() {},
    state: defaultState,
  };
  let worker = null;
  globalThis.Worker = class {
    constructor() {
      worker = this;
    }
    postMessage() {}
    terminate() {}
  };
  const training = openTrain(context, "");
  training.start();
  const results = { plain: { error: 50, finite: true }, residual: { error: 1, finite: true } };
  const post = (message) => worker.onmessage({ data: { run: 1, results, ...message } });
  for (let epoch = 0; epoch < 1000; epoch += 1) post({ type: "epoch", epoch });
  training.command("pause");
  training.command("resume");
  post({ type: "epoch", epoch: 1000, results: { ...results, plain: { finite: false } } });
  post({ type: "finished", epoch: 1000 });
  worker.onerror({ message: "out of order", preventDefault() {} });
  await Promise.resolve();
  delete globalThis.Worker;
  assert.deepEqual(
    announced.map((text) => text.split(". ")[0].replace(/\.$/, "")),
    [
      "Training begins",
      "Epoch 500",
      "Paused after epoch 999",
      "Training continues",
      "Epoch 1000",
      "Training ended after epoch 1000",
      "Training is not possible here: out of order",
    ],
  );
  assert.match(announced[1], /residual network has learned: 1\u00a0% of the points are wrong/);
  assert.match(announced[5], /plain network: The loss is not finite any more/);
  assert.match(announced[5], /residual network has learned/);
});
