"""English sentences that keep their template and values, so that reports can translate them.

Every text that a report may translate is written as `phrase("...")` or `plural_phrase("...", "...",
n)`, from which Babel extracts the messages of the catalogs.
"""

from typing import Self

__all__ = ["Phrase", "phrase", "plural_phrase"]

Plural = tuple[str, int]


class Phrase(str):
    """An English sentence that keeps its template and its values.

    Attributes:
        template: with a name in braces for each value; the singular where there is a plural.
        values: by name; those that are phrases are translated, too.
        plural: the template of the plural and the count that decides; None without a plural.
    """

    template: str
    values: dict[str, object]
    plural: Plural | None

    def __new__(
        cls, template: str, values: dict[str, object], plural: Plural | None = None
    ) -> Self:
        form = template if plural is None or plural[1] == 1 else plural[0]
        self = super().__new__(cls, form.format(**values) if values else form)
        self.template, self.values, self.plural = template, values, plural
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self.template), self.values, self.plural)  # for other processes


def phrase(template: str, **values: object) -> Phrase:
    """Returns the sentence of a template with values for its names in braces."""
    return Phrase(str(template), values)


def plural_phrase(one: str, many: str, count: int, **values: object) -> Phrase:
    """Returns the sentence in the form for a count, which is the value `number`."""
    return Phrase(one, {"number": count, **values}, (many, count))
