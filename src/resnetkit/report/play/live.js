/** Chapter 2: four trained networks answer; blocks are switched off or exchanged. */
import { byId, h, replace, say, setSlider, svg } from "./dom.js";
import { percent, significant } from "./language.js";
import { marked, number } from "./figures.js";
import { limitOf, mapCanvas, norm } from "./maps.js";
import { createNetwork, softmax } from "./network.js";
import { unpackDigits } from "./packed.js";
import { createPad } from "./pad.js";
import { runsOfGroup } from "./series.js";
import { EMPTY } from "./state.js";
import { startWorker } from "./worker.js";

const NETWORKS = ["plain20", "resnet20", "plain56", "resnet56"];
const family = (name) => (name.startsWith("plain") ? "plain" : "residual");
const depthOf = (name) => Number(name.replace(/\D/g, ""));
const shown = (name) => name.replace(/(\d+)/, "-$1");

/** Returns what the chapter keeps besides the state: networks, digits, errors of the worker. */
export function openLive(context, live, workerSource) {
  const networks = Object.fromEntries(
    live.networks.map((packed) => [packed.name, createNetwork(packed)]),
  );
  const digits = unpackDigits(live.digits);
  const errors = new Map();
  const opened = {
    networks,
    digits,
    errors,
    pad: null,
    asked: new Map(),
    logits: new Map(),
    failure: null,
    worker: null,
  };
  opened.worker = startWorker(
    workerSource,
    (message) => received(context, opened, message),
    (reason) => {
      opened.failure = reason;
      context.redraw();
    },
  );
  opened.worker.send({ type: "open", networks: live.networks, digits: live.digits });
  opened.pad = createPad(byId("pad"), (counts) => {
    context.update({ digit: "", drawn: counts.map((count) => count.toString(17)).join("") });
  });
  return opened;
}

function received(context, opened, message) {
  if (message.type !== "error") return;
  opened.errors.set(message.id, message);
  context.redraw();
}

const keyOf = (network, change) => `${network} ${JSON.stringify(change)}`;

/** Returns what is changed in a network of a depth. */
export function changeOf(state, depth) {
  if (depth !== state.pair) return {};
  const change = {};
  if (state.off.length) change.off = [...state.off].sort();
  if (state.exchanged.length === 2) change.exchanged = [...state.exchanged].sort();
  return change;
}

function pixelsOf(opened, state) {
  if (state.digit !== "") return opened.digits.pixels(Number(state.digit));
  return Uint8Array.from(state.drawn, (sign) => Math.round((Number.parseInt(sign, 17) * 255) / 16));
}

/** Returns the logits of a network, which are kept until another image or change comes. */
function logitsOf(opened, name, pixels, change) {
  const key = `${pixels.join()} ${JSON.stringify(change)}`;
  const kept = opened.logits.get(name);
  if (kept?.key === key) return kept.logits;
  const logits = opened.networks[name].logits(pixels, change);
  opened.logits.set(name, { key, logits });
  return logits;
}

/** Draws the chapter for a state. */
export function drawLive(context, state, opened) {
  const pixels = pixelsOf(opened, state);
  opened.pad.show(Array.from(pixels, (value) => Math.round((value * 16) / 255)));
  drawPicker(context, state, opened);
  replace(
    byId("answers"),
    NETWORKS.map((name) => answerCard(context, state, opened, name, pixels)),
  );
  drawBlocks(context, state, opened, pixels);
  drawMaps(context, state, opened, pixels);
}

function drawPicker(context, state, opened) {
  const { _ } = context;
  const slider = byId("digit");
  slider.max = opened.digits.count - 1;
  const isDrawn = state.digit === "";
  const says =
    isDrawn && state.drawn === EMPTY
      ? _("the pad is empty: draw")
      : isDrawn
        ? _("drawn by you")
        : _("test digit {index} of {count}: a {label}", {
            index: Number(state.digit) + 1,
            count: opened.digits.count,
            label: opened.digits.label(Number(state.digit)),
          });
  setSlider("digit", isDrawn ? slider.value : state.digit, says);
}

