"""Custom images: which files a folder or a table means, and which split each belongs to."""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from resnetkit.data.images.folder import read_images
from resnetkit.data.images.listing import ImageList
from resnetkit.data.images.split import split_images
from resnetkit.data.images.table import write_images
from resnetkit.data.splits import SPLIT_NAMES, Split
from resnetkit.errors import DataError

MakeFolder = Callable[..., Path]


def table(images: ImageList) -> dict[str, tuple[str, str | None]]:
    """Returns class and split of each file, by its name."""
    return {file.path.name: (file.label, file.split) for file in images.files}


def splits(images: ImageList) -> dict[str, Counter[str | None]]:
    """Returns for each class how many images are in each split."""
    return {
        name: Counter(file.split for file in images.files if file.label == name)
        for name in images.class_names
    }


def test_every_split_has_a_name_in_folders_and_tables() -> None:
    assert set(SPLIT_NAMES.values()) == set(get_args(Split))


# Folders


def test_a_folder_of_classes(tmp_path: Path, make_folder: MakeFolder) -> None:
    make_folder(tmp_path, {"dog": 2, "cat": 1})
    images = read_images(tmp_path)
    assert images.class_names == ("cat", "dog")
    assert table(images) == {
        "0000.jpg": ("dog", None),
        "0001.jpg": ("dog", None),
        "0002.jpg": ("cat", None),
    }
    assert [file.path.name for file in images.files] == ["0002.jpg", "0000.jpg", "0001.jpg"]


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_a_folder_of_splits(tmp_path: Path, make_folder: MakeFolder, validation: str) -> None:
    make_folder(tmp_path, {"train/a": 1, "train/b": 1, f"{validation}/a": 1, "test/b": 1})
    assert table(read_images(tmp_path)) == {
        "0000.jpg": ("a", "train"),
        "0001.jpg": ("b", "train"),
        "0002.jpg": ("a", "validation"),
        "0003.jpg": ("b", "test"),
    }


def test_folders_within_classes_hidden_files_and_links(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    make_folder(tmp_path, {"cat/indoors": 1, "cat": 1, "dog": 1}, first=5)
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "dog" / "loop").symlink_to(tmp_path / "dog")
    (tmp_path / "dog" / "notes.txt").write_text("x")
    (tmp_path / "at the root.jpg").write_bytes(b"x")
    images = read_images(tmp_path)
    assert set(table(images)) == {"0005.jpg", "0006.jpg", "0007.jpg"}
    passed_over = {entry.path.name for entry in images.skipped}
    assert {"at the root.jpg", "notes.txt", "__MACOSX", "loop"} <= passed_over


