"""Custom images: lists the labeled files of a folder, or of a table of paths and labels."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from resnetkit.data.images.formats import IMAGE_SUFFIXES
from resnetkit.data.images.labels import clean_label
from resnetkit.data.images.layout import (
    NO_CLASS,
    NO_IMAGES,
    ROLES,
    Listing,
    class_folders,
    enumerated,
    refuse_ambiguous_classes,
    refuse_same_folder,
    split_folders,
    unwrapped,
)
from resnetkit.data.images.listing import (
    ImageFile,
    ImageList,
    Skipped,
    describe_classes,
    describe_skipped,
)
from resnetkit.data.images.table import read_table
from resnetkit.data.images.tree import READ_ALREADY, Folder, identity, scan
from resnetkit.data.splits import Split
from resnetkit.errors import DataError

__all__ = ["read_images"]

EmptyClasses = Literal["error", "skip"]
"""What to do with a class folder without images."""


def read_images(
    root: Path,
    *,
    fewest_classes: int = 2,
    class_names: Sequence[str] = (),
    empty_classes: EmptyClasses = "error",
) -> ImageList:
    """Lists the images of a folder or a table, in the order of their paths.

    A list that a run has written keeps its order, by which the images are numbered, although their
    paths change when they are moved.

    Args:
        root: a folder `class/image` or `train|val|test/class/image`, or a `.csv` or `.jsonl` file
            with the columns path, label and, if the splits are fixed, split; relative paths start
            at the folder of the file.
        fewest_classes: the least number of classes.
        class_names: names that are known to be those of classes, whatever their folders contain.
        empty_classes: whether a class folder without images is an error, or is skipped.

    Raises:
        DataError: when there are no images or too few classes, when it is ambiguous which folders
            are the classes, or when the table is invalid.
    """
    if not os.path.lexists(root):
        raise DataError(f"there is no {root}: expected a folder of images, or a .csv or .jsonl.")
    if root.is_dir():
        images = read_folder(root, frozenset(map(clean_label, class_names)), empty_classes)
    else:
        images = read_table(root)
        images = replace(images, remarks=tuple(remarks_on_links(images.files)))
    if not images.files:
        raise DataError(
            f"{root} contains no images: expected class/image or train/class/image, where an image"
            f" ends in {', '.join(sorted(IMAGE_SUFFIXES))}." + describe_other_files(images)
        )
    if len(images.class_names) < fewest_classes:
        raise DataError(
            f"{root} contains only one class, '{images.class_names[0]}': training needs at least"
            " two. Expected a folder for each class."
        )
    files = images.files
    if not all(file.name for file in files):  # a list that a run has written has all names
        files = tuple(sorted(files, key=lambda file: str(file.path)))
    remarks = (*images.remarks, *remarks_on_labels(images), *remarks_on_splits(images))
    return replace(images, files=files, remarks=remarks)


def describe_other_files(images: ImageList) -> str:
    """Returns a sentence on the files that are not images; empty for an empty folder."""
    return f" Other files were {describe_skipped(images.skipped)}." if images.skipped else ""


def read_folder(root: Path, class_names: frozenset[str], empty_classes: EmptyClasses) -> ImageList:
    """Lists the images below a folder, and what is skipped.

    Raises:
        DataError: when it is ambiguous which folders are the classes, or one has no images.
    """
    tree, listing = scan(root), Listing(root, class_names)
    for folder in tree.all():
        listing.skipped += folder.skipped
        for inner in list(folder.folders):
            if inner.same_as is not None and inner.same_as in (folder.path, *folder.path.parents):
                folder.folders.remove(inner)  # a link to a folder that contains it
                listing.skipped.append(Skipped(inner.path, READ_ALREADY))
    top = unwrapped(tree, listing)
    stray = [*tree.images, *(top.images if top is not tree else ())]
    listing.skipped += [Skipped(path, NO_CLASS) for path in stray]
    without_images = [
        class_folder
        for split, holder in class_folders(split_folders(top, listing), listing)
        for class_folder in read_classes(holder, split, listing)
    ]
    labels = {file.label for file in listing.files}
    for folder in without_images:
        if empty_classes == "error" and label_of(folder) not in labels:
            raise DataError(no_image(folder, listing))
        listing.skipped.append(Skipped(folder.path, NO_IMAGES))
    if any(folder.has_links for folder in tree.all()):
        listing.remarks += remarks_on_links(listing.files)
    return ImageList(root, tuple(listing.files), tuple(listing.skipped), tuple(listing.remarks))


def read_classes(holder: Folder, split: Split | None, listing: Listing) -> Iterator[Folder]:
    """Adds the images of the class folders in a folder; yields the class folders without images.

    Raises:
        DataError: when it is ambiguous whether its folders are the classes.
    """
    for folder in holder.folders:
        refuse_same_folder(folder)
    refuse_ambiguous_classes(holder, listing.class_names)
    folders: dict[str, Folder] = {}
    for folder in holder.folders:
        label = label_of(folder)
        if label in folders:
            listing.remarks.append(
                f"{folders[label].path.name!a} and {folder.name!a} in {holder.path} are one class,"
                f" '{label}': the names differ only in whitespace or encoding"
            )
        folders.setdefault(label, folder)
        if not folder.total:
            yield folder
        for inner in folder.all():
            listing.files += [ImageFile(path, label, split) for path in inner.images]
            if inner.same_as is not None:
                listing.skipped.append(Skipped(inner.path, READ_ALREADY))


def label_of(folder: Folder) -> str:
    """Returns the name of the class of a folder.

    Raises:
        DataError: when it is not text, or empty.
    """
    try:
        folder.name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{folder.path.parent} contains a class whose name is not UTF-8: {folder.name!r}."
            " Rename it."
        ) from error
    if label := clean_label(folder.name):
        return label
    raise DataError(
        f"{folder.path.parent} contains a folder whose name has no visible characters:"
        f" {folder.name!a}. Rename it."
    )


def no_image(folder: Folder, listing: Listing) -> str:
    """Returns the message on a class that has no image."""
    below = [entry for entry in listing.skipped if folder.path in entry.path.parents]
    reason = f"{folder.path}: {describe_skipped(below)}" if below else f"{folder.path} is empty"
    siblings = [path for path in folder.path.parent.iterdir() if path != folder.path]
    wrapper = next((path for path in siblings if path.name.casefold() in ROLES), None)
    hint = f" If the classes are the folders in {wrapper}, give that path." if wrapper else ""
    return (
        f"the class '{label_of(folder)}' has no images: {reason}. Add images in a supported format,"
        f" or move the folder away.{hint}"
    )


def remarks_on_labels(images: ImageList) -> Iterator[str]:
    """Yields a sentence for class names that differ only in case."""
    by_casefold: dict[str, list[str]] = defaultdict(list)
    for name in images.class_names:
        by_casefold[name.casefold()].append(name)
    for names in by_casefold.values():
        if len(names) > 1:
            yield f"{enumerated(names)} are {len(names)} classes whose names differ only in case"


def remarks_on_splits(images: ImageList) -> Iterator[str]:
    """Yields a sentence for each given split that lacks some of the classes."""
    labels_of_split: dict[str, set[str]] = defaultdict(set)
    for file in images.files:
        if file.split:
            labels_of_split[file.split].add(file.label)
    for split, labels in labels_of_split.items():
        if missing := [name for name in images.class_names if name not in labels]:
            yield f"the {split} split has no images of {describe_classes(missing)}"


def remarks_on_links(files: Sequence[ImageFile]) -> Iterator[str]:
    """Yields a sentence when links put one file into two classes or splits."""
    first: dict[tuple[int, int], ImageFile] = {}
    duplicates = []
    for file in files:
        original = first.setdefault(identity(file.path), file)
        if (original.label, original.split) != (file.label, file.split):
            duplicates.append((original.path, file.path))
    if duplicates:
        original_path, path = duplicates[0]
        yield (
            f"{len(duplicates):,} images are the same files as images of another class or split,"
            f" such as {path} and {original_path}"
        )
