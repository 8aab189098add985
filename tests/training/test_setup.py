"""What a recipe builds, and recipes that do not fit their data or their ranks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from resnetkit.data.batches import Batch
from resnetkit.data.datasets import open_dataset
from resnetkit.data.loader import DeviceLoader
from resnetkit.errors import RecipeError
from resnetkit.models.fused import build_error
from resnetkit.models.zoo import ARCHITECTURES, create_model, find_architecture
from resnetkit.runtime.process_group import World
from resnetkit.training import kernels as kernels_module
from resnetkit.training.kernels import ChosenKernels, choose_kernels
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe
from resnetkit.training.schedules import ScheduleState
from resnetkit.training.setup import TrainingSetup, prepare
from resnetkit.training.state import TrainingState

Recipes = Callable[..., Recipe]
CPU = torch.device("cpu")


def built(recipe: Recipe) -> TrainingSetup:
    return prepare(recipe, World(0, 1, CPU))[0]


def started(recipe: Recipe) -> TrainingState:
    return prepare(recipe, World(0, 1, CPU))[1]


# What does not fit

UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "a network of large strides": (
        {"model.name": "resnet50"},
        "'resnet50' reduces images by a factor of 32, but those of 'digits' are only 8x8 pixels."
        " Use a network with the 3x3 stem, such as resnet20 or resnet18_3x3.",
    ),
    "random flips": (
        {"data.augment.flip": "random"},
        "data.augment.flip is 'random', but a mirrored image of 'digits' is not an image of its"
        " class. Set data.augment.flip=none.",
    ),
    "alternating flips": (
        {"data.augment.flip": "alternating"},
        "data.augment.flip is 'alternating', but a mirrored image of 'digits' is not an image of"
        " its class. Set data.augment.flip=none.",
    ),
    "flips in the final evaluation": (
        {"evaluation.final_flip": True},
        "evaluation.final_flip is true, but a mirrored image of 'digits' is not an image of its"
        " class. Set evaluation.final_flip=false.",
    ),
    "padding as large as the image": (
        {"data.augment.crop_padding": 8},
        "data.augment.crop_padding is 8, but the images are 8 pixels wide: a crop could miss them."
        " Use at most 4.",
    ),
    "colors of gray images": (
        {"data.augment.color": "pca"},
        "data.augment.color is 'pca', but the images of 'digits' have 1 channel(s)."
        " Set data.augment.color=none.",
    ),
    "early crops as large as the image": (
        {"data.early_size": 8},
        "data.early_size is 8, but the images are only 8 pixels wide. Use less, or 0 for whole"
        " images.",
    ),
    "early crops too small for the network": (
        {"data.early_size": 3},
        "'resnet20' reduces images by a factor of 4, but data.early_size is 3 pixels. Use 4"
        " or more.",
    ),
    "a batch of one": (
        {"batch_size": 1},
        "batch_size is 1: batch normalization needs at least 2 images on each of 1 ranks."
        " Use 2 or more.",
    ),
    "micro-batches of one": (
        {"batch_size": 33, "micro_batch": 8},
        "micro_batch is 8, which leaves one image of 33 for the last micro-batch: batch"
        " normalization needs at least 2. Use another number.",
    ),
    "other classes": (
        {"model.options.num_classes": 100},
        "model.options.num_classes is 100, but the data set 'digits' has 10: leave the option out,"
        " it follows the data.",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_recipe_that_does_not_fit_is_refused_and_makes_no_folder(
    tmp_path: Path, on_digits: Recipes, case: str
) -> None:
    changes, message = UNFIT[case]
    with pytest.raises(RecipeError) as caught:
        train(on_digits(changes), tmp_path / "run")
    assert str(caught.value) == message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("batch_size", "ranks", "message"),
    [
        (33, 2, "batch_size is 33, which 2 ranks cannot divide equally. Use a multiple of 2."),
        (64, 3, "batch_size is 64, which 3 ranks cannot divide equally. Use a multiple of 3."),
        (
            4,
            4,
            "batch_size is 4: batch normalization needs at least 2 images on each of 4 ranks."
            " Use 8 or more.",
        ),
    ],
)
def test_a_batch_that_ranks_cannot_share_is_refused(
    on_digits: Recipes, batch_size: int, ranks: int, message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        prepare(on_digits({"batch_size": batch_size}), World(0, ranks, CPU))
    assert str(caught.value) == message


def test_too_few_images_for_the_ranks_are_refused(few: Recipes) -> None:
    with pytest.raises(RecipeError) as caught:
        prepare(few({"batch_size": 128}), World(0, 64, CPU))
    assert str(caught.value) == (
        "there are 100 training images: batch normalization needs at least 2 images on each of 64"
        " ranks. Use 128 or more."
    )


def test_the_smallest_batch_and_the_largest_padding_that_fit_do_train(
    tmp_path: Path, few: Recipes
) -> None:
    changes = {"batch_size": 2, "data.augment.crop_padding": 7, "data.augment.padding": "reflect"}
    assert train(few({**changes, "length": "2 steps"}), tmp_path).final is not None


# What is built


def test_the_network_is_the_one_that_is_named(on_digits: Recipes) -> None:
    start = started(on_digits({"seed": 5, "model.options.shortcut": "B"}))
    generator = torch.Generator().manual_seed(5)
    twin = create_model(
        "resnet20", generator=generator, shortcut="B", num_classes=10, in_channels=1
    ).state_dict()
    state = start.model.state_dict()
    assert state.keys() == twin.keys()
    assert all(torch.equal(state[name], twin[name]) for name in twin)


def test_building_uses_no_hidden_randomness(on_digits: Recipes) -> None:
    before = torch.random.get_rng_state()
    first, again = (started(on_digits()).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = started(on_digits({"seed": 1})).model.state_dict()
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_kernels_have_their_channels_last_in_memory(on_digits: Recipes) -> None:
    weight = started(on_digits()).model.get_parameter("layer2.0.conv2.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


@pytest.mark.parametrize(
    ("train_on", "parts"),
    [("train", ["train"]), ("train+validation", ["train", "validation"])],
)
def test_it_trains_on_the_parts_that_are_named(
    on_digits: Recipes, train_on: str, parts: list[str]
) -> None:
    digits = open_dataset("digits")
    ids = torch.cat([digits.splits[part] for part in parts]).sort().values  # type: ignore[index]
    setup = built(on_digits({"data.train_on": train_on, "evaluation.split": "test"}))
    assert torch.equal(setup.batches.sample_ids, ids)
    assert torch.equal(setup.split_ids("train"), ids)
    assert torch.equal(setup.split_ids("test"), digits.splits["test"])
    pixels = digits.images[ids].numpy().astype("float64")
    assert setup.loader.normalization.mean.item() == pytest.approx(pixels.mean(), rel=1e-6)


def test_the_optimizer_has_the_values_of_the_recipe(on_digits: Recipes) -> None:
    optimizer = {"momentum": 0.8, "nesterov": True, "weight_decay": 0.01, "decay": "weights"}
    start = started(on_digits({f"optimizer.{key}": value for key, value in optimizer.items()}))
    decayed, free = start.optimizers[0].param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.01, 0.0)
    assert all((group["momentum"], group["nesterov"]) == (0.8, True) for group in (decayed, free))
    assert sorted(parameter.dim() for parameter in decayed["params"])[0] == 2


def test_the_learning_rate_is_schedule_times_warmup(on_digits: Recipes) -> None:
    """19 steps of warm-up on a straight line from 0.02 to 0 over 38 steps."""
    setup = built(on_digits({"length": "2 epochs", "batch_size": 64}))
    assert setup.total_steps == 38
    for step, warm in ((0, 1 / 19), (9, 10 / 19), (18, 1), (19, 1), (37, 1)):
        expected = 0.02 * (1 - step / 38) * warm
        assert setup.learning_rate.lr(step) == pytest.approx(expected)


def test_an_until_error_warmup_waits_for_the_error(on_digits: Recipes) -> None:
    warmup = {"kind": "until-error", "lr": 0.01, "below": 80}
    setup = built(on_digits({"warmup": warmup, "optimizer.lr": 0.1, "length": "100 steps"}))
    assert [setup.learning_rate.lr(step) for step in (0, 50, 99)] == [0.01] * 3
    assert setup.learning_rate.lr(50, ScheduleState(below=True)) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("length", "batch_size", "steps"),
    [("14 epochs", 64, 14 * 19), ("7 steps", 64, 7), ("3 epochs", 1259, 3), ("3 epochs", 5000, 3)],
)
def test_the_whole_training_has_as_many_steps_as_the_recipe_says(
    on_digits: Recipes, length: str, batch_size: int, steps: int
) -> None:
    assert built(on_digits({"length": length, "batch_size": batch_size})).total_steps == steps


def test_small_steps_are_worth_one_thread(
    on_digits: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ResNet-20 takes 2.5 million multiply-adds for 8x8 pixels, ResNet-18 35 million."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr("resnetkit.training.setup.usable_processors", lambda: 64)
    assert built(on_digits({"batch_size": 64})).sensible_threads == 1
    assert built(on_digits({"batch_size": 1000})).sensible_threads == 7
    assert built(on_digits({"batch_size": 64, "model.name": "resnet18_3x3"})).sensible_threads == 7
    monkeypatch.setattr("resnetkit.training.setup.usable_processors", lambda: 2)  # by a quota
    assert built(on_digits({"batch_size": 1000})).sensible_threads == 2


# Kernels

LONG = 10**14


def chosen(requested: str, name: str, multiply_adds: int = LONG, **options: Any) -> ChosenKernels:
    architecture = find_architecture(name).with_options(**options)
    return choose_kernels(requested, architecture, CPU, multiply_adds=multiply_adds)


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets compiling succeed (an empty text) or fail with a reason."""
    return lambda reason: monkeypatch.setattr(kernels_module, "build_error", lambda: reason)


