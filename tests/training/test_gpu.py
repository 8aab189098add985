"""On a GPU: the same bits on repeat, the same random numbers, and losses close to the CPU's."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from resnetkit.data.augment.crop_and_flip import augment
from resnetkit.data.draws import Draws, Stream
from resnetkit.runtime.process_group import open_world
from resnetkit.training.events import Event, IntervalEvent
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]
Recipes = Callable[..., Recipe]
EPOCH = {"length": "1 epochs", "batch_size": 64, "log_every": 1, "data.augment.crop_padding": 1}
STEPS = 19  # in an epoch of the digits


def test_random_numbers_are_those_of_the_cpu() -> None:
    ids = torch.arange(10_000)
    on_gpu, on_cpu = (Draws(sample_ids, 1, 2).bits(Stream.FLIP) for sample_ids in (ids.cuda(), ids))
    assert torch.equal(on_gpu.cpu(), on_cpu)


def test_augmented_images_are_those_of_the_cpu() -> None:
    images, ids = torch.randn(64, 3, 32, 32), torch.arange(64)
    on_gpu = augment(images.cuda(), Draws(ids.cuda(), 1, 2), crop_padding=4, flip="random")
    on_cpu = augment(images, Draws(ids, 1, 2), crop_padding=4, flip="random")
    assert torch.equal(on_gpu.cpu(), on_cpu)


def test_float32_is_not_tf32() -> None:
    images, weights = torch.randn(8, 64, 16, 16), torch.randn(64, 64, 3, 3)
    exact = functional.conv2d(images.double(), weights.double())
    with open_world("cuda"):
        computed = functional.conv2d(images.cuda(), weights.cuda()).cpu()
    assert (computed - exact).abs().max() < 1e-5 * exact.abs().max()  # TF32 errs by 1e-3 or so


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_repeated_training_gives_the_same_bits(
    tmp_path: Path, on_digits: Recipes, results: Callable[[Path], dict[str, bytes]], precision: str
) -> None:
    recipe = on_digits({**EPOCH, "precision": precision})
    first, second = (train(recipe, tmp_path / name, device="cuda") for name in ("one", "two"))
    assert results(first.folder) == results(second.folder)
    assert first.sessions[0].hardware["device"] == "cuda:0"


def test_losses_are_close_to_those_of_the_cpu(tmp_path: Path, on_digits: Recipes) -> None:
    here, there = (
        train(on_digits(EPOCH), tmp_path / name, device=name) for name in ("cuda", "cpu")
    )
    pairs = list(zip(here.intervals, there.intervals, strict=True))
    assert len(pairs) == STEPS
    assert pairs[0][0].loss == pytest.approx(pairs[0][1].loss, rel=1e-4)
    for ours, theirs in pairs:
        assert ours.loss == pytest.approx(theirs.loss, rel=0.15)
        assert ours.lr == theirs.lr


def test_a_crash_and_a_resume_give_the_same_bits(
    tmp_path: Path, on_digits: Recipes, results: Callable[[Path], dict[str, bytes]]
) -> None:
    recipe = on_digits({**EPOCH, "checkpoint.every": "5 steps"})

    def crash(event: Event) -> None:
        if isinstance(event, IntervalEvent) and event.step == 12:
            raise KeyError("crash")

    whole = train(recipe, tmp_path / "whole", device="cuda")
    with pytest.raises(KeyError, match="crash"):
        train(recipe, tmp_path / "run", device="cuda", observe=crash)
    resumed = train(recipe, tmp_path / "run", device="cuda")
    assert results(resumed.folder) == results(whole.folder)
