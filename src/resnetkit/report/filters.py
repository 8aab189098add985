"""Numbers and names as people read them: the filters of the templates."""

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

NONE = "\N{EN DASH}"  # where nothing was measured
GAP = "\N{NO-BREAK SPACE}"
WORD_JOINER = "\N{WORD JOINER}"


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
        values: one per seed.
        unit: of the values; empty for plain numbers, which are given with one more digit.
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
    """Returns text in bold."""
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
    """Returns text for a page: formulas as MathML, and some words replaced by unbroken names.

    Args:
        text: plain, such as "plain56 computes F(x)".
        names: what to write for a word, such as plain-56 for plain56.
    """
    names = names or {}
    keys = "".join(rf"|\b{re.escape(word)}\b" for word in sorted(names, key=len, reverse=True))
    pieces, end = [], 0
    # ASCII: letters of other scripts may follow a formula or a name without a space.
    for match in re.finditer(FORMULA + keys, text, re.ASCII):
        name = names.get(match[0])
        marked = mathml(match[0]) if name is None else f'<span class="name">{escape(name)}</span>'
        pieces += [escape(text[end : match.start()]), marked]
        end = match.end()
    pieces.append(escape(text[end:]))
    # Korean lines break between words only, but browsers would also break after a parenthesis.
    return Markup(re.sub(r"\)(?:</span>)?(?=[가-힣])", rf"\g<0>{WORD_JOINER}", "".join(pieces)))


def mathml(formula: str) -> str:
    """Returns a formula of single letters, digits and signs as MathML."""
    marks = []
    for sign in formula.replace(" ", ""):
        kind = "mi" if sign.isalpha() else "mn" if sign.isdigit() else "mo"
        attribute = ' stretchy="false"' if sign in "()" else ""  # as high as the letters
        marks.append(f"<{kind}{attribute}>{sign}</{kind}>")
    return f"<math><mrow>{''.join(marks)}</mrow></math>"
