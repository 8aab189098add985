"""What folders of images mean as people have them: splits, wrappers, classes, and what is not."""

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnetkit.data.images.folder import read_images
from resnetkit.data.images.layout import NOT_A_CLASS
from resnetkit.data.images.listing import ImageList, by_reason
from resnetkit.data.images.split import split_images
from resnetkit.data.splits import named_splits
from resnetkit.errors import DataError

Counts = dict[str, int]


@pytest.fixture
def touched(tmp_path: Path) -> Callable[[Counts], Path]:
    """Makes so many files in folders: of what a list means, their content says nothing."""

    def make(counts: Counts) -> Path:
        for folder, count in counts.items():
            (tmp_path / "photos" / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                (tmp_path / "photos" / folder / f"{number}.jpg").touch()
        return tmp_path / "photos"

    return make


def counted(images: ImageList) -> dict[tuple[str | None, str], int]:
    """Returns how many images of each class are in each split."""
    return dict(Counter((file.split, file.label) for file in images.files))


def reasons(images: ImageList) -> Counts:
    return {reason: len(paths) for reason, paths in by_reason(images.skipped).items()}


BOTH = {("train", "cat"): 2, ("train", "dog"): 2, ("test", "cat"): 1, ("test", "dog"): 1}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("training", "testing"),
        ("Train", "TEST"),
        ("trainset", "testset"),
        ("train_images", "test_images"),
        ("train-v2", "test-v2"),
        ("train2017", "test2017"),
        ("TrainData", "TestData"),
        ("01_train", "02_test"),
        ("train", "eval"),
        ("ILSVRC2012_img_train", "ILSVRC2012_img_test"),
        ("asl_alphabet_train", "asl_alphabet_test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("asl_alphabet_train/asl_alphabet_train", "asl_alphabet_test/asl_alphabet_test"),
        ("train/images", "test/images"),
        ("archive/data/train", "archive/data/test"),
    ],
)
def test_splits_have_many_names(touched: Callable[[Counts], Path], train: str, test: str) -> None:
    root = touched({f"{train}/cat": 2, f"{train}/dog": 2, f"{test}/cat": 1, f"{test}/dog": 1})
    assert counted(read_images(root)) == BOTH


@pytest.mark.parametrize(
    "name", ["trains", "train station", "contest", "value", "testudo", "dev tools", "evaluate me"]
)
def test_other_words_are_no_splits(name: str) -> None:
    assert named_splits([name, "cat"]) == {}


def test_validation_has_names_too() -> None:
    names = ["val", "Valid", "dev", "validation_set", "val2017", "development"]
    assert set(named_splits(names).values()) == {"validation"}


CLASSES: dict[str, tuple[Counts, set[str]]] = {
    "a class called train": ({"bus": 2, "car": 2, "train": 2}, {"bus", "car", "train"}),
    "a class called test": ({"control": 2, "test": 2}, {"control", "test"}),
    "folders within classes": ({"cat/a": 2, "cat": 30, "dog": 3}, {"cat", "dog"}),
    "one folder within each": (
        {"n01443537/images": 2, "n01629819/images": 2},
        {"n01443537", "n01629819"},
    ),
    "two underscores": ({"__background__": 2, "cat": 2}, {"__background__", "cat"}),
    "an archive's folder": ({"archive/cat": 2, "archive/dog": 2}, {"cat", "dog"}),
    "an archive's, twice": ({"a/a/cat": 2, "a/a/dog": 2}, {"cat", "dog"}),
    "masks of faces": ({"mask": 2, "no_mask": 2}, {"mask", "no_mask"}),
    "words that begin as splits": (
        {"trainA": 2, "trainB": 2, "bus": 2},
        {"trainA", "trainB", "bus"},
    ),
    "ids with numbers": ({"train 1": 2, "bus": 2}, {"train 1", "bus"}),
}


@pytest.mark.parametrize("case", CLASSES)
def test_classes_stay_classes(touched: Callable[[Counts], Path], case: str) -> None:
    counts, classes = CLASSES[case]
    images = read_images(touched(counts))
    assert set(images.class_names) == classes
    assert len(images.files) == sum(counts.values())
    assert {file.split for file in images.files} == {None}


