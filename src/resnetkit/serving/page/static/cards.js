/**
 * A card for each photo: its picture, its state, the ranked classes, how long it took.
 */

import { drawThumbnail } from "./thumbnails.js";

const SMALL = 96; // pixels: smaller pictures are shown with their pixels

/** Parts of the time that the server tells; the rest is the network, or both without them. */
const PARTS = ["decode", "wait", "compute"];

/**
 * @param {{say: Function, canExplain: boolean, explain: (photo: object) => void}} options
 * @returns {(photo: object) => HTMLElement} creates the card of a photo
 */
export function createCards({ say, canExplain, explain }) {
    const template = document.querySelector("#card");

    return function createCard(photo) {
        const card = template.content.cloneNode(true).querySelector(".photo");
        card.querySelector(".file").textContent = photo.name;
        card.querySelector(".file").title = photo.name;
        card.querySelector(".suffix").textContent = suffixOf(photo.name);
        drawPicture(photo, card.querySelector("canvas"));
        const button = card.querySelector(".look");
        button.addEventListener("click", () => explain(photo));
        return card;
    };

    async function drawPicture(photo, canvas) {
        if (await drawThumbnail(photo.file, canvas)) {
            canvas.classList.toggle("small", Math.max(canvas.width, canvas.height) < SMALL);
            canvas.nextElementSibling.remove();
        }
    }
}

/** Shows the state of a photo on its card. */
export function showState(photo, card, say, canExplain) {
    card.dataset.state = photo.state;
    if (photo.state === "answered") {
        showAnswer(photo, card, say, canExplain);
    } else {
        const [headline, detail] = told(photo, say);
        card.querySelector(".state").textContent = headline;
        showDetail(card.querySelector(".detail"), detail, Boolean(photo.outcome?.reason));
    }
}

/** Returns what is told of a photo without an answer: a headline, and more. */
export function told(photo, say) {
    if (photo.state !== "failed") return [say(photo.state), ""];
    const { kind, status, reason, detail } = photo.outcome;
    if (kind === "unreachable") return [say("unreachable"), say("unreachable_detail")];
    if (status === 413) return [say("too_large"), detail ?? capitalized(reason)];
    return [say(status === 422 || status === 415 ? "unreadable" : "refused"), capitalized(reason)];
}

/** Turns what the server says of "the image: ..." into a sentence. */
function capitalized(reason) {
    const sentence = reason.replace(/^the image: /, "");
    return sentence.charAt(0).toUpperCase() + sentence.slice(1);
}

/** Shows a sentence; those of the server are English. */
function showDetail(element, sentence, isOfServer) {
    element.textContent = sentence;
    element.hidden = sentence === "";
    if (isOfServer) element.lang = "en";
    else element.removeAttribute("lang");
}

function showAnswer(photo, card, say, canExplain) {
    const [best, ...others] = photo.outcome.predictions;
    const top = card.querySelector(".top");
    fillRank(top, best, say);
    setPart(card.querySelector(".words > .bar"), best.probability);
    const rank = document.querySelector("#rank");
    const rows = others.map((guess) => {
        const row = rank.content.cloneNode(true).querySelector("li");
        fillRank(row, guess, say);
        setPart(row.querySelector(".bar"), guess.probability);
        return row;
    });
    card.querySelector(".ranked").replaceChildren(...rows);
    showTimes(card.querySelector(".took"), photo.outcome.times, say);
    const button = card.querySelector(".look");
    button.hidden = !canExplain;
    button.setAttribute("aria-label", say("look", { name: photo.name }));
}

/** Writes the class and the probability of a guess into their places. */
export function fillRank(element, guess, say) {
    element.querySelector(".class").textContent = guess.class;
    element.querySelector(".share").textContent = say.percent(guess.probability);
}

export function setPart(bar, part) {
    bar.style.setProperty("--part", String(part));
}

function showTimes(element, times, say) {
    const total = document.createElement("b");
    total.textContent = say.duration(times.total);
    const parts = partsOf(times).map(([part, seconds]) => `${say(part)} ${say.duration(seconds)}`);
    element.replaceChildren(total, parts.length > 1 ? ` · ${parts.join(", ")}` : "");
}

/** Splits the time of a request: [part, seconds] for what the server tells, and for the rest. */
export function partsOf(times) {
    const told = PARTS.filter((part) => part in times).map((part) => [part, times[part]]);
    const rest = times.total - told.reduce((sum, [, seconds]) => sum + seconds, 0);
    return [...told, [told.length > 0 ? "network" : "server", Math.max(rest, 0)]];
}

function suffixOf(name) {
    return name.includes(".") ? name.slice(name.lastIndexOf(".") + 1, name.lastIndexOf(".") + 6) : "?";
}
