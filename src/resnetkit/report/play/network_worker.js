/**
 * Test errors of changed networks, in a Web Worker.
 *
 * Messages to the worker:
 *     {type: "open", networks: [packed, ...], digits: packed}     once
 *     {type: "error", id, network: "resnet20", change: {off: ["layer1.1"]}}
 * Messages from the worker:
 *     {type: "opened", networks: ["resnet20", ...]}
 *     {type: "error", id, network, change, wrong, count, error}   error in percent
 *     {type: "failed", id, message}
 *
 * A new "error" request of the same network replaces those of it that have not been answered.
 */

import { createNetwork, testSteps } from "./network.js";
import { unpackDigits } from "./packed.js";

/**
 * Returns a function that handles the messages to the worker.
 *
 * @param {(message: object) => void} post sends a message to the page
 * @param {(turn: () => void) => void} later calls a function after pending messages
 * @returns {(message: object) => void}
 */
export function networkServer(post, later) {
  const testers = new Map();
  const jobs = new Map(); // by the name of their network
  let isRunning = false;
  const turn = () => {
    const [name] = jobs.keys(); // the oldest
    const { request, steps } = jobs.get(name);
    const { done, value } = steps.next();
    if (done) {
      jobs.delete(name);
      post({ ...request, ...value });
    }
    isRunning = jobs.size > 0;
    if (isRunning) later(turn);
  };
  const open = ({ networks, digits }) => {
    const images = unpackDigits(digits);
    for (const packed of networks) {
      const network = createNetwork(packed);
      testers.set(network.name, (change) => testSteps(network, images, change));
    }
    post({ type: "opened", networks: [...testers.keys()] });
  };
  const ask = (request) => {
    const { id, network, change } = request;
    try {
      if (!testers.has(network)) throw new RangeError(`There is no network '${network}'.`);
      jobs.set(network, { request, steps: testers.get(network)(change) });
      if (!isRunning) later(turn);
      isRunning = true;
    } catch (error) {
      post({ type: "failed", id, message: error.message });
    }
  };
  return (request) => (request.type === "open" ? open : ask)(request);
}

if (typeof WorkerGlobalScope !== "undefined") {
  const handle = networkServer(
    (message) => globalThis.postMessage(message),
    (turn) => setTimeout(turn),
  );
  globalThis.onmessage = ({ data }) => handle(data);
}
