/**
 * A pad to draw a digit on, as the data set was made: 32x32 dots, of which 4x4 each give a pixel.
 *
 *     const pad = createPad(canvas, onChange);   // onChange(counts): 64 numbers from 0 to 16
 *     pad.show(counts)
 *
 * With the keyboard, arrows move a frame, space turns its pixel from empty to half to full, and
 * Delete empties the pad.
 */
const SIDE = 8;
const DOTS = 32;
const PEN = 2.1; // radius in dots

export function createPad(canvas, onChange) {
  const pad = {
    base: new Array(64).fill(0),
    dots: new Uint8Array(DOTS * DOTS),
    last: null,
    cell: [3, 3],
    onChange,
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pad.last = null;
    stroke(pad, canvas, event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons & 1) stroke(pad, canvas, event);
  });
  canvas.addEventListener("keydown", (event) => press(pad, canvas, event));
  canvas.addEventListener("focus", () => paint(pad, canvas));
  canvas.addEventListener("blur", () => paint(pad, canvas));
  return {
    show(counts) {
      if (counts.join() === countsOf(pad).join()) return;
      pad.base = [...counts];
      pad.dots.fill(0);
      paint(pad, canvas);
    },
    paint: () => paint(pad, canvas),
  };
}

/** Returns the pixels of a pad: how many of their 16 dots are ink. */
export function countsOf({ base, dots }) {
  const drawn = new Array(64).fill(0);
  dots.forEach((dot, i) => {
    drawn[Math.floor(i / DOTS / 4) * SIDE + Math.floor((i % DOTS) / 4)] += dot;
  });
  return drawn.map((count, i) => Math.max(count, base[i]));
}

/** Sets the dots within the pen along a line. */
export function ink(dots, [x0, y0], [x1, y1]) {
  const steps = Math.max(1, Math.ceil(2 * Math.hypot(x1 - x0, y1 - y0)));
  for (let step = 0; step <= steps; step += 1) {
    const [x, y] = [x0 + ((x1 - x0) * step) / steps, y0 + ((y1 - y0) * step) / steps];
    for (let i = Math.max(0, Math.floor(y - PEN)); i < Math.min(DOTS, y + PEN); i += 1) {
      for (let j = Math.max(0, Math.floor(x - PEN)); j < Math.min(DOTS, x + PEN); j += 1) {
        if (Math.hypot(j + 0.5 - x, i + 0.5 - y) <= PEN) dots[i * DOTS + j] = 1;
      }
    }
  }
}

function stroke(pad, canvas, event) {
  const box = canvas.getBoundingClientRect();
  const at = [
    ((event.clientX - box.left) / box.width) * DOTS,
    ((event.clientY - box.top) / box.height) * DOTS,
  ];
  ink(pad.dots, pad.last ?? at, at);
  pad.last = at;
  changed(pad, canvas);
}

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function press(pad, canvas, event) {
  const move = MOVES[event.key];
  if (move) pad.cell = pad.cell.map((at, i) => Math.min(SIDE - 1, Math.max(0, at + move[i])));
  else if (event.key === " ") {
    const index = pad.cell[1] * SIDE + pad.cell[0];
    const counts = countsOf(pad);
    counts[index] = { 0: 8, 8: 16 }[counts[index]] ?? 0;
    pad.base = counts;
    pad.dots.fill(0);
  } else if (event.key === "Delete" || event.key === "Backspace") {
    pad.base.fill(0);
    pad.dots.fill(0);
  } else return;
  event.preventDefault();
  if (move) paint(pad, canvas);
  else changed(pad, canvas);
}

function changed(pad, canvas) {
  paint(pad, canvas);
  pad.onChange(countsOf(pad));
}

function paint(pad, canvas) {
  const context = canvas.getContext("2d");
  const side = canvas.width / SIDE;
  const style = getComputedStyle(canvas);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = style.color;
  countsOf(pad).forEach((count, i) => {
    context.globalAlpha = count / 16;
    context.fillRect((i % SIDE) * side, Math.floor(i / SIDE) * side, side, side);
  });
  context.globalAlpha = 1;
  if (document.activeElement !== canvas) return;
  context.strokeStyle = style.outlineColor;
  context.lineWidth = 4;
  context.strokeRect(pad.cell[0] * side + 2, pad.cell[1] * side + 2, side - 4, side - 4);
}
