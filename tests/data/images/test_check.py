"""Checking a folder: every planted fault is reported, nothing else is, and no file is changed."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

import resnetkit
from resnetkit.data.images.check import (
    FolderReport,
    check_images,
    fingerprint,
    similar_groups,
    without_bad,
)
from resnetkit.data.images.folder import read_images
from resnetkit.data.images.split import split_images

Draw = Callable[..., Image.Image]
MakeFolder = Callable[..., Path]


def checked(root: Path) -> FolderReport:
    return check_images(split_images(read_images(root), seed=0))


def test_a_good_folder_has_counts_and_no_faults(
    tmp_path: Path, make_folder: MakeFolder, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    make_folder(tmp_path, {"train/a": 8, "train/b": 4, "val/a": 2, "val/b": 2, "test/a": 1})
    before, fractions = contents(tmp_path), list[float]()
    report = check_images(split_images(read_images(tmp_path), seed=0), observe=fractions.append)
    assert report.counts == {
        "a": {"train": 8, "validation": 2, "test": 1},
        "b": {"train": 4, "validation": 2},
    }
    assert (report.images, report.imbalance) == (17, 11 / 6)
    assert (report.bad, report.converted, report.duplicates, report.skipped) == ((), {}, (), ())
    assert contents(tmp_path) == before
    assert fractions == [index / 17 for index in range(1, 18)]


def test_bad_files_are_named_with_their_reasons_and_left_out_on_request(
    tmp_path: Path, make_folder: MakeFolder, caplog: pytest.LogCaptureFixture
) -> None:
    make_folder(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "a" / "empty.jpg").write_bytes(b"")
    (tmp_path / "a" / "text.png").write_text("no image")
    whole = (tmp_path / "b" / "0005.jpg").read_bytes()
    (tmp_path / "b" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    report = checked(tmp_path)
    assert [(bad.path.name, bad.reason.split(": ", 1)[1][:12]) for bad in report.bad] == [
        ("empty.jpg", "the file is "),
        ("text.png", "it is text, "),
        ("cut.jpg", "it cannot be"),
    ]
    left = without_bad(read_images(tmp_path))
    assert [file.path.name for file in left.files] == [f"{n:04}.jpg" for n in range(10)]
    assert len(caplog.records) == 3


def test_what_is_unusual_is_counted_by_kind(
    tmp_path: Path, make_folder: MakeFolder, draw: Draw
) -> None:
    make_folder(tmp_path, {"a": 3, "b": 3})
    for number in (90, 91):
        draw(number).convert("CMYK").save(tmp_path / "a" / f"{number}.jpg")
    draw(92).save(tmp_path / "b" / "92.jpg", format="PNG")
    converted = checked(tmp_path).converted
    assert {note: [path.name for path in paths] for note, paths in converted.items()} == {
        "CMYK, converted to RGB": ["90.jpg", "91.jpg"],
        "the name ends in .jpg, but the format is PNG": ["92.jpg"],
    }


def test_images_in_two_splits_or_classes_are_identical_or_similar(
    tmp_path: Path, make_folder: MakeFolder, draw: Draw
) -> None:
    root = make_folder(tmp_path, {"train/a": 20, "train/b": 20, "val/a": 5, "val/b": 5})
    copy = (root / "train/a/0003.jpg").read_bytes()
    (root / "val/a/copy.jpg").write_bytes(copy)
    (root / "train/a/twin of one part.jpg").write_bytes(copy)
    smaller = draw(25).resize((33, 25), Image.Resampling.BICUBIC)
    ImageEnhance.Brightness(smaller).enhance(0.9).save(root / "val/b/smaller.jpg", quality=60)
    draw(30).save(root / "train/a/relabeled.png")
    groups = {
        tuple(sorted(file.path.name for file in group.images)): group.exact
        for group in checked(root).duplicates
    }
    assert groups == {
        ("0003.jpg", "copy.jpg", "twin of one part.jpg"): True,
        ("0025.jpg", "smaller.jpg"): False,
        ("0030.jpg", "relabeled.png"): False,
    }


def test_images_of_a_few_pixels_are_compared_by_their_bytes_alone(tmp_path: Path) -> None:
    """Scanned digits of 8x8 pixels: many different ones would have one fingerprint."""
    digits = resnetkit.open_dataset("digits")
    for split in ("train", "test"):
        for sample in digits.splits[split][:200].tolist():
            folder = tmp_path / split / digits.class_names[digits.labels[sample]]
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(digits.images[sample, 0].numpy())
            image.save(folder / f"{sample}.png")
    copy = next((tmp_path / "train/3").iterdir()).read_bytes()
    (tmp_path / "test/3/copy.png").write_bytes(copy)
    (group,) = checked(tmp_path).duplicates
    assert group.exact
    assert len(group.images) == 2


def test_many_copies_of_a_picture_are_one_group(tmp_path: Path, draw: Draw) -> None:
    """As scraped placeholders are: pairs would be a million."""
    draw(1).save(tmp_path / "one.png")
    content = (tmp_path / "one.png").read_bytes()
    for number in range(300):
        folder = tmp_path / "photos" / ("a" if number % 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(content)
    (group,) = checked(tmp_path / "photos").duplicates
    assert (len(group.images), group.exact) == (300, True)


def test_groups_of_fingerprints_are_those_of_all_pairs() -> None:
    """Against every pair, for fingerprints near each other in bands that thousands share."""
    rng = np.random.default_rng(0)
    centers = rng.integers(0, 256, (40, 16), dtype=np.uint8)
    centers[:30, :2] = 7  # one band in common
    flips = (rng.random((1500, 128)) < 0.02).astype(np.uint8)
    prints = {
        bits.tobytes() for bits in centers[rng.integers(0, 40, 1500)] ^ np.packbits(flips, axis=1)
    }
    ours = {frozenset(group) for group in similar_groups(sorted(prints))}
    assert ours == {frozenset(group) for group in slow_groups(sorted(prints))}
    assert 1 < len(ours) < len(prints)


def test_thousands_of_images_that_are_all_alike_take_little_memory() -> None:
    """As frames of a still camera are: their pairs would take gigabytes."""
    rng = np.random.default_rng(0)
    flips = (rng.random((3_000, 128)) < 0.015).astype(np.uint8)
    prints = {bits.tobytes() for bits in np.packbits(flips, axis=1)}
    tracemalloc.start()
    largest = max(similar_groups(sorted(prints)), key=len)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(largest) > 0.9 * len(prints)
    assert peak < 50e6


def slow_groups(prints: list[bytes]) -> list[set[bytes]]:
    """Joins, pair by pair, what differs in at most 6 of 128 bits."""
    bits = np.unpackbits(np.frombuffer(b"".join(prints), np.uint8).reshape(-1, 16), axis=1)
    groups: list[set[bytes]] = []
    for index, bits_of_one in enumerate(prints):
        near = {prints[n] for n in ((bits[index] != bits).sum(1) <= 6).nonzero()[0]} | {bits_of_one}
        touched = [group for group in groups if group & near]
        groups = [group for group in groups if not group & near]
        groups.append(near.union(*touched))
    return groups


def test_images_that_are_mostly_lost_are_reported(tmp_path: Path, make_folder: MakeFolder) -> None:
    make_folder(tmp_path, {"a": 3, "b": 3})
    Image.new("RGBA", (20, 20), (9, 9, 9, 0)).save(tmp_path / "a" / "empty.png")
    report = checked(tmp_path)
    assert not report.bad
    ((note, paths),) = report.lost.items()
    assert note.startswith("transparent everywhere")
    assert [path.name for path in paths] == ["empty.png"]


def test_flat_images_are_not_alike(tmp_path: Path) -> None:
    for number in range(8):
        folder = tmp_path / ("train" if number < 4 else "val") / ("a" if number % 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (number * 20, 0, 0)).save(folder / f"{number}.png")
    assert checked(tmp_path).duplicates == ()


def test_fingerprints_of_different_images_are_far_apart(draw: Draw) -> None:
    """128 bits of unrelated images differ in 64 on average; none may come near the limit of 6."""
    prints = [fingerprint(draw(number)) for number in range(200)]
    bits = np.unpackbits(np.stack([bits for bits in prints if bits is not None]), axis=1)
    assert len(bits) == 200
    distances = (bits[:, None] != bits[None]).sum(2)[np.triu_indices(200, 1)]
    assert distances.min() > 20
    assert 55 < distances.mean() < 73
