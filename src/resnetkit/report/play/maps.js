/**
 * Feature maps as pictures: the channels of a map side by side, each a small square.
 *
 *     mapCanvas(map, { limit, signed, color, paper, label })
 *
 * Values from 0 to `limit` go from paper to color; with `signed`, negative values go from paper to
 * the color of `negative`.
 */
import { h } from "./dom.js";

const PIXELS = 224; // of a canvas, before it is scaled

export function mapCanvas(map, { limit, color, negative, label }) {
  const columns = Math.ceil(Math.sqrt(map.channels));
  const rows = Math.ceil(map.channels / columns);
  const gap = 4;
  const tile = Math.floor((PIXELS - gap * (columns - 1)) / columns);
  const canvas = h("canvas", {
    class: "map",
    width: columns * (tile + gap) - gap,
    height: rows * (tile + gap) - gap,
    role: "img",
    "aria-label": label,
  });
  const context = canvas.getContext("2d");
  for (let channel = 0; channel < map.channels; channel += 1) {
    const left = (channel % columns) * (tile + gap);
    const top = Math.floor(channel / columns) * (tile + gap);
    paintChannel(context, map, channel, { left, top, tile, limit, color, negative });
  }
  return canvas;
}

function paintChannel(context, map, channel, { left, top, tile, limit, color, negative }) {
  const { width, height, values } = map;
  context.globalAlpha = 0.07;
  context.fillStyle = color;
  context.fillRect(left, top, tile, tile);
  for (let i = 0; i < width * height; i += 1) {
    const value = values[channel * width * height + i];
    const [x, y] = [i % width, Math.floor(i / width)];
    const [x0, x1] = [x, x + 1].map((at) => Math.round((at * tile) / width));
    const [y0, y1] = [y, y + 1].map((at) => Math.round((at * tile) / height));
    context.globalAlpha = Math.min(1, Math.abs(value) / (limit || 1));
    context.fillStyle = value < 0 ? negative : color;
    context.fillRect(left + x0, top + y0, x1 - x0, y1 - y0);
  }
  context.globalAlpha = 1;
}

/** Returns the value below which nearly all absolute values of maps lie. */
export function limitOf(maps) {
  const sizes = maps.flatMap((map) => Array.from(map.values, Math.abs));
  sizes.sort((a, b) => a - b);
  return sizes[Math.floor(0.99 * (sizes.length - 1))] || 1;
}

/** Returns ||values||. */
export function norm(map) {
  return Math.sqrt(map.values.reduce((sum, value) => sum + value * value, 0));
}
