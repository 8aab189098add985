/** What the server's page computes: outcomes of requests, sentences, summaries. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { partsOf } from "../../src/resnetkit/serving/page/static/cards.js";
import { createClient, retrySeconds } from "../../src/resnetkit/serving/page/static/client.js";
import { hasSuffix } from "../../src/resnetkit/serving/page/static/files.js";
import { createMessages } from "../../src/resnetkit/serving/page/static/messages.js";
import {
    asRecords, commonClasses, ordered, typicalTimes,
} from "../../src/resnetkit/serving/page/static/summary.js";

const predictions = [{ label: 3, class: "cat", probability: 0.75 }];
const record = [{ path: "-", predictions, error: null }];

function clientOf(respond, options = {}) {
    const requests = [];
    const client = createClient({
        fetch: async (path, request) => {
            requests.push({ path, ...request });
            return respond();
        },
        now: (() => {
            let time = 0;
            return () => (time += 50);
        })(),
        ...options,
    });
    return { client, requests };
}

test("an answer has its predictions and the seconds of each stage", async () => {
    const timing = "decode;dur=3.5, wait;dur=0.25, network;dur=12.00";
    const { client, requests } = clientOf(
        () => Response.json(record, { headers: { "Server-Timing": timing } }),
    );
    const outcome = await client.predict("the file");
    assert.deepEqual(outcome, {
        kind: "answer",
        predictions,
        times: { decode: 0.0035, wait: 0.00025, compute: 0.012, total: 0.05 },
    });
    assert.equal(requests[0].body, "the file");
    assert.deepEqual(requests[0].headers, {});
});

test("a token is sent in the header", async () => {
    const { client, requests } = clientOf(() => Response.json(record), { token: "secret" });
    await client.predict("");
    assert.equal(requests[0].headers.Authorization, "Bearer secret");
});

for (const [status, headers, expected] of [
    [401, {}, { kind: "locked" }],
    [503, { "Retry-After": "3" }, { kind: "busy", seconds: 3 }],
    [429, {}, { kind: "busy", seconds: 1 }],
    [422, {}, { kind: "refused", status: 422, reason: "it is a text." }],
]) {
    test(`the status ${status} is the outcome ${expected.kind}`, async () => {
        const { client } = clientOf(
            () => Response.json({ error: "it is a text." }, { status, headers }),
        );
        assert.deepEqual(await client.predict(""), expected);
    });
}

test("an error page of a proxy is a refusal, and no connection is no answer", async () => {
    const { client } = clientOf(() => new Response("<html>", { status: 502 }));
    assert.deepEqual(await client.predict(""), { kind: "refused", status: 502, reason: "" });
    const { client: lonely } = clientOf(() => {
        throw new TypeError("fetch failed");
    });
    assert.deepEqual(await lonely.predict(""), { kind: "unreachable" });
});

test("Retry-After is followed within limits", () => {
    const headers = ["2", "0", "1e9", "Wed, 21 Oct 2026 07:28:00 GMT", null];
    assert.deepEqual(headers.map(retrySeconds), [2, 0.5, 60, 1, 1]);
});

test("the times of a request add up", () => {
    const times = { decode: 0.003, wait: 0.001, compute: 0.01, total: 0.02 };
    const parts = partsOf(times);
    assert.deepEqual(parts.map(([part]) => part), ["decode", "wait", "compute", "network"]);
    assert.ok(Math.abs(parts.reduce((sum, [, seconds]) => sum + seconds, 0) - 0.02) < 1e-12);
    assert.deepEqual(partsOf({ total: 0.02 }), [["server", 0.02]]);
    const typical = typicalTimes([5, 1, 2].map((total) => ({ total })));
    assert.deepEqual(typical, { total: 2, parts: [["server", 2]] });
});

test("numbers are rounded so that nothing uncertain is called certain", () => {
    const say = createMessages({ found: ["{number} photo", "{number} photos"] }, "en");
    const plain = (text) => text.replaceAll("\u00a0", " ");
    const shares = [1, 0.99996, 0.931, 0.0004, 0].map(say.percent);
    assert.deepEqual(shares.map(plain), ["100.0 %", "> 99.9 %", "93.1 %", "< 0.1 %", "0.0 %"]);
    const durations = [0.0004, 0.0412, 0.9999, 2.34, 61].map(say.duration);
    assert.deepEqual(durations.map(plain), ["0.4 ms", "41 ms", "1 s", "2.3 s", "61 s"]);
    assert.equal(say.counted("found", 1), "1 photo");
    assert.equal(say.counted("found", 1200), "1,200 photos");
});

test("photos are ordered by certainty, counted by class, and saved as resnet predict prints", () => {
    const answered = (number, name, probability) => ({
        number,
        name: `${number}.jpg`,
        state: "answered",
        outcome: { predictions: [{ label: 0, class: name, probability }] },
    });
    const failed = { number: 3, name: "3.jpg", state: "failed", outcome: { reason: "no." } };
    const list = [answered(0, "cat", 0.9), answered(1, "dog", 0.4), answered(2, "cat", 0.6), failed];
    assert.deepEqual(ordered(list, "certainty").map((photo) => photo.number), [1, 2, 0, 3]);
    assert.deepEqual(ordered([...list].reverse(), "number"), list);
    assert.deepEqual(commonClasses(list), [["cat", 2]]);
    assert.deepEqual(asRecords([list[1], failed]), [
        { path: "1.jpg", predictions: [{ label: 0, class: "dog", probability: 0.4 }], error: null },
        { path: "3.jpg", predictions: [], error: "no." },
    ]);
});

test("of folders, images are taken and hidden files left", () => {
    const names = ["a.JPG", "b.txt", "._c.jpg", "d.jpg.part"];
    assert.deepEqual(names.filter((name) => hasSuffix(name, [".jpg"])), ["a.JPG"]);
});
