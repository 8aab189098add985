/**
 * A trained residual network in the browser: images of 8x8 pixels -> logits, feature maps, blocks.
 *
 * The packed network is what `pack_network` of weights.py returns; of its fields the page reads
 * name, shortcut and parameters, and this module the rest. Blocks have the names of
 * probes/lesions ("layer1.0"), stages those of the feature maps ("stem", "stage2", ...).
 *
 *     const network = createNetwork(packed);
 *     network.name                       // "resnet20"
 *     network.blocks                     // [{name: "layer1.0", stage: "stage2", removable: true}]
 *     network.run(pixels, change)        // -> Answer: everything, for one image
 *     network.logits(pixels, change)     // -> Float32Array (K): faster
 *     softmax(logits)                    // -> Float32Array (K): probabilities
 *
 *     const digits = unpackDigits(packedDigits);   // of `pack_digits`
 *     digits.count, digits.pixels(index) /* Uint8Array (64), 0 to 255 *\/, digits.label(index)
 *     testError(network, digits, change) // -> {wrong, count, error}: error in percent
 *
 * @typedef {object} Change what is changed in the network; {} for nothing.
 * @property {string[]} [off] names of removable blocks: F(x) = 0, so that the shortcut remains; in a
 *   plain network, as in probes/lesions, the input of the block is its output.
 * @property {[string, string]} [exchanged] names of two removable blocks of one stage.
 *
 * @typedef {object} FeatureMap
 * @property {number} channels
 * @property {number} height
 * @property {number} width
 * @property {Float32Array} values (channels, height, width)
 *
 * @typedef {object} BlockAnswer
 * @property {string} name of the place in the network: after an exchange, other weights run there.
 * @property {FeatureMap} x input of the block
 * @property {FeatureMap | null} shortcut what the shortcut gives; null in a plain block
 * @property {FeatureMap} residual F(x), zero where the block is off
 * @property {FeatureMap} sum F(x) + shortcut, before relu; in a plain block F(x), or x if it is off
 * @property {FeatureMap} output relu(sum)
 *
 * @typedef {object} Answer
 * @property {Float32Array} logits (K)
 * @property {number} predicted index of the largest logit
 * @property {(FeatureMap & {name: string})[]} stages stem, stage2, stage3, stage4
 * @property {BlockAnswer[]} blocks
 *
 * Unknown names, blocks that change the shape, and two blocks of different stages are a RangeError.
 */
