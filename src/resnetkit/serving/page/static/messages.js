/**
 * Sentences and numbers in the language of the page.
 *
 *     const say = createMessages(page.messages, "en");
 *     say("busy", {seconds: 2})          // a sentence with its values
 *     say.counted("answered", 3)         // the form for a number, its value {number}
 *     say.percent(0.931)                 // "93.1 %"
 *     say.duration(0.0412)               // "41 ms"
 */

const NBSP = "\u00a0"; // between a number and its unit

/**
 * @param {Record<string, string | [string, string]>} messages by name; with two forms where a
 *   number decides: for one, and for more.
 * @param {string} language of the numbers
 */
export function createMessages(messages, language) {
    const number = new Intl.NumberFormat(language);
    const fine = new Intl.NumberFormat(language, { minimumFractionDigits: 1, maximumFractionDigits: 1 });

    function say(name, values = {}) {
        return filled(messages[name], values);
    }
    say.counted = (name, count, values = {}) =>
        filled(messages[name][count === 1 ? 0 : 1], { number: number.format(count), ...values });
    say.number = (value) => number.format(value);
    say.percent = (probability) => percent(probability, fine);
    say.duration = (seconds) => duration(seconds, number, fine);
    return say;
}

/** Replaces names in braces by values. */
export function filled(template, values) {
    return template.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
}

/** Rounds towards the middle: what is not certain is not called 100 %, what is possible not 0 %. */
function percent(probability, fine) {
    if (probability > 0.999 && probability < 1) return `>${NBSP}${fine.format(99.9)}${NBSP}%`;
    if (probability > 0 && probability < 0.001) return `<${NBSP}${fine.format(0.1)}${NBSP}%`;
    return `${fine.format(100 * probability)}${NBSP}%`;
}

function duration(seconds, number, fine) {
    const milliseconds = 1000 * seconds;
    if (milliseconds < 9.95) return `${fine.format(milliseconds)}${NBSP}ms`;
    if (milliseconds < 999.5) return `${number.format(Math.round(milliseconds))}${NBSP}ms`;
    return `${number.format(Math.round(10 * seconds) / 10)}${NBSP}s`;
}
