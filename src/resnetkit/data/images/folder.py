"""Custom images: a folder of them, or a table of paths and labels -> a list of labeled files."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations
from pathlib import Path
from typing import Literal

import torch

from resnetkit.data.draws import Stream
from resnetkit.data.images.decode import IMAGE_SUFFIXES
from resnetkit.data.images.labels import clean_label
from resnetkit.data.images.listing import (
    ImageFile,
    ImageList,
    PassedOver,
    classes_in_words,
    passed_over_in_words,
)
from resnetkit.data.images.table import read_table, write_images
from resnetkit.data.images.tree import READ_ALREADY, Folder, files_in, folders_in, identity, scan
from resnetkit.data.splits import (
    DECORATIONS,
    PARTS,
    Split,
    named_splits,
    split_named,
    stratified_split,
)
from resnetkit.errors import DataError

__all__ = [
    "PARTS",
    "ImageFile",
    "ImageList",
    "files_in",
    "folders_in",
    "read_images",
    "split_images",
    "write_images",
]

HELD_OUT_SHARE = 0.1  # of each class, for validation and for the test alike, where none is given

NO_CLASS = "an image in no class's folder"
NO_LABEL = "an image of a folder without classes, beside those of splits"
NO_IMAGES = "a folder without images"
STRAY_SHARE = 0.1  # of a folder's images; so few beside its own folders do not make it a class
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
"""What folders are called for what they hold beside each other, none of which is a class."""
A_TABLE = (
    "To decide it yourself, list the images in a .csv table with the columns path, label and, if"
    " the splits are fixed, split."
)
SPLIT_AND_CLASS = re.compile(
    rf"({'|'.join(sorted(PARTS, key=len, reverse=True))})(?:[-_. ]+|(?-i:(?=[A-Z])))(.+)",
    re.IGNORECASE,
)
"""Names such as trainA and test_dog: a split and a class."""
SHOWN = 4  # names in a message


def read_images(
    root: Path,
    *,
    fewest_classes: int = 2,
    known: Sequence[str] = (),
    empty: Literal["refused", "passed over"] = "refused",
) -> ImageList:
    """Lists the images of a folder or a table.

    Args:
        root: a folder `class/image` or `train|val|test/class/image`, or a `.csv` or `.jsonl` file
            with the columns path, label and, if the parts are fixed, split; paths that are not
            absolute begin at the file's folder.
        fewest_classes: how many there must be.
        known: names that are those of classes, whatever lies in their folders.
        empty: what becomes of the folder of a class without any image.

    Raises:
        DataError: when there is nothing to learn from, the folder may mean different things, or
            the table cannot be read.
    """
    if not os.path.lexists(root):
        raise DataError(f"there is no {root}: expected a folder of images, or a .csv or .jsonl.")
    if root.is_dir():
        images = read_folder(root, frozenset(map(clean_label, known)), empty)
    else:
        images = read_table(root)
        images = replace(images, remarks=tuple(remarks_on_links(images.files)))
    if not images.files:
        raise DataError(
            f"{root} holds no images: expected class/image or train/class/image, where an image"
            f" ends in {', '.join(sorted(IMAGE_SUFFIXES))}." + what_else(images)
        )
    if len(images.class_names) < fewest_classes:
        raise DataError(
            f"{root} holds one class only, '{images.class_names[0]}': a network learns to tell at"
            " least two apart. Expected a folder for each class."
        )
    files = tuple(sorted(images.files, key=lambda file: str(file.path)))
    remarks = (*images.remarks, *remarks_on_labels(images), *remarks_on_splits(images))
    return replace(images, files=files, remarks=remarks)


def what_else(images: ImageList) -> str:
    """Returns a sentence on what lies there in place of images; nothing for an empty folder."""
    passed_over = images.passed_over
    return f" Of what is there, {passed_over_in_words(passed_over)}." if passed_over else ""


@dataclass
class Reading:
    """What is read of a folder, as far as it has been.

    Attributes:
        root: the folder.
        known: names that are those of classes.
        files: the images.
        passed_over: what is not used.
        remarks: what a person should know.
    """

    root: Path
    known: frozenset[str]
    files: list[ImageFile] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def pass_over(self, folder: Folder, reason: str) -> None:
        """Notes that a folder and all below it are not used."""
        images = [image for inner in folder.all() for image in inner.images]
        self.passed_over += [PassedOver(path, reason) for path in images or [folder.path]]


def read_folder(root: Path, known: frozenset[str], empty: str) -> ImageList:
    """Lists the images below a folder; what lies in no class is passed over, and says so.

    Raises:
        DataError: when it is not clear which folders are the classes, or one has no images.
    """
    tree, reading = scan(root), Reading(root, known)
    for folder in tree.all():
        reading.passed_over += folder.passed_over
        for inner in list(folder.folders):
            if inner.same_as is not None and inner.same_as in (folder.path, *folder.path.parents):
                drop(inner, folder, reading)
    top = unwrapped(tree, reading)
    stray = [*tree.images, *(top.images if top is not tree else ())]
    reading.passed_over += [PassedOver(path, NO_CLASS) for path in stray]
    without = [
        class_folder
        for split, holder in holders(top, reading)
        for class_folder in classes_in(holder, split, reading)
    ]
    labels = {file.label for file in reading.files}
    for folder in without:
        if empty == "refused" and label_of(folder) not in labels:
            raise DataError(no_image(folder, reading))
        reading.passed_over.append(PassedOver(folder.path, NO_IMAGES))
    if any(folder.holds_links for folder in tree.all()):
        reading.remarks += remarks_on_links(reading.files)
    return ImageList(root, tuple(reading.files), tuple(reading.passed_over), tuple(reading.remarks))


def drop(inner: Folder, folder: Folder, reading: Reading) -> None:
    """Leaves a folder out that is one of those it lies in: a link back."""
    folder.folders.remove(inner)
    reading.passed_over.append(PassedOver(inner.path, READ_ALREADY))


def unwrapped(folder: Folder, reading: Reading) -> Folder:
    """Returns the folder that holds classes or splits: an archive often has one around it."""
    while True:
        inner = folder.folders[0] if len(folder.folders) == 1 else None
        if inner is None or folder.images or inner.images or not inner.total:
            return folder
        is_split = split_named(inner.name) and not nested(inner)
        if is_split or clean_label(inner.name) in reading.known:
            return folder
        reading.remarks.append(
            f"the folders in {inner.path} are read, the only one in {folder.path}"
        )
        folder = inner


def nested(folder: Folder) -> dict[str, Split]:
    """Returns the splits among the folders in a folder that hold folders with images in turn."""
    holding = {inner.name for inner in folder.folders if inner.total > len(inner.images)}
    splits = named_splits([inner.name for inner in folder.folders])
    return {name: split for name, split in splits.items() if name in holding}


def holders(top: Folder, reading: Reading) -> list[tuple[Split | None, Folder]]:
    """Returns the folders whose folders are classes, with the split that each one is.

    Raises:
        DataError: when some folders are splits and others are not, or one is there twice.
    """
    for folder in top.folders:
        refuse_again(folder)
    if by_class := splits_in_classes(top):
        return by_class
    named = named_splits([folder.name for folder in top.folders])
    refuse_splits_of_classes(top, reading.known)
    splits = nested(top)
    others = [folder for folder in top.folders if folder.name not in named and folder.total]
    others = [folder for folder in others if not is_unlabeled(folder)] if splits else others
    if not splits or ("train" not in splits.values() and others):
        refuse_flat_splits(top, named)
        return [(None, top)]
    for folder in top.folders:
        for inner in folder.folders if folder.name in named else ():
            refuse_again(inner)
    if others:
        raise DataError(
            f"{top.path} holds {listed(splits)} and besides {listed([f.name for f in others])}:"
            f" expected splits only, or classes only. Move the others away. {A_TABLE}"
        )
    if len(set(splits.values())) != len(splits):
        raise DataError(
            f"{top.path} holds the same split twice: {listed(splits)}. Keep one, or give each"
            " another name: train, val and test."
        )
    result: list[tuple[Split | None, Folder]] = []
    for folder in top.folders:
        if folder.name in splits:
            inner = unwrapped_split(folder, reading)
            reading.passed_over += [PassedOver(path, NO_CLASS) for path in inner.images]
            result.append((splits[folder.name], inner))
        else:
            reading.pass_over(folder, NO_LABEL if folder.total else NO_IMAGES)
    return result


def splits_in_classes(top: Folder) -> list[tuple[Split | None, Folder]]:
    """Returns the splits of a folder class/split/image, each with the folder of its classes.

    It is one where the folders in all its folders are the same two or three splits, and hold images
    but no folders. The folders that are returned are not there: they hold those of one split each.
    """
    classes = [folder for folder in top.folders if folder.total]
    names = [
        {inner.name: inner for inner in folder.folders if inner.total and not inner.folders}
        for folder in classes
    ]
    splits = named_splits(list(names[0])) if len(names) > 1 else {}
    if len(set(splits.values())) < 2 or len(set(splits.values())) < len(splits):
        return []
    for folder, inner in zip(classes, names, strict=True):
        has_others = folder.total > sum(each.total for each in inner.values())
        if has_others or inner.keys() != splits.keys():
            return []
    result: list[tuple[Split | None, Folder]] = []
    for name, split in splits.items():
        holder = Folder(top.path)
        holder.folders = [
            replace(inner[name], path=folder.path)
            for folder, inner in zip(classes, names, strict=True)
        ]
        result.append((split, holder))
    return result


def listed(names: Sequence[str] | dict[str, Split]) -> str:
    """Returns the first of some names."""
    return ", ".join(sorted(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def is_unlabeled(folder: Folder) -> bool:
    """Returns whether a folder beside splits holds images to be predicted, of no known class."""
    words = folder.name.casefold().replace("-", "_").split("_")
    return bool(UNLABELED & set(words))


def refuse_again(folder: Folder) -> None:
    """Raises DataError for a folder that was read under another name: its images would be twice."""
    if folder.same_as is not None:
        raise DataError(
            f"{folder.path} is the same folder as {folder.same_as}: its images would be in both."
            " Remove one of the two."
        )


def refuse_flat_splits(top: Folder, named: dict[str, Split]) -> None:
    """Raises DataError for folders with the names of splits that hold images and no classes.

    One such name among others is that of a class, like the train among vehicles.
    """
    holding = [folder.name for folder in top.folders if folder.total]
    splits = [name for name in holding if name in named]
    if splits and (len(splits) == len(holding) or len({named[name] for name in splits}) > 1):
        raise DataError(
            f"{top.path}: {listed(splits)} have the names of splits, but hold no folders of"
            f" classes: expected train/class/image. {A_TABLE}"
        )


def refuse_splits_of_classes(top: Folder, known: frozenset[str]) -> None:
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
        classes[PARTS[match[1].casefold()]].add(match[2])
    common = set.intersection(*classes.values()) if len(classes) > 1 else set[str]()
    if len(common) > 1 and not set(map(clean_label, names)) <= known:
        raise DataError(
            f"{top.path}: the names {listed(names)} are a split and a class each: expected"
            f" train/class/image. Move the folders there, such as train/{min(common)}. {A_TABLE}"
        )


def unwrapped_split(folder: Folder, reading: Reading) -> Folder:
    """Returns the folder that holds the classes of a split: seg_train/seg_train/class, say."""
    while len(folder.folders) == 1 and not folder.images:
        inner = folder.folders[0]
        is_again = split_named(inner.name) or inner.name.casefold() == folder.name.casefold()
        is_wrapper = inner.name.casefold() in DECORATIONS and not inner.images
        if not (is_again or is_wrapper) or not inner.total:
            break
        reading.remarks.append(
            f"the classes in {inner.path} are read, the only folder in {folder.path}"
        )
        folder = inner
    return folder


def classes_in(holder: Folder, split: Split | None, reading: Reading) -> Iterator[Folder]:
    """Reads the images of the classes that a folder holds; yields the classes without any.

    Raises:
        DataError: when it is not clear that its folders are the classes.
    """
    for folder in holder.folders:
        refuse_again(folder)
    refuse_unclear(holder, reading.known)
    folders: dict[str, Folder] = {}
    for folder in holder.folders:
        label = label_of(folder)
        if label in folders:
            reading.remarks.append(
                f"{folders[label].path.name!a} and {folder.name!a} in {holder.path} are one class,"
                f" '{label}': the names differ only in blanks or in how they are encoded"
            )
        folders.setdefault(label, folder)
        if not folder.total:
            yield folder
        for inner in folder.all():
            reading.files += [ImageFile(path, label, split) for path in inner.images]
            if inner.same_as is not None:
                reading.passed_over.append(PassedOver(inner.path, READ_ALREADY))


def label_of(folder: Folder) -> str:
    """Returns the name of the class whose images a folder holds.

    Raises:
        DataError: when it is no text.
    """
    try:
        folder.name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{folder.path.parent} holds a class whose name is not UTF-8: {folder.name!r}. Rename"
            " it."
        ) from error
    if label := clean_label(folder.name):
        return label
    raise DataError(
        f"{folder.path.parent} holds a folder whose name shows nothing: {folder.name!a}. Rename it."
    )


def refuse_unclear(holder: Folder, known: frozenset[str]) -> None:
    """Raises DataError where the folders in a folder may be something else than the classes."""
    tops = [folder for folder in holder.folders if folder.total]
    names = [folder.name for folder in tops]
    if {clean_label(name) for name in names} <= known:
        return
    if names and all(name.casefold() in ROLES for name in names):
        roles = listed([folder.name for folder in holder.folders])
        nesting = [top for top in tops if top.total > len(top.images)]
        nesting.sort(key=lambda top: top.name.casefold() not in DECORATIONS)
        inner = next(iter(nesting), None)
        hint = f" If the classes are the folders in {inner.path}, name that one." if inner else ""
        raise DataError(
            f"{holder.path}: {roles} are no names of classes: expected class/image or"
            f" train/class/image.{hint} {A_TABLE}"
        )
    inside = {
        top.name: {clean_label(inner.name) for inner in without_wrapper(top).folders if inner.total}
        for top in tops
        if len(top.images) <= STRAY_SHARE * top.total
    }
    refuse_repeated(holder, inside)
    several = next((name for name, inner in inside.items() if len(inner) > 1), None)
    if several is not None and len(tops) > 1 and not any(top.images for top in tops):
        raise DataError(
            f"{holder.path}: the folders {listed(names)} hold no images themselves, but folders,"
            f" such as {listed(sorted(inside[several]))} in {several}: which of them are the"
            f" classes? Put the images of each class in class/image. {A_TABLE}"
        )


def without_wrapper(folder: Folder) -> Folder:
    """Returns the folder in a folder that holds others, where it is the only one on its level."""
    while len(folder.folders) == 1 and not folder.images and folder.folders[0].folders:
        folder = folder.folders[0]
    return folder


def refuse_repeated(holder: Folder, inside: dict[str, set[str]]) -> None:
    """Raises DataError when two of the folders in a folder hold folders of the same names.

    Args:
        holder: the folder.
        inside: names of the folders with images in each of its folders.
    """
    often = Counter(chain.from_iterable(inside.values()))
    shared = {name: {each for each in own if often[each] > 1} for name, own in inside.items()}
    candidates = [(name, own) for name, own in shared.items() if len(own) > 1]
    for (first, own), (second, its) in combinations(candidates, 2):
        if len(common := own & its) > 1:
            hint = (
                "For splits of each class, expected train/class/image."
                if named_splits(sorted(common))
                else f"If {first} and {second} are splits, name them train, val or test."
            )
            raise DataError(
                f"{holder.path}: each of the folders {first} and {second} holds the folders"
                f" {listed(sorted(common))}: are these the classes? {hint} {A_TABLE}"
            )


def no_image(folder: Folder, reading: Reading) -> str:
    """Returns the message on a class that has no image."""
    below = [entry for entry in reading.passed_over if folder.path in entry.path.parents]
    why = passed_over_in_words(below) if below else "it is empty"
    siblings = [each for each in folder.path.parent.iterdir() if each != folder.path]
    wrapper = next((each for each in siblings if each.name.casefold() in ROLES), None)
    hint = f" If the classes lie in {wrapper}, name that folder." if wrapper else ""
    return (
        f"the class '{label_of(folder)}' has no image: in {folder.path}, {why}. Add images that can"
        f" be read, or move the folder away.{hint}"
    )


def remarks_on_labels(images: ImageList) -> Iterator[str]:
    """Yields what is odd about the names of the classes."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in images.class_names:
        alike[name.casefold()].append(name)
    for names in alike.values():
        if len(names) > 1:
            yield f"{listed(names)} are {len(names)} classes, whose names differ only in case"