function answerCard(context, state, opened, name, pixels) {
  const { _ } = context;
  const change = changeOf(state, depthOf(name));
  const logits = logitsOf(opened, name, pixels, change);
  const probabilities = softmax(logits);
  const best = probabilities.indexOf(Math.max(...probabilities));
  const isChanged = Object.keys(change).length > 0;
  return h(
    "div",
    { class: `card ${family(name)}${isChanged ? " changed" : ""}`, "data-network": name },
    h(
      "div",
      { class: "card-top" },
      h("h4", {}, shown(name)),
      h(
        "output",
        { class: "guess", "aria-label": _("{network} reads", { network: shown(name) }) },
        String(best),
      ),
    ),
    probabilityBars(context, name, probabilities, best),
    h("p", { class: "readout" }, errorText(context, state, opened, name, change)),
  );
}

function probabilityBars(context, name, probabilities, best) {
  const { _ } = context;
  const text = _("{network}: {digit} with a probability of {probability}", {
    network: shown(name),
    digit: best,
    probability: percent(100 * probabilities[best], 0),
  });
  return svg(
    "svg",
    { viewBox: "0 0 200 58", role: "img", "aria-label": text, class: "probabilities" },
    Array.from(probabilities, (probability, digit) => [
      svg("rect", {
        x: digit * 20 + 3,
        width: 14,
        y: 40 - 38 * probability,
        height: Math.max(0.6, 38 * probability),
        class: digit === best ? "best" : "",
      }),
      svg(
        "text",
        { x: digit * 20 + 10, y: 54, "text-anchor": "middle", class: digit === best ? "best" : "" },
        String(digit),
      ),
    ]),
  );
}

function errorText(context, state, opened, name, change) {
  const { _ } = context;
  const run = runsOfGroup(context.data, name).find((candidate) => candidate.seed === 0);
  const source = sourceOf(run, change, opened.networks[name].blocks);
  const key = keyOf(name, change);
  const answer = opened.errors.get(key);
  if (!answer) ask(opened, name, change, key);
  const value = answer ? answer.error : source.measured;
  const label = _("error on {count} test digits", { count: opened.digits.count });
  if (value === null) {
    const text = opened.failure ? _("not computed") : "…";
    return [label, " ", h("span", { class: "waiting" }, text)];
  }
  const button = number(context, percent(value), value, source);
  if (answer) button.dataset.computed = name;
  return [label, " ", button];
}

/** Asks the worker for an error; a change replaces what was asked of the network before. */
function ask(opened, name, change, key) {
  if (opened.failure || opened.asked.get(name) === key) return;
  opened.asked.set(name, key);
  opened.worker.send({ type: "error", id: key, network: name, change });
}

/** Returns the file that holds the error of a change, or the weights from which it is computed. */
function sourceOf(run, change, blocks) {
  const runs = [run.index];
  const computed = { runs, file: "model/model.safetensors", key: "computed", measured: null };
  const lesions = run.probes.lesions;
  const names = blocks.filter((block) => block.removable).map((block) => block.name);
  const found = (key, index) => ({
    runs,
    file: "probes/lesions.json",
    key: `${key}[${index}]`,
    measured: lesions[key][index],
  });
  const { off = [], exchanged = [] } = change;
  if (!lesions || (off.length && exchanged.length)) return computed;
  if (!off.length && !exchanged.length) return found("whole", 0);
  if (off.length === 1) return found("one", names.indexOf(off[0]));
  const pairs = names
    .slice(1)
    .map((name, i) => [names[i], name])
    .filter(([a, b]) => a.split(".")[0] === b.split(".")[0]);
  const pair = pairs.findIndex((candidate) => candidate.join() === exchanged.join());
  return exchanged.length === 2 && pair >= 0 ? found("swapped", pair) : computed;
}

/** Returns what a network with the changes reads, and its error with and without them. */
function outcome(context, state, opened, name, pixels) {
  const { _ } = context;
  const change = changeOf(state, state.pair);
  const logits = logitsOf(opened, name, pixels, change);
  const best = logits.indexOf(Math.max(...logits));
  const isChanged = Object.keys(change).length > 0;
  return h(
    "div",
    { class: `card ${family(name)}` },
    h(
      "div",
      { class: "card-top" },
      h("h4", {}, shown(name)),
      h("span", { class: "readout" }, _("reads {digit}", { digit: best })),
    ),
    h("p", { class: "readout" }, errorText(context, state, opened, name, change)),
    isChanged
      ? h(
          "p",
          { class: "readout was" },
          _("whole:"),
          " ",
          errorText(context, state, opened, name, {}),
        )
      : null,
  );
}

