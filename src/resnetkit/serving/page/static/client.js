/**
 * Requests to the server, as outcomes; nothing is thrown but an abort.
 *
 * @typedef {object} Guess
 * @property {number} label
 * @property {string} class
 * @property {number} probability
 *
 * @typedef {object} Times in seconds: of the server, if it tells them, and of everything.
 * @property {number} [decode]
 * @property {number} [wait]
 * @property {number} [compute]
 * @property {number} total from the request to its answer
 *
 * @typedef {{kind: "answer", predictions: Guess[], times: Times}
 *   | {kind: "map", map: object}
 *   | {kind: "busy", seconds: number}
 *   | {kind: "locked"}
 *   | {kind: "unreachable"}
 *   | {kind: "refused", status: number, reason: string}} Outcome
 */

const TOP = 5;

/** Stages of the header Server-Timing; what it calls network is the residual one. */
const STAGES = { decode: "decode", wait: "wait", network: "compute" };

/** @param {{token?: string, fetch?: typeof fetch, now?: () => number}} [options] */
export function createClient({ token = "", fetch = globalThis.fetch.bind(globalThis), now = () => performance.now() } = {}) {
    const client = { token, predict, explain };

    /** Sends a photo as it is; the server decodes it as `resnet predict` does. */
    async function predict(file, signal) {
        const start = now();
        return request(`predict?top=${TOP}`, file, signal, ([record], response) => ({
            kind: "answer",
            predictions: record.predictions,
            times: { ...serverTimes(response.headers), total: (now() - start) / 1000 },
        }));
    }

    /** Asks for the saliency map of a class. */
    async function explain(file, { label, method }, signal) {
        const query = new URLSearchParams({ label, method });
        return request(`saliency?${query}`, file, signal, (body) => ({ kind: "map", map: body }));
    }

    async function request(path, file, signal, understood) {
        const headers = client.token ? { Authorization: `Bearer ${client.token}` } : {};
        try {
            const response = await fetch(path, { method: "POST", body: file, headers, signal });
            if (response.ok) return understood(await response.json(), response);
            return await refusal(response);
        } catch (error) {
            if (error.name === "AbortError") throw error;
            return { kind: "unreachable" };
        }
    }

    return client;
}

/** Returns the outcome of a response that is no answer. */
async function refusal(response) {
    if (response.status === 401) return { kind: "locked" };
    if (response.status === 503 || response.status === 429) {
        return { kind: "busy", seconds: retrySeconds(response.headers.get("Retry-After")) };
    }
    const body = await response.json().catch(() => ({}));
    return { kind: "refused", status: response.status, reason: String(body.error ?? "") };
}

/** Returns the seconds of Retry-After, between half a second and a minute; one by default. */
export function retrySeconds(header) {
    const seconds = Number.parseFloat(header ?? "");
    return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0.5), 60) : 1;
}

/** Returns the durations of Server-Timing, such as "decode;dur=3.1, network;dur=12", in seconds. */
export function serverTimes(headers) {
    const times = {};
    for (const entry of (headers.get("Server-Timing") ?? "").split(",")) {
        const [name, ...parameters] = entry.split(";").map((part) => part.trim());
        const duration = parameters.find((parameter) => parameter.startsWith("dur="));
        if (name in STAGES && duration) times[STAGES[name]] = Number.parseFloat(duration.slice(4)) / 1000;
    }
    return times;
}
