"""Reports in other languages, by gettext catalogs under `locale/`.

A catalog is kept as its source, a .po file, and compiled when it is opened, so that no compiled
file can lag behind. Placeholders have the form {name}; a translation may write {name:을/를}, which
adds the particle that fits the end of the value.
"""

import gettext
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO

from markupsafe import Markup

from resnetkit.errors import UsageError
from resnetkit.studies.phrase import Phrase

__all__ = ["ENGLISH", "Language", "find_language", "languages", "particle"]

DOMAIN = "resnetkit"
PARTICLE = re.compile(r"\{(\w+):(\w+)/(\w+)\}")


@dataclass(frozen=True)
class Language:
    """Translates English sentences; those that the catalog lacks stay English.

    Attributes:
        code: such as ko, by ISO 639-1.
        catalog: the translations.
    """

    code: str
    catalog: gettext.NullTranslations

    def __call__(self, text: str, /, **values: object) -> str:
        """Returns the translation of a sentence; values that are strings are translated too.

        Args:
            text: English, plain or a `Phrase`.
            **values: by the names in braces; if one is markup, so is the result.
        """
        template = text.template if isinstance(text, Phrase) else str(text)
        if isinstance(text, Phrase):
            values = {**text.values, **values}
            if text.plural is not None:
                return self.filled(self.catalog.ngettext(template, *text.plural), values)
        return self.filled(self.message(template), values)

    def plural(self, one: str, many: str, count: int, /, **values: object) -> str:
        """Returns the translation of a sentence in the form for a count."""
        return self.filled(self.catalog.ngettext(one, many, count), values)

    def message(self, template: str) -> str:
        # gettext answers the empty string with the header of the catalog.
        return self.catalog.gettext(" ".join(template.split())) if template in self else template

    def __contains__(self, template: str) -> bool:
        key = " ".join(template.split())
        return bool(key) and self.catalog.gettext(key) != key

    def filled(self, template: str, values: Mapping[str, object]) -> str:
        """Returns a template with its values."""
        if not values:
            return template
        translated = {name: self.value(value) for name, value in values.items()}
        template = with_particles(template, translated)
        if any(isinstance(value, Markup) for value in translated.values()):
            return Markup(template).format(**translated)
        return template.format(**translated)

    def value(self, value: object) -> object:
        """Returns what is put into a sentence: translated words, anything else as it is."""
        is_text = isinstance(value, str) and not isinstance(value, Markup)
        return self(str(value) if type(value) is not Phrase else value) if is_text else value


def with_particles(template: str, values: Mapping[str, object]) -> str:
    """Replaces {name:을/를} by {name} and the particle that fits the value."""

    def chosen(match: re.Match[str]) -> str:
        value = values[match[1]]
        word = value.striptags() if isinstance(value, Markup) else str(value)
        return f"{{{match[1]}}}{particle(word, match[2], match[3])}"

    return PARTICLE.sub(chosen, template)


DIGITS = {"0": "ㅇ", "1": "ㄹ", "3": "ㅁ", "6": "ㄱ", "7": "ㄹ", "8": "ㄹ"}  # 영 일 삼 육 칠 팔
LETTERS = dict.fromkeys("bckmnpt", "ㄴ") | {"l": "ㄹ"}  # of a word; in 'resnet' the t closes
NAMES = dict.fromkeys("MN", "ㅁ") | dict.fromkeys("LR", "ㄹ")  # of single letters: 엠 엔 엘 알


def particle(word: str, closed: str, opened: str) -> str:
    """Returns the Korean particle that fits a word: `closed` after a final consonant.

    Digits count as they are read in Korean, Latin words by their last letter. After a final rieul
    the particle 으로 becomes 로.
    """
    end = final_consonant(word)
    if not end or (end == "ㄹ" and closed == "으로"):
        return opened
    return closed


def final_consonant(word: str) -> str:
    """Returns the final consonant of a word (any but rieul may stand for another), or nothing."""
    read = re.sub(r"[^\w%]+$", "", word)
    last = read[-1:]
    if "가" <= last <= "힣":
        coda = (ord(last) - ord("가")) % 28
        return "" if coda == 0 else "ㄹ" if coda == 8 else "ㄴ"
    if last.isdigit():
        return DIGITS.get(last, "")
    if re.search(r"(?<![A-Za-z])[A-Z]$", read):
        return NAMES.get(last, "")
    return LETTERS.get(last.lower(), "")


ENGLISH = Language("en", gettext.NullTranslations())


def languages() -> list[str]:
    """Returns the codes of the available languages."""
    folder = files("resnetkit.report") / "locale"
    return sorted({ENGLISH.code, *(entry.name for entry in folder.iterdir() if entry.is_dir())})


@cache
def find_language(code: str) -> Language:
    """Returns a language by its code.

    Raises:
        UsageError: when there is no catalog for it.
    """
    if code == ENGLISH.code:
        return ENGLISH
    if code not in languages():
        raise UsageError(f"unknown language '{code}': expected one of {', '.join(languages())}.")
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    path = files("resnetkit.report") / "locale" / code / "LC_MESSAGES" / f"{DOMAIN}.po"
    compiled = BytesIO()
    write_mo(compiled, read_po(BytesIO(path.read_bytes()), locale=code, abort_invalid=True))
    compiled.seek(0)
    return Language(code, gettext.GNUTranslations(compiled))
