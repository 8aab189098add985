"""A strict YAML reader: scalars as in YAML 1.2, no duplicate keys, no aliases.

PyYAML implements YAML 1.1, where 012 is ten, 1:30 is ninety, `no` is false, and a key that occurs
twice silently keeps only its last value.
"""

import copy
import re
from collections.abc import Hashable
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from resnetkit.untrusted import MAX_DEPTH, MAX_DIGITS, read_bounded

__all__ = ["YAML_ERRORS", "parse_yaml", "read_yaml"]

YAML_ERRORS = (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError)
"""What PyYAML raises for invalid YAML: its own errors, and those of its constructors."""

LARGEST_RECIPE = 2**20  # bytes


class RecipeLoader(yaml.SafeLoader):
    """Loads YAML and refuses aliases, duplicate keys and ambiguous numbers."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuses deep nesting, and aliases, with which a small file can expand to a huge value."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(None, None, "a recipe has no aliases (*name)", mark)
        if self.depth > MAX_DEPTH:
            problem = f"it is nested more than {MAX_DEPTH} levels deep"
            raise yaml.MarkedYAMLError(None, None, problem, parent.start_mark if parent else None)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuses a key that occurs twice, since one of its values would be lost."""
        first: dict[Any, yaml.Node] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in first:
                line = first[key].start_mark.line + 1
                raise yaml.MarkedYAMLError(
                    None,
                    None,
                    f"the key '{key}' occurs twice, first in line {line}: keep one of them",
                    key_node.start_mark,
                )
            if isinstance(key, Hashable):
                first[key] = key_node
        return super().construct_mapping(node, deep=deep)


def whole_number(loader: RecipeLoader, node: yaml.ScalarNode) -> int:
    """Parses a decimal integer.

    Raises:
        yaml.MarkedYAMLError: when it begins with a zero, which YAML 1.1 reads as octal, or has too
            many digits.
    """
    digits = node.value.lstrip("+-")
    if len(digits) > 1 and digits.startswith("0"):
        raise yaml.MarkedYAMLError(
            None,
            None,
            f"{node.value} begins with a zero, as octal numbers do: remove the zero",
            node.start_mark,
        )
    if len(digits) > MAX_DIGITS:
        raise yaml.MarkedYAMLError(
            None, None, f"a number of {len(digits):,} digits", node.start_mark
        )
    return int(node.value)


RecipeLoader.yaml_implicit_resolvers = {}
RecipeLoader.yaml_constructors = {
    **yaml.SafeLoader.yaml_constructors,
    "tag:yaml.org,2002:int": whole_number,
}
for tag, pattern, first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
):
    RecipeLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), list(first)
    )


def parse_yaml(text: str) -> Any:
    """Parses YAML with the scalars of YAML 1.2.

    Raises:
        YAML_ERRORS: when it is not YAML, or contains a duplicate key or an alias.
    """
    return copy.deepcopy(parsed(text))


@lru_cache(maxsize=64)  # texts; a study reads one recipe for each of its trainings
def parsed(text: str) -> Any:
    """Parses as `parse_yaml` does; the values are shared, and not to be changed."""
    return yaml.load(text, RecipeLoader)  # a subclass of SafeLoader


def read_yaml(path: Path) -> Any:
    """Reads a YAML file.

    Raises:
        OSError: when it cannot be read or is larger than any recipe.
        YAML_ERRORS: as for `parse_yaml`; UnicodeDecodeError is one of them.
    """
    return parse_yaml(read_bounded(path, LARGEST_RECIPE).decode("utf-8-sig"))
