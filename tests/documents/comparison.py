"""Compares output that a document shows with what was printed.

A line `...` stands for any lines and `...` inside a line for any text. Times, rates, sizes, dates,
versions and digests are placeholders. Percentages may differ by 3, other decimal numbers by a tenth
of their value or one in their last place. Everything else must be equal, except the width of gaps
and rules, which follows from the numbers.
"""

import difflib
import re
from collections.abc import Iterable, Sequence

ELLIPSIS = "..."
PERCENTAGE_POINTS = 3.0
FRACTION = 0.1

NUMBER = r"\d[\d,]*(?:\.\d+)?"
SIGNED = rf"[-+]?{NUMBER}(?:e[-+]?\d+)?"
PLACEHOLDERS = [
    (re.compile(pattern), placeholder)
    for pattern, placeholder in (
        (r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{8,64}\b", "<digest>"),
        (r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:Z|[-+]\d\d:\d\d)?)?", "<date>"),
        (r"(?<![\w.])\d+\.\d+\.\d+(?:[.+-]?[a-z]\w*)?(?![\w.])", "<version>"),
        (r"(?<![\w.:])(?:\d+|-):(?:\d\d|--)(?::(?:\d\d|--))?(?![\w:])", "<time>"),
        (rf"{NUMBER} ?(?:[a-z]+ )?(?:[a-z]+ ?/ ?s|per second)\b", "<rate>"),
        (rf"{NUMBER} ?(?:[KMGT]i?B|kB|bytes)\b", "<size>"),
        (rf"{NUMBER} ?(?:[num]?s|sec|seconds?|min|minutes?|h|hours?|days?)\b", "<time>"),
        (r"<time>(?:(?: and)? <time>)+", "<time>"),
        (r"([-─━═])\1{2,}", r"\1\1\1"),
        (r"\s+", " "),
    )
]
INTERVAL = rf"(?<=% interval ){SIGNED}(?= to )|(?<= to ){SIGNED}(?=\))"
PERCENTAGE = rf"{SIGNED}(?=(?: (?:to|and|-) {NUMBER})? ?%)|{INTERVAL}"
DECIMAL = r"(?<![\w.])[-+]?(?:\d[\d,]*\.\d+(?:e[-+]?\d+)?|\d+e[-+]?\d+)"
TOKEN = re.compile(rf"(?P<any>\.\.\.)|(?P<percentage>{PERCENTAGE})|(?P<decimal>{DECIMAL})")
A_COLUMN_OF_PERCENTAGES = re.compile(r"(?<!\d)(?<!\d )%")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PROGRESS_BAR = re.compile(r"[━╸╺]{3,}.* left ")


def printed_lines(output: str) -> list[str]:
    """Returns what remains on a terminal, without progress bars and blank lines around it."""
    lines = ESCAPE.sub("", output.replace("\r\n", "\n")).split("\n")
    lines = [line.rpartition("\r")[2].rstrip() for line in lines if not PROGRESS_BAR.search(line)]
    return without_blank_ends(lines)


def without_blank_ends(lines: Sequence[str]) -> list[str]:
    """Returns lines without the blank ones before the first and after the last."""
    with_text = [index for index, line in enumerate(lines) if line.strip()]
    return list(lines[with_text[0] : with_text[-1] + 1]) if with_text else []


def normalized(line: str) -> str:
    """Returns a line with placeholders for what differs from run to run."""
    line = line.strip()
    for pattern, placeholder in PLACEHOLDERS:
        line = pattern.sub(placeholder, line)
    return line


def line_matches(shown: str, printed: str, *, percentages: bool = False) -> bool:
    """Returns whether a printed line is the shown one.

    Args:
        shown: as in the document; `...` stands for any text.
        printed: as printed.
        percentages: whether numbers without a sign may be percentages, as in a table.
    """
    shown, printed = normalized(shown), normalized(printed)
    pattern, numbers, end = "", list[tuple[str, bool]](), 0
    for token in TOKEN.finditer(shown):
        pattern += re.escape(shown[end : token.start()])
        end = token.end()
        if token["any"]:
            pattern += ".*"
        else:
            pattern += f"({SIGNED})"
            numbers.append((token[0], percentages or token["percentage"] is not None))
    match = re.fullmatch(pattern + re.escape(shown[end:]), printed)
    return match is not None and all(
        is_close(number, other, percentage=percentage)
        for (number, percentage), other in zip(numbers, match.groups(), strict=True)
    )


def is_close(shown: str, printed: str, *, percentage: bool) -> bool:
    """Returns whether a printed number is within the tolerance of the shown one."""
    value = float(shown.replace(",", ""))
    difference = abs(value - float(printed.replace(",", "")))
    decimals = len(shown.partition("e")[0].partition(".")[2])
    last_place = 0.0 if "e" in shown or not decimals else 10.0**-decimals
    tolerance = max(FRACTION * abs(value), last_place, PERCENTAGE_POINTS if percentage else 0.0)
    return difference <= tolerance * (1 + 1e-9)


def matches(shown: Sequence[str], printed: Sequence[str], *, beginning: bool = False) -> bool:
    """Returns whether printed lines are the shown ones.

    Args:
        shown: lines of a document; a line `...` stands for any lines.
        printed: lines that were printed.
        beginning: whether further lines may follow.
    """
    percentages = has_percentages(shown)
    states = after_ellipses({0}, shown)  # how many of the shown lines may have been matched
    for line in printed:
        if beginning and len(shown) in states:
            return True
        reached = set[int]()
        for state in states - {len(shown)}:
            if is_ellipsis(shown[state]):
                reached.add(state)
            elif line_matches(shown[state], line, percentages=percentages):
                reached.add(state + 1)
        states = after_ellipses(reached, shown)
    return len(shown) in states


def has_percentages(lines: Iterable[str]) -> bool:
    """Returns whether output has a % that follows no number, such as in the head of a column."""
    return any(A_COLUMN_OF_PERCENTAGES.search(line) for line in lines)


def is_ellipsis(line: str) -> bool:
    return line.strip() == ELLIPSIS


def after_ellipses(states: set[int], shown: Sequence[str]) -> set[int]:
    """Returns states, and those that follow because a line `...` may stand for no line."""
    result = set(states)
    for state in states:
        while state < len(shown) and is_ellipsis(shown[state]):
            state += 1
            result.add(state)
    return result


def difference(shown: Sequence[str], printed: Sequence[str]) -> str:
    """Returns a diff of shown and printed lines in which lines that match are equal."""
    percentages = has_percentages(shown)
    lines = [line for line in shown if not is_ellipsis(line)]
    aligned = [
        next((one for one in lines if line_matches(one, line, percentages=percentages)), line)
        for line in printed
    ]
    diff = difflib.unified_diff(shown, aligned, "shown", "printed", lineterm="", n=2)
    return "\n".join(diff)


def updated(shown: Sequence[str], printed: Sequence[str]) -> list[str] | None:
    """Returns the lines that a document should show.

    Lines with `...` inside that still match stay, and so does one line `...`, with as many lines
    around it as before. None if there are several such lines.
    """
    ellipses = [index for index, line in enumerate(shown) if is_ellipsis(line)]
    partial = [line for line in shown if ELLIPSIS in line and not is_ellipsis(line)]
    lines = [next((one for one in partial if line_matches(one, line)), line) for line in printed]
    if len(ellipses) > 1:
        return None
    if not ellipses:
        return lines
    head, tail = ellipses[0], len(shown) - ellipses[0] - 1
    if head + tail >= len(lines):
        return lines
    return [*lines[:head], shown[ellipses[0]], *lines[len(lines) - tail :]]
