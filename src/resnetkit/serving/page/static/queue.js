/**
 * Sends photos a few at a time, in order, and waits when the server is busy.
 *
 *     const queue = createQueue({send: (photo, signal) => outcome, changed: (photo) => ...});
 *     queue.add(photos);
 *
 * A photo is any object; the queue sets its `state`: waiting, sent, answered, failed or stopped, and
 * its `outcome`. A busy server is asked again after the time that it names, by one request first,
 * then by one more after each answer. A server that is not reached is asked four times.
 */

const PARALLEL = 4;
const ATTEMPTS = 4;
const FIRST_PAUSE = 1; // seconds after a server was not reached; doubled each time

/**
 * @param {object} options
 * @param {(photo: object, signal: AbortSignal) => Promise<import("./client.js").Outcome>} options.send
 * @param {(photo: object) => void} options.changed called after a photo has changed its state
 * @param {(pause: {reason: "busy" | "unreachable" | "locked", seconds?: number} | null) => void}
 *   [options.paused] called when the queue begins to wait for the server, and with null when it ends
 * @param {number} [options.parallel] requests at the same time
 * @param {(seconds: number) => Promise<void>} [options.sleep]
 */
export function createQueue({ send, changed, paused = () => {}, parallel = PARALLEL, sleep = delay }) {
    let waiting = [];
    let allowed = parallel;
    let pause = null;
    const sent = new Map(); // photo -> AbortController

    function add(photos) {
        for (const photo of photos) {
            photo.attempts = 0;
            enter(photo, "waiting");
            waiting.push(photo);
        }
        start();
    }

    function start() {
        while (!pause && waiting.length > 0 && sent.size < allowed) run(waiting.shift());
    }

    async function run(photo) {
        const controller = new AbortController();
        sent.set(photo, controller);
        enter(photo, "sent");
        const outcome = await send(photo, controller.signal).catch(() => null);
        sent.delete(photo);
        if (photo.state === "sent") settle(photo, outcome);
        start();
    }

    function settle(photo, outcome) {
        photo.outcome = outcome;
        if (outcome.kind === "answer") {
            allowed = Math.min(allowed + 1, parallel);
            enter(photo, "answered");
        } else if (outcome.kind === "busy") {
            postpone(photo);
            rest({ reason: "busy", seconds: outcome.seconds });
        } else if (outcome.kind === "unreachable" && ++photo.attempts < ATTEMPTS) {
            postpone(photo);
            rest({ reason: "unreachable", seconds: FIRST_PAUSE * 2 ** (photo.attempts - 1) });
        } else if (outcome.kind === "locked") {
            postpone(photo);
            begin({ reason: "locked" });
        } else {
            enter(photo, "failed");
        }
    }

    function postpone(photo) {
        waiting.push(photo);
        waiting.sort((a, b) => a.number - b.number);
        enter(photo, "waiting");
    }

    /** Waits, and then begins again with one request. */
    async function rest(reason) {
        if (pause) return;
        begin(reason);
        allowed = 1;
        await sleep(reason.seconds);
        if (pause === reason) proceed();
    }

    function begin(reason) {
        if (pause?.reason === "locked") return;
        pause = reason;
        paused(pause);
    }

    /** Ends a pause: of itself, or when a token has been given. */
    function proceed() {
        pause = null;
        paused(null);
        start();
    }

    /** Stops what waits and what is under way. */
    function stop() {
        const rest = [...sent.keys(), ...waiting];
        waiting = [];
        for (const photo of rest) enter(photo, "stopped");
        for (const controller of sent.values()) controller.abort();
    }

    function enter(photo, state) {
        photo.state = state;
        changed(photo);
    }

    return { add, stop, proceed };
}

function delay(seconds) {
    return new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
}
