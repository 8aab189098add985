/**
 * Fully connected networks on two spirals, trained in the browser: with shortcuts or without.
 *
 *     const settings = {...DEFAULT_SETTINGS, depth: 20, shortcut: true};
 *     const trainer = createTrainer(settings, createSpirals({seed: 0}));
 *     trainer.trainEpoch()               // -> EpochResult
 *     trainer.decisionMap(40)            // -> Uint8Array (40 * 40), row by row from y = 1 to y = -1,
 *                                        //    x from -1 to 1: 255 * probability of class 1
 *
 * @typedef {object} Settings
 * @property {number} depth hidden layers, 2 to 30, an even number: a block has two layers
 * @property {boolean} shortcut whether a block computes relu(F(x) + x), or relu(F(x))
 * @property {boolean} normalization whether batch normalization follows each layer
 * @property {"he" | "xavier"} initialization
 * @property {number} lr learning rate of gradient descent with momentum 0.9
 * @property {number} seed of the initial weights and the order of the points
 *
 * @typedef {object} Spirals
 * @property {Float32Array} points (N, 2), from -1 to 1
 * @property {Uint8Array} labels (N): 0 or 1
 *
 * @typedef {object} EpochResult
 * @property {number} epoch epochs trained, 0 for the untrained network
 * @property {number} loss cross-entropy over the training points
 * @property {number} error over the training points, in percent
 * @property {number[]} gradientNorms of the loss by the weights of each layer, from the input
 * @property {boolean} finite false when the loss or a gradient is not finite: training has ended
 */