def test_fused_kernels_are_taken_where_they_gain(compiles: Callable[[str], None]) -> None:
    compiles("")
    fused = ChosenKernels("fused", "compiled for this processor")
    no_gain = ChosenKernels("modules", "fused ones would gain nothing here")
    assert chosen("auto", "resnet20") == chosen("auto", "plain110") == fused
    assert chosen("auto", "resnet20", 10**12) == chosen("auto", "resnet50") == no_gain
    assert chosen("fused", "resnet20", 10**3) == chosen("fused", "resnet50") == fused
    gpu = torch.device("cuda")
    assert choose_kernels("auto", ARCHITECTURES["resnet20"], gpu, multiply_adds=LONG) == no_gain


def test_modules_can_be_asked_for(compiles: Callable[[str], None]) -> None:
    compiles("")
    assert chosen("modules", "resnet20") == ChosenKernels("modules", "the recipe asks for them")


def test_modules_stand_in_where_nothing_compiles(compiles: Callable[[str], None]) -> None:
    compiles("there is no C++ compiler")
    assert chosen("auto", "resnet20") == ChosenKernels("modules", "there is no C++ compiler")
    with pytest.raises(RecipeError) as caught:
        chosen("fused", "resnet20")
    assert str(caught.value) == (
        "kernels is 'fused', but there is no C++ compiler. Set kernels=auto, which then takes the"
        " modules."
    )