def test_classes_named_like_splits_are_classes_without_train(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    make_folder(tmp_path, {"test": 1, "control": 1})
    assert read_images(tmp_path).class_names == ("control", "test")


def test_a_link_to_another_folder_of_the_tree_adds_nothing(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    make_folder(tmp_path, {"cat": 2, "dog": 3})
    (tmp_path / "cat" / "up").symlink_to("..")
    (tmp_path / "cat" / "others").symlink_to(tmp_path / "dog")
    outside = make_folder(tmp_path.parent / f"{tmp_path.name}-outside", {"more": 1}, first=70)
    (tmp_path / "dog" / "more").symlink_to(outside / "more")
    assert Counter(file.label for file in read_images(tmp_path).files) == {"cat": 2, "dog": 4}


REFUSED_FOLDERS = {
    "parts without training": ({"val/a": 1, "val/b": 1, "test/a": 1}, "no training images"),
    "nothing": ({}, "contains no images: expected class/image"),
    "one class": ({"cat": 3}, "contains only one class, 'cat'"),
    "parts and classes": ({"train/a": 1, "train/b": 1, "cat": 1}, "and also cat"),
    "a part twice": ({"train/a": 1, "val/a": 1, "valid/b": 1}, "the same split twice: train, val"),
}


@pytest.mark.parametrize("case", REFUSED_FOLDERS)
def test_folders_that_mean_nothing_are_refused(
    tmp_path: Path, make_folder: MakeFolder, case: str
) -> None:
    classes, message = REFUSED_FOLDERS[case]
    with pytest.raises(DataError) as caught:
        split_images(read_images(make_folder(tmp_path, classes)), seed=0)
    assert message in str(caught.value)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder of images"):
        read_images(tmp_path / "none")


# Tables


def test_a_csv_and_a_json_lines_file_say_the_same(tmp_path: Path, make_folder: MakeFolder) -> None:
    make_folder(tmp_path, {"x": 3})
    rows = [("x/0000.jpg", "cat", "train"), ("x/0001.jpg", "dog", "val"), ("x/0002.jpg", "7", "")]
    text = "label,path,split\n" + "".join(
        f"{label},{path},{split_name}\n" for path, label, split_name in rows
    )
    (tmp_path / "a.csv").write_text(text)
    lines = [
        {"path": path, "label": label, "split": split_name} for path, label, split_name in rows
    ]
    lines[2]["label"] = 7  # type: ignore[assignment]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    expected = {
        "0000.jpg": ("cat", "train"),
        "0001.jpg": ("dog", "validation"),
        "0002.jpg": ("7", None),
    }
    assert table(read_images(tmp_path / "a.csv")) == expected
    assert table(read_images(tmp_path / "a.jsonl")) == expected


REFUSED_TABLES = {
    "no heading": ("a.csv", "x/0000.jpg,cat\n", "has the columns x/0000.jpg, cat: expected path"),
    "no file": ("a.csv", "path,label\nx/9.jpg,cat\n", "line 2: there is no"),
    "no label": ("a.csv", "path,label\nx/0000.jpg,\n", "line 2: expected a path and a label"),
    "too short": ("a.csv", "path,label\nx/0000.jpg\n", "line 2: expected a path and a label"),
    "a file twice": (
        "a.csv",
        "path,label\nx/0000.jpg,a\nx/../x/0000.jpg,b\n",
        "line 3: ",
    ),
    "a path that cannot be": ("a.csv", f"path,label\n{chr(120) * 5000},a\n", "xxx..."),
    "another part": ("a.csv", "path,label,split\nx/0000.jpg,a,b\n", "the split is 'b', expected"),
    "a label in Latin-1": ("a.csv", b"path,label\nx/0000.jpg,caf\xe9\n", "is not UTF-8"),
    "no JSON": ("a.jsonl", '{"path": "x/0000.jpg", "label": "a"}\n{', "line 2: "),
    "no object": ("a.jsonl", "[1]", "line 1: it is not an object"),
    "a list as label": ("a.jsonl", '{"path": "x/0000.jpg", "label": [1]}', "line 1: expected"),
    "another ending": ("a.xls", "path,label\n", "expected a folder, or a .csv or .jsonl"),
    "empty": ("a.csv", "", "has the columns none"),
}


@pytest.mark.parametrize("case", REFUSED_TABLES)
def test_tables_that_mean_nothing_are_refused(
    tmp_path: Path, make_folder: MakeFolder, case: str
) -> None:
    name, content, message = REFUSED_TABLES[case]
    make_folder(tmp_path, {"x": 1})
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read_images(tmp_path / name)
    assert message in str(caught.value)


# Splits


def test_without_splits_a_tenth_of_each_class_is_held_out_twice(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    listed = read_images(make_folder(tmp_path, {"a": 30, "b": 20, "c": 3, "d": 2, "e": 1}))
    assert splits(split_images(listed, seed=1)) == {
        "a": {"train": 24, "validation": 3, "test": 3},
        "b": {"train": 16, "validation": 2, "test": 2},
        "c": {"train": 1, "validation": 1, "test": 1},
        "d": {"train": 1, "validation": 1},
        "e": {"train": 1},
    }
    assert split_images(listed, seed=1) == split_images(listed, seed=1)
    assert split_images(listed, seed=1) != split_images(listed, seed=2)


def test_given_splits_stay_and_validation_comes_from_training(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    root = make_folder(tmp_path, {"train/a": 20, "train/b": 10, "test/a": 4, "test/b": 1})
    assert splits(split_images(read_images(root), seed=0)) == {
        "a": {"train": 18, "validation": 2, "test": 4},
        "b": {"train": 9, "validation": 1, "test": 1},
    }


def test_nothing_is_taken_where_validation_is_given(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    root = make_folder(tmp_path, {"train/a": 5, "train/b": 5, "val/a": 2, "val/b": 2})
    listed = read_images(root)
    assert split_images(listed, seed=0) == listed


def test_a_class_without_training_images_is_refused(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    root = make_folder(tmp_path, {"train/a": 5, "train/b": 5, "val/c": 2})
    with pytest.raises(DataError, match="the class 'c' has no training images"):
        split_images(read_images(root), seed=0)


def test_too_few_images_to_validate_on_are_refused(tmp_path: Path, make_folder: MakeFolder) -> None:
    listed = read_images(make_folder(tmp_path, {"a": 1, "b": 1}))
    with pytest.raises(DataError, match="too few images to hold out one of a class"):
        split_images(listed, seed=0)


def test_a_class_whose_name_is_no_text_is_refused(tmp_path: Path, make_folder: MakeFolder) -> None:
    make_folder(tmp_path, {"a": 2, os.fsdecode(b"caf\xe9"): 2})
    with pytest.raises(DataError, match="a class whose name is not UTF-8"):
        read_images(tmp_path)


def test_an_image_without_a_split_among_others_is_refused(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    make_folder(tmp_path, {"x": 2})
    text = "path,label,split\nx/0000.jpg,a,train\nx/0001.jpg,b,\n"
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=r"0001\.jpg has no split, but other images do"):
        split_images(read_images(tmp_path / "a.csv"), seed=0)


def test_a_written_list_is_read_back_whatever_the_names(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    classes = {
        'a "quoted", one': 12,
        "line\nbreak": 11,
        " spaced ": 5,
        "re\rturned": 4,
        "\uace0\uc591\uc774": 10,
    }
    root = make_folder(tmp_path / "photos", classes)
    odd = os.fsencode(root / 'a "quoted", one' / "x") + b"\xe9.jpg"  # a name that is not UTF-8
    (root / 'a "quoted", one' / "0003.jpg").rename(os.fsdecode(odd))
    images = split_images(read_images(root), seed=0)
    (tmp_path / "list.csv").write_bytes(write_images(images))
    again = read_images(tmp_path / "list.csv")
    assert again.files == images.files


def test_the_digest_follows_names_sizes_and_labels(tmp_path: Path, make_folder: MakeFolder) -> None:
    root = make_folder(tmp_path / "a", {"x": 2, "y": 2})
    before = read_images(root).sha256
    make_folder(tmp_path / "b", {"x": 2, "y": 2})
    assert read_images(tmp_path / "b").sha256 == before
    (root / "x" / "0000.jpg").write_bytes(b"longer or shorter")
    assert read_images(root).sha256 != before