ASKED: dict[str, tuple[Counts, str]] = {
    "unknown splits": (
        {"day/cat": 2, "day/dog": 2, "night/cat": 2, "night/dog": 2},
        "each of the folders day and night contains the folders cat, dog: are these the classes?",
    ),
    "unknown splits within one": (
        {"train/day/cat": 2, "train/day/dog": 2, "train/night/cat": 2, "train/night/dog": 2},
        "are these the classes?",
    ),
    "splits that not all classes have": (
        {"cat/train": 2, "cat/test": 2, "dog/train": 2, "dog/val": 2},
        "contain no images themselves, but folders",
    ),
    "domains around a folder": (
        {"amazon/images/bike": 2, "amazon/images/mug": 2, "dslr/images/bike": 2}
        | {"dslr/images/mug": 2},
        "each of the folders amazon and dslr contains the folders bike, mug",
    ),
    "an index of letters": (
        {"a/airfield": 2, "a/alley": 2, "b/bakery": 2, "b/bar": 2},
        "contain no images themselves, but folders, such as airfield, alley in a",
    ),
    "CycleGAN's": (
        {"trainA": 2, "trainB": 2, "testA": 1, "testB": 1},
        "each of the names testA, testB, trainA, trainB is a split and a class",
    ),
    "splits before classes": (
        {"train_cat": 2, "train_dog": 2, "val_cat": 1, "val_dog": 1},
        "such as train/cat",
    ),
    "images and masks": ({"images": 2, "annotations": 2}, "are not names of classes"),
    "splits without classes": ({"train": 2, "test": 2}, "contain no folders of classes"),
    "a split and a class": ({"train/cat": 2, "train/dog": 2, "bus": 2}, "and also bus"),
    "a split twice": (
        {"train/cat": 2, "training_set/cat": 2},
        "the same split twice: train, training_set",
    ),
}


@pytest.mark.parametrize("case", ASKED)
def test_what_may_mean_two_things_is_asked(touched: Callable[[Counts], Path], case: str) -> None:
    counts, message = ASKED[case]
    with pytest.raises(DataError) as caught:
        read_images(touched(counts))
    assert message in str(caught.value)
    assert "list the images in a .csv table" in str(caught.value) or "twice" in message


@pytest.mark.parametrize("test", ["test", "Testing"])
def test_splits_may_lie_within_each_class(touched: Callable[[Counts], Path], test: str) -> None:
    images = read_images(
        touched({"cat/train": 2, f"cat/{test}": 1, "dog/train": 2, f"dog/{test}": 1})
    )
    assert counted(images) == BOTH


def test_classes_that_a_split_lacks_are_reported(touched: Callable[[Counts], Path]) -> None:
    images = read_images(touched({"train/cat": 2, "train/dog": 2, "train/unsup": 2, "test/cat": 1}))
    assert images.remarks == ("the test split has no images of 2 classes: dog, unsup",)


def test_classes_of_a_split_that_are_links_to_another_split_are_refused(
    touched: Callable[[Counts], Path],
) -> None:
    root = touched({"train/cat": 2, "train/dog": 2})
    (root / "val").mkdir()
    for name in ("cat", "dog"):
        (root / "val" / name).symlink_to(f"../train/{name}")
    with pytest.raises(DataError, match="is the same folder as"):
        read_images(root)


@pytest.mark.parametrize("classes", [300, pytest.param(2_000, marks=pytest.mark.slow)])
def test_many_classes_with_folders_are_compared_in_no_time(
    touched: Callable[[Counts], Path], classes: int
) -> None:
    root = touched({f"{n}/{part}": 1 for n in range(classes) for part in (f"{n}a", f"{n}b")})
    with pytest.raises(DataError, match="contain no images themselves"):
        read_images(root)


def test_a_network_that_knows_the_classes_settles_it(touched: Callable[[Counts], Path]) -> None:
    root = touched({"cat/indoors": 2, "cat/outdoors": 2, "dog/indoors": 1, "dog/outdoors": 1})
    images = read_images(root, fewest_classes=1, class_names=("cat", "dog", "fox"))
    assert counted(images) == {(None, "cat"): 4, (None, "dog"): 2}
    one = read_images(root / "cat", fewest_classes=1, class_names=("indoors", "outdoors"))
    assert one.class_names == ("indoors", "outdoors")


# What is passed over, with its reason


def test_everything_that_is_not_used_is_counted_with_its_reason(
    touched: Callable[[Counts], Path],
) -> None:
    root = touched({"cat": 2, "dog": 2, "cat/@eaDir/a.jpg": 3, "__MACOSX/cat": 2, ".thumbs": 1})
    (root / "cat" / "._0.jpg").touch()
    (root / "cat" / "Thumbs.db").touch()
    (root / "cat" / "notes.txt").touch()
    (root / "dog" / "7.HEIC").touch()
    (root / "dog" / "gone.jpg").symlink_to("/nowhere/x.jpg")
    (root / "dog" / "self.jpg").symlink_to("self.jpg")
    (root / "loose.PNG").touch()
    os.mkfifo(root / "dog" / "pipe.jpg")
    images = read_images(root)
    assert counted(images) == {(None, "cat"): 2, (None, "dog"): 2}
    assert reasons(images) == {
        "hidden, or created by the system": 3 + 2 + 1 + 2,
        "a broken link": 2,
        "not an image by its name": 1,
        "HEIC, which is not supported: convert it to JPEG or PNG": 1,
        "neither a file nor a folder": 1,
        "an image outside of the class folders": 1,
    }


