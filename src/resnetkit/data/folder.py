"""Own images: a folder of them, or a table of paths and labels -> a list of labelled files."""

import csv
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from resnetkit.data.decode import IMAGE_SUFFIXES
from resnetkit.data.splits import Split, stratified_split
from resnetkit.errors import DataError

__all__ = ["ImageFile", "ImageList", "parts_of", "read_images", "split_images", "write_images"]

PARTS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""What folders and tables call the parts."""

HELD_OUT_SHARE = 0.1  # of each class, for validation and for the test alike, where none is given
COLUMNS = ("path", "label", "split")
TABLES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
LARGEST_TABLE = 2**30  # bytes
LONGEST_NAME = 200  # letters of a path in a message


@dataclass(frozen=True)
class ImageFile:
    """A labelled file.

    Attributes:
        path: of the file.
        label: name of its class.
        split: the part it was put in; empty where nobody has.
    """

    path: Path
    label: str
    split: Split | None = None


@dataclass(frozen=True)
class ImageList:
    """Labelled files, in the order of their paths.

    Attributes:
        root: the folder or table they come from.
        files: the images.
        passed_over: files that are no images by their name.
    """

    root: Path
    files: tuple[ImageFile, ...]
    passed_over: tuple[Path, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(sorted({file.label for file in self.files}))

    @property
    def sha256(self) -> str:
        """Returns a digest of names, sizes, labels and parts; it does not read the images."""
        digest = hashlib.sha256()
        for file in self.files:
            name = os.path.relpath(file.path, self.root)
            digest.update(
                f"{name}\0{file.path.stat().st_size}\0{file.label}\0{file.split}\n".encode(
                    errors="surrogateescape"
                )
            )
        return digest.hexdigest()


def read_images(root: Path, *, fewest_classes: int = 2) -> ImageList:
    """Lists the images of a folder or a table.

    Args:
        root: a folder `class/image` or `train|val|test/class/image`, or a `.csv` or `.jsonl` file
            with the columns path, label and, if the parts are fixed, split; paths that are not
            absolute begin at the file's folder.
        fewest_classes: how many there must be.

    Raises:
        DataError: when there is nothing to learn from, or the table cannot be read.
    """
    if not root.exists():
        raise DataError(f"there is no {root}: expected a folder of images, or a .csv or .jsonl.")
    found = read_folder(root) if root.is_dir() else read_table(root)
    if not found.files:
        raise DataError(
            f"{root} holds no images: expected class/image or train/class/image, where an image"
            f" ends in {', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    if len(found.class_names) < fewest_classes:
        raise DataError(
            f"{root} holds one class only, '{found.class_names[0]}': a network learns to tell at"
            " least two apart. Expected a folder for each class."
        )
    return replace(found, files=tuple(sorted(found.files, key=lambda file: str(file.path))))


def read_folder(root: Path) -> ImageList:
    """Lists the images below a folder; what lies in no class is passed over."""
    names = [path.name for path in folders_in(root)]
    parts = {name: PARTS[name.lower()] for name in names if name.lower() in PARTS}
    has_parts = "train" in parts.values() or 0 < len(parts) == len(names)
    if has_parts and len(parts) != len(names):
        strange = ", ".join(sorted(set(names) - set(parts)))
        raise DataError(
            f"{root} holds {', '.join(sorted(parts))} and besides {strange}: expected parts only,"
            " or classes only."
        )
    if has_parts and len(set(parts.values())) != len(parts):
        raise DataError(f"{root} holds the same part twice: {', '.join(sorted(parts))}. Keep one.")
    entered = {os.path.realpath(path) for path in (root, *map(root.joinpath, names))}
    files: list[ImageFile] = []
    passed_over = [path for path in files_in(root) if path.suffix.lower() in IMAGE_SUFFIXES]
    for name in names:
        split = parts[name] if has_parts else None
        for folder in folders_in(root / name) if has_parts else [root / name]:
            for path in files_below(folder, entered):
                if path.suffix.lower() in IMAGE_SUFFIXES:
                    files.append(ImageFile(path, class_of(folder), split))
                else:
                    passed_over.append(path)
    return ImageList(root, tuple(files), tuple(passed_over))


def class_of(folder: Path) -> str:
    """Returns the name of the class whose images a folder holds.

    Raises:
        DataError: when it is no text.
    """
    try:
        folder.name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{folder.parent} holds a class whose name is not UTF-8: {folder.name!r}. Rename it."
        ) from error
    return folder.name.strip()


def folders_in(folder: Path) -> list[Path]:
    """Returns the folders in a folder that a person has put there, by name."""
    return sorted(path for path in listed(folder) if path.is_dir())


def files_in(folder: Path) -> list[Path]:
    """Returns the files in a folder, likewise."""
    return sorted(path for path in listed(folder) if path.is_file())


def listed(folder: Path) -> list[Path]:
    """Returns what lies in a folder, without hidden entries and those of systems.

    Raises:
        DataError: when the folder may not be read.
    """
    try:
        return [path for path in folder.iterdir() if not path.name.startswith((".", "__"))]
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}.") from error


def files_below(folder: Path, entered: set[str]) -> Iterator[Path]:
    """Yields all files below a folder, but enters no other one that was entered before.

    So a link to a folder that is there already, its own or that of another class, adds nothing.

    Args:
        folder: where to begin.
        entered: real paths of folders; those that are entered are added.
    """
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        yield from files_in(here)
        for inner in folders_in(here):
            if (real := os.path.realpath(inner)) not in entered:
                entered.add(real)
                waiting.append(inner)


def read_table(path: Path) -> ImageList:
    """Lists the images that a table names.

    Raises:
        DataError: when it is not of a known form; the message names the line.
    """
    kind = TABLES.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path} is not a folder: expected one, or a .csv or .jsonl file.")
    text = text_of(path)
    rows = csv_rows(path, text) if kind == "csv" else json_rows(path, text)
    files: dict[Path, ImageFile] = {}
    for number, row in rows:
        file = image_file(path, number, row)
        if file.path in files:
            name = shortened(str(file.path))
            raise DataError(f"{path}, line {number}: {name} was named before. Keep one.")
        files[file.path] = file
    return ImageList(path, tuple(files.values()))


def text_of(table: Path) -> str:
    """Returns the text of a table, in which a path may hold what is no UTF-8.

    Raises:
        DataError: when it cannot be read.
    """
    try:
        if table.stat().st_size > LARGEST_TABLE:
            raise DataError(f"{table} is larger than {LARGEST_TABLE / 2**30:.0f} GiB.")
        return table.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"{table} cannot be read: {error.strerror or error}.") from error


def parts_of(table: Path) -> dict[str, str]:
    """Returns the part of each path that a .csv file names, whether the file is still there or not.

    Raises:
        DataError: when it cannot be read.
    """
    rows = (row for _, row in csv_rows(table, text_of(table)))
    return {
        os.path.abspath(table.parent / (row["path"] or "")): PARTS.get(row.get("split") or "", "")
        for row in rows
    }


def csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the rows of a table with a heading, each with the number of its line."""
    reader = csv.DictReader(StringIO(text, newline=""))
    try:
        if not {"path", "label"} <= set(reader.fieldnames or ()):
            raise DataError(
                f"{path} has the columns {', '.join(reader.fieldnames or ()) or 'none'}: expected"
                f" {', '.join(COLUMNS)} in its first line; split may be left out."
            )
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from error


