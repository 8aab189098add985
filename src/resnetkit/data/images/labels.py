"""Names of classes: one form for each, and which class of a network a name means."""

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
"""In which order a library numbers the folders of classes: by code point as torchvision does, or
numbers as numbers and without case as timm does."""

logger = logging.getLogger(__name__)

INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200e\u200f\u2060\ufeff"))
WNID = re.compile(r"(n\d{8})(?![0-9a-zA-Z])")
MOST_OTHERS = 100  # of ImageNet's 1000 classes, for which libraries have other words


def clean_label(name: str) -> str:
    """Returns the one form of a class's name: Unicode's NFC, nothing invisible, no blank ends."""
    return unicodedata.normalize("NFC", name).translate(INVISIBLE).strip()


def natural_key(name: str) -> list[int | str]:
    """Returns what timm sorts folders by: numbers as numbers, letters without case."""
    return [int(word) if word.isdecimal() else word for word in re.split(r"(\d+)", name.lower())]


def in_order(names: Sequence[str], order: ClassOrder) -> tuple[str, ...]:
    """Returns names of classes in the order in which a library numbers them.

    Raises:
        DataError: when the library itself has no fixed order for two of them.
    """
    if order == "sorted":
        return tuple(sorted(names))
    ordered = sorted(names, key=natural_key)
    for name, successor in pairwise(ordered):
        if natural_key(name) == natural_key(successor):
            raise DataError(
                f"the classes '{name}' and '{successor}' have no fixed order in timm, which numbers"
                " folders without regard to case. Rename one of them."
            )
    return tuple(ordered)


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """Returns the WordNet ids of ImageNet's 1000 classes (ILSVRC 2012), in their order.

    Source: the list that timm ships, data/_info/imagenet_synsets.txt.
    """
    return tuple((files("resnetkit.data") / "imagenet_wnids.txt").read_text("ascii").split())


@cache
def imagenet_words() -> tuple[str, ...]:
    """Returns torchvision's names of ImageNet's 1000 classes."""
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


def wnid_of(name: str) -> str | None:
    """Returns the WordNet id that a name is or begins with, as in n02085620-Chihuahua."""
    match = WNID.match(name)
    return match[1] if match else None


def is_imagenet(names: Sequence[str]) -> bool:
    """Returns whether names are those of ImageNet's 1000 classes in their order.

    Libraries write them as words, of which the first is mostly the same, or as WordNet ids.
    """
    if len(names) != 1000:
        return False
    same = sum(
        wnid_of(name) == wnid or name.split(",")[0].casefold() == words.casefold()
        for name, wnid, words in zip(names, imagenet_wnids(), imagenet_words(), strict=True)
    )
    return same >= len(names) - MOST_OTHERS


def match_classes(labels: Sequence[str], names: Sequence[str], source: str) -> dict[str, int]:
    """Returns which class of a network each label means.

    A label is the name of a class, or for a network of ImageNet's classes a WordNet id, or a number
    from 0 to 999 where all labels are numbers.

    Args:
        labels: clean, each once.
        names: of the network's classes, in its order.
        source: of the labels, for messages.

    Raises:
        DataError: when a label means no class, or two.
    """
    if tuple(labels) == tuple(map(clean_label, names)):
        return {label: place for place, label in enumerate(labels)}  # also where two are equal
    places: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        places[clean_label(name)].append(place)
    if is_imagenet(names):
        add_imagenet(places, labels, source)
    unknown = [label for label in labels if label not in places]
    if unknown:
        raise DataError(
            f"{source} holds classes that the network was not trained on: {unknown[0]}"
            f" ({len(unknown)} in all). It knows {', '.join(names[:3])}, ...."
            + did_you_mean(unknown[0], places)
        )
    twice = next((label for label in labels if len(places[label]) > 1), None)
    if twice is not None:
        raise DataError(two_classes(source, twice, places[twice], is_imagenet(names)))
    return {label: places[label][0] for label in labels}


def add_imagenet(places: dict[str, list[int]], labels: Sequence[str], source: str) -> None:
    """Adds what else ImageNet's classes are called, as far as labels call them so."""
    order = {wnid: place for place, wnid in enumerate(imagenet_wnids())}
    are_numbers = all(re.fullmatch(r"\d{1,4}", label, re.ASCII) for label in labels)
    for label in labels:
        wnid = wnid_of(label)
        if label in places:
            continue
        if wnid in order:
            places[label] = [order[wnid]]
        elif are_numbers and int(label) < len(order):
            places[label] = [int(label)]
    if are_numbers and all(label in places for label in labels):
        first = int(labels[0])
        logger.warning(
            "%s: the names of its classes are taken as the numbers of ImageNet's, from 0: %s is %s",
            source,
            labels[0],
            imagenet_words()[first],
        )


def two_classes(source: str, label: str, places: list[int], has_wnids: bool) -> str:
    """Returns the message on a label that means more than one class."""
    listed = " and ".join(map(str, places))
    way = "Name the folders as the network's classes are told apart."
    if has_wnids:
        wnids = " or ".join(imagenet_wnids()[place] for place in places)
        way = f"Name the folder by its WordNet id, {wnids}."
    return f"{source}: '{label}' is the name of the network's classes {listed}. {way}"