def test_loose_images_beside_classes_and_in_place_of_them_are_counted(
    touched: Callable[[Counts], Path],
) -> None:
    root = touched({"train": 3, "train/cat": 2, "train/dog": 2, "test": 5, "seg_pred/seg_pred": 4})
    images = read_images(root)
    assert counted(images) == {("train", "cat"): 2, ("train", "dog"): 2}
    assert sum(reasons(images).values()) == 3 + 5 + 4


@pytest.mark.parametrize("layout", ["fox", "train/fox"])
@pytest.mark.parametrize("content", [None, "0.heic", "0.txt"])
def test_a_class_without_an_image_is_an_error_that_names_it(
    touched: Callable[[Counts], Path], layout: str, content: str | None
) -> None:
    prefix = layout.removesuffix("fox")
    root = touched({f"{prefix}cat": 2, f"{prefix}dog": 2, layout: 0})
    if content:
        (root / layout / content).touch()
    with pytest.raises(DataError, match="the class 'fox' has no images: "):
        read_images(root)
    images = read_images(root, empty_classes="skip")
    assert images.class_names == ("cat", "dog")
    assert reasons(images)["a folder without images"] == 1


def test_a_class_may_lack_images_in_a_split_that_is_only_reported(
    touched: Callable[[Counts], Path],
) -> None:
    root = touched({"train/cat": 4, "train/dog": 4, "test/cat": 2, "test/dog": 0})
    images = read_images(root)
    assert counted(images)[("train", "dog")] == 4
    assert reasons(images) == {"a folder without images": 1}


@pytest.mark.parametrize("stray", ["test/unknown", "val/images", "test/Masks"])
def test_folders_of_held_out_splits_that_are_no_classes_are_skipped(
    touched: Callable[[Counts], Path], stray: str
) -> None:
    split = stray.split("/")[0]
    counts = {"train/cat": 4, "train/dog": 4, f"{split}/cat": 1, f"{split}/dog": 1}
    images = read_images(touched({**counts, stray: 3}))
    assert images.class_names == ("cat", "dog")
    assert reasons(images) == {NOT_A_CLASS: 3}
    assert len(split_images(images, seed=0).files) == sum(counts.values())


def test_a_class_of_the_training_images_may_have_any_name(
    touched: Callable[[Counts], Path],
) -> None:
    root = touched({"train/cat": 4, "train/unknown": 4, "test/cat": 1, "test/unknown": 2})
    assert counted(read_images(root))["test", "unknown"] == 2


def test_an_evaluated_network_decides_which_folders_are_classes(
    touched: Callable[[Counts], Path],
) -> None:
    root = touched({"val/cat": 2, "val/images": 2, "test/cat": 1})
    images = read_images(root, fewest_classes=1, class_names=("cat", "dog"))
    assert images.class_names == ("cat",)
    images = read_images(root, fewest_classes=1, class_names=("cat", "images"))
    assert images.class_names == ("cat", "images")


@pytest.mark.parametrize(
    ("empty", "consequence"),
    [
        ("val/cat", "val contains no images, so the validation images are drawn from the training"),
        ("val", "val contains no images, so the validation images are drawn from the training"),
        ("test/cat", "test contains no images, so there is no test split"),
    ],
)
def test_a_split_without_images_is_named(
    touched: Callable[[Counts], Path], empty: str, consequence: str
) -> None:
    images = read_images(touched({"train/cat": 4, "train/dog": 4, empty: 0}))
    (remark,) = images.remarks
    assert consequence in remark
    assert reasons(images) == {"a folder without images": 1}


