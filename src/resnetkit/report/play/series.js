/**
 * From the runs of the page to lines: pure functions of data and state.
 *
 * A source says where a number comes from: {runs: [index, ...], file, key}. A point is {x, y, low,
 * high, source}: the mean over runs with the lowest and the highest.
 */
export const SHORTCUTS = ["none", "A", "B", "C"];
export const DEPTHS = [20, 32, 56];

/** Returns the runs of a network, each with its index in the data. */
export function runsOf(data, depth, shortcut) {
  const family = shortcut === "none" ? "plain" : "resnet";
  const group = `${family}${depth}${["B", "C"].includes(shortcut) ? `-${shortcut}` : ""}`;
  return runsOfGroup(data, group);
}

export function runsOfGroup(data, group) {
  return data.runs.map((run, index) => ({ ...run, index })).filter((run) => run.group === group);
}

/** Returns the last epoch of all runs. */
export function lastEpoch(runs) {
  return Math.max(...runs.flatMap((run) => run.epochs), 1);
}

/** Returns those of a seed, or all of them for "mean". */
export function withSeed(runs, seed) {
  return seed === "mean" ? runs : runs.filter((run) => String(run.seed) === seed);
}

/** Returns the name of a network as the paper writes it: plain-56, resnet-32 B. */
export function displayName(run) {
  const family = run.shortcut === "none" ? "plain" : "resnet";
  return `${family}-${run.depth}${["B", "C"].includes(run.shortcut) ? ` ${run.shortcut}` : ""}`;
}

/** Returns a point of the runs that have a value; null when none has. */
export function point(x, runs, valueOf, file, key) {
  const measured = runs.filter((run) => Number.isFinite(valueOf(run)));
  if (measured.length === 0) return null;
  const values = measured.map(valueOf);
  const source = { runs: measured.map((run) => run.index), file, key };
  return { x, y: mean(values), low: Math.min(...values), high: Math.max(...values), source };
}

export function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Returns the errors during training: split is train or test. */
export function errorCurve(runs, split) {
  const field = `${split}_error`;
  const epochs = runs.length ? runs[0].epochs : [];
  return epochs
    .map((epoch, i) =>
      point(epoch, runs, (run) => run[field][i], "metrics.jsonl", `epoch ${epoch}: ${field}`),
    )
    .filter(Boolean);
}

/** Returns the error of the finished networks as one point. */
export function finalError(runs, split, x = 0) {
  return point(
    x,
    runs,
    (run) => run[`final_${split}_error`],
    "metrics.jsonl",
    `final: ${split}.error`,
  );
}

/** Returns a measured list against 1, 2, ..., or against given positions. */
export function measuredLine(runs, probe, key, positions = null) {
  const measured = runs.filter((run) => run.probes[probe]?.[key]);
  const length = measured.length ? measured[0].probes[probe][key].length : 0;
  return Array.from({ length }, (unused, i) =>
    point(
      positions ? positions[i] : i + 1,
      measured,
      (run) => run.probes[probe][key][i],
      `probes/${probe}.json`,
      `${key}[${i}]`,
    ),
  ).filter(Boolean);
}

/** Returns the steps at which the layers of runs were measured. */
export function snapshots(runs) {
  return runs.find((run) => run.probes.layers)?.probes.layers.steps ?? [];
}

/** Returns the last measured step at an epoch; null without any. */
export function snapshotAt(runs, epoch) {
  const steps = snapshots(runs);
  if (steps.length === 0) return null;
  const now = epoch * runs[0].steps_per_epoch;
  return Math.max(...steps.filter((step) => step <= now + 1e-9), steps[0]);
}

/** Returns the lowest and the highest value of points. */
export function extent(points) {
  const low = Math.min(...points.map((p) => p.low));
  const high = Math.max(...points.map((p) => p.high));
  return [low, high];
}

/** Returns which of two errors is lower: first, second, or same within a margin in points. */
export function lower(first, second, margin) {
  if (Math.abs(first - second) <= margin) return "same";
  return first < second ? "first" : "second";
}
