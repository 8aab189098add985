"""Sentences that know how they were made, so that they can be said in another language."""

from typing import Self

__all__ = ["Phrase", "phrase"]


class Phrase(str):
    """An English sentence that remembers its template and what was put in.

    Attributes:
        template: with a name in braces for each value.
        values: by name.
    """

    template: str
    values: dict[str, object]

    def __new__(cls, template: str, values: dict[str, object]) -> Self:
        self = super().__new__(cls, template.format(**values))
        self.template, self.values = template, values
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.template, self.values)  # it travels between processes


def phrase(template: str, **values: object) -> Phrase:
    """Returns the sentence that a template makes of some values."""
    return Phrase(template, values)
