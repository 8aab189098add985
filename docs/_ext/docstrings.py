"""Reads the parts of a docstring in Google style."""

import re
from inspect import cleandoc

__all__ = ["described", "introduction", "sentence", "summary"]

HEADING = re.compile(r"^(?:Args|Attributes|Raises|Returns|Yields):$", re.MULTILINE)


def introduction(docstring: str | None) -> str:
    """Returns what stands above the first list of a docstring."""
    return HEADING.split(cleandoc(docstring or ""))[0].strip()


def summary(docstring: str | None) -> str:
    """Returns the first paragraph of a docstring in one line."""
    return " ".join(introduction(docstring).partition("\n\n")[0].split())


def described(docstring: str | None, heading: str) -> dict[str, str]:
    """Returns the descriptions of the list below a heading, such as `Attributes`, by name."""
    _, _, rest = cleandoc(docstring or "").partition(f"{heading}:\n")
    items = re.finditer(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", HEADING.split(rest)[0], re.MULTILINE)
    return {item[1]: " ".join(item[2].split()) for item in items}


def sentence(text: str) -> str:
    """Returns a description with a capital letter at its beginning and a period at its end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")
