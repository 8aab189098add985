"""Numbers and names as people read them."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from html import escape

from markupsafe import Markup

__all__ = [
    "bold",
    "duration",
    "mean_and_spread",
    "millions",
    "number",
    "percent",
    "renamed",
    "rich",
    "thousands",
    "typographic",
]

NONE = "\N{EN DASH}"  # stands where nothing was measured
GAP = "\N{NO-BREAK SPACE}"


def number(value: float, digits: int = 2) -> str:
    """Returns a number with a real minus sign; a dash for one that is not finite."""
    text = f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return text if math.isfinite(value) else NONE


def percent(value: float) -> str:
    """Returns an error such as 6.97 %."""
    return f"{number(value)}{GAP}%" if math.isfinite(value) else NONE


def mean_and_spread(values: Sequence[float], unit: str = "%") -> str:
    """Returns the mean and the sample standard deviation, such as 6.61 +- 0.16 %.

    Args:
        values: one a seed.
        unit: of the values; a plain number, with one more digit, where it is empty.
    """
    digits, ending = (2, f"{GAP}{unit}") if unit else (3, "")
    if not values:
        return NONE
    if len(values) < 2:
        return f"{number(values[0], digits)}{ending}"
    spread = f"{GAP}\N{PLUS-MINUS SIGN}{GAP}{number(statistics.stdev(values), digits)}"
    return f"{number(statistics.fmean(values), digits)}{spread}{ending}"


def millions(value: int | None) -> str:
    """Returns a count such as 40.6 M; a dash for none."""
    return NONE if value is None else f"{value / 1e6:,.1f}{GAP}M"


def bold(text: str) -> Markup:
    """Returns text that stands out."""
    return Markup("<b>{}</b>").format(text)


def thousands(value: int | None) -> str:
    """Returns a count such as 853,018; a dash for none."""
    return NONE if value is None else f"{value:,}"


def duration(seconds: float) -> str:
    """Returns a time such as 42.5 s, 3 min 20 s or 2 h 5 min."""
    if not math.isfinite(seconds):
        return NONE
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}{GAP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{GAP}min {rest}{GAP}s"
    return f"{minutes // 60}{GAP}h {minutes % 60}{GAP}min"


def renamed(drawing: str, prefix: str) -> Markup:
    """Returns a drawing whose ids differ from those of the same drawing elsewhere on the page."""
    return Markup(re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}-", str(drawing)))


def typographic(text: str) -> str:
    """Returns text from an ASCII source with a real plus-minus sign."""
    return text.replace(" +- ", f"{GAP}\N{PLUS-MINUS SIGN}{GAP}")


# "y = F(x) + x", "F(x) = 0" or "F(x)"
FORMULA = r"(?:\b[a-z] = )?\b[A-Z]\([a-z]\)(?: [+=] (?:[a-z]|\d+)\b)?"


def rich(text: str, names: Mapping[str, str] | None = None) -> Markup:
    """Returns text for a page: formulas set as MathML, and some words replaced by unbroken names.

    Args:
        text: plain, such as "plain56 computes F(x)".
        names: what to write for a word, such as plain-56 for plain56.
    """
    known = names or {}
    words = "".join(rf"|\b{re.escape(word)}\b" for word in sorted(known, key=len, reverse=True))

    def mark(found: str) -> str:
        if found in known:
            return f'<span class="name">{escape(known[found])}</span>'
        return mathml(found)

    parts, end = [], 0
    for match in re.finditer(
        FORMULA + words, text, re.ASCII
    ):  # letters of other scripts may follow
        parts += [escape(text[end : match.start()]), mark(match[0])]
        end = match.end()
    return Markup("".join([*parts, escape(text[end:])]))


def mathml(formula: str) -> str:
    """Returns a formula of single letters, digits and signs as MathML."""
    marks = []
    for sign in formula.replace(" ", ""):
        kind = "mi" if sign.isalpha() else "mn" if sign.isdigit() else "mo"
        marks.append(f"<{kind}>{sign}</{kind}>")
    return f"<math><mrow>{''.join(marks)}</mrow></math>"
