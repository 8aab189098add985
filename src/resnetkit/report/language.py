"""What a report says, in another language: one table from English sentences to theirs."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import yaml
from markupsafe import Markup

from resnetkit.errors import UsageError
from resnetkit.studies.phrase import Phrase

__all__ = ["ENGLISH", "Language", "find_language", "languages"]


@dataclass(frozen=True)
class Language:
    """Says English sentences in a language; those it does not know stay English.

    Attributes:
        code: such as ko, by ISO 639-1.
        table: sentences of the language by English ones, with names in braces for values.
    """

    code: str
    table: Mapping[str, str]

    def __call__(self, text: str, /, **values: object) -> str:
        """Returns a sentence; values that are sentences themselves are said in the language too.

        Args:
            text: English, plain or a `Phrase`.
            **values: what stands for the names in braces; markup makes the sentence markup.
        """
        template = text.template if isinstance(text, Phrase) else str(text)
        own = text.values if isinstance(text, Phrase) else {}
        known = self.table.get(" ".join(template.split()), template)
        shown = {name: self.value(each) for name, each in {**own, **values}.items()}
        if not shown:
            return known
        if any(isinstance(each, Markup) for each in shown.values()):
            return Markup(known).format(**shown)
        return known.format(**shown)

    def value(self, each: object) -> object:
        """Returns what is put into a sentence: words in the language, anything else as it is."""
        return self(each) if isinstance(each, str) and not isinstance(each, Markup) else each


ENGLISH = Language("en", {})


def languages() -> list[str]:
    """Returns the codes of the languages there are."""
    folder = files("resnetkit.report") / "languages"
    return sorted(
        {
            ENGLISH.code,
            *(
                each.name.removesuffix(".yaml")
                for each in folder.iterdir()
                if each.name.endswith(".yaml")
            ),
        }
    )


def find_language(code: str) -> Language:
    """Returns a language by its code.

    Raises:
        UsageError: when there is none.
    """
    if code == ENGLISH.code:
        return ENGLISH
    if code not in languages():
        raise UsageError(f"unknown language '{code}': expected one of {', '.join(languages())}.")
    path = files("resnetkit.report") / "languages" / f"{code}.yaml"
    return Language(code, yaml.safe_load(path.read_text(encoding="utf-8")))
