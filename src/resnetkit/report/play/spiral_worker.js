/**
 * Trains networks on two spirals side by side, in a Web Worker.
 *
 * Messages to the worker:
 *     {type: "start", run, networks: {residual: Settings, plain: Settings}, spirals: {seed},
 *      epochs, mapSide}                     any number of networks, by any name
 *     {type: "pause"}, {type: "resume"}, {type: "stop"}
 * A "start" ends the training before it; messages of it can be told by their `run`, a number.
 *
 * Messages from the worker:
 *     {type: "started", run, points, labels}                         the data
 *     {type: "epoch", run, epoch, epochsPerSecond, results: {residual: EpochResult, ...}}
 *     {type: "maps", run, epoch, maps: {residual: Uint8Array, ...}}  four times a second
 *     {type: "finished", run, epoch}
 *     {type: "failed", run, message}                                 impossible settings
 * A network whose loss is not finite (`finite` is false in its result) is left as it is; the other
 * goes on. When all have ended, "finished" follows.
 */

import { createSpirals, createTrainer } from "./spiral.js";

const MAP_INTERVAL = 250; // milliseconds
const SMOOTHING = 0.1; // weight of the last epoch in the speed

/**
 * Returns a function that handles the messages to the worker.
 *
 * @param {(message: object) => void} post sends a message to the page
 * @param {(turn: () => void) => void} later calls a function after pending messages
 * @returns {(message: object) => void}
 */
export function spiralServer(post, later) {
  let training = null;
  const turn = (expected) => {
    if (training !== expected || training.isPaused) return;
    if (trainTurn(training, post)) later(() => turn(expected));
    else training = null;
  };
  const start = (request) => {
    training = null;
    try {
      training = openTraining(request, post);
    } catch (error) {
      post({ type: "failed", run: request.run, message: error.message });
      return;
    }
    const opened = training;
    later(() => turn(opened));
  };
  const resume = () => {
    if (!training?.isPaused) return;
    const resumed = { ...training, isPaused: false, lastTurn: performance.now() };
    training = resumed;
    later(() => turn(resumed));
  };
  return (request) => {
    if (request.type === "start") start(request);
    if (request.type === "pause" && training) training.isPaused = true;
    if (request.type === "resume") resume();
    if (request.type === "stop") training = null;
  };
}

/** Returns a training of epoch 0, which the page has been told of. */
function openTraining({ run, networks, spirals, epochs, mapSide }, post) {
  const data = createSpirals(spirals);
  const trainers = mapValues(networks, (settings) => createTrainer(settings, data));
  const results = mapValues(trainers, (trainer) => trainer.measure());
  const training = { run, epochs, mapSide, trainers, results, epoch: 0, isPaused: false };
  post({ type: "started", run, ...data });
  post({ type: "epoch", run, epoch: 0, epochsPerSecond: 0, results });
  postMaps(training, post);
  return Object.assign(training, { milliseconds: 0, lastTurn: performance.now() });
}

/** Trains each network for an epoch, and returns whether any can be trained further. */
function trainTurn(training, post) {
  const { run, epochs, trainers, results } = training;
  training.epoch += 1;
  for (const [name, trainer] of Object.entries(trainers)) {
    if (results[name].finite) results[name] = trainer.trainEpoch();
  }
  const epochsPerSecond = 1000 / Math.max(measureTurn(training), 0.001);
  post({ type: "epoch", run, epoch: training.epoch, epochsPerSecond, results: { ...results } });
  const isLast = training.epoch >= epochs || !Object.values(results).some(({ finite }) => finite);
  if (isLast || performance.now() - training.lastMaps > MAP_INTERVAL) postMaps(training, post);
  if (isLast) post({ type: "finished", run, epoch: training.epoch });
  return !isLast;
}

/** Returns the smoothed duration of an epoch in milliseconds. */
function measureTurn(training) {
  const now = performance.now();
  const elapsed = now - training.lastTurn;
  const before = training.milliseconds || elapsed;
  training.lastTurn = now;
  training.milliseconds = before + SMOOTHING * (elapsed - before);
  return training.milliseconds;
}

/** Sends the decision maps of all networks. */
function postMaps(training, post) {
  const { run, epoch, trainers, mapSide } = training;
  const maps = mapValues(trainers, (trainer) => trainer.decisionMap(mapSide));
  training.lastMaps = performance.now();
  post({ type: "maps", run, epoch, maps });
}

/** Returns an object with a function of each value. */
function mapValues(object, compute) {
  return Object.fromEntries(Object.entries(object).map(([name, value]) => [name, compute(value)]));
}

if (typeof WorkerGlobalScope !== "undefined") {
  const handle = spiralServer(
    (message) => globalThis.postMessage(message),
    (turn) => setTimeout(turn),
  );
  globalThis.onmessage = ({ data }) => handle(data);
}
