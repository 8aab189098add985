"""The reference can be generated: what is documented has words to document it with."""

import re
from collections.abc import Iterator

from pydantic import BaseModel

from resnetkit.training.recipe import Recipe, known_keys, section_types


def sections(path: list[str]) -> Iterator[type[BaseModel]]:
    """Yields the section classes of a recipe from a path of keys downwards."""
    for section in section_types(path):
        yield section
        for name in section.model_fields:
            yield from sections([*path, name])


def test_every_key_of_a_recipe_has_a_meaning() -> None:
    keys = 0
    for section in sections([]):
        text = "\n".join(owner.__doc__ or "" for owner in section.__mro__)
        for name in section.model_fields:
            assert re.search(rf"^ {{8}}{name}: \S", text, re.MULTILINE), (section, name)
            keys += 1
    assert keys >= len(known_keys([])) > 60


def test_the_sections_are_those_of_a_recipe() -> None:
    names = {section.__name__ for section in sections([])}
    assert {"Recipe", "Augmentation", "StepSchedule", "UntilErrorWarmup"} <= names
    assert Recipe in set(sections([]))
