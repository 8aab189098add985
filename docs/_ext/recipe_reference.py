"""The directives `recipe-keys` and `named-recipes`: what a recipe may say, from its schema.

Names, values and defaults are those of the sections of `Recipe`; meanings are their docstrings.
"""

import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from definitions import Definition, definition_list
from docstrings import described, introduction, sentence
from docutils import nodes
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from resnetkit.training.recipe import named_recipes, section_types

__all__ = ["Key", "keys", "setup"]


@dataclass(frozen=True)
class Key:
    """A key of a recipe; the texts are Markdown."""

    name: str
    values: str
    default: str
    meaning: str


def keys(section: type[BaseModel], path: list[str]) -> list[Key]:
    """Returns the keys of a section that hold values, without those that are sections."""
    meanings = meanings_of(section)
    schema = schema_of(section)
    return [
        Key(name, values_in_words(schema[name]), default_in_words(field), sentence(meanings[name]))
        for name, field in section.model_fields.items()
        if not section_types([*path, name])
    ]


def meanings_of(section: type[BaseModel]) -> dict[str, str]:
    """Returns what the docstrings of a section and its base classes say about its keys."""
    meanings: dict[str, str] = {}
    for owner in reversed(section.__mro__):
        meanings |= described(owner.__doc__, "Attributes")
    return meanings


@cache
def schema_of(section: type[BaseModel]) -> dict[str, Any]:
    """Returns the JSON schema of the fields of a section; a length is a string there."""
    properties: dict[str, Any] = section.model_json_schema(mode="serialization")["properties"]
    return properties


def values_in_words(schema: dict[str, Any]) -> str:
    """Returns which values a JSON schema allows."""
    match schema:
        case {"enum": choices}:
            return ", ".join(f"`{choice}`" if choice else "none" for choice in choices)
        case {"const": value}:
            return f"`{value}`"
        case {"type": "boolean"}:
            return "`true`, `false`"
        case {"type": "integer"}:
            return f"whole number{bounds(schema)}"
        case {"type": "number"}:
            return f"number{bounds(schema)}"
        case {"type": "array", "prefixItems": [first, _]}:
            return f"two of: {values_in_words(first)}"
        case {"type": "array", "items": item}:
            return f"list of: {values_in_words(item)}"
        case {"type": "object"}:
            return "keys and values"
        case {"type": "string", "examples": examples}:
            return "such as " + " or ".join(f"`{example}`" for example in examples)
        case {"type": "string"}:
            return "text"
    raise ValueError(f"no words for the schema {schema}")


def bounds(schema: dict[str, Any]) -> str:
    """Returns the bounds of a number in words, with a comma before them."""
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    limits = {word: schema[bound] for bound, word in words.items() if bound in schema}
    if "at least" in limits:
        limits.pop("above", None)  # of a type that is narrowed
        if "at most" in limits:
            low, high = map(number_in_words, limits.values())
            return f" from {low} to {high}"
    parts = [f"{word} {number_in_words(limit)}" for word, limit in limits.items()]
    return f", {' and '.join(parts)}" if parts else ""


def number_in_words(value: float) -> str:
    """Returns a number as people write it: a large power of two as such."""
    exponent = int(value).bit_length() - 1
    if exponent >= 20 and value == 2**exponent:
        return f"2^{exponent}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"


def default_in_words(field: FieldInfo) -> str:
    """Returns the default of a field as in YAML."""
    if field.is_required():
        return "required"
    match field.default:
        case "":
            return "none by default"
        case bool() | tuple() | dict() as value:
            return f"`{json.dumps(value)}` by default"
        case float() as value:
            return f"`{value:g}` by default"
        case value:
            return f"`{value}` by default"


class RecipeKeys(SphinxDirective):
    """The keys of a section, which the argument names; of the whole recipe without one."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = self.arguments[0].split(".") if self.arguments else []
        sections = section_types(path)
        for section in sections:
            self.env.note_dependency(inspect.getfile(section))
        if len(sections) == 1:
            return [self.keys(keys(sections[0], path), path, anchor=path)]
        return list(self.kinds(sections, path))

    def kinds(self, sections: list[type[BaseModel]], path: list[str]) -> Iterator[nodes.Node]:
        """Yields the key `kind`, and the keys that go with each of its values."""
        keys_of = {section: keys(section, path) for section in sections}
        kinds = [first for first, *_ in keys_of.values()]
        default = next((k.default for k in kinds if k.default != "required"), "required")
        values = ", ".join(kind.values for kind in kinds)
        yield self.keys([replace(kinds[0], values=values, default=default)], path, anchor=path)
        for section, (kind, *rest) in keys_of.items():
            value = kind.values.strip("`")
            title = f"{'.'.join([*path, kind.name])}: {value}"
            yield nodes.rubric("", "", nodes.literal(text=title))
            yield from self.parse_text_to_nodes(introduction(section.__doc__))
            if rest:
                yield self.keys(rest, path, anchor=[*path, value])

    def keys(self, keys: list[Key], path: list[str], *, anchor: list[str]) -> nodes.definition_list:
        """Returns a list of keys, which a search finds as well."""
        domain = self.env.domains.standard_domain
        definitions = []
        for key in keys:
            name, key_anchor = (".".join([*above, key.name]) for above in (path, anchor))
            domain.note_object("confval", key_anchor, key_anchor, location=self.get_location())
            definitions.append(Definition(name, (key.values, key.default), key.meaning, key_anchor))
        return definition_list(self, definitions)


class NamedRecipes(SphinxDirective):
    """The recipes that come with the package: what their header says, and their text."""

    def run(self) -> list[nodes.Node]:
        parts = []
        for name, path in named_recipes().items():
            self.env.note_dependency(str(path))
            text = path.read_text(encoding="utf-8")
            header = [line for line in text.splitlines() if line.startswith("#")]
            body = text.removeprefix("\n".join(header)).strip()
            words = "\n".join(header_in_markdown(header))
            parts.append(f"### {name}\n\n{words}\n\n```yaml\n{body}\n```")
        return self.parse_text_to_nodes("\n\n".join(parts), allow_section_headings=True)


def header_in_markdown(lines: list[str]) -> list[str]:
    """Returns the comment at the head of a recipe, with a paragraph for each of its labels."""
    result: list[str] = []
    for line in lines:
        text = line.removeprefix("#").strip()
        label, colon, rest = text.partition(": ")
        if colon and label in ("Reproduces", "Cost", "Expected"):
            result += ["", f"**{label}**: {rest}"]
        else:
            result.append(text)
    return result


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the directives."""
    app.add_directive("recipe-keys", RecipeKeys)
    app.add_directive("named-recipes", NamedRecipes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
