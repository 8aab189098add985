/** Reads what weights.py packs: base64, fixed-point weights, digits. */

/**
 * Returns the bytes of a base64 text.
 *
 * @param {string} text
 * @returns {Uint8Array}
 */
export function decodeBytes(text) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

/**
 * Returns the numbers of a base64 text of little-endian float32.
 *
 * @param {string} text
 * @returns {Float32Array}
 */
export function decodeFloats(text) {
  const bytes = decodeBytes(text);
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

/**
 * Returns the signed integers of a base64 text, stored as value + 2^(bits - 1), highest bit first.
 *
 * @param {string} text
 * @param {number} bits of each, 2 to 24
 * @param {number} count of integers
 * @returns {Int32Array}
 */
export function decodeIntegers(text, bits, count) {
  const bytes = decodeBytes(text);
  const integers = new Int32Array(count);
  const offset = 1 << (bits - 1);
  let buffer = 0;
  let available = 0;
  let position = 0;
  for (let i = 0; i < count; i++) {
    while (available < bits) {
      buffer = (buffer << 8) | bytes[position++];
      available += 8;
    }
    available -= bits;
    integers[i] = (buffer >>> available) - offset;
    buffer &= (1 << available) - 1;
  }
  return integers;
}

/**
 * Returns the images of `pack_digits`.
 *
 * @param {{count: number, pixels: string, labels: number[]}} packed
 */
export function unpackDigits(packed) {
  const pixels = decodeBytes(packed.pixels);
  const size = pixels.length / packed.count;
  return {
    count: packed.count,
    /** @param {number} index @returns {Uint8Array} */
    pixels: (index) => pixels.subarray(index * size, (index + 1) * size),
    /** @param {number} index @returns {number} */
    label: (index) => packed.labels[index],
  };
}
