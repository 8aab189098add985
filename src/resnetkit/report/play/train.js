/** Chapter 3: a residual and a plain network are trained in the page, side by side. */
import { byId, h, replace, setSlider } from "./dom.js";
import { lineChart, powers } from "./chart.js";
import { decimal, percent, significant } from "./language.js";
import { LEARNING_RATES } from "./state.js";
import { createSpirals } from "./spiral.js";
import { startWorker } from "./worker.js";

const NAMES = ["plain", "residual"];
const EPOCHS = 3000;
const ANNOUNCED_EPOCHS = 500; // between two announcements to screen readers
const MAP_SIDE = 40;
const MAP_PIXELS = 240;

/** Returns what the chapter keeps besides the state: the training and its results. */
export function openTrain(context, workerSource) {
  const training = {
    worker: null,
    run: 0,
    settings: "",
    status: "ready",
    history: [],
    data: createSpirals({ seed: 0 }),
    maps: {},
    speed: 0,
    failure: null,
  };
  training.start = () => start(context, training);
  training.command = (type) => {
    const { _ } = context;
    training.worker?.send({ type });
    training.status = type === "pause" ? "paused" : "running";
    const epoch = training.history.at(-1)?.epoch ?? 0;
    context.announce(
      type === "pause" ? _("Paused after epoch {epoch}.", { epoch }) : _("Training continues."),
    );
    context.redraw();
  };
  training.connect = () => {
    training.worker ??= startWorker(
      workerSource,
      (message) => received(context, training, message),
      (reason) => {
        failed(context, training, reason);
        context.redraw();
      },
    );
  };
  return training;
}

function settingsOf(state) {
  const common = {
    depth: state.layers,
    normalization: state.normalization,
    initialization: state.weights,
    lr: state.lr,
    seed: state.start,
  };
  return { residual: { ...common, shortcut: true }, plain: { ...common, shortcut: false } };
}

function start(context, training) {
  training.connect();
  const state = context.state();
  const networks = settingsOf(state);
  Object.assign(training, {
    run: training.run + 1,
    settings: JSON.stringify(networks),
    status: "running",
    history: [],
    maps: {},
    speed: 0,
  });
  const { failure } = training;
  context.announce(failure ? failureText(context, failure) : context._("Training begins."));
  training.worker.send({
    type: "start",
    run: training.run,
    networks,
    spirals: { seed: 0 },
    epochs: EPOCHS,
    mapSide: MAP_SIDE,
  });
  context.redraw();
}

function failed(context, training, reason) {
  training.failure = reason;
  context.announce(failureText(context, reason));
}

function received(context, training, message) {
  const { _ } = context;
  if (message.run !== training.run) return;
  if (message.type === "started") training.data = message;
  if (message.type === "epoch") {
    training.history.push(message);
    training.speed = message.epochsPerSecond;
    if (message.epoch > 0 && message.epoch % ANNOUNCED_EPOCHS === 0)
      announceResults(context, training, _("Epoch {epoch}.", message));
  }
  if (message.type === "maps") training.maps = message.maps;
  if (message.type === "finished") {
    training.status = "finished";
    announceResults(context, training, _("Training ended after epoch {epoch}.", message));
  }
  if (message.type === "failed") {
    training.status = "ready";
    failed(context, training, message.message);
  }
  context.redrawSoon();
}

/** Announces what has happened, and how many points each network has wrong. */
function announceResults(context, training, sentence) {
  const { results } = training.history.at(-1);
  const learned = NAMES.map((name) =>
    results[name].finite
      ? spiralText(context, name, results[name])
      : `${networkText(context, name)}: ${notFiniteText(context)}`,
  );
  context.announce([sentence, ...learned].join(" "));
}

/** Draws the chapter for a state. */
export function drawTrain(context, state, training) {
  drawControls(context, state, training);
  replace(
    byId("spirals"),
    NAMES.map((name) => networkPanel(context, state, training, name)),
  );
  replace(byId("spiral-charts"), [
    lossPanel(context, training),
    plainPanel(context._("Gradient by layer, now"), gradientChart(context, state, training)),
  ]);
}

