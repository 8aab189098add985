// Networks on two spirals: gradients against finite differences, training, the worker's protocol.
import assert from "node:assert/strict";
import { test } from "node:test";

import {
  createModel,
  lossAndGradients,
  parametersOf,
} from "../../src/resnetkit/report/play/dense.js";
import { normal, shuffled, uniform } from "../../src/resnetkit/report/play/random.js";
import {
  DEFAULT_SETTINGS,
  createSpirals,
  createTrainer,
  settingsError,
} from "../../src/resnetkit/report/play/spiral.js";
import { spiralServer } from "../../src/resnetkit/report/play/spiral_worker.js";

const SPIRALS = createSpirals({ seed: 0 });
const FEW = createSpirals({ seed: 1, count: 24 });

for (const shortcut of [true, false]) {
  for (const normalization of [true, false]) {
    test(`gradients are finite differences: ${JSON.stringify({ shortcut, normalization })}`, () => {
      const options = { depth: 4, shortcut, normalization, initialization: "he" };
      const model = createModel(options, uniform(7));
      const random = uniform(8); // biases and scales away from where they start
      for (const { values } of parametersOf(model)) {
        for (let i = 0; i < values.length; i++) values[i] += 0.1 * normal(random);
      }
      const loss = () => lossAndGradients(model, FEW.points, FEW.labels);
      loss();
      const gradients = parametersOf(model).map(({ gradient }) => gradient.slice());
      const largest = Math.max(...gradients.flatMap((gradient) => [...gradient.map(Math.abs)]));
      parametersOf(model).forEach(({ values }, index) => {
        for (let i = 0; i < values.length; i += 5) {
          const [value, change] = [values[i], 1e-6];
          values[i] = value + change;
          const above = loss();
          values[i] = value - change;
          const difference = (above - loss()) / (2 * change);
          values[i] = value;
          assert.ok(Math.abs(difference - gradients[index][i]) < 1e-6 * Math.max(1, largest));
        }
      });
    });
  }
}

test("of 20 layers, the residual network learns what the plain one does not", () => {
  const errors = [true, false].map((shortcut) => {
    const trainer = createTrainer({ ...DEFAULT_SETTINGS, depth: 20, shortcut }, SPIRALS);
    return Array.from({ length: 15 }, () => trainer.trainEpoch().error).at(-1);
  });
  assert.ok(errors[0] < 10, `${errors}`);
  assert.ok(errors[1] > 20, `${errors}`);
});

test("the same seed trains the same network, another seed another one", () => {
  const results = [0, 0, 1].map((seed) => {
    const trainer = createTrainer({ ...DEFAULT_SETTINGS, depth: 2, seed }, SPIRALS);
    return [trainer.measure(), trainer.trainEpoch()];
  });
  assert.deepEqual(results[0], results[1]);
  assert.notDeepEqual(results[0], results[2]);
});

test("measuring does not train", () => {
  const settings = { ...DEFAULT_SETTINGS, depth: 2 };
  const [measured, untouched] = [0, 1].map(() => createTrainer(settings, SPIRALS));
  measured.measure();
  assert.deepEqual(measured.trainEpoch(), untouched.trainEpoch());
});

test("an epoch result has the gradient of each layer", () => {
  const { epoch, gradientNorms, loss, finite } = createTrainer(
    { ...DEFAULT_SETTINGS, depth: 6 },
    SPIRALS,
  ).trainEpoch();
  assert.equal(epoch, 1);
  assert.equal(gradientNorms.length, 8);
  assert.ok(gradientNorms.every((norm) => norm > 0));
  assert.ok(finite && loss > 0);
});

test("the decision map agrees with the points that it lies under", () => {
  const trainer = createTrainer({ ...DEFAULT_SETTINGS, depth: 4 }, SPIRALS);
  let result;
  for (let epoch = 0; epoch < 40; epoch++) result = trainer.trainEpoch();
  assert.ok(result.error < 5);
  const side = 64;
  const map = trainer.decisionMap(side);
  const agrees = [...SPIRALS.labels].filter((label, i) => {
    const column = Math.floor(((SPIRALS.points[2 * i] + 1) / 2) * side);
    const row = Math.floor(((1 - SPIRALS.points[2 * i + 1]) / 2) * side);
    return map[row * side + column] > 127 === label > 0;
  });
  assert.ok(agrees.length > 0.9 * SPIRALS.labels.length);
});

test("the arms of the spirals are alike, half a turn apart, inside the square", () => {
  const { points, labels } = SPIRALS;
  assert.equal(
    labels.reduce((sum, label) => sum + label),
    labels.length / 2,
  );
  assert.ok(points.every((value) => Math.abs(value) < 1));
  const radius = (i) => Math.hypot(points[2 * i], points[2 * i + 1]);
  const angle = (i) => Math.atan2(points[2 * i + 1], points[2 * i]);
  for (let i = 40; i < labels.length; i += 2) {
    assert.ok(Math.abs(radius(i) - radius(i + 1)) < 0.15);
    assert.ok(Math.cos(angle(i) - angle(i + 1)) < -0.8);
  }
});

