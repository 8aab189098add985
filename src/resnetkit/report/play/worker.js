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