function drawControls(context, state, training) {
  const { _ } = context;
  setSlider("layers-depth", state.layers, _("{depth} layers", { depth: state.layers }));
  byId("normalization").checked = state.normalization;
  for (const input of document.querySelectorAll("#train [name=weights]"))
    input.checked = input.value === state.weights;
  setSlider("lr", LEARNING_RATES.indexOf(state.lr), String(state.lr));
  const isRunning = training.status === "running";
  byId("start").textContent = training.history.length ? _("Train again") : _("Train");
  byId("pause").textContent = training.status === "paused" ? _("Continue") : _("Pause");
  byId("pause").disabled = !isRunning && training.status !== "paused";
  byId("train-status").textContent = statusText(context, state, training);
}

function failureText({ _ }, reason) {
  return _("Training is not possible here: {reason}.", { reason: reason.replace(/\.$/, "") });
}

function statusText(context, state, training) {
  const { _ } = context;
  if (training.failure) return failureText(context, training.failure);
  const last = training.history.at(-1);
  if (!last)
    return training.status === "running" ? _("Training begins.") : _("Nothing was trained yet.");
  const where = _("epoch {epoch}, {speed} epochs a second", {
    epoch: last.epoch,
    speed: decimal(training.speed, 0),
  });
  const isOld = training.settings !== JSON.stringify(settingsOf(state));
  return isOld ? `${where}. ${_("The settings were changed: train again to use them.")}` : where;
}

function networkPanel(context, state, training, name) {
  const { _ } = context;
  const result = training.history.at(-1)?.results[name];
  const canvas = h("canvas", {
    class: "spiral",
    width: MAP_PIXELS,
    height: MAP_PIXELS,
    role: "img",
    "aria-label": spiralText(context, name, result),
  });
  paintSpiral(canvas, training, name);
  return h(
    "div",
    { class: `card ${name}`, "data-network": name },
    h(
      "div",
      { class: "card-top" },
      h("h4", {}, name === "plain" ? _("Plain: relu(F(x))") : _("Residual: relu(F(x) + x)")),
    ),
    canvas,
    h(
      "p",
      { class: "readout", "data-error": result?.error ?? "" },
      result ? resultText(context, result) : _("The two classes are the two arms of the spiral."),
    ),
  );
}

function notFiniteText({ _ }) {
  return _("The loss is not finite any more: choose a smaller learning rate, and train again.");
}

function networkText({ _ }, name) {
  return name === "plain" ? _("plain network") : _("residual network");
}

function spiralText(context, name, result) {
  const { _ } = context;
  const network = networkText(context, name);
  return result
    ? _("What the {network} has learned: {error} of the points are wrong.", {
        network,
        error: percent(result.error, 0),
      })
    : _("Two spirals, for the {network} to tell apart.", { network });
}

function resultText(context, result) {
  const { _ } = context;
  if (!result.finite)
    return h("strong", {}, notFiniteText(context));
  return [
    _("error"),
    " ",
    h("b", {}, percent(result.error)),
    "  ",
    _("loss"),
    " ",
    h("b", {}, significant(result.loss)),
  ];
}

function paintSpiral(canvas, training, name) {
  const context = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const [one, zero] = ["--class-one", "--class-zero"].map((variable) =>
    style.getPropertyValue(variable).trim(),
  );
  const map = training.maps[name];
  const cell = MAP_PIXELS / MAP_SIDE;
  map?.forEach((value, i) => {
    context.globalAlpha = 0.55 * Math.abs(value / 127.5 - 1);
    context.fillStyle = value > 127.5 ? one : zero;
    context.fillRect((i % MAP_SIDE) * cell, Math.floor(i / MAP_SIDE) * cell, cell, cell);
  });
  context.globalAlpha = 1;
  const { points, labels } = training.data ?? { points: [], labels: [] };
  labels.forEach((label, i) => {
    context.beginPath();
    context.arc(
      (points[2 * i] / 2 + 0.5) * MAP_PIXELS,
      (0.5 - points[2 * i + 1] / 2) * MAP_PIXELS,
      2.4,
      0,
      7,
    );
    context.fillStyle = label ? one : zero;
    context.fill();
    context.lineWidth = 0.8;
    context.strokeStyle = style.getPropertyValue("--surface").trim();
    context.stroke();
  });
}