function drawBlocks(context, state, opened, pixels) {
  const { _ } = context;
  for (const input of document.querySelectorAll("#live [name=pair]"))
    input.checked = Number(input.value) === state.pair;
  for (const input of document.querySelectorAll("#live [name=tool]"))
    input.checked = input.value === state.tool;
  const { blocks } = opened.networks[`resnet${state.pair}`];
  const stages = [...new Set(blocks.map((block) => block.stage))];
  const rows = stages.map((stage, i) =>
    h(
      "div",
      { class: "stage", role: "group", "aria-label": _("stage {number}", { number: i + 1 }) },
      h("span", { class: "stage-name" }, _("stage {number}", { number: i + 1 })),
      h(
        "div",
        { class: "chips" },
        blocks.filter((block) => block.stage === stage).map((block) => chip(context, state, block)),
      ),
    ),
  );
  replace(byId("blocks"), rows);
  say(
    byId("outcome"),
    ["plain", "resnet"].map((kind) =>
      outcome(context, state, opened, `${kind}${state.pair}`, pixels),
    ),
  );
  say(byId("blocks-note"), marked(blocksNote(context, state)));
}

function chip(context, state, block) {
  const { _ } = context;
  const shortName = block.name.replace("layer", "");
  const isOff = state.off.includes(block.name);
  const isExchanged = state.exchanged.includes(block.name);
  const says = isOff
    ? _("block {name}, switched off", { name: shortName })
    : isExchanged
      ? _("block {name}, exchanged", { name: shortName })
      : _("block {name}", { name: shortName });
  return h(
    "button",
    {
      type: "button",
      class: `chip${isOff ? " off" : ""}${isExchanged ? " exchanged" : ""}`,
      "data-key": `chip-${block.name}`,
      "data-block": block.name,
      disabled: !block.removable,
      "aria-pressed": String(isOff || isExchanged),
      "aria-label": says,
      title: block.removable ? says : _("This block changes the shape and cannot be taken out."),
      onclick: () => context.update(pressed(state, block.name)),
    },
    effects(context, state, block.name),
    h("span", {}, shortName),
  );
}

/** Returns two small bars: how the measured error rises when this block alone is off. */
function effects(context, state, name) {
  const bars = ["plain", "resnet"].map((family, i) => {
    const run = runsOfGroup(context.data, `${family}${state.pair}`).find(
      (candidate) => candidate.seed === 0,
    );
    const lesions = run?.probes.lesions;
    const index = context.removable(`${family}${state.pair}`).indexOf(name);
    const rise = lesions && index >= 0 ? Math.max(0, lesions.one[index] - lesions.whole[0]) : 0;
    const height = Math.max(1, 0.26 * rise);
    return svg("rect", {
      x: 3 + 11 * i,
      width: 9,
      y: 26 - height,
      height,
      class: i ? "residual" : "plain",
    });
  });
  return svg("svg", { viewBox: "0 0 26 26", "aria-hidden": "true", class: "effect" }, bars);
}

/** Returns what a click on a block changes. */
export function pressed(state, name) {
  const without = (names) => names.filter((other) => other !== name);
  if (state.tool === "off") {
    return {
      off: state.off.includes(name) ? without(state.off) : [...state.off, name],
      exchanged: [],
    };
  }
  const stage = (block) => block.split(".")[0];
  if (state.exchanged.includes(name)) return { exchanged: without(state.exchanged) };
  const sameStage = state.exchanged.filter((other) => stage(other) === stage(name));
  return { off: [], exchanged: [...sameStage.slice(-1), name] };
}

function blocksNote(context, state) {
  const { _, ngettext } = context;
  if (state.off.length)
    return ngettext(
      "{number} block is switched off: its output is its input.",
      "{number} blocks are switched off: their output is their input.",
      state.off.length,
    );
  if (state.exchanged.length === 2)
    return _("Two blocks are exchanged: each computes in the place of the other.");
  if (state.exchanged.length === 1)
    return _(
      "Choose the second block in the same stage: other stages have blocks of other shapes.",
    );
  return state.tool === "off"
    ? [
        _("Click a block to switch it off."),
        _("The bars show how far the error rises without it: *plain* left, *residual* right."),
      ].join(" ")
    : _("Click two blocks of one stage to exchange them.");
}

