/**
 * Line charts in SVG: functions from values to elements.
 *
 *     lineChart({ xLabel, domainX, domainY, log, unit, lines, cursor, description, onPick })
 *
 * A line is {label, className, points, end}: className decides its color and how it is drawn, end
 * is written at its end, or null. Points are those of series.js. `cursor` is the x after which
 * lines are faint, or null. onPick(point, line) is called for the point that was clicked.
 */
import { svg } from "./dom.js";
import { decimal, percent, significant } from "./language.js";

const SIZE = { width: 340, height: 236, left: 42, top: 12, bottom: 40 };
const LINE_HEIGHT = 15;

export function lineChart(chart) {
  const { width, height, left, top, bottom } = SIZE;
  const right = chart.lines.some((line) => line.end) ? (chart.room ?? 66) : 12;
  const area = { left, right: width - right, top, bottom: height - bottom };
  const x = linear(chart.domainX, [area.left, area.right]);
  const y = (chart.log ? logarithmic : linear)(chart.domainY, [area.bottom, area.top]);
  const drawing = svg(
    "svg",
    {
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": chart.description,
      class: "drawing",
    },
    axes(chart, area, x, y),
    chart.cursor === null || chart.cursor === undefined ? null : cursorLine(x(chart.cursor), area),
    chart.lines.map((line) => drawnLine(line, chart, x, y)),
    endLabels(chart, area, x, y),
  );
  pickable(drawing, chart, area, x, y);
  return drawing;
}

function linear([low, high], [from, to]) {
  const scale = (value) => from + ((value - low) / (high - low || 1)) * (to - from);
  scale.ticks = niceTicks(low, high);
  return scale;
}

function logarithmic([low, high], [from, to]) {
  const [a, b] = [Math.log10(low), Math.log10(high)];
  const scale = (value) =>
    from + ((Math.log10(Math.max(value, low)) - a) / (b - a || 1)) * (to - from);
  const stride = Math.max(1, Math.ceil((b - a) / 5));
  scale.ticks = [];
  for (let power = Math.ceil(a - 1e-9); power <= b + 1e-9; power += stride)
    scale.ticks.push(10 ** power);
  return scale;
}

/** Returns about five round numbers from low to high. */
export function niceTicks(low, high) {
  const rough = (high - low || 1) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough - 1e-12);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1)
    ticks.push(i * step + 0); // no negative zero
  return ticks;
}

/** Returns the domain of a logarithmic axis: whole powers of ten around the values. */
export function powers(low, high) {
  return [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high))];
}

function axes(chart, area, x, y) {
  const middle = (area.left + area.right) / 2;
  return svg(
    "g",
    { class: "axes" },
    y.ticks.map((tick) => [
      svg("line", { x1: area.left, x2: area.right, y1: y(tick), y2: y(tick) }),
      svg(
        "text",
        { x: area.left - 7, y: y(tick) + 4, "text-anchor": "end" },
        tickText(tick, chart),
      ),
    ]),
    (chart.ticksX ?? x.ticks).map((tick) =>
      svg(
        "text",
        { x: x(tick), y: area.bottom + 17, "text-anchor": "middle" },
        chart.nameX ? chart.nameX(tick) : String(Number(tick.toPrecision(6))),
      ),
    ),
    svg(
      "text",
      { x: middle, y: area.bottom + 35, "text-anchor": "middle", class: "axis-name" },
      chart.xLabel,
    ),
  );
}

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

function tickText(tick, chart) {
  if (chart.log) {
    const power = Math.round(Math.log10(tick));
    const digits = [...String(Math.abs(power))].map((digit) => SUPERSCRIPTS[digit]).join("");
    return `10${power < 0 ? "⁻" : ""}${digits}`;
  }
  return `${Number(tick.toPrecision(6))}${chart.unit === "%" ? "\u00a0%" : ""}`;
}

function cursorLine(at, area) {
  return svg("line", { class: "cursor", x1: at, x2: at, y1: area.top, y2: area.bottom });
}

function drawnLine(line, chart, x, y) {
  if (line.points.length === 0) return null;
  const limit = chart.cursor ?? Infinity;
  const before = line.points.filter((point) => point.x <= limit + 1e-9);
  const last = before.at(-1);
  return svg(
    "g",
    { class: `line ${line.className}` },
    band(line.points, x, y),
    before.length < line.points.length ? path(line.points, x, y, "rest") : null,
    line.points.length > 1 ? path(before, x, y, "done") : null,
    line.dots ? before.map((point) => dot(point, x, y)) : last ? dot(last, x, y) : null,
  );
}

