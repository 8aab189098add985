/**
 * The page: photos that are dropped, pasted or chosen become cards, and the queue sends them.
 */

import { createCards, showState } from "./cards.js";
import { createClient } from "./client.js";
import { filesOf } from "./files.js";
import { createDialog } from "./looking.js";
import { createMessages } from "./messages.js";
import { createQueue } from "./queue.js";
import { asRecords, commonClasses, countStates, ordered, typicalTimes } from "./summary.js";

const ANNOUNCED = 4; // seconds between announcements to those who listen
const MEBIBYTE = 2 ** 20;

const facts = JSON.parse(document.querySelector("#facts").textContent);
const say = createMessages(facts.messages, facts.language);
const client = createClient();
const canExplain = facts.saliency.length > 0;
const openDialog = createDialog({ say, client, methods: facts.saliency });
const createCard = createCards({ say, canExplain, explain: openDialog });
const queue = createQueue({ send: sent, changed: photoChanged, paused: showPause });
const get = (selector) => document.querySelector(selector);

let photos = [];
let cards = new Map(); // photo -> element
let chosenClass = null;
let started = 0; // when the first photo of a round was sent, in milliseconds
let finished = 0; // when the last one was answered
let spent = 0; // milliseconds of earlier rounds
let announced = 0;
let isDrawn = true;

/** Sends a photo, unless the server would refuse its size. */
async function sent(photo, signal) {
    if (photo.file.size > facts.bodyBytes) {
        const [size, limit] = [photo.file.size, facts.bodyBytes].map((bytes) => say.number(Math.ceil(bytes / MEBIBYTE)));
        return { kind: "refused", status: 413, reason: "", detail: say("too_large_detail", { size, limit }) };
    }
    return client.predict(photo.file, signal);
}

function add(files) {
    if (files.length === 0) {
        announce(say("no_photos"));
        return;
    }
    const added = files.map((file, index) => ({
        number: photos.length + index,
        name: file.webkitRelativePath || file.name || say("photo_number", { number: photos.length + index + 1 }),
        file,
    }));
    photos.push(...added);
    for (const photo of added) cards.set(photo, createCard(photo));
    get("#photos").append(...added.map((photo) => cards.get(photo)));
    document.body.classList.add("started");
    get("#results").hidden = false;
    begin(added);
}

function begin(added) {
    if (!isBusy()) {
        spent += finished - started;
        started = performance.now();
    }
    queue.add(added);
}

function isBusy() {
    const counts = countStates(photos.filter((photo) => photo.state));
    return counts.waiting + counts.sent > 0;
}

function photoChanged(photo) {
    showState(photo, cards.get(photo), say, canExplain);
    finished = performance.now();
    if (isDrawn) {
        isDrawn = false;
        requestAnimationFrame(draw);
    }
}

/** Draws what all photos have in common, once a frame. */
function draw() {
    isDrawn = true;
    const counts = countStates(photos);
    const open = counts.waiting + counts.sent;
    const done = photos.length - open;
    get("#progress").value = photos.length ? done / photos.length : 0;
    get("#progress").hidden = open === 0;
    get("#stop").hidden = open === 0;
    get("#retry").hidden = open > 0 || counts.stopped + unreachable().length === 0;
    get("#save").hidden = get("#clear").hidden = open > 0;
    showCount(counts, open, done);
    showTimes();
    showClasses();
    if (open === 0) arrange();
    announceProgress(open);
}

function showCount(counts, open, done) {
    const parts = [];
    const main = document.createElement("b");
    if (open > 0) {
        main.textContent = say("progress", { done: say.number(done), total: say.number(photos.length) });
    } else {
        main.textContent = say.counted("finished", counts.answered);
        const seconds = (spent + finished - started) / 1000;
        parts.push(plain(` ${say("elapsed", { duration: say.duration(seconds) })}`));
    }
    if (counts.failed > 0) parts.push(plain(" · "), strong(say.counted("failed", counts.failed)));
    if (counts.stopped > 0) parts.push(plain(` · ${say.counted("stopped_count", counts.stopped)}`));
    get("#count").replaceChildren(main, ...parts);
}

function plain(text) {
    const span = document.createElement("span");
    span.textContent = text;
    return span;
}

function strong(text) {
    const element = document.createElement("span");
    element.className = "failures";
    element.textContent = text;
    return element;
}

function showTimes() {
    const times = photos.filter((photo) => photo.state === "answered").map((photo) => photo.outcome.times);
    get("#times").hidden = times.length < 2;
    if (times.length < 2) return;
    const { total, parts } = typicalTimes(times);
    const sum = parts.reduce((all, [, seconds]) => all + seconds, 0);
    get("#median").textContent = say("median", { duration: say.duration(total) });
    get(".stack").replaceChildren(...parts.map(([part, seconds]) => {
        const piece = tone("i", part);
        piece.style.flexGrow = String(seconds / sum);
        return piece;
    }));
    get(".legend").replaceChildren(...parts.map(([part, seconds]) => {
        const item = document.createElement("li");
        const value = document.createElement("b");
        value.textContent = say.duration(seconds);
        item.append(tone("i", part), `${say(part)} `, value);
        return item;
    }));
}

