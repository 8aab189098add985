/**
 * Starts Web Workers whose source is in the page, also where the page is a file.
 *
 * The page contains the source of a worker as one script without imports. The Content-Security-
 * Policy needs `worker-src blob:` and nothing more.
 *
 *     startWorker(source, onMessage, onFailure)   // -> {send(message), stop()}
 *
 * onFailure(reason: string) is called at most once, also when the browser has no Web Workers or
 * forbids them; `send` then does nothing.
 */

/**
 * Starts a worker.
 *
 * @param {string} source
 * @param {(message: object) => void} onMessage
 * @param {(reason: string) => void} onFailure called later, never while the worker is started
 * @returns {{send: (message: object) => void, stop: () => void}}
 */
export function startWorker(source, onMessage, onFailure) {
  let worker = null;
  let hasFailed = false;
  const fail = (reason) => {
    if (hasFailed) return;
    hasFailed = true;
    worker?.terminate();
    queueMicrotask(() => onFailure(reason || "the worker could not be started"));
  };
  try {
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    worker = new Worker(url);
    worker.onmessage = ({ data }) => onMessage(data);
    worker.onerror = (event) => {
      event.preventDefault();
      fail(event.message);
    };
  } catch (error) {
    fail(error.message);
  }
  return {
    send: (message) => {
      if (!hasFailed) worker.postMessage(message);
    },
    stop: () => worker?.terminate(),
  };
}
