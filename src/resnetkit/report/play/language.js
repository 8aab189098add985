/**
 * Texts in the language of the page.
 *
 *     const { _, ngettext, rich } = createLanguage(messages);
 *     _("after epoch {epoch}", { epoch: 7 })
 *     ngettext("{number} digit", "{number} digits", 3)
 *
 * {name:eul/reul} in a Korean text adds the particle that fits the end of the value, by the rule of
 * the reports (particles.py).
 */
const FINAL = { 0: "ㅇ", 1: "ㄹ", 3: "ㅁ", 6: "ㄱ", 7: "ㄹ", 8: "ㄹ" };
const OF_LETTERS = { M: "ㅁ", N: "ㅁ", L: "ㄹ", R: "ㄹ" };
const CLOSED = /[mn]$|[aeiouy][bcpt]$|[aeiouyc]k$/i;

export function createLanguage({ texts, plurals, forms }) {
  function _(text, values = {}) {
    return filled(Object.hasOwn(texts, text) ? texts[text] : text, values);
  }
  function ngettext(one, many, count, values = {}) {
    const form = forms[count < 200 ? count : 100 + (count % 100)];
    const template = Object.hasOwn(plurals, one) ? plurals[one][form] : count === 1 ? one : many;
    return filled(template, { number: count, ...values });
  }
  return { _, ngettext };
}

function filled(template, values) {
  return template.replace(/\{(\w+)(?::([^/}]+)\/([^}]+))?\}/g, (whole, name, closed, opened) => {
    if (!Object.hasOwn(values, name)) return whole;
    const value = String(values[name]);
    return closed ? value + particle(value, closed, opened) : value;
  });
}

/** Returns the particle that fits a word: `closed` after a final consonant, else `opened`. */
export function particle(word, closed, opened) {
  const end = finalConsonant(word);
  return end === null || (end === "ㄹ" && closed === "으로") ? opened : closed;
}

function finalConsonant(word) {
  const read = word.replace(/[^\p{L}\p{N}_%]+$/u, "");
  const last = read.slice(-1);
  if (last >= "가" && last <= "힣") {
    const coda = (last.codePointAt(0) - "가".codePointAt(0)) % 28;
    return coda === 0 ? null : coda === 8 ? "ㄹ" : "ㄴ";
  }
  if (/\d/.test(last)) return FINAL[last] ?? null;
  if (/(?<![A-Za-z])[A-Z]$/.test(read)) return OF_LETTERS[last] ?? null;
  if (last.toLowerCase() === "l") return "ㄹ";
  return CLOSED.test(read) ? "ㄴ" : null;
}

const GAP = "\u00a0";

/** Returns a number for people: `digits` after the point, or three significant ones if small. */
export function decimal(value, digits = 1) {
  if (value === null || !Number.isFinite(value)) return "–";
  if (value !== 0 && Math.abs(value) < 10 ** -digits / 2) return value.toExponential(1);
  return value.toFixed(digits);
}

export function percent(value, digits = 1) {
  return value === null || !Number.isFinite(value) ? "–" : `${value.toFixed(digits)}${GAP}%`;
}

export function significant(value) {
  if (value === null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 10000)
    ? value.toExponential(1)
    : String(Number(value.toPrecision(3)));
}