function lossPanel(context, training) {
  const { _ } = context;
  const stride = Math.max(1, Math.ceil(training.history.length / 200));
  const kept = training.history.filter(
    (unused, i) => i % stride === 0 || i === training.history.length - 1,
  );
  const lines = NAMES.map((name) => ({
    label: name === "plain" ? _("plain network") : _("residual network"),
    className: name,
    end: name === "plain" ? _("plain") : _("residual"),
    points: kept.map((event) => pointOf(event.epoch, event.results[name]?.loss)).filter(Boolean),
  }));
  const highest = Math.min(
    2,
    Math.max(0.75, ...lines.flatMap((line) => line.points.map((point) => point.y))),
  );
  return plainPanel(_("Loss"), {
    xLabel: _("epoch"),
    domainX: [0, Math.max(10, training.history.at(-1)?.epoch ?? 10)],
    domainY: [0, highest],
    lines: clipped(lines, highest),
    cursor: null,
    description: _("Loss of both networks against the epoch."),
  });
}

/** Returns the chart of the gradients; its axis is that of the networks that were trained. */
export function gradientChart({ _ }, state, training) {
  const results = training.history.at(-1)?.results ?? {};
  const layers = Math.max(...NAMES.map((name) => results[name]?.gradientNorms.length ?? 0));
  const lines = NAMES.map((name) => ({
    label: name === "plain" ? _("plain network") : _("residual network"),
    className: name,
    end: name === "plain" ? _("plain") : _("residual"),
    dots: true,
    points: (results[name]?.gradientNorms ?? [])
      .map((value, i) => (value > 0 ? pointOf(i + 1, value) : null))
      .filter(Boolean),
  }));
  const all = lines.flatMap((line) => line.points.map((point) => point.y));
  const domainY = all.length
    ? powers(Math.max(1e-12, Math.min(...all)), Math.max(...all))
    : [0.001, 1];
  return {
    xLabel: _("layer, from the input"),
    domainX: [1, layers || state.layers + 2],
    domainY: domainY[0] === domainY[1] ? [domainY[0] / 10, domainY[1]] : domainY,
    log: true,
    lines,
    cursor: null,
    description: _("Norm of the gradient at each layer of both networks, now."),
  };
}

const pointOf = (x, y) => (Number.isFinite(y) ? { x, y, low: y, high: y } : null);

function clipped(lines, highest) {
  const clip = (point) => ({
    ...point,
    y: Math.min(point.y, highest),
    low: Math.min(point.low, highest),
    high: Math.min(point.high, highest),
  });
  return lines.map((line) => ({ ...line, points: line.points.map(clip) }));
}

function plainPanel(title, chart) {
  return h("div", { class: "panel" }, h("h4", {}, title), lineChart(chart));
}

/** Connects the controls of the chapter. */
export function listenTrain(context, training) {
  byId("train").addEventListener("input", (event) => {
    const { name, value, id, checked } = event.target;
    if (id === "layers-depth") context.update({ layers: Number(value) });
    if (id === "normalization") context.update({ normalization: checked });
    if (name === "weights") context.update({ weights: value });
    if (id === "lr") context.update({ lr: LEARNING_RATES[Number(value)] });
  });
  byId("start").addEventListener("click", () => training.start());
  byId("pause").addEventListener("click", () =>
    training.command(training.status === "paused" ? "resume" : "pause"),
  );
  byId("other-start").addEventListener("click", () => {
    context.update({ start: (context.state().start + 1) % 1000 });
    training.start();
  });
}
