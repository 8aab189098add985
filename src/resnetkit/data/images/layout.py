"""Decides which folders are splits and which are classes, and refuses what is ambiguous."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations
from pathlib import Path

from resnetkit.data.images.labels import clean_label
from resnetkit.data.images.listing import ImageFile, Skipped
from resnetkit.data.images.tree import Folder
from resnetkit.data.splits import DECORATIONS, SPLIT_NAMES, Split, named_splits, split_named
from resnetkit.errors import DataError

__all__ = [
    "NO_CLASS",
    "NO_IMAGES",
    "ROLES",
    "Listing",
    "class_folders",
    "enumerated",
    "refuse_ambiguous_classes",
    "refuse_same_folder",
    "split_folders",
    "unwrapped",
]

NO_CLASS = "an image outside of the class folders"
NO_LABEL = "an image of a folder without classes, next to those of splits"
NO_IMAGES = "a folder without images"
NOT_A_CLASS = "an image of a folder that is not one of the classes of the training images"
STRAY_FRACTION = 0.1  # of the images of a folder that may lie next to its own folders
UNLABELED = frozenset({"pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled"})
ROLES = DECORATIONS | {
    "annotation",
    "annotations",
    "label",
    "labels",
    "mask",
    "masks",
    "xml",
    "bbox",
    "bboxes",
    "boxes",
    "trimaps",
    "groundtruth",
    "gt",
    "jpegimages",
    "segmentationclass",
    "segmentationobject",
    "metadata",
}
"""Names of folders by the kind of their files; none of them is a class."""
NEVER_TRAINED = ROLES | UNLABELED | {"unknown"}
"""Names of folders of a validation or test split that need not be classes."""
TABLE_ADVICE = (
    "To decide it yourself, list the images in a .csv table with the columns path, label and, if"
    " the splits are fixed, split."
)
SPLIT_AND_CLASS = re.compile(
    rf"({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})"
    r"(?:[-_. ]+|(?-i:(?=[A-Z])))(.+)",
    re.IGNORECASE,
)
"""Names such as trainA and test_dog: a split and a class."""
NAMES_SHOWN = 4  # in a message


@dataclass
class Listing:
    """The list of images of a folder while it is being read.

    Attributes:
        root: the folder.
        class_names: names that are known to be those of classes.
        files: the images.
        skipped: files and folders that are not used.
        remarks: sentences on what is unusual.
    """

    root: Path
    class_names: frozenset[str]
    files: list[ImageFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def skip(self, folder: Folder, reason: str) -> None:
        """Records that a folder and everything below it is not used."""
        images = [image for inner in folder.all() for image in inner.images]
        self.skipped += [Skipped(path, reason) for path in images or [folder.path]]


def unwrapped(folder: Folder, listing: Listing) -> Folder:
    """Returns the folder that contains classes or splits; archives often wrap it in another."""
    while True:
        inner = folder.folders[0] if len(folder.folders) == 1 else None
        if inner is None or folder.images or inner.images or not inner.total:
            return folder
        is_split = split_named(inner.name) and not nested_splits(inner)
        if is_split or clean_label(inner.name) in listing.class_names:
            return folder
        listing.remarks.append(
            f"the folders in {inner.path} are read, the only folder in {folder.path}"
        )
        folder = inner


def nested_splits(folder: Folder) -> dict[str, Split]:
    """Returns the splits among the folders in a folder that contain folders with images."""
    nested = {inner.name for inner in folder.folders if inner.total > len(inner.images)}
    splits = named_splits([inner.name for inner in folder.folders])
    return {name: split for name, split in splits.items() if name in nested}


def split_folders(top: Folder, listing: Listing) -> list[tuple[Split | None, Folder]]:
    """Returns the folders that contain class folders, each with its split.

    Raises:
        DataError: when some folders are splits and others are not, or two are the same split.
    """
    for folder in top.folders:
        refuse_same_folder(folder)
    if by_class := splits_in_classes(top):
        return by_class
    named = named_splits([folder.name for folder in top.folders])
    refuse_splits_of_classes(top, listing.class_names)
    splits = nested_splits(top)
    others = [folder for folder in top.folders if folder.name not in named and folder.total]
    others = [folder for folder in others if not is_unlabeled(folder)] if splits else others
    if not splits or ("train" not in splits.values() and others):
        refuse_flat_splits(top, named)
        return [(None, top)]
    for folder in top.folders:
        for inner in folder.folders if folder.name in named else ():
            refuse_same_folder(inner)
    if others:
        raise DataError(
            f"{top.path} contains {enumerated(splits)} and also"
            f" {enumerated([folder.name for folder in others])}: expected only splits, or only"
            f" classes. Move the others away. {TABLE_ADVICE}"
        )
    if len(set(splits.values())) != len(splits):
        raise DataError(
            f"{top.path} contains the same split twice: {enumerated(splits)}. Keep one, or rename"
            " them to train, val and test."
        )
    listing.remarks += remarks_on_empty_splits(top, named, splits)
    result: list[tuple[Split | None, Folder]] = []
    for folder in top.folders:
        if folder.name in splits:
            inner = unwrapped_split(folder, listing)
            listing.skipped += [Skipped(path, NO_CLASS) for path in inner.images]
            result.append((splits[folder.name], inner))
        else:
            listing.skip(folder, NO_LABEL if folder.total else NO_IMAGES)
    return result


def remarks_on_empty_splits(
    top: Folder, named: dict[str, Split], splits: dict[str, Split]
) -> list[str]:
    """Returns a sentence for each split whose folder has no images, and what happens instead."""
    consequences: dict[Split, str] = {
        "train": "there are no training images",
        "validation": "the validation images are drawn from the training images",
        "test": "there is no test split",
    }
    return [
        f"{folder.path} contains no images, so {consequences[named[folder.name]]}"
        for folder in top.folders
        if folder.name in named and not folder.total and named[folder.name] not in splits.values()
    ]


def splits_in_classes(top: Folder) -> list[tuple[Split | None, Folder]]:
    """Returns the splits of the layout class/split/image, each with a folder of its classes.

    All class folders must contain the same two or three splits, which contain images and no
    folders. The returned folders do not exist on disk: they group the images of a split.
    """
    classes = [folder for folder in top.folders if folder.total]
    split_folders_by_class = [
        {inner.name: inner for inner in folder.folders if inner.total and not inner.folders}
        for folder in classes
    ]
    splits = named_splits(list(split_folders_by_class[0])) if len(classes) > 1 else {}
    if len(set(splits.values())) < 2 or len(set(splits.values())) < len(splits):
        return []
    for folder, inner in zip(classes, split_folders_by_class, strict=True):
        has_others = folder.total > sum(split_folder.total for split_folder in inner.values())
        if has_others or inner.keys() != splits.keys():
            return []
    result: list[tuple[Split | None, Folder]] = []
    for name, split in splits.items():
        holder = Folder(top.path)
        holder.folders = [
            replace(inner[name], path=folder.path)
            for folder, inner in zip(classes, split_folders_by_class, strict=True)
        ]
        result.append((split, holder))
    return result


def enumerated(names: Sequence[str] | dict[str, Split]) -> str:
    """Returns the first names, sorted and joined by commas."""
    more = ", ..." if len(names) > NAMES_SHOWN else ""
    return ", ".join(sorted(names)[:NAMES_SHOWN]) + more


def is_unlabeled(folder: Folder) -> bool:
    """Returns whether a folder next to splits contains images to predict, without labels."""
    words = folder.name.casefold().replace("-", "_").split("_")
    return bool(UNLABELED & set(words))


def refuse_same_folder(folder: Folder) -> None:
    """Raises DataError for a folder that was read under another name, which duplicates images."""
    if folder.same_as is not None:
        raise DataError(
            f"{folder.path} is the same folder as {folder.same_as}: its images would be in both."
            " Remove one of the two."
        )


def refuse_flat_splits(top: Folder, named: dict[str, Split]) -> None:
    """Raises DataError for folders with the names of splits that contain images, not classes.

    A single such name among others is that of a class, such as train among vehicles.
    """
    with_images = [folder.name for folder in top.folders if folder.total]
    splits = [name for name in with_images if name in named]
    if splits and (len(splits) == len(with_images) or len({named[name] for name in splits}) > 1):
        raise DataError(
            f"{top.path}: {enumerated(splits)} have the names of splits, but contain no folders of"
            f" classes: expected train/class/image. {TABLE_ADVICE}"
        )


def refuse_splits_of_classes(top: Folder, class_names: frozenset[str]) -> None:
    """Raises DataError for folders such as trainA, trainB, testA and testB.

    They are recognized by splits before the same two or more classes: folders train_test and
    train_car may be classes, but train_cat, train_dog, test_cat and test_dog are not.
    """
    classes: dict[Split, set[str]] = defaultdict(set)
    names = [folder.name for folder in top.folders if folder.total]
    for name in names:
        match = SPLIT_AND_CLASS.fullmatch(name)
        if match is None:
            return
        classes[SPLIT_NAMES[match[1].casefold()]].add(match[2])
    common = set.intersection(*classes.values()) if len(classes) > 1 else set[str]()
    if len(common) > 1 and not set(map(clean_label, names)) <= class_names:
        raise DataError(
            f"{top.path}: each of the names {enumerated(names)} is a split and a class: expected"
            f" train/class/image. Move the folders there, such as train/{min(common)}."
            f" {TABLE_ADVICE}"
        )


def unwrapped_split(folder: Folder, listing: Listing) -> Folder:
    """Returns the folder that contains the classes of a split, as in seg_train/seg_train/class."""
    while len(folder.folders) == 1 and not folder.images:
        inner = folder.folders[0]
        is_repeated = split_named(inner.name) or inner.name.casefold() == folder.name.casefold()
        is_wrapper = inner.name.casefold() in DECORATIONS and not inner.images
        if not (is_repeated or is_wrapper) or not inner.total:
            break
        listing.remarks.append(
            f"the classes in {inner.path} are read, the only folder in {folder.path}"
        )
        folder = inner
    return folder


def class_folders(
    splits: list[tuple[Split | None, Folder]], listing: Listing
) -> list[tuple[Split | None, Folder]]:
    """Returns the splits without folders that cannot be classes, which are skipped.

    In a validation or test split, folders such as unknown or images are classes only if the
    training images, or the network to evaluate, have a class of that name.
    """
    trained = {
        clean_label(folder.name)
        for split, holder in splits
        for folder in holder.folders
        if split == "train"
    }
    class_names = trained | listing.class_names
    for split, holder in splits:
        if split in (None, "train") or not class_names:
            continue
        for folder in list(holder.folders):
            name = folder.name.casefold()
            if name in NEVER_TRAINED and clean_label(folder.name) not in class_names:
                holder.folders.remove(folder)
                listing.skip(folder, NOT_A_CLASS if folder.total else NO_IMAGES)
    return splits


def refuse_ambiguous_classes(holder: Folder, class_names: frozenset[str]) -> None:
    """Raises DataError where the folders in a folder may not be the classes."""
    tops = [folder for folder in holder.folders if folder.total]
    names = [folder.name for folder in tops]
    if {clean_label(name) for name in names} <= class_names:
        return
    if names and all(name.casefold() in ROLES for name in names):
        roles = enumerated([folder.name for folder in holder.folders])
        nesting = [top for top in tops if top.total > len(top.images)]
        nesting.sort(key=lambda top: top.name.casefold() not in DECORATIONS)
        inner = next(iter(nesting), None)
        hint = f" If the classes are the folders in {inner.path}, give that path." if inner else ""
        raise DataError(
            f"{holder.path}: {roles} are not names of classes: expected class/image or"
            f" train/class/image.{hint} {TABLE_ADVICE}"
        )
    inside = {
        top.name: {clean_label(inner.name) for inner in without_wrapper(top).folders if inner.total}
        for top in tops
        if len(top.images) <= STRAY_FRACTION * top.total
    }
    refuse_repeated(holder, inside)
    several = next((name for name, inner in inside.items() if len(inner) > 1), None)
    if several is not None and len(tops) > 1 and not any(top.images for top in tops):
        raise DataError(
            f"{holder.path}: the folders {enumerated(names)} contain no images themselves, but"
            f" folders, such as {enumerated(sorted(inside[several]))} in {several}: which of them"
            f" are the classes? Put the images of each class in class/image. {TABLE_ADVICE}"
        )


def without_wrapper(folder: Folder) -> Folder:
    """Returns the innermost folder that is the only one on its level and contains folders."""
    while len(folder.folders) == 1 and not folder.images and folder.folders[0].folders:
        folder = folder.folders[0]
    return folder


def refuse_repeated(holder: Folder, inside: dict[str, set[str]]) -> None:
    """Raises DataError when two of the folders in a folder contain folders of the same names.

    Args:
        holder: the folder.
        inside: for each of its folders, the names of the folders with images in it.
    """
    counts = Counter(chain.from_iterable(inside.values()))
    shared = {
        name: {inner for inner in names if counts[inner] > 1} for name, names in inside.items()
    }
    candidates = [(name, names) for name, names in shared.items() if len(names) > 1]
    for (first, first_names), (second, second_names) in combinations(candidates, 2):
        if len(common := first_names & second_names) > 1:
            hint = (
                "For splits of each class, expected train/class/image."
                if named_splits(sorted(common))
                else f"If {first} and {second} are splits, name them train, val or test."
            )
            raise DataError(
                f"{holder.path}: each of the folders {first} and {second} contains the folders"
                f" {enumerated(sorted(common))}: are these the classes? {hint} {TABLE_ADVICE}"
            )
