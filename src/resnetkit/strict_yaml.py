"""YAML, of which nothing is read otherwise than it is written.

PyYAML reads YAML 1.1, in which 012 is ten, 1:30 is ninety, `no` is false and of a key that occurs
twice only the last value counts.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from resnetkit.untrusted import MAX_DEPTH, MAX_DIGITS, read_bounded

__all__ = ["YAML_ERRORS", "parse_yaml", "read_yaml"]

YAML_ERRORS = (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError)
"""What PyYAML raises for a text that is none: its own, and what its constructors let through."""

LARGEST_RECIPE = 2**20  # bytes


class RecipeLoader(yaml.SafeLoader):
    """Reads YAML without aliases, duplicate keys and numbers that are not what they look like."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuses aliases, with which a small file can spell a huge value, and deep nesting."""
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
        """Refuses a key that occurs twice, of whose values one would be lost."""
        known: dict[Any, yaml.Node] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in known:
                line = known[key].start_mark.line + 1
                raise yaml.MarkedYAMLError(
                    None,
                    None,
                    f"the key '{key}' occurs twice, first in line {line}: merge them",
                    key_node.start_mark,
                )
            if isinstance(key, Hashable):
                known[key] = key_node
        return super().construct_mapping(node, deep=deep)


def whole_number(loader: RecipeLoader, node: yaml.ScalarNode) -> int:
    """Returns a whole number in decimal digits.

    Raises:
        yaml.MarkedYAMLError: for one that begins with a zero, which YAML 1.1 reads as octal.
    """
    digits = node.value.lstrip("+-")
    if len(digits) > 1 and digits.startswith("0"):
        raise yaml.MarkedYAMLError(
            None,
            None,
            f"{node.value} begins with a zero, which some read as octal: write it without",
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
    """Parses a text as YAML 1.2 writes numbers, words and truth values.

    Raises:
        YAML_ERRORS: when it is none, names a key twice or holds an alias.
    """
    return yaml.load(text, RecipeLoader)  # it is a SafeLoader


def read_yaml(path: Path) -> Any:
    """Reads a YAML file.

    Raises:
        OSError: when it cannot be read or is larger than a recipe can be.
        YAML_ERRORS: as `parse_yaml`; UnicodeDecodeError is one of them.
    """
    return parse_yaml(read_bounded(path, LARGEST_RECIPE).decode("utf-8-sig"))
