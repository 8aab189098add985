/**
 * Parts that all chapters use: numbers that can be traced, charts with their numbers, swatches.
 *
 * The context of a page is {data, _, ngettext, update(change), trace(source)}.
 */
import { h } from "./dom.js";
import { lineChart, valueText } from "./chart.js";

/** Returns a number as a button that shows where it comes from. */
export function number(context, text, value, source, className = "") {
  const { _ } = context;
  return h(
    "button",
    {
      type: "button",
      class: `number ${className}`,
      "data-value": value,
      "data-file": source.file,
      "data-item": source.key,
      "data-runs": source.runs.join(" "),
      title: _("Where does this number come from?"),
      onclick: () => context.trace({ text, value, ...source }),
    },
    text,
  );
}

/** Returns the number of a point. */
export function pointNumber(context, point, chart, className = "") {
  return number(context, valueText(point.y, chart), point.y, point.source, className);
}

/** Returns a panel: title, chart, and its numbers as a table that opens on demand. */
export function panel(context, state, id, title, chart, note = null) {
  const pick = (point, line) =>
    context.trace({
      text: `${line.label}: ${valueText(point.y, chart)}`,
      value: point.y,
      ...point.source,
    });
  return h(
    "div",
    { class: "panel" },
    h("h4", {}, title),
    lineChart({ ...chart, onPick: pick }),
    note ? h("p", { class: "readout" }, note) : null,
    numbersOf(context, state, id, title, chart),
  );
}

function numbersOf(context, state, id, title, chart) {
  const { _ } = context;
  const isOpen = state.open.includes(id);
  const toggle = (event) => {
    event.preventDefault();
    const open = isOpen ? state.open.filter((name) => name !== id) : [...state.open, id];
    context.update({ open });
  };
  return h(
    "details",
    { class: "numbers", open: isOpen },
    h("summary", { "data-key": `numbers-${id}`, onclick: toggle }, _("The numbers")),
    isOpen ? table(context, title, chart) : null,
  );
}

function table(context, title, chart) {
  const lines = chart.lines.filter((line) => line.points.length && !line.isShadow);
  const xs = [...new Set(lines.flatMap((line) => line.points.map((point) => point.x)))];
  xs.sort((a, b) => a - b);
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": title },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("th", { scope: "col" }, chart.xLabel),
          lines.map((line) => h("th", { scope: "col" }, line.label)),
        ),
      ),
      h(
        "tbody",
        {},
        xs.map((x) => row(context, chart, lines, x)),
      ),
    ),
  );
}

function row(context, chart, lines, x) {
  const cells = lines.map((line) => {
    const point = line.points.find((candidate) => candidate.x === x);
    return h("td", {}, point ? pointNumber(context, point, chart) : "");
  });
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, chart.nameX ? chart.nameX(x) : String(Number(x.toPrecision(6)))),
    cells,
  );
}

/** Returns a horizontal bar with its label and number. */
export function bar(context, label, point, chart, className, highest) {
  const width = Math.max(0.4, (100 * point.y) / highest);
  const track = h("div", { class: "track", "aria-hidden": "true" }, h("i", {}));
  track.firstChild.style.width = `${width}%`;
  return h(
    "div",
    { class: `bar ${className}` },
    h("span", { class: "bar-name" }, label),
    track,
    pointNumber(context, point, chart),
  );
}

/** Returns text whose "*...*" parts are set in bold, and "`...`" as code. */
export function marked(text) {
  return text.split(/(\*[^*]+\*|`[^`]+`)/).map((part) => {
    if (part.startsWith("*") && part.length > 2) return h("b", {}, part.slice(1, -1));
    if (part.startsWith("`") && part.length > 2) return h("code", {}, part.slice(1, -1));
    return part;
  });
}
