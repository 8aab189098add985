"""What is timed on this machine, however fast it is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnetkit.models.zoo import ARCHITECTURES
from resnetkit.runtime.process_group import open_world
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