test("random numbers have the moments of their distributions", () => {
  const random = uniform(3);
  const draws = Array.from({ length: 20000 }, () => [random(), normal(random)]);
  const mean = (values) => values.reduce((sum, value) => sum + value / values.length, 0);
  const [flat, round] = [0, 1].map((index) => draws.map((pair) => pair[index]));
  assert.ok(flat.every((value) => value >= 0 && value < 1));
  assert.ok(Math.abs(mean(flat) - 0.5) < 0.01);
  assert.ok(Math.abs(mean(round)) < 0.03);
  assert.ok(Math.abs(mean(round.map((value) => value ** 2)) - 1) < 0.05);
  assert.ok(Math.abs(mean(round.map((value) => value ** 4)) - 3) < 0.3);
  const firsts = Array.from({ length: 3000 }, () => shuffled(3, random)[0]);
  for (const value of [0, 1, 2]) {
    assert.ok(Math.abs(firsts.filter((first) => first === value).length - 1000) < 110);
  }
});

test("impossible settings are told", () => {
  const told = (change) => settingsError({ ...DEFAULT_SETTINGS, ...change });
  assert.equal(told({}), null);
  assert.match(told({ depth: 31 }), /The depth is 31: expected an even number from 2 to 30/);
  assert.match(told({ depth: 32 }), /expected an even number/);
  assert.match(told({ initialization: "zeros" }), /zeros: expected he or xavier/);
  for (const lr of [0, NaN, Infinity]) assert.match(told({ lr }), /expected a number above 0/);
  assert.match(told({ seed: 0.5 }), /expected a whole number/);
});

/** A worker whose turns the test takes. */
function openServer() {
  const [posted, turns] = [[], []];
  const handle = spiralServer(
    (message) => posted.push(structuredClone(message)),
    (turn) => turns.push(turn),
  );
  const takeTurns = (count) => {
    for (let i = 0; i < count && turns.length; i++) turns.shift()();
  };
  const epochs = (run) =>
    posted.filter((message) => message.type === "epoch" && message.run === run);
  return { handle, posted, turns, takeTurns, epochs };
}

function startMessage(run, networks, epochs = 5) {
  const settings = { ...DEFAULT_SETTINGS, depth: 2 };
  const all = Object.entries(networks).map(([name, change]) => [name, { ...settings, ...change }]);
  return {
    type: "start",
    run,
    networks: Object.fromEntries(all),
    spirals: { seed: 0 },
    epochs,
    mapSide: 8,
  };
}

test("the worker trains side by side to the end", () => {
  const { handle, posted, turns, takeTurns, epochs } = openServer();
  handle(startMessage(1, { residual: { shortcut: true }, plain: { shortcut: false } }));
  takeTurns(100);
  assert.equal(turns.length, 0);
  assert.equal(posted[0].type, "started");
  assert.equal(posted[0].labels.length * 2, posted[0].points.length);
  assert.deepEqual(epochs(1).map(({ epoch }) => epoch), [0, 1, 2, 3, 4, 5]);
  assert.deepEqual(Object.keys(epochs(1)[3].results), ["residual", "plain"]);
  assert.equal(epochs(1)[3].results.plain.epoch, 3);
  assert.ok(epochs(1)[3].epochsPerSecond > 0);
  assert.deepEqual(posted.at(-1), { type: "finished", run: 1, epoch: 5 });
  assert.equal(posted.at(-2).type, "maps");
  assert.equal(posted.at(-2).maps.residual.length, 64);
});

test("a loss that is not finite ends one network, and the worker is as good as before", () => {
  const { handle, posted, takeTurns, epochs } = openServer();
  const wild = { lr: 1e150, normalization: false };
  handle(startMessage(1, { residual: wild, plain: { shortcut: false } }));
  takeTurns(100);
  const last = epochs(1).at(-1);
  assert.equal(last.epoch, 5);
  assert.equal(last.results.residual.finite, false);
  assert.ok(last.results.residual.epoch < 5);
  assert.deepEqual([last.results.plain.finite, last.results.plain.epoch], [true, 5]);
  handle(startMessage(2, { residual: wild, plain: wild }, 1000));
  takeTurns(100);
  assert.equal(posted.at(-1).type, "finished");
  assert.ok(posted.at(-1).epoch < 5);
  handle(startMessage(3, { residual: {} }));
  takeTurns(100);
  assert.ok(epochs(3).at(-1).results.residual.finite);
});

test("training pauses, resumes, stops, and ends when another starts", () => {
  const { handle, posted, turns, takeTurns, epochs } = openServer();
  handle(startMessage(1, { residual: {} }, 1000));
  takeTurns(3);
  handle({ type: "pause" });
  takeTurns(10);
  assert.equal(epochs(1).length, 4);
  handle({ type: "resume" });
  handle({ type: "resume" });
  takeTurns(2);
  assert.equal(epochs(1).length, 6);
  assert.equal(turns.length, 1);
  handle(startMessage(2, { residual: {} }, 1000));
  takeTurns(3);
  assert.equal(epochs(1).length, 6);
  handle({ type: "stop" });
  const count = posted.length;
  takeTurns(10);
  handle({ type: "resume" });
  takeTurns(10);
  assert.equal(posted.length, count);
});

test("impossible settings fail with a message", () => {
  const { handle, posted } = openServer();
  handle(startMessage(4, { residual: { depth: 3 } }));
  assert.deepEqual([posted[0].type, posted[0].run], ["failed", 4]);
  assert.match(posted[0].message, /The depth is 3/);
});
