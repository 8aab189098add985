/** Chapter 4: questions that articles answer without measuring, each with a measured picture. */
import { byId, h, replace } from "./dom.js";
import { bar, panel, pointNumber } from "./figures.js";
import { powers } from "./chart.js";
import { percent } from "./language.js";
import {
  displayName,
  errorCurve,
  extent,
  finalError,
  lastEpoch,
  measuredLine,
  point,
  runsOf,
  runsOfGroup,
  snapshots,
} from "./series.js";

const PERCENT = { unit: "%" };

/** Draws the chapter for a state. */
export function drawQuestions(context, state) {
  for (const [id, draw] of Object.entries(PICTURES))
    replace(byId(`picture-${id}`), draw(context, state));
}

const PICTURES = {
  stacking: drawStacking,
  overfitting: drawOverfitting,
  gradient: drawGradient,
  backward: drawBackward,
  residual: drawResidual,
  shapes: drawShapes,
  deep: drawDeep,
  code: () => [],
};

function drawStacking(context, state) {
  const { _, data } = context;
  const panels = [
    ["none", "plain", _("Plain networks")],
    ["A", "residual", _("Residual networks")],
  ].map(([shortcut, className, title]) => {
    const lines = [20, 32, 56].map((depth, i) => ({
      label: displayName(runsOf(data, depth, shortcut)[0] ?? { depth, shortcut }),
      className: `${className} tone-${i}`,
      end: String(depth),
      points: errorCurve(runsOf(data, depth, shortcut), "train"),
    }));
    const chart = {
      xLabel: _("epoch"),
      domainX: [0, lastEpoch(data.runs)],
      domainY: [0, 100],
      unit: "%",
      lines,
      cursor: null,
      room: 38,
      description: _("{title}: training error against the epoch, by depth.", { title }),
    };
    return panel(context, state, `stacking-${className}`, title, chart);
  });
  return h("div", { class: "panels two" }, panels);
}

function drawOverfitting(context) {
  const { _, data } = context;
  const rows = [20, 56].flatMap((depth) =>
    ["train", "test"].map((split) => {
      const final = finalError(runsOf(data, depth, "none"), split);
      const label =
        split === "train"
          ? _("{network}, training images", { network: `plain-${depth}` })
          : _("{network}, test images", { network: `plain-${depth}` });
      return final
        ? bar(context, label, final, PERCENT, split === "train" ? "plain" : "plain light", 100)
        : null;
    }),
  );
  return h("div", { class: "bars" }, rows);
}

function drawGradient(context, state) {
  const { _, data } = context;
  const start = (runs) => measuredLine(runs, "layers", "gradients 0");
  const lines = [
    {
      label: _("plain-20, with normalization"),
      className: "plain tone-0",
      end: "20",
      points: start(runsOf(data, 20, "none")),
    },
    {
      label: _("plain-56, with normalization"),
      className: "plain",
      end: "56",
      points: start(runsOf(data, 56, "none")),
    },
    ...["he", "normal"].map((weights) => ({
      label:
        weights === "he"
          ? _("plain-56, without normalization, He's weights")
          : _("plain-56, without normalization, small weights"),
      className: "other",
      end: weights === "he" ? "He" : "0.01",
      points: measuredLine(runsOfGroup(data, `plain56-${weights}`), "gradients", "input"),
    })),
  ].filter((line) => line.points.length);
  const visible = lines.flatMap((line) => line.points);
  if (visible.length === 0) return h("p", { class: "note" }, _("No gradients were measured."));
  const [low, high] = extent(visible.filter((candidate) => candidate.low > 0));
  const chart = {
    xLabel: _("layer, from the input"),
    domainX: [1, Math.max(...visible.map((candidate) => candidate.x))],
    domainY: powers(low, high),
    log: true,
    lines,
    cursor: null,
    room: 40,
    description: _("Gradient norm by layer of plain networks before training."),
  };
  return panel(
    context,
    state,
    "question-gradient",
    _("Gradient norm by layer, before training"),
    chart,
    gradientNote(context),
  );
}

/** Returns the size of the gradient at the first layers against the last ones. */
function gradientNote(context) {
  const { _, data } = context;
  const runs = runsOf(data, 56, "none").filter((run) => run.probes.layers);
  if (runs.length === 0) return null;
  const last = runs[0].probes.layers["gradients 0"].length - 1;
  const [first, end] = [0, last].map((i) =>
    point(
      i,
      runs,
      (run) => run.probes.layers["gradients 0"][i],
      "probes/layers.json",
      `gradients 0[${i}]`,
    ),
  );
  return [
    _("plain-56: at the first layer"),
    " ",
    pointNumber(context, first, {}),
    ", ",
    _("at the last"),
    " ",
    pointNumber(context, end, {}),
  ];
}