def test_an_empty_folder_next_to_the_same_split_is_no_remark(
    touched: Callable[[Counts], Path],
) -> None:
    images = read_images(touched({"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1, "valid": 0}))
    assert images.remarks == ()


SIGNATURES = {
    "JPEG": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "WebP": b"RIFF\x24\0\0\0WEBPVP8 ",
    "GIF": b"GIF89a\x08\0\x08\0",
    "TIFF": b"II*\0\x08\0\0\0",
}


@pytest.mark.parametrize("form", SIGNATURES)
def test_an_image_without_an_extension_is_recognized_by_its_content(
    touched: Callable[[Counts], Path], form: str
) -> None:
    root = touched({"cat": 1, "dog": 1})
    (root / "cat" / "0001").write_bytes(SIGNATURES[form])
    (root / "cat" / "README").write_text("these are cats")
    (root / "cat" / "empty").touch()
    (root / "cat" / "notes.txt").write_bytes(SIGNATURES[form])
    images = read_images(root)
    assert counted(images) == {(None, "cat"): 2, (None, "dog"): 1}
    assert reasons(images) == {"not an image by its name": 3}


def test_annotations_without_images_neither_become_a_class_nor_vanish(
    touched: Callable[[Counts], Path],
) -> None:
    root = touched({"images/cat": 2, "images/dog": 2, "annotations": 0})
    (root / "annotations" / "0.xml").touch()
    with pytest.raises(DataError) as caught:
        read_images(root)
    assert "annotations, images are not names of classes" in str(caught.value)
    assert f"If the classes are the folders in {root}/images, give that path" in str(caught.value)


def test_a_folder_that_may_not_be_read_is_an_error(
    touched: Callable[[Counts], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, scandir = touched({"cat/inner": 2, "cat": 20, "dog": 2}), os.scandir

    def refuse(folder: Path) -> Any:
        if Path(folder).name == "inner":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="inner cannot be read: Permission denied"):
        read_images(root)


# Links


def test_a_split_that_is_a_link_to_another_is_refused(touched: Callable[[Counts], Path]) -> None:
    root = touched({"train/cat": 2, "train/dog": 2})
    (root / "val").symlink_to("train")
    with pytest.raises(DataError, match=r"val is the same folder as .*train: its images would be"):
        read_images(root)
    (root / "val").unlink()
    (root / "val" / "dog").mkdir(parents=True)
    (root / "val" / "dog" / "9.jpg").touch()
    (root / "val" / "cat").symlink_to("../train/cat")
    with pytest.raises(DataError, match=r"val/cat is the same folder as .*train/cat"):
        read_images(root)


def test_classes_may_be_links_and_links_back_add_nothing(
    touched: Callable[[Counts], Path], tmp_path: Path
) -> None:
    root = touched({"cat": 2})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "9.jpg").touch()
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    (root / "here").symlink_to(".")
    (root / "cat" / "up").symlink_to("..")
    images = read_images(root)
    assert counted(images) == {(None, "cat"): 2, (None, "dog"): 1}
    assert reasons(images) == {"a folder that is already read under another name": 2}


def test_files_that_are_linked_into_two_splits_are_reported(
    touched: Callable[[Counts], Path],
) -> None:
    root = touched({"train/cat": 2, "train/dog": 2, "val/cat": 1, "val/dog": 1})
    (root / "val" / "cat" / "again.jpg").symlink_to("../../train/cat/1.jpg")
    (remark,) = read_images(root).remarks
    assert "1 images are the same files as images of another class or split" in remark


# Names of classes


def test_one_name_in_two_forms_is_one_class(touched: Callable[[Counts], Path]) -> None:
    names = {form: unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD")}
    root = touched({f"train/{names['NFC']}": 2, "train/dog": 2, f"val/{names['NFD']}": 1})
    assert read_images(root).class_names == (names["NFC"], "dog")
    (root / "train" / names["NFD"]).mkdir()
    (root / "train" / names["NFD"] / "5.jpg").touch()
    images = read_images(root)
    assert counted(images)["train", names["NFC"]] == 3
    assert any("are one class, 'caf\u00e9'" in remark for remark in images.remarks)


@pytest.mark.parametrize("other", ["dog ", "\u200bdog", "dog\ufeff"])
def test_what_nobody_sees_makes_no_class(touched: Callable[[Counts], Path], other: str) -> None:
    images = read_images(touched({"cat": 1, "dog": 1, other: 1}))
    assert counted(images) == {(None, "cat"): 1, (None, "dog"): 2}
    assert len(images.remarks) == 1


def test_names_that_differ_in_case_are_classes_and_reported(
    touched: Callable[[Counts], Path],
) -> None:
    images = read_images(touched({"cat": 1, "Cat": 1}))
    assert images.class_names == ("Cat", "cat")
    assert images.remarks == ("Cat, cat are 2 classes whose names differ only in case",)


def test_a_folder_that_is_not_utf8_is_read(touched: Callable[[Counts], Path]) -> None:
    root = touched({"cat": 9, "dog": 9})
    odd = root.rename(root.with_name(os.fsdecode(b"phot\xe9s")))
    assert len(split_images(read_images(odd), seed=0).files) == 18


def test_files_are_listed_without_a_look_at_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(150):
            (tmp_path / name / f"{number}.jpg").touch()
    looked, look = [], os.stat

    def count(path: Any, **options: Any) -> os.stat_result:
        facts = look(path, **options)
        looked.append(stat.S_ISREG(facts.st_mode))
        return facts

    monkeypatch.setattr(os, "stat", count)
    assert len(read_images(tmp_path).files) == 300
    assert not any(looked)
