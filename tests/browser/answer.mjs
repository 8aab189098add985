// Runs modules of the page for the tests in Python: a question in, an answer out, as JSON.
import { readFileSync } from "node:fs";

import { lossAndGradients, parametersOf, step } from "../../src/resnetkit/report/play/dense.js";
import { createNetwork, testError } from "../../src/resnetkit/report/play/network.js";
import { unpackDigits } from "../../src/resnetkit/report/play/packed.js";
import { createSpirals, createTrainer } from "../../src/resnetkit/report/play/spiral.js";

const plain = (value) =>
  JSON.stringify(value, (_, item) => (ArrayBuffer.isView(item) ? [...item] : item));

const ANSWERS = {
  /** Logits of all digits, errors after changes, and everything about the first digit. */
  network({ packed, digits, changes }) {
    const network = createNetwork(packed);
    const images = unpackDigits(digits);
    const logits = Array.from({ length: images.count }, (_, i) => network.logits(images.pixels(i)));
    const errors = changes.map((change) => testError(network, images, change));
    const runs = changes.map((change) => network.run(images.pixels(0), change));
    return { logits, errors, runs };
  },

  /** Weights and gradients along some steps on a whole spiral. */
  spiral({ settings, steps }) {
    const { points, labels } = createSpirals({ seed: 1, count: 48 });
    const { model } = createTrainer({ seed: 3, ...settings }, { points, labels });
    const values = () => parametersOf(model).map((parameter) => parameter.values.slice());
    const records = Array.from({ length: steps }, () => {
      const before = values();
      const loss = lossAndGradients(model, points, labels);
      const gradients = parametersOf(model).map(({ gradient }) => gradient.slice());
      step(model, settings.lr);
      return { before, loss, gradients };
    });
    const running = model.layers.map(({ mean, variance }) => [mean, variance]);
    return { points, labels, records, after: values(), running };
  },
};

const { kind, ...question } = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(plain(ANSWERS[kind](question)));