function path(points, x, y, className) {
  const corners = points.map((point) => `${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`);
  return svg("path", { class: className, d: corners.length ? `M${corners.join("L")}` : "M0 0" });
}

function dot(point, x, y) {
  return svg("circle", { cx: x(point.x).toFixed(1), cy: y(point.y).toFixed(1), r: 3 });
}

function band(points, x, y) {
  if (points.every((point) => point.low === point.high)) return null;
  const corner = (point, value) => `${x(point.x).toFixed(1)} ${y(value).toFixed(1)}`;
  const upper = points.map((point) => corner(point, point.high));
  const under = points.map((point) => corner(point, point.low)).reverse();
  return svg("path", { class: "band", d: `M${[...upper, ...under].join("L")}Z` });
}

function endLabels(chart, area, x, y) {
  const limit = chart.cursor ?? Infinity;
  const labels = chart.lines
    .filter((line) => line.end && line.points.length)
    .map((line) => {
      const last = line.points.filter((point) => point.x <= limit + 1e-9).at(-1) ?? line.points[0];
      const end = x(last.x);
      const isEarly = chart.cursor === null && end < area.right - 40;
      return { line, x: isEarly ? end + 8 : area.right + 8, y: y(last.y) + 4, isEarly };
    });
  spread(
    labels.filter((label) => !label.isEarly),
    area.top + 8,
    area.bottom + 2,
  );
  return svg(
    "g",
    { class: "ends" },
    labels.map((label) =>
      svg(
        "text",
        { class: label.line.className, x: label.x.toFixed(1), y: label.y.toFixed(1) },
        label.line.end,
      ),
    ),
  );
}

/** Moves labels apart, so that none covers another, and keeps them between top and bottom. */
export function spread(labels, top, bottom) {
  const sorted = [...labels].sort((a, b) => a.y - b.y);
  for (let i = 1; i < sorted.length; i += 1) {
    sorted[i].y = Math.max(sorted[i].y, sorted[i - 1].y + LINE_HEIGHT);
  }
  const excess = sorted.length ? sorted.at(-1).y - bottom : 0;
  if (excess > 0) sorted.at(-1).y -= excess;
  for (let i = sorted.length - 2; i >= 0; i -= 1) {
    sorted[i].y = Math.max(top, Math.min(sorted[i].y, sorted[i + 1].y - LINE_HEIGHT));
  }
}

/** Shows the values at the pointer, and reports the point that is clicked. */
function pickable(drawing, chart, area, x, y) {
  const tip = svg("g", { class: "tip" });
  drawing.append(tip);
  drawing.addEventListener("pointermove", (event) => {
    const nearest = nearestPoint(drawing, event, chart, x, y);
    tip.replaceChildren(...(nearest ? tipOf(nearest, chart, area, x, y) : []));
  });
  drawing.addEventListener("pointerleave", () => tip.replaceChildren());
  drawing.addEventListener("click", (event) => {
    const nearest = nearestPoint(drawing, event, chart, x, y);
    if (nearest && chart.onPick) chart.onPick(nearest.point, nearest.line);
  });
}

function nearestPoint(drawing, event, chart, x, y) {
  const box = drawing.getBoundingClientRect();
  const scale = SIZE.width / box.width;
  const [atX, atY] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  let best = null;
  for (const line of chart.lines) {
    for (const point of line.points) {
      const distance = Math.hypot(x(point.x) - atX, y(point.y) - atY);
      if (!best || distance < best.distance) best = { distance, line, point };
    }
  }
  return best && best.distance < 60 ? best : null;
}

function tipOf({ line, point }, chart, area, x, y) {
  const text = `${line.label}: ${valueText(point.y, chart)}`;
  const flipped = x(point.x) > (area.left + area.right) / 2;
  return [
    svg("circle", { class: `ring ${line.className}`, cx: x(point.x), cy: y(point.y), r: 5.5 }),
    svg(
      "text",
      {
        x: x(point.x) + (flipped ? -9 : 9),
        y: Math.max(y(point.y) - 9, area.top + 4),
        "text-anchor": flipped ? "end" : "start",
      },
      text,
    ),
  ];
}

export function valueText(value, chart) {
  return chart.unit === "%"
    ? percent(value)
    : chart.digits === undefined
      ? significant(value)
      : decimal(value, chart.digits);
}