function tone(kind, part) {
    const element = document.createElement(kind);
    element.dataset.part = part;
    return element;
}

/** Shows a button for each common class, which leaves only its photos. */
function showClasses() {
    const common = commonClasses(photos);
    const answered = photos.filter((photo) => photo.state === "answered").length;
    get("#sorting").hidden = answered < 3;
    const wanted = [[null, answered], ...common];
    const group = get("#classes");
    group.hidden = common.length === 0;
    while (group.children.length > wanted.length) group.lastChild.remove();
    wanted.forEach(([name, count], index) => {
        const button = group.children[index] ?? group.appendChild(classButton());
        button.dataset.name = name ?? "";
        button.ariaPressed = String(name === chosenClass);
        button.firstChild.textContent = name ?? say("everything");
        button.lastChild.textContent = say.number(count);
    });
}

function classButton() {
    const button = document.createElement("button");
    button.type = "button";
    button.append(document.createElement("span"), " ", document.createElement("small"));
    button.addEventListener("click", () => {
        chosenClass = button.dataset.name || null;
        showClasses();
        arrange();
    });
    return button;
}

/** Puts the cards into the chosen order, and hides those of other classes. */
function arrange() {
    const order = ordered(photos, get("#order").value);
    const list = get("#photos");
    order.forEach((photo, index) => {
        const card = cards.get(photo);
        if (list.children[index] !== card) list.insertBefore(card, list.children[index] ?? null);
        const isWanted = chosenClass === null || photo.outcome?.predictions?.[0].class === chosenClass;
        card.hidden = !isWanted;
    });
}

function announceProgress(open) {
    const now = performance.now();
    if (open > 0 && now - announced < 1000 * ANNOUNCED) return;
    announced = now;
    announce(get("#count").textContent);
}

function announce(text) {
    get("#announcement").textContent = text;
}

function showPause(pause) {
    const line = get("#pause");
    line.hidden = pause === null;
    if (pause === null) return;
    const isWrong = pause.reason === "locked" && client.token !== "";
    const name = isWrong ? "pause_wrong" : `pause_${pause.reason}`;
    line.textContent = say(name, { seconds: say.duration(pause.seconds ?? 0) });
    announce(line.textContent);
    if (pause.reason === "locked") askForToken(isWrong);
}

function askForToken(isWrong) {
    get("#access").hidden = false;
    get("#token").setAttribute("aria-invalid", String(isWrong));
    get("#token").focus();
    get("#token").select();
}

function unreachable() {
    return photos.filter((photo) => photo.state === "failed" && photo.outcome.kind === "unreachable");
}

function retry() {
    const again = [...unreachable(), ...photos.filter((photo) => photo.state === "stopped")];
    begin(again.sort((a, b) => a.number - b.number));
}

function clear() {
    photos = [];
    cards = new Map();
    chosenClass = null;
    started = finished = spent = 0;
    get("#photos").replaceChildren();
    get("#results").hidden = true;
    get("#order").value = "number";
    document.body.classList.remove("started");
    get("#choose").focus();
}

function save() {
    const link = document.createElement("a");
    const content = JSON.stringify(asRecords(photos), null, 1);
    link.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));
    link.download = "predictions.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function take(transfer) {
    add(await filesOf(transfer, facts.suffixes));
}

function listen() {
    get("#choose").addEventListener("click", () => get("#files").click());
    get("#files").addEventListener("change", (event) => {
        add([...event.target.files]);
        event.target.value = ""; // so that the same photos can be chosen again
    });
    get("#stop").addEventListener("click", () => queue.stop());
    get("#retry").addEventListener("click", retry);
    get("#clear").addEventListener("click", clear);
    get("#save").addEventListener("click", save);
    get("#order").addEventListener("change", arrange);
    get("#access").addEventListener("submit", (event) => {
        event.preventDefault();
        client.token = get("#token").value.trim();
        get("#token").removeAttribute("aria-invalid");
        queue.proceed();
    });
    document.addEventListener("paste", (event) => {
        if (event.clipboardData?.files.length) take(event.clipboardData);
    });
    listenToDrops();
}

function listenToDrops() {
    const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
    const mark = (isOver) => document.body.classList.toggle("dragging", isOver);
    document.addEventListener("dragover", (event) => {
        if (!hasFiles(event)) return;
        event.preventDefault();
        mark(true);
    });
    document.addEventListener("dragleave", (event) => event.relatedTarget === null && mark(false));
    document.addEventListener("drop", (event) => {
        if (!hasFiles(event)) return;
        event.preventDefault();
        mark(false);
        take(event.dataTransfer);
    });
}

get("#curl").textContent = `curl --data-binary @photo.jpg ${new URL("predict", location.href.split(/[?#]/)[0])}`
    + (facts.needsToken ? ' \\\n    -H "Authorization: Bearer TOKEN"' : "");
listen();
