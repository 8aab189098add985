/** The queue of the server's page: a few at a time, in order, and polite to a busy server. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { createQueue } from "../../src/resnetkit/serving/page/static/queue.js";

const answer = { kind: "answer", predictions: [], times: { total: 0 } };
const photos = (count) => Array.from({ length: count }, (_, number) => ({ number }));

/** A queue whose pauses end at once, and a record of what happens. */
function observed(send, options = {}) {
    const record = { slept: [], pauses: [], most: 0, active: 0, order: [] };
    const queue = createQueue({
        async send(photo, signal) {
            record.active += 1;
            record.most = Math.max(record.most, record.active);
            record.order.push(photo.number);
            await new Promise((resolve) => setImmediate(resolve));
            const outcome = await send(photo, signal);
            record.active -= 1;
            return outcome;
        },
        changed: () => {},
        paused: (pause) => record.pauses.push(pause?.reason ?? null),
        sleep: async (seconds) => void record.slept.push(seconds),
        ...options,
    });
    return { queue, record };
}

async function until(condition) {
    for (let turn = 0; turn < 10_000; turn += 1) {
        if (condition()) return;
        await new Promise((resolve) => setImmediate(resolve));
    }
    assert.fail("it did not come to an end");
}

const all = (list, state) => list.every((photo) => photo.state === state);

test("a hundred photos are sent in order, four at a time", async () => {
    const list = photos(100);
    const { queue, record } = observed(() => answer);
    queue.add(list);
    await until(() => all(list, "answered"));
    assert.equal(record.most, 4);
    assert.deepEqual(record.order, list.map((photo) => photo.number));
});

test("a busy server is left alone as long as it asks for, and then asked by one request", async () => {
    const list = photos(9);
    const refusals = new Set([2]);
    const { queue, record } = observed((photo) => (
        refusals.delete(photo.number) ? { kind: "busy", seconds: 7 } : answer
    ));
    queue.add(list);
    await until(() => all(list, "answered"));
    assert.deepEqual(record.slept, [7]);
    assert.deepEqual(record.pauses, ["busy", null]);
    assert.equal(record.order.length, 10); // the refused one twice, nothing else
    assert.ok(record.order.lastIndexOf(2) < record.order.indexOf(6), "it comes before later ones");
});

test("a server that is never reached is asked four times, with longer pauses", async () => {
    const [photo] = photos(1);
    const { queue, record } = observed(() => ({ kind: "unreachable" }));
    queue.add([photo]);
    await until(() => photo.state === "failed");
    assert.deepEqual(record.slept, [1, 2, 4]);
    assert.equal(record.order.length, 4);
});

test("a refused photo fails, and the others are answered", async () => {
    const list = photos(5);
    const { queue } = observed((photo) => (
        photo.number === 1 ? { kind: "refused", status: 422, reason: "no." } : answer
    ));
    queue.add(list);
    await until(() => list.every((photo) => photo.outcome));
    assert.deepEqual(list.map((photo) => photo.state), [
        "answered", "failed", "answered", "answered", "answered",
    ]);
});

test("without a token the queue waits until it has one", async () => {
    const list = photos(6);
    let token = "";
    const { queue, record } = observed(() => (token ? answer : { kind: "locked" }));
    queue.add(list);
    await until(() => record.active === 0 && record.pauses.length > 0);
    assert.deepEqual(record.pauses, ["locked"]);
    assert.ok(all(list, "waiting"));
    token = "secret";
    queue.proceed();
    await until(() => all(list, "answered"));
});

test("stopping ends what waits and what is under way, and later photos are sent", async () => {
    const list = photos(8);
    const [begun, aborted] = [[], []];
    const { queue } = observed((photo, signal) => (photo.number < 8
        ? new Promise((_, reject) => {
            begun.push(photo.number);
            signal.addEventListener("abort", () => {
                aborted.push(photo.number);
                reject(new DOMException("stopped", "AbortError"));
            });
        })
        : answer));
    queue.add(list);
    await until(() => begun.length === 4);
    queue.stop();
    assert.ok(all(list, "stopped"));
    assert.deepEqual(aborted, [0, 1, 2, 3]);
    const later = { number: 8 };
    queue.add([later]);
    await until(() => later.state === "answered");
    assert.ok(all(list, "stopped"));
});
