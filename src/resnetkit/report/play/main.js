/**
 * Connects the page: data -> state -> draw(state). All changes go through `update`, which writes
 * the state into the address and draws again.
 */
import { byId, h, replace } from "./dom.js";
import { drawExplore, listenExplore } from "./explore.js";
import { createLanguage, significant } from "./language.js";
import { drawLive, listenLive, openLive } from "./live.js";
import { drawQuestions } from "./questions.js";
import { fitToNetworks, fitToRuns, formatState, parseState } from "./state.js";
import { drawTrain, listenTrain, openTrain } from "./train.js";

const ADDRESS_DELAY = 250; // ms; browsers limit how often a page may change its address
const FRAME = 120; // ms between two drawings of a training

function main() {
  const data = JSON.parse(byId("data").textContent);
  const context = { data, ...createLanguage(data.messages) };
  let live = null;
  const fitted = (opened) => {
    const known = fitToRuns(opened, data.runs);
    return live ? fitToNetworks(known, live) : known;
  };
  let state = fitted(parseState(location.hash));
  let timer = null;
  let soon = null;
  const training = openTrain(context, byId("spiral-worker").textContent);

  function draw() {
    drawExplore(context, state);
    if (live) drawLive(context, state, live);
    drawTrain(context, state, training);
    drawQuestions(context, state);
  }
  Object.assign(context, {
    state: () => state,
    redraw: draw,
    redrawSoon() {
      soon ??= setTimeout(() => {
        soon = null;
        drawTrain(context, state, training);
      }, FRAME);
    },
    update(change) {
      const before = state;
      state = { ...state, ...change };
      drawChanged(before);
      clearTimeout(timer);
      timer = setTimeout(() => writeAddress(formatState(state) || "#"), ADDRESS_DELAY);
    },
    announce(text) {
      byId("announcement").textContent = text;
    },
    trace: (source) => showTrace(context, source),
    removable: (name) =>
      live.networks[name].blocks.filter((block) => block.removable).map((block) => block.name),
  });

  /** Draws the chapters that depend on what has changed. */
  function drawChanged(before) {
    const has = (...names) => names.some((name) => before[name] !== state[name]);
    if (has("open", "predict", "depth", "shortcuts", "seed", "epoch")) drawExplore(context, state);
    if (live && has("digit", "drawn", "pair", "tool", "off", "exchanged", "network", "block"))
      drawLive(context, state, live);
    if (has("layers", "normalization", "weights", "lr", "start"))
      drawTrain(context, state, training);
    if (has("open")) drawQuestions(context, state);
  }

  document.documentElement.classList.add("ready");
  listenExplore(context);
  listenLive(context);
  listenTrain(context, training);
  listenPage(context);
  draw();
  show(state.view);
  setTimeout(() => {
    live = openLive(
      context,
      JSON.parse(byId("live-data").textContent),
      byId("network-worker").textContent,
    );
    state = fitted(state);
    document.documentElement.classList.add("live");
    drawLive(context, state, live);
  });
  window.addEventListener("hashchange", () => {
    const opened = fitted(parseState(location.hash, state));
    if (formatState(opened) !== location.hash) writeAddress(formatState(opened) || "#");
    if (formatState(opened) === formatState(state)) return; // by writeAddress
    state = opened;
    draw();
    show(state.view);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
}

/** Writes the state into the address, without an entry in the history where that is allowed. */
function writeAddress(fragment) {
  try {
    history.replaceState(null, "", fragment);
  } catch {
    location.replace(fragment);
  }
}

function show(view) {
  if (view) byId(view).scrollIntoView();
}

function listenPage(context) {
  for (const link of document.querySelectorAll("[data-view]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      context.update({ view: link.dataset.view });
      show(link.dataset.view);
      byId(link.dataset.view).querySelector("h2").focus({ preventScroll: true });
    });
  }
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => copyLink(context, button));
  }
  byId("trace").addEventListener("click", (event) => {
    if (event.target === byId("trace")) byId("trace").close();
  });
}

/** Copies the address of what is seen, or shows it where copying is not allowed. */
async function copyLink(context, button) {
  const { _ } = context;
  context.update({ view: button.dataset.copy });
  const address = location.href.split("#")[0] + formatState(context.state());
  const status = button.nextElementSibling;
  try {
    await navigator.clipboard.writeText(address);
    status.textContent = _("The address is copied.");
  } catch {
    status.textContent = address;
  }
}

function showTrace(context, { text, value, runs, file, key, measured }) {
  const { _, ngettext, data } = context;
  const rows = runs.map((index) => {
    const run = data.runs[index];
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, run.folder.replace(/^runs\//, "")),
      h("td", {}, String(run.seed)),
      h("td", {}, h("code", { title: run.digest }, run.digest.slice(0, 12))),
    );
  });
  const head = h(
    "tr",
    {},
    [_("run"), _("seed"), _("recipe digest")].map((name) => h("th", { scope: "col" }, name)),
  );
  const isComputed = key === "computed";
  const says = isComputed
    ? _("Computed in this page from the weights of the run. No file holds it.")
    : ngettext("Read from the file of {number} run.", "The mean over {number} runs.", runs.length);
  replace(byId("trace-body"), [
    h("p", { class: "trace-value" }, text),
    h(
      "p",
      {},
      says,
      " ",
      measured === undefined || measured === null
        ? null
        : _("Computed in this page from the weights; the file says {value}.", {
            value: significant(measured),
          }),
    ),
    h(
      "dl",
      {},
      h("dt", {}, _("file")),
      h("dd", {}, h("code", {}, file)),
      isComputed ? null : [h("dt", {}, _("entry")), h("dd", {}, h("code", {}, key))],
      h("dt", {}, _("value")),
      h("dd", {}, String(value)),
      h("dt", {}, _("folder")),
      h("dd", {}, h("code", {}, `${data.root}/runs`)),
    ),
    h(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": _("runs") },
      h("table", {}, h("thead", {}, head), h("tbody", {}, rows)),
    ),
  ]);
  byId("trace").showModal();
}

main();
