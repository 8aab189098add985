"""The texts of the JavaScript modules, in the language of the page."""

import gettext
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from babel.messages.extract import extract

from resnetkit.report.language import Language

__all__ = ["Messages", "messages"]

KEYWORDS = {"_": None, "ngettext": (1, 2)}
PERIOD = 100
"""Rules of plural forms depend on small counts and on the last two digits of larger ones."""


@dataclass(frozen=True)
class Messages:
    """Translations for the page.

    Attributes:
        texts: by the English text.
        plurals: all forms, by the English singular.
        forms: index of the form for the counts 0 to 199; larger ones repeat the last hundred.
    """

    texts: dict[str, str]
    plurals: dict[str, list[str]]
    forms: list[int]


def messages(t: Language) -> Messages:
    """Returns the translations of all texts of the modules."""
    texts: dict[str, str] = {}
    plurals: dict[str, list[str]] = {}
    forms = [plural_form(t.catalog, count) for count in range(2 * PERIOD)]
    for message in texts_of_modules():
        if isinstance(message, tuple):
            one, many = message
            examples = {form: count for count, form in enumerate(forms)}
            plurals[one] = [t.catalog.ngettext(one, many, examples[i]) for i in sorted(examples)]
        else:
            texts[message] = t.catalog.gettext(message)
    return Messages(texts, plurals, forms)


def plural_form(catalog: gettext.NullTranslations, count: int) -> int:
    """Returns the index of the plural form for a count; English without a catalog."""
    rule = getattr(catalog, "plural", None)
    return int(rule(count)) if rule else int(count != 1)


@cache
def texts_of_modules() -> tuple[str | tuple[str, ...], ...]:
    """Returns the messages of the modules, as Babel extracts them."""
    found: dict[str | tuple[str, ...], None] = {}
    for file in sorted(files("resnetkit.report.play").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".js"):
            with file.open("rb") as opened:
                for _, message, _, _ in extract("javascript", opened, keywords=KEYWORDS):
                    found[message if isinstance(message, str) else tuple(message)] = None
    return tuple(found)