def json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the objects of a JSON lines file, each with the number of its line."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("it is not an object")
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: {error}.") from error
        yield number, row


def image_file(table: Path, number: int, row: dict[str, Any]) -> ImageFile:
    """Returns the image of a row.

    Raises:
        DataError: when the row lacks something or names an unknown part.
    """
    name, label, part = row.get("path"), row.get("label"), row.get("split") or ""
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    if not (isinstance(name, str) and name and isinstance(label, str) and label.strip()):
        raise DataError(f"{table}, line {number}: expected a path and a label.")
    if any("\ud800" <= letter <= "\udfff" for letter in label):
        raise DataError(f"{table}, line {number}: the label is not UTF-8. Save the file as that.")
    if not isinstance(part, str) or (part and part.lower() not in PARTS):
        raise DataError(
            f"{table}, line {number}: the split is {part!r}, expected one of {', '.join(PARTS)}."
        )
    path = Path(os.path.abspath(table.parent / name))
    if not is_there(path):
        raise DataError(f"{table}, line {number}: there is no {shortened(str(path))}.")
    return ImageFile(path, label.strip(), PARTS[part.lower()] if part else None)


def is_there(path: Path) -> bool:
    """Returns whether a file is there; what can be no path is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def shortened(name: str) -> str:
    """Returns a path that may be very long, for a message."""
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."


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


def write_images(images: ImageList) -> bytes:
    """Returns the list as the content of a .csv file that `read_images` reads back."""
    text = StringIO(newline="")
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for file in images.files:
        table.writerow((os.path.abspath(file.path), file.label, file.split or ""))
    return text.getvalue().encode(errors="surrogateescape")
