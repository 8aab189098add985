/** Chapter 1: errors, gradients, responses and residuals of measured networks. */
import { byId, h, replace, say, setSlider } from "./dom.js";
import { decimal } from "./language.js";
import { panel, pointNumber } from "./figures.js";
import { powers } from "./chart.js";
import {
  DEPTHS,
  SHORTCUTS,
  displayName,
  errorCurve,
  extent,
  finalError,
  lastEpoch,
  lower,
  measuredLine,
  point,
  runsOf,
  snapshotAt,
  snapshots,
  withSeed,
} from "./series.js";

const COLORS = { none: "plain", A: "residual", B: "residual option-b", C: "residual option-c" };
const WINNERS = { first: "shallow", second: "deep", same: "same" };

/** Draws the chapter for a state. */
export function drawExplore(context, state) {
  drawPrediction(context, state);
  const known = state.predict !== "";
  byId("explorer").hidden = !known;
  if (!known) return;
  drawControls(context, state);
  replace(
    byId("curves"),
    DEPTHS.map((depth) => curvePanel(context, state, depth)),
  );
  replace(byId("layers"), layerPanels(context, state));
}

function drawPrediction(context, state) {
  const { _, data } = context;
  const [plain, residual] = state.predict.split(".");
  byId("predict-form").hidden = state.predict !== "";
  const answers = [
    ["none", plain],
    ["A", residual],
  ].map(([shortcut, guess]) => {
    const [shallow, deep] = [20, 56].map((depth) =>
      finalError(runsOf(data, depth, shortcut), "train"),
    );
    return state.predict && shallow && deep
      ? answer(context, shortcut, guess, shallow, deep)
      : null;
  });
  const again = h(
    "button",
    {
      type: "button",
      class: "quiet",
      "data-key": "again",
      onclick: () => context.update({ predict: "" }),
    },
    _("Predict again"),
  );
  say(byId("answer"), state.predict ? [...answers, again] : []);
}

function answer(context, shortcut, guess, shallow, deep) {
  const { _, data } = context;
  const measured = WINNERS[lower(shallow.y, deep.y, data.margin)];
  const family = shortcut === "none" ? "plain" : "resnet";
  const outcome = {
    shallow: _("{shallow} trained better.", { shallow: `${family}-20` }),
    deep: _("{deep} trained better.", { deep: `${family}-56` }),
    same: _("Both trained about as well: the difference is below one point."),
  }[measured];
  const verdict =
    guess === "unknown"
      ? ""
      : guess === measured
        ? _("As you predicted.")
        : _("You predicted otherwise.");
  const chart = { unit: "%" };
  return h(
    "div",
    { class: `answer ${COLORS[shortcut]}` },
    h(
      "p",
      { class: "answer-name" },
      shortcut === "none" ? _("Without shortcuts") : _("With shortcuts"),
    ),
    h(
      "p",
      { class: "versus" },
      h("span", {}, `${family}-20`, pointNumber(context, shallow, chart, "large")),
      h("span", {}, `${family}-56`, pointNumber(context, deep, chart, "large")),
    ),
    h("p", {}, h("b", {}, outcome), " ", verdict),
  );
}

function drawControls(context, state) {
  const { _, data } = context;
  for (const input of document.querySelectorAll("#explorer [name=depth]"))
    input.checked = Number(input.value) === state.depth;
  for (const input of document.querySelectorAll("#explorer [name=shortcuts]")) {
    input.checked = state.shortcuts.includes(input.value);
    const exists = DEPTHS.some((depth) => runsOf(data, depth, input.value).length > 0);
    input.disabled = !exists;
  }
  for (const input of document.querySelectorAll("#explorer [name=seed]"))
    input.checked = input.value === state.seed;
  const { epoch } = state;
  const epochs = lastEpoch(data.runs);
  byId("epoch").max = epochs;
  const when =
    epoch === 0 ? _("before training") : _("after epoch {epoch} of {epochs}", { epoch, epochs });
  setSlider("epoch", epoch, when);
}

function shownRuns(context, state, depth) {
  return SHORTCUTS.filter((shortcut) => state.shortcuts.includes(shortcut))
    .map((shortcut) => ({
      shortcut,
      runs: withSeed(runsOf(context.data, depth, shortcut), state.seed),
    }))
    .filter(({ runs }) => runs.length > 0);
}

function curvePanel(context, state, depth) {
  const { _ } = context;
  const shown = shownRuns(context, state, depth);
  const lines = shown.flatMap(({ shortcut, runs }) => {
    const name = displayName(runs[0]);
    return [
      {
        label: _("{network}, training error", { network: name }),
        className: `${COLORS[shortcut]} thin`,
        points: errorCurve(runs, "train"),
        end: null,
      },
      {
        label: _("{network}, test error", { network: name }),
        className: COLORS[shortcut],
        points: errorCurve(runs, "test"),
        end: shortcut === "none" ? _("plain") : shortcut,
      },
    ];
  });
  const chart = {
    xLabel: _("epoch"),
    domainX: [0, lastEpoch(context.data.runs)],
    domainY: [0, 100],
    unit: "%",
    lines,
    cursor: state.epoch,
    room: 50,
    description: _("Training and test error of networks of {depth} layers against the epoch.", {
      depth,
    }),
  };
  const title = _("{depth} layers", { depth });
  const drawn = panel(
    context,
    state,
    `curves-${depth}`,
    title,
    chart,
    readout(context, lines, chart, state),
  );
  if (depth === state.depth) drawn.classList.add("chosen");
  if (shown.length === 0)
    drawn.querySelector("h4").append(" – ", _("nothing to show for this choice"));
  return drawn;
}

