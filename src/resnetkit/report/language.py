"""Reports in other languages, by gettext catalogs under `locale/`.

A catalog is kept as its source, a .po file, and compiled when it is opened, so that no compiled
file can fall behind. Placeholders have the form {name}; a translation may write {name:을/를}, which
adds the particle that fits the end of the value.
"""

import gettext
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO

from markupsafe import Markup

from resnetkit.errors import UsageError
from resnetkit.report.particles import with_particles
from resnetkit.studies.phrase import Phrase

__all__ = ["ENGLISH", "Language", "find_language", "languages"]

DOMAIN = "resnetkit"


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
        """Returns the translation of a sentence.

        Args:
            text: English, plain or a `Phrase`, which brings its own values.
            **values: by the names in braces. Phrases among them are translated, too; if one is
                markup, so is the result.
        """
        if not isinstance(text, Phrase):
            # gettext answers the empty string with the header of the catalog.
            return self.filled(self.catalog.gettext(text) if text else text, values)
        values = {**text.values, **values}
        if text.plural is None:
            return self(text.template, **values)
        return self.plural(text.template, *text.plural, **values)

    def plural(self, one: str, many: str, count: int, /, **values: object) -> str:
        """Returns the translation of a sentence in the form for a count, its value `number`."""
        return self.filled(self.catalog.ngettext(one, many, count), {"number": count, **values})

    def filled(self, template: str, values: Mapping[str, object]) -> str:
        """Returns a template with its values."""
        if not values:
            return template
        translated = {
            name: self(value) if isinstance(value, Phrase) else value
            for name, value in values.items()
        }
        template = with_particles(template, translated)
        if any(isinstance(value, Markup) for value in translated.values()):
            return Markup(template).format(**translated)
        return template.format(**translated)


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
