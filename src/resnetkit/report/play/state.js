/**
 * The state of the page, which lives in the fragment of its address, so that a view can be linked.
 *
 *     parseState("#depth=20&epoch=7")    // -> state: defaults for what is missing or impossible
 *     formatState(state)                 // -> "#depth=20&epoch=7": what differs from the defaults
 *
 * A fragment without "=" is the name of a chapter: it changes the view of a state and nothing else.
 * What an address says is not believed: every value is checked, and a wrong one is replaced by its
 * default. What only a page knows is checked by `fitToRuns` and, when they are opened,
 * `fitToNetworks`.
 *
 * @typedef {object} State
 * @property {string} view chapter that the address points at, "" for the beginning
 * @property {string} predict prediction as "plain.residual", each shallow, deep, same or unknown;
 *   "" before it is made
 * @property {number} depth of the networks whose layers are shown: 20, 32 or 56
 * @property {string[]} shortcuts that are shown: none, A, B, C
 * @property {string} seed mean, or the number of a seed
 * @property {number} epoch 0 to 13
 * @property {string[]} open charts whose numbers are shown as a table
 * @property {string} digit index of a test digit, or "" for the drawn one
 * @property {string} drawn 64 digits of base 17, row by row: how many of 16 dots are ink
 * @property {number} pair depth of the two networks whose blocks can be changed: 20 or 56
 * @property {string} tool off or exchange: what a click on a block does
 * @property {string[]} off blocks that are switched off
 * @property {string[]} exchanged none, one or two blocks
 * @property {string} network whose maps are shown
 * @property {string} block whose x, F(x) and F(x) + x are shown
 * @property {number} layers of the spiral networks
 * @property {boolean} normalization of the spiral networks
 * @property {string} weights he or xavier
 * @property {number} lr learning rate
 * @property {number} start seed of the spiral networks
 */
import { lastEpoch } from "./series.js";

export const LEARNING_RATES = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1];
export const EMPTY = "0".repeat(64);

const VIEWS = ["", "explore", "live", "train", "questions"];
const GUESS = "(shallow|deep|same|unknown)";
const BLOCK = /^layer[123]\.\d$/;

const list = (fits) => ({
  read: (text) => [...new Set(text.split(","))].filter((word) => word && fits(word)),
  write: (words) => words.join(","),
});
const choice = (...words) => ({
  read: (text) => (words.includes(text) ? text : null),
  write: String,
});
const matching = (pattern) => ({
  read: (text) => (pattern.test(text) ? text : null),
  write: String,
});
const number = (fits) => ({
  read: (text) => (/^[\d.]+$/.test(text) && fits(Number(text)) ? Number(text) : null),
  write: String,
});
const whole = (low, high) => number((n) => Number.isInteger(n) && n >= low && n <= high);

/** Of each field: its default, and how it is read and written. */
const FIELDS = {
  view: ["", choice(...VIEWS)],
  predict: ["", matching(new RegExp(`^${GUESS}\\.${GUESS}$`))],
  depth: [56, number((n) => [20, 32, 56].includes(n))],
  shortcuts: [["none", "A"], list((word) => ["none", "A", "B", "C"].includes(word))],
  seed: ["mean", matching(/^(mean|\d)$/)],
  epoch: [13, whole(0, 1000)],
  open: [[], list((word) => /^[a-z0-9-]{1,40}$/.test(word))],
  digit: ["0", matching(/^\d{0,4}$/)],
  drawn: [EMPTY, matching(/^[0-9a-g]{64}$/)],
  pair: [20, number((n) => [20, 56].includes(n))],
  tool: ["off", choice("off", "exchange")],
  off: [[], list((word) => BLOCK.test(word))],
  exchanged: [[], list((word) => BLOCK.test(word))],
  network: ["resnet20", choice("plain20", "plain56", "resnet20", "resnet56")],
  block: ["layer1.1", matching(BLOCK)],
  layers: [20, number((n) => Number.isInteger(n / 2) && n >= 2 && n <= 30)],
  normalization: [true, { read: (text) => text === "1", write: (on) => (on ? "1" : "0") }],
  weights: ["he", choice("he", "xavier")],
  lr: [0.02, number((n) => LEARNING_RATES.includes(n))],
  start: [0, whole(0, 999)],
};

export function defaultState() {
  const entries = Object.entries(FIELDS).map(([name, [value]]) => [name, value]);
  return Object.fromEntries(entries);
}

/** Returns the state of a fragment; the name of a chapter keeps the rest of the state before. */
export function parseState(fragment, before = defaultState()) {
  const text = fragment.replace(/^#/, "");
  const state = defaultState();
  if (text && !text.includes("="))
    return { ...before, view: FIELDS.view[1].read(text) ?? before.view };
  for (const pair of text.split("&")) {
    const [name, value = ""] = pair.split("=");
    if (!Object.hasOwn(FIELDS, name)) continue;
    state[name] = FIELDS[name][1].read(decoded(value)) ?? state[name];
  }
  state.exchanged = state.exchanged.slice(0, 2);
  return state;
}

/** Returns a state with an epoch and a seed that the runs of the page have. */
export function fitToRuns(state, runs) {
  const seeds = runs.map((run) => String(run.seed));
  return {
    ...state,
    epoch: Math.min(state.epoch, lastEpoch(runs)),
    seed: seeds.includes(state.seed) ? state.seed : FIELDS.seed[0],
  };
}

/** Returns a state with a digit that exists, and with blocks that can be changed in its pair. */
export function fitToNetworks(state, { digits, networks }) {
  const removable = networks[`resnet${state.pair}`].blocks.filter((block) => block.removable);
  const stageOf = (name) => removable.find((block) => block.name === name)?.stage;
  const exchanged = state.exchanged.filter((name) => stageOf(name));
  return {
    ...state,
    digit: Number(state.digit) < digits.count ? state.digit : FIELDS.digit[0],
    off: state.off.filter((name) => stageOf(name)),
    exchanged: exchanged.filter((name) => stageOf(name) === stageOf(exchanged[0])),
  };
}

export function formatState(state) {
  const pairs = Object.entries(FIELDS)
    .map(([name, [value, form]]) => [name, form.write(state[name]), form.write(value)])
    .filter(([, now, before]) => now !== before)
    .map(([name, now]) => `${name}=${encodeURIComponent(now).replaceAll("%2C", ",")}`);
  return pairs.length ? `#${pairs.join("&")}` : "";
}

function decoded(value) {
  try {
    return decodeURIComponent(value);
  } catch {
    return "";
  }
}
