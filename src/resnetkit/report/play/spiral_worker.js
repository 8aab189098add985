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
 *     {type: "maps", run, epoch, maps: {residual: Uint8Array, ...}}  some times a second
 *     {type: "finished", run, epoch}
 *     {type: "failed", run, message}                                 impossible settings
 * A network whose loss is not finite (`finite` is false in its result) is left as it is; the other
 * goes on. When all have ended, "finished" follows.
 */