def remarks_on_splits(images: ImageList) -> Iterator[str]:
    """Yields which classes some of the splits that are given lack."""
    labels: dict[str, set[str]] = defaultdict(set)
    for file in images.files:
        if file.split:
            labels[file.split].add(file.label)
    for split, its_labels in labels.items():
        if missing := [name for name in images.class_names if name not in its_labels]:
            yield f"the {split} images show none of {classes_in_words(missing)}"


def remarks_on_links(files: Sequence[ImageFile]) -> Iterator[str]:
    """Yields a sentence when links make one file an image of two classes or splits."""
    first: dict[tuple[int, int], ImageFile] = {}
    twice = []
    for file in files:
        known = first.setdefault(identity(file.path), file)
        if (known.label, known.split) != (file.label, file.split):
            twice.append((known.path, file.path))
    if twice:
        yield (
            f"{len(twice):,} images are the same files as those of another class or split, such as"
            f" {twice[0][1]} and {twice[0][0]}"
        )


def split_images(images: ImageList, *, seed: int) -> ImageList:
    """Puts every image in a part, where its folder or table has not.

    What is given stays. Without any parts a tenth of each class is held out for validation and a
    tenth for the test. With training images alone, or with these and a test part, the validation
    images come from the training ones. A missing test part stays empty where there is one for
    validation: nothing is taken from those who have divided their images themselves.

    Args:
        images: see `read_images`.
        seed: of the drawing.

    Raises:
        DataError: when parts are given to some images only, or a part would be empty.
    """
    given = {file.split for file in images.files}
    if None in given and len(given) > 1:
        stray = next(file for file in images.files if file.split is None)
        raise DataError(f"{images.root}: {stray.path} is in no part, but others are. Name it too.")
    held_out = {
        "validation": 0.0 if "validation" in given else HELD_OUT_SHARE,
        "test": HELD_OUT_SHARE if None in given else 0.0,
    }
    files = list(images.files)
    divided = [place for place, file in enumerate(files) if file.split in (None, "train")]
    names = {name: label for label, name in enumerate(images.class_names)}
    labels = torch.tensor([names[files[place].label] for place in divided], dtype=torch.int64)
    drawn = stratified_split(
        labels,
        test_share=held_out["test"],
        validation_share=held_out["validation"],
        seed=seed,
        stream=Stream.SPLIT,
        at_least_one=True,
    )
    for part, places in drawn.items():
        for place in places.tolist():
            files[divided[place]] = replace(files[divided[place]], split=part)
    result = replace(images, files=tuple(files))
    check_parts(result)
    return result


def check_parts(images: ImageList) -> None:
    """Raises DataError when a class has no image to learn from, or nothing is left to validate."""
    if all(file.split != "train" for file in images.files):
        raise DataError(
            f"{images.root} has no training images, only those of other parts. 'resnet evaluate'"
            " measures on them; to learn, add a part named train."
        )
    if all(file.split != "validation" for file in images.files):
        raise DataError(
            f"{images.root} has too few images to keep one of a class apart for validation. Add"
            " some, or a part named val."
        )
    learned = {file.label for file in images.files if file.split == "train"}
    missing = [name for name in images.class_names if name not in learned]
    if missing:
        raise DataError(
            f"{images.root}: the class '{missing[0]}' has no image to learn from"
            f" ({len(missing)} such). Add some, or leave the class out."
        )