function drawMaps(context, state, opened, pixels) {
  const { _ } = context;
  const network = opened.networks[state.network];
  for (const input of document.querySelectorAll("#live [name=network]"))
    input.checked = input.value === state.network;
  const change = changeOf(state, depthOf(state.network));
  const answer = network.run(pixels, change);
  const colors = mapColors(family(state.network));
  replace(
    byId("stages"),
    answer.stages.map((map, i) =>
      h(
        "figure",
        { class: "map-figure" },
        mapCanvas(map, {
          ...colors,
          limit: limitOf([map]),
          label: _("Activations of {name}", { name: map.name }),
        }),
        h(
          "figcaption",
          {},
          h("b", {}, i === 0 ? _("stem") : _("stage {number}", { number: i })),
          " ",
          _("{channels} channels of {side}×{side}", { channels: map.channels, side: map.width }),
        ),
      ),
    ),
  );
  drawBlockMaps(context, state, { network, change, answer, colors });
}

function drawBlockMaps(context, state, { network, change, answer, colors }) {
  const { _ } = context;
  const select = byId("block");
  const names = network.blocks.map((block) => block.name);
  if ([...select.options].map((option) => option.value).join() !== names.join()) {
    select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
  }
  const block =
    answer.blocks.find((candidate) => candidate.name === state.block) ?? answer.blocks[0];
  select.value = block.name;
  const isOff = change.off?.includes(block.name) ?? false;
  const { maps, signs, note } = blockView(context, block, isOff);
  const limit = limitOf(maps.map(([map]) => map));
  const pictures = maps.map(([map, name, says]) =>
    h(
      "figure",
      { class: "map-figure" },
      mapCanvas(map, { ...colors, limit, label: says }),
      h(
        "figcaption",
        {},
        h("b", {}, name),
        " ",
        _("norm {norm}", { norm: significant(norm(map)) }),
      ),
    ),
  );
  const sign = (text) => h("span", { class: "sign", "aria-hidden": "true" }, text);
  replace(
    byId("block-maps"),
    pictures.flatMap((picture, i) => (i ? [sign(signs[i - 1]), picture] : [picture])),
  );
  byId("block-note").textContent = note;
}

/** Returns the maps of a block as [map, name, description], the signs between them, and a note. */
export function blockView({ _ }, { x, shortcut, residual, sum }, isOff) {
  const input = [x, "x", _("Input of the block")];
  const offNote = _("This block is switched off: it hands its input on unchanged.");
  if (shortcut === null && isOff)
    return { maps: [input, [sum, "x", _("Output of the block")]], signs: ["→"], note: offNote };
  if (shortcut === null)
    return {
      maps: [input, [residual, "F(x)", _("Output of its layers")]],
      signs: ["→"],
      note: _("A plain block has no shortcut: its output is F(x) alone, and what came in is gone."),
    };
  const changesShape = x.channels !== sum.channels;
  const first = changesShape ? shortcut : x;
  const ratio = norm(residual) / (norm(first) || 1);
  return {
    maps: [
      [first, changesShape ? _("shortcut(x)") : "x", _("What the shortcut carries")],
      [residual, "F(x)", _("What the layers add")],
      [sum, changesShape ? _("F(x) + shortcut(x)") : "F(x) + x", _("The sum, before relu")],
    ],
    signs: ["+", "="],
    note: isOff
      ? offNote
      : _("Here F(x) is {percent} as large as what the shortcut carries.", {
          percent: percent(100 * ratio, 0),
        }),
  };
}

function mapColors(name) {
  const style = getComputedStyle(document.documentElement);
  const value = (variable) => style.getPropertyValue(variable).trim();
  return name === "plain"
    ? { color: value("--plain"), negative: value("--muted") }
    : { color: value("--residual"), negative: value("--muted") };
}

/** Connects the controls of the chapter. */
export function listenLive(context) {
  byId("live").addEventListener("input", (event) => {
    const { name, value, id } = event.target;
    if (id === "digit") context.update({ digit: value });
    if (id === "block") context.update({ block: value });
    if (name === "network") context.update({ network: value });
    if (name === "tool") context.update({ tool: value });
    if (name === "pair")
      context.update({ pair: Number(value), off: [], exchanged: [], network: `resnet${value}` });
  });
  byId("clear").addEventListener("click", () => context.update({ digit: "", drawn: EMPTY }));
  byId("restore").addEventListener("click", () => context.update({ off: [], exchanged: [] }));
}
