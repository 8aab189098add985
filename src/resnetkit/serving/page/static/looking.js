/**
 * The dialog that shows where the network looks: a saliency map for each class that is chosen.
 */

import { fillRank, setPart } from "./cards.js";

const SMALL = 96; // pixels
const ATTEMPTS = 10; // while the server is busy

/**
 * @param {object} options
 * @param {Function} options.say
 * @param {{explain: Function}} options.client
 * @param {string[]} options.methods that the server has
 * @returns {(photo: object) => void} opens the dialog for a photo that has an answer
 */
export function createDialog({ say, client, methods }) {
    const dialog = document.querySelector("#looking");
    const [frame, seen, lit, map] = ["#view", "#seen", "#lit", "#map"].map((id) => dialog.querySelector(id));
    const state = dialog.querySelector("#looking-state");
    let photo = null;
    let request = new AbortController();

    for (const label of dialog.querySelectorAll("[data-method]")) {
        label.hidden = !methods.includes(label.dataset.method);
    }
    dialog.querySelector("#methods").hidden = methods.length < 2;
    dialog.addEventListener("close", () => request.abort());
    dialog.addEventListener("click", (event) => {
        if (event.target === dialog) dialog.close(); // beside it
    });
    dialog.addEventListener("change", (event) => {
        if (event.target.name === "view") frame.dataset.view = event.target.value;
        else show();
    });

    function open(chosen) {
        photo = chosen;
        dialog.querySelector("#looking-file").textContent = photo.name;
        const labels = photo.outcome.predictions.map(choice);
        labels[0].querySelector("input").checked = true;
        const fieldset = dialog.querySelector("#labels");
        fieldset.replaceChildren(fieldset.querySelector("legend"), ...labels);
        for (const image of [seen, lit, map]) image.removeAttribute("src");
        dialog.showModal();
        show();
    }

    function choice(guess) {
        const template = document.querySelector("#choice");
        const label = template.content.cloneNode(true).querySelector("label");
        label.querySelector("input").value = guess.label;
        fillRank(label, guess, say);
        setPart(label.querySelector(".bar"), guess.probability);
        return label;
    }

    /** Requests the map of what is chosen; a later choice takes the place of an earlier one. */
    async function show() {
        request.abort();
        request = new AbortController();
        const { signal } = request;
        const label = Number(dialog.querySelector("[name=label]:checked").value);
        const method = methods.length > 1 ? dialog.querySelector("[name=method]:checked").value : methods[0];
        const guess = photo.outcome.predictions.find((guess) => guess.label === label);
        frame.classList.add("loading");
        tell(say("map_loading"));
        const outcome = await asked(photo.file, { label, method }, signal).catch(() => null);
        if (signal.aborted) return;
        frame.classList.remove("loading");
        if (outcome.kind === "map") showMap(outcome.map, guess);
        else tell(sentence(outcome));
    }

    async function asked(file, choice, signal) {
        let outcome = await client.explain(file, choice, signal);
        for (let attempt = 1; outcome.kind === "busy" && attempt < ATTEMPTS; attempt += 1) {
            tell(say("map_busy", { seconds: say.duration(outcome.seconds) }));
            await new Promise((resolve) => setTimeout(resolve, 1000 * outcome.seconds));
            outcome = await client.explain(file, choice, signal);
        }
        return outcome;
    }

    function showMap(answer, guess) {
        seen.src = lit.src = answer.image;
        map.src = answer.map;
        lit.style.maskImage = `url("${answer.map}")`;
        seen.onload = () => {
            frame.style.setProperty("--shape", `${seen.naturalWidth} / ${seen.naturalHeight}`);
            frame.classList.toggle("small", seen.naturalWidth < SMALL);
        };
        frame.setAttribute("aria-label", say("map_of", { name: photo.name, class: guess.class }));
        tell(say("map_ready", { class: guess.class }), { isSeen: false });
    }

    /** Tells those who listen, and by default those who look. */
    function tell(text, { isSeen = true } = {}) {
        state.textContent = text;
        state.classList.toggle("hidden", !isSeen);
    }

    function sentence(outcome) {
        if (outcome.kind === "refused") return outcome.reason || say("refused");
        if (outcome.kind === "locked") return say("pause_locked");
        return say(outcome.kind === "busy" ? "refused" : "unreachable");
    }

    return open;
}
