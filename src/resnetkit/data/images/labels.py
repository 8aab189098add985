"""Class names: their normal form, their order, and how they map to the classes of a network."""

import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Literal

from resnetkit.errors import DataError, did_you_mean

__all__ = [
    "ClassOrder",
    "clean_label",
    "imagenet_wnids",
    "imagenet_words",
    "in_order",
    "is_imagenet",
    "match_classes",
    "wnid_of",
]

ClassOrder = Literal["sorted", "natural"]
"""The order in which a library numbers class folders: sorted by code point as in torchvision, or
natural, by numeric value and ignoring case, as in timm."""

logger = logging.getLogger(__name__)

INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200e\u200f\u2060\ufeff"))
WNID = re.compile(r"(n\d{8})(?![0-9a-zA-Z])")
MOST_MISMATCHES = 100  # of ImageNet's 1000 class names, which differ between libraries


def clean_label(name: str) -> str:
    """Normalizes a class name: NFC, no invisible characters, no surrounding whitespace."""
    return unicodedata.normalize("NFC", name).translate(INVISIBLE).strip()


def natural_key(name: str) -> list[int | str]:
    """Returns timm's sort key of a folder: digits as numbers, letters without case."""
    return [int(word) if word.isdecimal() else word for word in re.split(r"(\d+)", name.lower())]


def in_order(names: Sequence[str], order: ClassOrder) -> tuple[str, ...]:
    """Returns class names in the order in which a library numbers them.

    Raises:
        DataError: when the library does not define the order of two of them.
    """
    if order == "sorted":
        return tuple(sorted(names))
    ordered = sorted(names, key=natural_key)
    for name, successor in pairwise(ordered):
        if natural_key(name) == natural_key(successor):
            raise DataError(
                f"the order of the classes '{name}' and '{successor}' is undefined in timm, which"
                " ignores case when it numbers folders. Rename one of them."
            )
    return tuple(ordered)


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """Returns the WordNet ids of ImageNet's 1000 classes (ILSVRC 2012), in order.

    Source: data/_info/imagenet_synsets.txt of timm.
    """
    return tuple((files("resnetkit.data") / "imagenet_wnids.txt").read_text("ascii").split())


@cache
def imagenet_words() -> tuple[str, ...]:
    """Returns torchvision's names of ImageNet's 1000 classes, in order."""
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


def wnid_of(name: str) -> str | None:
    """Returns the WordNet id that a name begins with, as in n02085620-Chihuahua, or None."""
    match = WNID.match(name)
    return match[1] if match else None


def is_imagenet(names: Sequence[str]) -> bool:
    """Returns whether names are those of ImageNet's 1000 classes, in order.

    Libraries use WordNet ids or words; the first word is usually the same.
    """
    if len(names) != 1000:
        return False
    same = sum(
        wnid_of(name) == wnid or name.split(",")[0].casefold() == words.casefold()
        for name, wnid, words in zip(names, imagenet_wnids(), imagenet_words(), strict=True)
    )
    return same >= len(names) - MOST_MISMATCHES


def match_classes(labels: Sequence[str], names: Sequence[str], source: str) -> dict[str, int]:
    """Returns the index of the network's class that each label means.

    A label is the name of a class. If the network has ImageNet's classes, it may also be a WordNet
    id or, if all labels are numbers, an index from 0 to 999.

    Args:
        labels: clean and unique.
        names: of the network's classes, in order.
        source: of the labels, for messages.

    Raises:
        DataError: when a label means none of the classes, or several.
    """
    if tuple(labels) == tuple(map(clean_label, names)):
        return {label: index for index, label in enumerate(labels)}  # even if two names are equal
    classes: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        classes[clean_label(name)].append(index)
    if is_imagenet(names):
        add_imagenet(classes, labels, source)
    unknown = [label for label in labels if label not in classes]
    if unknown:
        raise DataError(
            f"{source} contains classes that the network was not trained on: {unknown[0]}"
            f" ({len(unknown)} in all). Its classes are {', '.join(names[:3])}, ...."
            + did_you_mean(unknown[0], classes)
        )
    ambiguous = next((label for label in labels if len(classes[label]) > 1), None)
    if ambiguous is not None:
        raise DataError(ambiguous_label(source, ambiguous, classes[ambiguous], is_imagenet(names)))
    return {label: classes[label][0] for label in labels}


def add_imagenet(classes: dict[str, list[int]], labels: Sequence[str], source: str) -> None:
    """Adds the WordNet ids and indices among the labels to the names of ImageNet's classes."""
    order = {wnid: index for index, wnid in enumerate(imagenet_wnids())}
    are_numbers = all(re.fullmatch(r"\d{1,4}", label, re.ASCII) for label in labels)
    for label in labels:
        wnid = wnid_of(label)
        if label in classes:
            continue
        if wnid in order:
            classes[label] = [order[wnid]]
        elif are_numbers and int(label) < len(order):
            classes[label] = [int(label)]
    if are_numbers and all(label in classes for label in labels):
        first = int(labels[0])
        logger.warning(
            "%s: its class names are read as indices of ImageNet's classes, from 0: %s is %s",
            source,
            labels[0],
            imagenet_words()[first],
        )


def ambiguous_label(source: str, label: str, indices: list[int], has_wnids: bool) -> str:
    """Returns the message on a label that is the name of several classes."""
    listed = " and ".join(map(str, indices))
    advice = "Give the folders names that tell the classes of the network apart."
    if has_wnids:
        wnids = " or ".join(imagenet_wnids()[index] for index in indices)
        advice = f"Name the folder by its WordNet id, {wnids}."
    return f"{source}: '{label}' is the name of the network's classes {listed}. {advice}"
