"""Korean particles, whose form depends on the last sound of the word before them."""

import re
from collections.abc import Mapping

from markupsafe import Markup

__all__ = ["particle", "with_particles"]

PARTICLE = re.compile(r"\{(\w+):(\w+)/(\w+)\}")

DIGITS = {"0": "ㅇ", "1": "ㄹ", "3": "ㅁ", "6": "ㄱ", "7": "ㄹ", "8": "ㄹ"}  # 영 일 삼 육 칠 팔
# The last letters of Latin words: the t closes 'resnet', but a vowel is read after it in 'test'.
CLOSED = re.compile(r"[mn]$|[aeiouy][bcpt]$|[aeiouyc]k$", re.IGNORECASE)
NAMES = dict.fromkeys("MN", "ㅁ") | dict.fromkeys("LR", "ㄹ")  # of single letters: 엠 엔 엘 알


def with_particles(template: str, values: Mapping[str, object]) -> str:
    """Replaces {name:을/를} by {name} and the particle that fits the value."""

    def chosen(match: re.Match[str]) -> str:
        value = values[match[1]]
        word = value.striptags() if isinstance(value, Markup) else str(value)
        return f"{{{match[1]}}}{particle(word, match[2], match[3])}"

    return PARTICLE.sub(chosen, template)


def particle(word: str, closed: str, opened: str) -> str:
    """Returns the particle that fits a word: `closed` after a final consonant, else `opened`.

    Digits count as they are read in Korean, Latin words by their last letter. After a final rieul
    the particle 으로 becomes 로.
    """
    end = final_consonant(word)
    if end is None or (end == "ㄹ" and closed == "으로"):
        return opened
    return closed


def final_consonant(word: str) -> str | None:
    """Returns the final consonant of a word; any but rieul may stand for another."""
    read = re.sub(r"[^\w%]+$", "", word)
    last = read[-1:]
    if "가" <= last <= "힣":
        coda = (ord(last) - ord("가")) % 28
        return None if coda == 0 else "ㄹ" if coda == 8 else "ㄴ"
    if last.isdigit():
        return DIGITS.get(last)
    if re.search(r"(?<![A-Za-z])[A-Z]$", read):
        return NAMES.get(last)
    if last.lower() == "l":
        return "ㄹ"
    return "ㄴ" if CLOSED.search(read) else None