function drawBackward(context, state) {
  const { _, data } = context;
  const runs = runsOfGroup(data, "resnet56").filter((run) => run.probes.paths);
  if (runs.length === 0) return h("p", { class: "note" }, _("No paths were measured."));
  const total = measuredLine(runs, "paths", "total", runs[0].probes.paths.blocks);
  const single = measuredLine(runs, "paths", "gradient", runs[0].probes.paths.blocks);
  const last = runs[0].probes.paths.blocks.at(-1);
  const ticksX = [0, Math.round(last / 3), Math.round((2 * last) / 3), last];
  const common = {
    xLabel: _("blocks that the path goes through"),
    domainX: [0, last],
    ticksX,
    cursor: null,
  };
  const positive = single.filter((candidate) => candidate.y > 0);
  return h("div", { class: "panels two" }, [
    panel(context, state, "paths-single", _("Gradient on one path"), {
      ...common,
      log: true,
      domainY: powers(...extent(positive)),
      lines: [{ label: _("one path"), className: "residual", end: null, points: positive }],
      description: _("Gradient on one path of resnet-56 against its length."),
    }),
    panel(context, state, "paths-total", _("All paths of that length together"), {
      ...common,
      domainY: [0, 1.05 * extent(total)[1]],
      lines: [{ label: _("all paths"), className: "residual", end: null, points: total }],
      description: _("Gradient on all paths of a length of resnet-56 together."),
    }),
  ]);
}

function drawResidual(context, state) {
  const { _, data } = context;
  const lines = [20, 56].map((depth, i) => {
    const runs = runsOf(data, depth, "A");
    const step = snapshots(runs).at(-1);
    const points = measuredLine(runs, "layers", `residuals ${step}`);
    const stretched = points.map((candidate, index) => ({
      ...candidate,
      x: points.length > 1 ? index / (points.length - 1) : 0,
    }));
    return {
      label: `resnet-${depth}`,
      className: `residual tone-${2 * i}`,
      end: String(depth),
      points: stretched,
    };
  });
  const all = lines.flatMap((line) => line.points);
  if (all.length === 0) return h("p", { class: "note" }, _("No residuals were measured."));
  const chart = {
    xLabel: _("from the first block to the last"),
    domainX: [0, 1],
    ticksX: [0, 0.5, 1],
    domainY: [0, 1.05 * extent(all)[1]],
    lines,
    cursor: null,
    room: 40,
    digits: 2,
    nameX: (x) => percent(100 * x, 0),
    description: _("Size of F(x) relative to the shortcut after training, by block."),
  };
  const title = _("‖F(x)‖ / ‖x‖ after training");
  return panel(context, state, "question-residual", title, chart);
}

function drawShapes(context) {
  const { _, data } = context;
  const names = {
    none: _("none (plain-32)"),
    A: _("A: zeros"),
    B: _("B: projection where the shape changes"),
    C: _("C: projection everywhere"),
  };
  const rows = Object.keys(names).map((shortcut) => {
    const runs = runsOf(data, 32, shortcut);
    const final = finalError(runs, "test");
    return final
      ? bar(
          context,
          [
            names[shortcut],
            h(
              "small",
              {},
              _("{count} parameters", { count: runs[0].parameters.toLocaleString("en") }),
            ),
          ],
          final,
          PERCENT,
          shortcut === "none" ? "plain" : "residual",
          100,
        )
      : null;
  });
  const isTrained = runsOf(data, 32, "B").length > 0;
  const missing = isTrained
    ? null
    : h(
        "p",
        { class: "note" },
        _("B and C are not trained yet:"),
        " ",
        h("code", {}, `resnet study shortcuts --out ${data.root}`),
      );
  return [h("div", { class: "bars" }, rows), missing];
}

function drawDeep(context, state) {
  const { _, data } = context;
  const depths = [20, 32, 44, 56, 110];
  const lines = [
    ["none", "plain", _("plain")],
    ["A", "residual", _("residual")],
  ].flatMap(([shortcut, className, name]) =>
    ["train", "test"].map((split) => ({
      label:
        split === "train"
          ? _("{network}, training error", { network: name })
          : _("{network}, test error", { network: name }),
      className: split === "train" ? `${className} thin` : className,
      end: split === "test" ? name : null,
      dots: true,
      points: depths
        .map((depth) => finalError(runsOf(data, depth, shortcut), split, depth))
        .filter(Boolean),
    })),
  );
  const trained = depths.filter((depth) => runsOf(data, depth, "A").length > 0);
  const chart = {
    xLabel: _("depth in layers"),
    domainX: [trained[0] ?? 20, trained.at(-1) ?? 56],
    ticksX: trained,
    domainY: [0, 100],
    unit: "%",
    lines,
    cursor: null,
    description: _("Final training and test error against the depth."),
  };
  const missing = trained.includes(110)
    ? null
    : h(
        "p",
        { class: "note" },
        _("110 layers are not trained yet:"),
        " ",
        h("code", {}, `resnet study depth --out ${data.root}`),
      );
  return [panel(context, state, "question-deep", _("Final error by depth"), chart), missing];
}
