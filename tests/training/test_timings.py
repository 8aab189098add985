"""What is timed on this machine, however fast it is."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook

from resnetkit.errors import DataError, UsageError
from resnetkit.models.zoo import ARCHITECTURES
from resnetkit.runtime.process_group import open_world
from resnetkit.training import timings
from resnetkit.training.recipe import Recipe, load_recipe
from resnetkit.training.timings import MachineTimings


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Four photos and a file that is none."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.jpg" for number in range(5)]
    for path in paths[1:]:
        Image.fromarray(rng.integers(0, 256, (90, 80, 3), dtype=np.uint8)).save(path)
    paths[0].write_bytes(b"")
    return paths


def recipe(folder: Path, **changes: object) -> Recipe:
    values = {"data.name": str(folder), "data.image_size": 16, "data.augment.crop": "area"}
    return load_recipe("finetune", {**values, "model.name": "resnet8", **changes})


def test_a_step_takes_time_and_leaves_nothing_behind(tmp_path: Path) -> None:
    network = ARCHITECTURES["resnet8"].with_options(num_classes=3)
    generator, threads = torch.get_rng_state(), torch.get_num_threads()
    with open_world("cpu") as world:
        for expected in (None, 1e-6, 100.0):
            cost = MachineTimings(world).step(network, recipe(tmp_path), expected=expected)
            assert min(cost.per_image, cost.update, cost.save) > 0
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("micro_batch", "images"), [(0, 8), (3, 3), (16, 8), (1, 2)])
def test_a_timed_step_takes_no_more_memory_than_one_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro_batch: int, images: int
) -> None:
    monkeypatch.setattr(timings, "FEWEST", 1)
    monkeypatch.setattr(timings, "MOST", 1)
    network, seen = ARCHITECTURES["resnet8"].with_options(num_classes=3), set()
    micro_batches = recipe(tmp_path, batch_size=8, micro_batch=micro_batch)
    hook = register_module_forward_pre_hook(lambda _, inputs: seen.add(len(inputs[0])))
    with hook, open_world("cpu") as world:
        MachineTimings(world).step(network, micro_batches, expected=1e-6)
    assert seen - {0} == {images}  # the layers are counted on no images


def test_reading_takes_time_and_skips_what_cannot_be_read(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNETKIT_CACHE", str(paths[0].parent / "not" / "yet"))
    with open_world("cpu") as world:
        cost, fits = MachineTimings(world).reading(paths, recipe(paths[0].parent))
        assert min(cost.check, cost.crop, cost.cached_crop) > 0
        assert fits
        padded = recipe(paths[0].parent, **{"data.augment.crop": "padded"})
        cost, fits = MachineTimings(world).reading(paths, padded)
        assert cost.cached_crop == cost.crop > 0
        assert not fits
    assert not (paths[0].parent / "not").exists()


def test_images_of_which_none_can_be_decoded_are_refused_with_the_reason_of_the_first(
    paths: list[Path],
) -> None:
    for path in paths[1:]:
        path.write_bytes(path.read_bytes()[:400])
    with open_world("cpu") as world, pytest.raises(DataError, match=r"0\.jpg: the file is empty"):
        MachineTimings(world).reading(paths, recipe(paths[0].parent))


def test_reading_is_timed_if_a_single_image_can_be_decoded(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timings, "SAMPLE", 1)
    assert timings.readable_sample(paths) == [paths[1]]
    assert timings.readable_sample(paths[1:]) == [paths[1]]


@pytest.mark.parametrize("channels", [2, 4])
def test_channels_that_images_cannot_have_are_refused_before_anything_is_read(
    tmp_path: Path, channels: int
) -> None:
    impossible = recipe(tmp_path, **{"model.options": {"in_channels": channels}})
    with open_world("cpu") as world, pytest.raises(UsageError, match=f"1 for gray, not {channels}"):
        MachineTimings(world).reading([tmp_path / "none.jpg"], impossible)


@pytest.mark.parametrize("folder", ["/proc/cache", "{}/file/cache", "~nobody of that name/cache"])
def test_nothing_is_to_be_cached_where_nothing_can_be_written(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    (paths[0].parent / "file").touch()
    monkeypatch.setenv("RESNETKIT_CACHE", folder.format(paths[0].parent))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
    with open_world("cpu") as world:
        _, fits = MachineTimings(world).reading(paths, recipe(paths[0].parent))
    assert not fits
