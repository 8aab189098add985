"""The parts of a data set: what they are called, and how samples are drawn into them."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from resnetkit.data.draws import Draws, Stream

__all__ = [
    "DECORATIONS",
    "PARTS",
    "Split",
    "named_splits",
    "split_named",
    "stratified_split",
]

Split = Literal["train", "validation", "test"]
"""train is learned from, validation is chosen on, test is only reported."""

SPLIT_SEED = 20151210  # the day the paper appeared: arXiv 1512.03385

PARTS: dict[str, Split] = {
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
"""What folders and tables call the parts."""

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
"""What names of parts are decorated with: seg_train, training_set, test-images, train2017, ..."""
GLUED = re.compile(rf"({'|'.join(PARTS)})(set|sets|data|dataset|split|images|imgs|img|photos)")
WORDS = re.compile(r"[^\W\d_]+|\d+")


def split_named(name: str) -> Split | None:
    """Returns the part that a folder's or table's name for it means; None for any other name."""
    return named_splits([name]).get(name)


def named_splits(names: Sequence[str]) -> dict[str, Split]:
    """Returns which names that stand beside each other mean a part.

    Case, separators, numbers and words such as "set" or "images" do not matter, nor do words that
    all of two or more names have in common, as in ILSVRC2012_img_train and ILSVRC2012_img_val.
    """
    words = {name: words_of(name) for name in names}
    common = set[str]()
    if len(words) > 1:
        common = set.intersection(*map(set, words.values())) - set(PARTS)
    splits = {}
    for name, its_words in words.items():
        telling = [
            word
            for word in its_words
            if not (word in common or word in DECORATIONS or word.isdecimal())
        ]
        if len(telling) == 1 and telling[0] in PARTS:
            splits[name] = PARTS[telling[0]]
    return splits


def words_of(name: str) -> list[str]:
    """Returns the words of a name in lower case; trainset and TrainSet are two."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
    words: list[str] = []
    for word in WORDS.findall(apart.casefold()):
        glued = GLUED.fullmatch(word)
        words += glued.groups() if glued else [word]
    return words


def stratified_split(
    labels: Tensor,
    *,
    test_share: float,
    validation_share: float,
    seed: int = SPLIT_SEED,
    stream: Stream = Stream.ORDER,
    at_least_one: bool = False,
) -> dict[Split, Tensor]:
    """Splits the samples of each class by shares; the same seed always gives the same split.

    Args:
        labels: int64 (N,).
        test_share: of each class, rounded to whole samples.
        validation_share: likewise.
        seed: of the split.
        stream: that is drawn from; by default as the published data sets always were, which is the
            order of a training of `SPLIT_SEED`.
        at_least_one: whether a share above 0 is at least one sample of each class that has another
            one to learn from.

    Returns:
        Ascending sample ids of each part; every sample is in exactly one.
    """
    none = torch.arange(0)
    parts: dict[Split, list[Tensor]] = {name: [none] for name in get_args(Split)}
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        shuffled = members[Draws(members, seed).bits(stream).argsort()]
        tests = round(test_share * len(members))
        validations = round(validation_share * len(members))
        if at_least_one:
            validations = max(validations, int(validation_share > 0 and len(members) > 1))
            tests = max(tests, int(test_share > 0 and len(members) > 1 + validations))
        sizes = [len(members) - tests - validations, validations, tests]
        for part, ids in zip(parts.values(), shuffled.split(sizes), strict=True):
            part.append(ids)
    return {name: torch.cat(ids).sort().values for name, ids in parts.items()}
