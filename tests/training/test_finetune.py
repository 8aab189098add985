"""Starting from what a network has learned: what is taken over, what stays, how the rest goes."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.nn import functional

from resnetkit.errors import ArchitectureError, RecipeError, UsageError, WeightsError
from resnetkit.evaluation.metric_sums import SplitScore
from resnetkit.models.zoo import ARCHITECTURES, create_model, find_architecture
from resnetkit.runtime.process_group import World
from resnetkit.training.finetune import spelled
from resnetkit.training.loop import train
from resnetkit.training.lr_find import find_lr
from resnetkit.training.recipe import Recipe
from resnetkit.training.run_folder import Run
from resnetkit.training.setup import TrainingSetup, prepare
from resnetkit.training.state import TrainingState
from resnetkit.training.step import apply_gradient, take_gradient
from resnetkit.weights.load import load_network

Recipes = Callable[..., Recipe]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def learned(tiny: Recipes, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tiny(), tmp_path_factory.mktemp("learned") / "run")


def tensors(run: Run) -> dict[str, Tensor]:
    return load_network(run.folder).model.state_dict()


def prepared(recipe: Recipe) -> tuple[TrainingSetup, TrainingState]:
    return prepare(recipe, World(0, 1, CPU))


def step(setup: TrainingSetup, state: TrainingState, lr: float) -> None:
    """Takes the first step of a training."""
    (batch,) = setup.batches.between(0, 1)
    _, norm = take_gradient(setup, state, *setup.loader.training(batch))
    apply_gradient(setup, state, lr, norm)


# What is taken over


def test_everything_but_the_head_is_taken_over(tiny: Recipes, learned: Run) -> None:
    fresh = prepared(tiny({"seed": 5}))[1].model.state_dict()
    model = prepared(tiny({"seed": 5, "model.weights": str(learned.folder)}))[1].model
    before = tensors(learned)
    for name, tensor in model.state_dict().items():
        expected = fresh if name.startswith("fc.") else before
        assert torch.equal(tensor, expected[name]), name
    assert model.training


def test_their_normalization_is_used_on_request(tiny: Recipes, learned: Run) -> None:
    changes = {"model.weights": str(learned.folder), "data.normalize": "weights"}
    setup, _ = prepared(tiny(changes))
    theirs = load_network(learned.folder).normalization
    assert torch.equal(setup.loader.normalization.mean, theirs.mean)
    with pytest.raises(RecipeError, match=r"constants of model\.weights, which names no file"):
        tiny({"data.normalize": "weights"})


def test_other_layers_are_refused_with_what_to_set(tiny: Recipes, learned: Run) -> None:
    changes = {"model.weights": str(learned.folder), "model.name": "resnet32"}
    with pytest.raises(RecipeError) as caught:
        prepared(tiny(changes))
    assert str(caught.value).endswith(
        "belong to another network than the recipe's. For theirs set model.name=resnet8."
    )
    changes = {"model.weights": str(learned.folder), "model.options": {"shortcut": "B"}}
    with pytest.raises(RecipeError, match=r"set model\.name=resnet8\."):
        prepared(tiny(changes))
    with pytest.raises(WeightsError, match="there is no"):
        prepared(tiny({"model.weights": "/none"}))


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_network_is_spelled_as_the_recipe_would(name: str) -> None:
    architecture = find_architecture(name).with_options(num_classes=7, in_channels=1)
    found, options = spelled(architecture)
    assert find_architecture(found).with_options(**options, num_classes=7) == replace(
        architecture, input_size=find_architecture(found).input_size
    )
    assert options == {"in_channels": 1}


# What stays


def test_frozen_layers_stay_to_the_bit_and_others_learn(
    tiny: Recipes, learned: Run, tmp_path: Path
) -> None:
    changes = {"model.weights": str(learned.folder), "finetune.freeze": "stage2"}
    run = train(tiny({**changes, "ema_decay": 0.5}), tmp_path / "run")
    before = tensors(learned)
    for name, after in tensors(run).items():
        frozen = name.startswith(("conv1.", "bn1.", "layer1."))
        assert torch.equal(after, before[name]) == frozen, name


def test_frozen_normalization_keeps_statistics_and_weights_of_all_layers(
    tiny: Recipes, learned: Run, tmp_path: Path
) -> None:
    changes = {"model.weights": str(learned.folder), "finetune.frozen_norm": True}
    run = train(tiny(changes), tmp_path / "run")
    before = tensors(learned)
    for name, after in tensors(run).items():
        norm = "bn" in name
        assert torch.equal(after, before[name]) == norm, name


def test_frozen_means_the_same_features_in_training_and_in_use() -> None:
    model = create_model("resnet20", generator=torch.Generator().manual_seed(0))
    images = torch.randn(4, 3, 32, 32)
    model.eval()
    expected = model.features(images, "stage3")["stage3"]
    model.freeze("stage3")
    model.train()
    assert torch.equal(model.features(images, "stage3")["stage3"], expected)
    assert not torch.equal(
        model.features(images, "stage4")["stage4"],
        model.eval().features(images, "stage4")["stage4"],
    )
    with pytest.raises(ArchitectureError, match="Did you mean 'stage4'"):
        model.freeze("stage44")


@pytest.mark.parametrize("name", ["preresnet20", "resnet18"])
def test_freezing_all_leaves_the_head(name: str) -> None:
    model = create_model(name)
    model.freeze(list(model.feature_maps)[-1])
    model.train()
    learned = [key for key, p in model.named_parameters() if p.requires_grad]
    assert learned == ["fc.weight", "fc.bias"]
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))


# How fast, and how much each image counts


def test_the_backbone_learns_at_its_own_rate(tiny: Recipes) -> None:
    plain = {"optimizer.momentum": 0, "optimizer.weight_decay": 0}
    moved = []
    for backbone_lr in (1.0, 0.25):
        setup, state = prepared(tiny({**plain, "finetune.backbone_lr": backbone_lr}))
        before = {name: p.detach().clone() for name, p in state.model.named_parameters()}
        step(setup, state, 0.5)
        moved.append({name: before[name] - p for name, p in state.model.named_parameters()})
    for name in moved[0]:
        factor = 1.0 if name.startswith("fc.") else 0.25
        torch.testing.assert_close(moved[1][name], factor * moved[0][name], rtol=1e-3, atol=1e-6)


def test_muon_follows_the_rate_of_the_backbone(tiny: Recipes) -> None:
    muon = {"optimizer.muon_lr": 0.05, "optimizer.lr": 0.2}
    _, whole = prepared(tiny(muon))[1].optimizers
    _, tenth = prepared(tiny({**muon, "finetune.backbone_lr": 0.1}))[1].optimizers
    assert tenth.param_groups[0]["lr_scale"] == pytest.approx(
        0.1 * whole.param_groups[0]["lr_scale"]
    )


def test_class_weights_are_scikit_learns(few: Recipes) -> None:
    setup, _ = prepared(few({"class_weights": "balanced"}))
    labels = setup.dataset.labels[setup.batches.sample_ids].numpy()
    expected = compute_class_weight("balanced", classes=np.arange(10), y=labels)
    assert setup.class_weights is not None
    torch.testing.assert_close(setup.class_weights.double(), torch.tensor(expected))


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_micro_batches_add_up_to_the_gradient_of_the_batch(tiny: Recipes, weights: str) -> None:
    """Without batch normalization, which sees the parts: 32 images as 7 + 7 + 7 + 7 + 4."""
    changes = {"model.options": {"norm": "none"}, "batch_size": 32, "class_weights": weights}
    changes |= {"label_smoothing": 0.1}
    found = []
    for micro_batch in (0, 7):
        setup, state = prepared(tiny({**changes, "micro_batch": micro_batch}))
        (batch,) = setup.batches.between(0, 1)
        loss, norm = take_gradient(setup, state, *setup.loader.training(batch))
        gradients = {name: p.grad for name, p in state.model.named_parameters()}
        found.append((loss, norm, gradients, state.epoch.sums))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_a_weighted_loss_is_torchs(tiny: Recipes) -> None:
    setup, state = prepared(tiny({"class_weights": "balanced", "label_smoothing": 0.1}))
    (batch,) = setup.batches.between(0, 1)
    images, labels = setup.loader.training(batch)
    expected = functional.cross_entropy(
        state.model(images), labels, setup.class_weights, label_smoothing=0.1
    )
    loss, _ = take_gradient(setup, state, images, labels)
    torch.testing.assert_close(loss, expected.detach())


# When it ends


def with_error(measured: SplitScore, error: float) -> SplitScore:
    return replace(measured, single=replace(measured.single, error=error))


def test_patience_ends_training_and_keeps_the_best_epoch(
    few: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([60.0, 40.0, 50.0, 40.0, 45.0, 10.0])
    real = TrainingSetup.score
    states: list[dict[str, Tensor]] = []

    def score(setup: TrainingSetup, network: nn.Module, split: Any, **options: Any) -> Any:
        measured = real(setup, network, split, **options)
        if split == "validation" and len(states) < 5:
            states.append({k: t.clone() for k, t in network.state_dict().items()})
            measured = with_error(measured, next(errors))
        return measured

    monkeypatch.setattr(TrainingSetup, "score", score)
    run = train(few({"finetune.patience": 3, "length": "9 epochs"}), tmp_path / "run")
    assert len(run.epochs) == 5  # the second was the best, and three brought no less
    assert run.final is not None
    assert run.final.best_epoch == 2
    for name, tensor in tensors(run).items():
        assert torch.equal(tensor, states[1][name]), name


def test_patience_needs_the_validation_part(tiny: Recipes) -> None:
    with pytest.raises(
        RecipeError, match=r"finetune\.patience would choose the course .* test split"
    ):
        tiny({"finetune.patience": 2, "evaluation.split": "test"})


# Looking for a learning rate


def test_the_rate_grows_by_one_factor_until_the_loss_does(tiny: Recipes, tmp_path: Path) -> None:
    shares: list[float] = []
    search = find_lr(tiny({"optimizer.momentum": 0.9}), steps=40, observe=shares.append)
    ratios = [b / a for a, b in zip(search.rates, search.rates[1:], strict=False)]
    assert search.rates[0] == 1e-5
    assert ratios == pytest.approx([(10 / 1e-5) ** (1 / 39)] * len(ratios))
    assert len(search.losses) == len(search.rates) <= 40
    lowest = search.rates[search.losses.index(min(search.losses))]
    assert search.suggested == pytest.approx(lowest / 10)
    assert math.log10(search.suggested) < 0  # a rate of 1 breaks this network
    assert min(search.losses) < search.losses[0]
    assert shares == sorted(shares)
    assert list(tmp_path.iterdir()) == []


def test_too_few_steps_are_refused(tiny: Recipes) -> None:
    with pytest.raises(UsageError, match="20 or more"):
        find_lr(tiny(), steps=19)


# The paper's way on ImageNet


def test_the_rate_drops_when_the_error_stops_falling(
    few: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [60.0, 50.0, 49.95, 49.0, 49.5, 49.2, 49.1, 49.3, 49.4, 49.2, 48.0]
    left = iter(errors)
    real = TrainingSetup.score

    def score(setup: TrainingSetup, network: nn.Module, split: Any, **options: Any) -> Any:
        return with_error(real(setup, network, split, **options), next(left, 0.0))

    monkeypatch.setattr(TrainingSetup, "score", score)
    schedule = {"kind": "plateau", "patience": 2, "least": 0.1, "drops": 2, "factor": 0.5}
    changes = {"schedule": schedule, "length": "11 epochs", "log_every": 3, "optimizer.lr": 0.08}
    run = train(few(changes), tmp_path / "run")
    rates = [event.lr for event in run.intervals]
    # The lowest is that of epoch 4; two epochs later the rate falls, and after two more again.
    assert rates == pytest.approx([0.08] * 6 + [0.04] * 2 + [0.02] * 3)


def test_exact_statistics_are_those_of_the_training_images(few: Recipes, tmp_path: Path) -> None:
    """Of the first layer they can be computed by hand: its inputs do not depend on others."""
    recipe = few({"precise_bn": 10_000, "model.options": {"shortcut": "B"}})
    run = train(recipe, tmp_path / "run")
    usual = train(few({"model.options": {"shortcut": "B"}}), tmp_path / "usual")
    exact, moving = tensors(run), tensors(usual)
    for name in exact:
        is_statistic = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(exact[name], moving[name]) != is_statistic, name
    setup, state = prepared(recipe)
    state.model.load_state_dict(exact)
    outputs = [
        state.model.conv1(setup.loader.training(batch)[0])
        for batch in setup.batches.between(0, setup.batches.steps_per_epoch)
    ]
    mean = torch.stack([each.mean((0, 2, 3)) for each in outputs]).mean(0)
    variance = torch.stack([each.var((0, 2, 3)) for each in outputs]).mean(0)
    torch.testing.assert_close(exact["bn1.running_mean"], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(exact["bn1.running_var"], variance, rtol=1e-4, atol=1e-5)
