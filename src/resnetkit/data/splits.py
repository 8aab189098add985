"""The splits of a data set, and their names in folders and tables."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

__all__ = [
    "DECORATIONS",
    "SPLIT_NAMES",
    "Split",
    "named_splits",
    "split_named",
]

Split = Literal["train", "validation", "test"]
"""train for training, validation for choosing among models, test for reporting only."""

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "dev": "validation",
    "devel": "validation",
    "development": "validation",
    "test": "test",
    "tests": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
    "holdout": "test",
}
"""The split that a name in a folder or table means."""

DECORATIONS = frozenset(
    [
        "set",
        "sets",
        "data",
        "dataset",
        "datasets",
        "split",
        "splits",
        "subset",
        "part",
        "image",
        "images",
        "img",
        "imgs",
        "jpeg",
        "jpg",
        "png",
        "photo",
        "photos",
        "picture",
        "pictures",
        "pic",
        "pics",
        "folder",
        "dir",
        "files",
        "seg",
        "v",
        "raw",
    ]
)
"""Words next to the name of a split: seg_train, training_set, test-images, train2017, ..."""
COMPOUND = re.compile(
    rf"({'|'.join(SPLIT_NAMES)})(set|sets|data|dataset|split|images|imgs|img|photos)"
)
WORDS = re.compile(r"[^\W\d_]+|\d+")


def split_named(name: str) -> Split | None:
    """Returns the split that a name in a folder or table means; None for any other name."""
    return named_splits([name]).get(name)


def named_splits(names: Sequence[str]) -> dict[str, Split]:
    """Returns the names, among those of sibling folders or columns, that mean a split.

    Case, separators, numbers and words such as "set" or "images" are ignored, and so are words
    common to all names, as in ILSVRC2012_img_train and ILSVRC2012_img_val.
    """
    words_by_name = {name: words_of(name) for name in names}
    common = set[str]()
    if len(words_by_name) > 1:
        common = set.intersection(*map(set, words_by_name.values())) - set(SPLIT_NAMES)
    splits = {}
    for name, words in words_by_name.items():
        distinctive = [
            word
            for word in words
            if not (word in common or word in DECORATIONS or word.isdecimal())
        ]
        if len(distinctive) == 1 and distinctive[0] in SPLIT_NAMES:
            splits[name] = SPLIT_NAMES[distinctive[0]]
    return splits


def words_of(name: str) -> list[str]:
    """Returns the words of a name in lower case: trainset and TrainSet both have two."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
    words: list[str] = []
    for word in WORDS.findall(spaced.casefold()):
        compound = COMPOUND.fullmatch(word)
        words += compound.groups() if compound else [word]
    return words
