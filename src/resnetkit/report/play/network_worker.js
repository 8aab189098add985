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