@pytest.mark.parametrize(("name", "options"), [("preresnet20", {}), ("plain20", {"norm": "none"})])
def test_other_blocks_keep_their_modules(
    name: str, options: dict[str, Any], compiles: Callable[[str], None]
) -> None:
    compiles("")
    assert chosen("auto", name, **options).name == "modules"
    with pytest.raises(RecipeError, match="they need blocks that end with batch normalization"):
        chosen("fused", name, **options)


def kernels_train_alike(few: Recipes, folder: Path) -> None:
    losses = {}
    for kernels in ("modules", "fused"):
        run = train(few({"kernels": kernels}), folder / kernels)
        assert run.sessions[0].kernels["name"] == kernels
        losses[kernels] = [event.loss for event in run.intervals]
    assert losses["modules"] == pytest.approx(losses["fused"], rel=0.02)
    assert losses["modules"] != losses["fused"]


@pytest.mark.usefixtures("_uncompiled")
def test_a_recipe_trains_with_the_kernels_it_asks_for(
    few: Recipes, tmp_path: Path, compiles: Callable[[str], None]
) -> None:
    compiles("")
    kernels_train_alike(few, tmp_path)


@pytest.mark.slow
def test_a_recipe_trains_with_compiled_kernels(few: Recipes, tmp_path: Path) -> None:
    if reason := build_error():
        pytest.skip(reason)
    kernels_train_alike(few, tmp_path)


def test_early_steps_see_small_crops_and_later_ones_whole_images(
    tmp_path: Path, on_digits: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    whole = DeviceLoader.training

    def watched(loader: DeviceLoader, batch: Batch, *, size: int = 0) -> tuple[Tensor, Tensor]:
        images, labels = whole(loader, batch, size=size)
        seen.append(tuple(images.shape[2:]))
        return images, labels

    monkeypatch.setattr(DeviceLoader, "training", watched)
    changes = {"length": "5 steps", "data.early_size": 6, "data.early_fraction": 0.4}
    train(on_digits(changes), tmp_path / "run")
    assert seen == [(6, 6), (6, 6), (8, 8), (8, 8), (8, 8)]


def test_without_early_crops_every_step_sees_whole_images(on_digits: Recipes) -> None:
    setup = built(on_digits({}))
    assert {setup.crop_size(step) for step in range(setup.total_steps)} == {0}