/** Returns the errors at the epoch of the slider; null before training, where none is measured. */
function readout(context, lines, chart, state) {
  const { _ } = context;
  const errors = lines
    .filter((unused, i) => i % 2 === 0)
    .map((train, i) => {
      const test = lines[2 * i + 1];
      const [a, b] = [train, test].map((line) =>
        line.points.find((candidate) => candidate.x === state.epoch),
      );
      if (!a) return null;
      const name = train.label.split(",")[0];
      return h(
        "span",
        { class: train.className.replace(" thin", "") },
        h("b", {}, name),
        " ",
        _("train"),
        " ",
        pointNumber(context, a, chart),
        " ",
        b ? [_("test"), " ", pointNumber(context, b, chart)] : null,
      );
    })
    .filter(Boolean);
  return errors.length ? errors : null;
}

const KINDS = [
  { id: "gradients", log: true },
  { id: "responses", log: false },
  { id: "residuals", log: false },
];

function layerPanels(context, state) {
  const { _ } = context;
  const shown = shownRuns(context, state, state.depth);
  const step = shown.length ? snapshotAt(shown[0].runs, state.epoch) : null;
  if (step === null)
    return [h("p", { class: "note" }, _("No layers were measured for this choice."))];
  const epoch = decimal(step / shown[0].runs[0].steps_per_epoch, step === 0 ? 0 : 1);
  const when = step === 0 ? _("before training") : _("after epoch {epoch}", { epoch });
  say(byId("layers-when"), _("{depth} layers, {when}", { depth: state.depth, when }));
  return KINDS.map((kind) => layerPanel(context, state, kind, shown, step));
}

function layerPanel(context, state, kind, shown, step) {
  const { _ } = context;
  const titles = {
    gradients: _("Gradient norm by layer"),
    responses: _("Response by layer"),
    residuals: _("‖F(x)‖ / ‖x‖ by block"),
  };
  const descriptions = {
    gradients: _("Norm of the loss gradient at the input of each layer."),
    responses: _("Standard deviation of the output of each layer."),
    residuals: _("Size of F(x) relative to the shortcut, in each block."),
  };
  const lines = shown.map(({ shortcut, runs }) => ({
    label: displayName(runs[0]),
    className: COLORS[shortcut],
    end: shortcut === "none" ? _("plain") : shortcut,
    points: measuredLine(runs, "layers", `${kind.id} ${step}`),
  }));
  const shadows = shown.map(({ shortcut, runs }) => ({
    label: _("{network} before training", { network: displayName(runs[0]) }),
    className: `${COLORS[shortcut]} shadow`,
    end: null,
    isShadow: true,
    points: step === 0 ? [] : measuredLine(runs, "layers", `${kind.id} 0`),
  }));
  const filled = [...shadows, ...lines].filter((line) => line.points.length);
  const chart = {
    xLabel: kind.id === "residuals" ? _("block, from the input") : _("layer, from the input"),
    domainX: [1, Math.max(2, ...lines.map((line) => line.points.length))],
    domainY: domainOf(kind, shown),
    log: kind.log,
    lines: filled,
    cursor: null,
    room: 50,
    description: descriptions[kind.id],
  };
  const note =
    kind.id === "residuals" && lines.every((line) => line.points.length === 0)
      ? _("A plain network has no shortcut to compare with.")
      : null;
  return panel(context, state, `layers-${kind.id}`, titles[kind.id], chart, note);
}

/** Returns the same axis for all snapshots, so that moving along them can be compared. */
function domainOf(kind, shown) {
  const all = shown.flatMap(({ runs }) =>
    snapshots(runs).flatMap((step) => measuredLine(runs, "layers", `${kind.id} ${step}`)),
  );
  if (all.length === 0) return kind.log ? [0.01, 1] : [0, 1];
  const [low, high] = extent(all);
  return kind.log ? powers(Math.max(low, 1e-12), high) : [0, high * 1.05];
}

/** Connects the controls of the chapter. */
export function listenExplore(context) {
  byId("predict-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    context.update({
      predict: `${form.get("plain") ?? "unknown"}.${form.get("residual") ?? "unknown"}`,
    });
    byId("answer").focus();
  });
  byId("explorer").addEventListener("input", (event) => {
    const { name, value, id } = event.target;
    if (name === "depth") context.update({ depth: Number(value) });
    if (name === "seed") context.update({ seed: value });
    if (id === "epoch") context.update({ epoch: Number(value) });
    if (name === "shortcuts") {
      const checked = [...document.querySelectorAll("#explorer [name=shortcuts]:checked")];
      context.update({ shortcuts: checked.map((input) => input.value) });
    }
  });
  byId("play-epochs").addEventListener("click", () => playEpochs(context));
}

let timer = null;

function playEpochs(context) {
  const last = Number(byId("epoch").max);
  clearInterval(timer);
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
    context.update({ epoch: last });
    return;
  }
  context.update({ epoch: 0 });
  timer = setInterval(() => {
    const next = context.state().epoch + 1;
    if (next > last) clearInterval(timer);
    else context.update({ epoch: next });
  }, 450);
}
