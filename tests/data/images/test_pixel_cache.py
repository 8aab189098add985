"""The cache of decoded photos: what it holds, when it is made anew, and what it costs."""

import errno
import fcntl
import os
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from resnetkit.data.augment.crop_and_flip import Augmentation
from resnetkit.data.draws import Draws
from resnetkit.data.images import pixel_cache
from resnetkit.data.images.photos import Photos
from resnetkit.data.images.pixel_cache import PixelCache, open_cache
from resnetkit.errors import DataError, StorageError

Draw = Callable[..., Image.Image]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def paths(tmp_path: Path, draw: Draw) -> list[Path]:
    sizes = [(40, 30), (90, 120), (33, 33)]
    created = [tmp_path / f"{number}.png" for number in range(3)]
    for number, (path, size) in enumerate(zip(created, sizes, strict=True)):
        draw(number, size).save(path)
    return created


def opened(root: Path, paths: list[Path], side: int = 36, channels: int = 3) -> PixelCache:
    return open_cache(root / "cache", paths, channels=channels, side=side)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_come_back_no_larger_than_asked(
    channels: int, tmp_path: Path, paths: list[Path]
) -> None:
    cache = opened(tmp_path, paths, channels=channels)
    assert [cache.image(n).size for n in range(3)] == [(40, 30), (36, 48), (33, 33)]
    mode = "RGB" if channels == 3 else "L"
    for number in (0, 2):  # small images are kept as they are
        expected = Image.open(paths[number]).convert(mode)
        np.testing.assert_array_equal(np.asarray(cache.image(number)), np.asarray(expected))
    smaller = Image.open(paths[1]).convert(mode).resize((36, 48), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(np.asarray(cache.image(1)), np.asarray(smaller))


@pytest.mark.parametrize("name", ["index.npy", "pixels"])
@pytest.mark.parametrize("content", [b"", b"garbage", None], ids=["empty", "garbage", "a pipe"])
def test_a_corrupt_cache_is_created_again(
    tmp_path: Path, paths: list[Path], name: str, content: bytes | None
) -> None:
    whole = [np.asarray(opened(tmp_path, paths).image(number)) for number in range(3)]
    (file,) = (tmp_path / "cache").glob(f"*/{name}")
    file.unlink()
    if content is None:
        os.mkfifo(file)
    else:
        file.write_bytes(content)
    leftover = tmp_path / "cache" / f".writing-0123456789ab-{file.parent.name}"
    leftover.mkdir()
    for number, expected in enumerate(whole):
        np.testing.assert_array_equal(np.asarray(opened(tmp_path, paths).image(number)), expected)
    assert not leftover.exists()


def test_a_cache_that_another_training_fills_is_left_alone(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pixel_cache.decoded

    def decoded(paths: list[Path], channels: int, side: int) -> Iterator[npt.NDArray[np.uint8]]:
        if side == 36:  # another training begins and ends while this one decodes
            assert opened(tmp_path, paths, side=20).image(2).size == (20, 20)
        yield from real(paths, channels, side)

    monkeypatch.setattr(pixel_cache, "decoded", decoded)
    assert opened(tmp_path, paths).image(2).size == (33, 33)


def test_without_locks_nothing_is_removed_that_another_training_may_fill(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(_: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    name = pixel_cache.digest(paths, 3, 36)[:32]
    (tmp_path / "cache" / f".writing-0123456789ab-{name}").mkdir(parents=True)
    opened(tmp_path, paths)
    assert len(list((tmp_path / "cache").glob(f"*{name}"))) == 2


def test_a_complete_cache_is_read_from_a_disk_that_cannot_be_written(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_read_only(path: str, flags: int, *rest: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real(path, flags, *rest, **options)

    opened(tmp_path, paths)
    real = os.open
    monkeypatch.setattr(os, "open", open_read_only)
    assert opened(tmp_path, paths).image(2).size == (33, 33)
    with pytest.raises(StorageError, match="the file system is read-only"):
        opened(tmp_path, paths, side=20)


def test_files_are_decoded_once_and_again_when_they_change(
    tmp_path: Path, paths: list[Path], draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path, paths)
    with monkeypatch.context() as patch:
        patch.setattr(pixel_cache, "open_image", None)  # whoever decodes now fails
        opened(tmp_path, paths)
        with pytest.raises(TypeError):
            opened(tmp_path, paths, side=20)
    draw(9, (40, 30)).save(paths[0])
    os.utime(paths[0], ns=(1, 1))
    changed = opened(tmp_path, paths).image(0)
    np.testing.assert_array_equal(np.asarray(changed), np.asarray(draw(9, (40, 30))))


def test_a_corrupt_file_leaves_no_cache(tmp_path: Path, paths: list[Path]) -> None:
    paths[1].write_bytes(b"")
    with pytest.raises(DataError, match=r"1\.png: the file is empty"):
        opened(tmp_path, paths)
    assert [p for p in (tmp_path / "cache").iterdir() if p.suffix != ".lock"] == []
    with pytest.raises(DataError, match=r"none\.png: it cannot be read"):
        opened(tmp_path, [tmp_path / "none.png"])


def test_a_disk_that_is_too_small_is_not_filled(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_cache.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 10**4))
    with pytest.raises(DataError, match=r"0\.0 GiB free. Set data\.cache=none"):
        opened(tmp_path, paths)


def test_a_cache_may_take_half_of_what_was_free_before_it_was_written(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = opened(tmp_path, paths).pixels.size
    begun = tmp_path / "another" / "cache"

    def usage(path: Path) -> Usage:
        written = sum(item.stat().st_size for item in begun.rglob("pixels"))
        return Usage(10**9, 0, 2 * size + 2 - written)

    monkeypatch.setattr(pixel_cache.shutil, "disk_usage", usage)
    monkeypatch.setattr(pixel_cache, "AHEAD", 1)
    assert opened(tmp_path / "another", paths).pixels.size == size


def test_random_views_come_from_the_cache_and_middle_views_from_the_files(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = Photos(tuple(paths), 3, 16, 0.875)
    shown, ids = Augmentation(crop="area", area=(0.25, 1.0)), torch.tensor([2, 0, 1])
    cached = replace(photos, cache=opened(tmp_path, paths))
    assert torch.equal(cached[ids], photos[ids])
    ours, theirs = (
        item.random_views(Draws(ids, 1, 2), shown, size=16) for item in (cached, photos)
    )
    assert torch.equal(ours[:2], theirs[:2])  # those images were small enough
    assert (ours[2].float() - theirs[2].float()).abs().mean() < 4
    monkeypatch.setattr("resnetkit.data.images.photos.open_image", None)
    again = cached.random_views(Draws(ids, 1, 2), shown, size=16)
    assert torch.equal(again, ours)
