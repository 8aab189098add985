/**
 * What many answers have in common: how many, how long, and which classes.
 */

import { partsOf } from "./cards.js";

const MOST_CLASSES = 10;

/** Counts photos by state. */
export function countStates(photos) {
    const counts = { waiting: 0, sent: 0, answered: 0, failed: 0, stopped: 0 };
    for (const photo of photos) counts[photo.state] += 1;
    return counts;
}

/** Returns the medians of the whole time and of each part: [part, seconds]. */
export function typicalTimes(times) {
    const seconds = new Map();
    for (const [part, value] of times.flatMap(partsOf)) {
        seconds.set(part, [...(seconds.get(part) ?? []), value]);
    }
    const parts = [...seconds].map(([part, values]) => [part, median(values)]);
    return { total: median(times.map((time) => time.total)), parts };
}

function median(values) {
    return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
}

/** Returns the classes that are the answer to several photos: [class, number], the most frequent first. */
export function commonClasses(photos) {
    const counts = new Map();
    for (const photo of photos.filter((photo) => photo.state === "answered")) {
        const name = photo.outcome.predictions[0].class;
        counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    const several = [...counts].filter(([, count]) => count > 1);
    return several.sort((a, b) => b[1] - a[1]).slice(0, MOST_CLASSES);
}

/** Returns photos in an order: as sent, or those with the least certain answer first. */
export function ordered(photos, order) {
    if (order !== "certainty") return [...photos].sort((a, b) => a.number - b.number);
    return [...photos].sort((a, b) => certainty(a) - certainty(b) || a.number - b.number);
}

function certainty(photo) {
    return photo.state === "answered" ? photo.outcome.predictions[0].probability : 2;
}

/** Returns the answers as `resnet predict --json` prints them. */
export function asRecords(photos) {
    return photos.map((photo) => ({
        path: photo.name,
        predictions: photo.state === "answered" ? photo.outcome.predictions : [],
        error: photo.state === "answered" ? null : photo.outcome?.reason || photo.state,
    }));
}
