"""A whole training: its events, its numbers measured again by other code, and its failures."""

import importlib.metadata
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss
from torch import Tensor

from resnetkit.data.batches import Batch, epoch_order
from resnetkit.data.datasets import DATASETS, open_dataset
from resnetkit.data.draws import Draws
from resnetkit.data.loader import DeviceLoader
from resnetkit.errors import Interrupted, TrainingDiverged
from resnetkit.evaluation.evaluate import evaluate
from resnetkit.evaluation.metric_sums import MetricSums, Score
from resnetkit.models.zoo import create_model
from resnetkit.runtime.process_group import World
from resnetkit.training import loop
from resnetkit.training import step as step_module
from resnetkit.training.checkpoint import checkpoint_steps, load_checkpoint
from resnetkit.training.events import Event, IntervalEvent, Session, event_to_json
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe
from resnetkit.training.run_folder import Run, read_run
from resnetkit.weights.load import load_network

Recipes = Callable[..., Recipe]
STEPS = 38  # two epochs of 19 batches of 64


@pytest.fixture(scope="module")
def trained(
    on_digits: Recipes, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, list[Event]]:
    """Trains two epochs on the digits; returns the run and what the observer saw."""
    seen: list[Event] = []
    changes = {"length": "2 epochs", "batch_size": 64, "log_every": 5, "model.name": "resnet8"}
    run = train(on_digits(changes), tmp_path_factory.mktemp("trained"), observe=seen.append)
    return run, seen


def lines_of(run: Run) -> list[dict[str, Any]]:
    """Reads metrics.jsonl as strict JSON, in which NaN is no number."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    lines = run.metrics_path.read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def weights_of(folder: Path, name: str = "model.safetensors") -> dict[str, Tensor]:
    return safetensors.torch.load_file(folder / name)


# Events


def test_a_training_leaves_what_its_folder_promises(trained: tuple[Run, list[Event]]) -> None:
    run, _ = trained
    names = {path.name for path in run.folder.iterdir()} - {".lock"}
    assert names == {
        "recipe.yaml",
        "environment.json",
        "metrics.jsonl",
        "timing.jsonl",
        "checkpoints",
        "model",
    }
    assert {path.suffix for path in run.folder.rglob("*") if path.is_file()} <= {
        ".yaml",
        ".json",
        ".jsonl",
        ".safetensors",
        ".md",
        "",
    }


def test_events_come_in_order_when_they_are_due(trained: tuple[Run, list[Event]]) -> None:
    run, _ = trained
    order = [(event["event"], event["step"]) for event in lines_of(run)]
    assert order == [
        *[("interval", step) for step in (5, 10, 15)],
        ("epoch", 19),
        *[("interval", step) for step in (20, 25, 30, 35, 38)],
        ("epoch", 38),
        ("final", 38),
    ]


def test_intervals_have_the_documented_keys(trained: tuple[Run, list[Event]]) -> None:
    for event in trained[0].intervals:
        assert set(event_to_json(event)) == {
            "event",
            "step",
            "lr",
            "loss",
            "error",
            "gradient_norm",
        }


def test_epochs_have_the_documented_keys(trained: tuple[Run, list[Event]]) -> None:
    epochs = trained[0].epochs
    assert [event.epoch for event in epochs] == [1, 2]
    for event in epochs:
        measured = {"train_loss", "train_error", "validation_loss", "validation_error"}
        assert set(event_to_json(event)) == {"event", "step", "epoch"} | measured


def test_the_final_event_has_the_documented_keys(trained: tuple[Run, list[Event]]) -> None:
    event = trained[0].final
    assert event is not None
    final = event_to_json(event)
    assert set(final) - {"reached"} == {"event", "step", "train", "validation", "test"}
    scores = {"loss", "error", "top5_error", "count"}
    assert set(final["train"]) == set(final["validation"]) == scores
    assert set(final["test"]) == scores | {"confusion"}
    assert [score.count for score in event.scores.values()] == [1259, 179, 359]


def test_the_observer_sees_what_is_written_and_the_time_it_took(
    trained: tuple[Run, list[Event]],
) -> None:
    run, (session, *seen) = trained
    assert isinstance(session, Session)
    assert (session.from_step, session.total_steps) == (0, STEPS)
    assert [event_to_json(event) for event in seen] == lines_of(run)
    timings = [event.timing for event in seen if isinstance(event, IntervalEvent)]
    assert timings == run.timings


def test_the_environment_says_what_it_ran_on(trained: tuple[Run, list[Event]]) -> None:
    run, (seen, *_) = trained
    (session,) = run.sessions
    assert session == seen
    assert session.versions["torch"] == importlib.metadata.version("torch")
    assert session.hardware["device"] == "cpu"
    assert (session.hardware["threads"], session.hardware["ranks"]) == (1, 1)
    assert session.precision == {"name": "float32", "reason": "the recipe asks for it"}
    assert session.data.sha256 == open_dataset("digits").sha256


def test_the_learning_rate_is_that_of_the_last_step(trained: tuple[Run, list[Event]]) -> None:
    for event in trained[0].intervals:
        step = event.step - 1
        expected = 0.02 * (1 - step / STEPS) * min(1, (step + 1) / 19)
        assert event.lr == pytest.approx(expected)


def test_an_epoch_counts_each_of_its_samples_once(trained: tuple[Run, list[Event]]) -> None:
    """19 batches of 64 are 1,216 samples, and an error is a whole number of them."""
    for event in trained[0].epochs:
        wrong = event.train_error / 100 * 1216
        assert wrong == pytest.approx(round(wrong), abs=1e-6)


def test_it_learns(trained: tuple[Run, list[Event]]) -> None:
    final = trained[0].final
    assert final is not None
    assert final.test.error < 60  # 90 by chance
    assert trained[0].epochs[1].train_loss < trained[0].epochs[0].train_loss


def test_evaluations_come_as_often_as_asked_and_at_the_end(tmp_path: Path, few: Recipes) -> None:
    changes = {"length": "10 steps", "evaluation.every_epochs": 2, "evaluation.split": "test"}
    run = train(few(changes), tmp_path)
    measured = [(e.step, e.test_error is not None) for e in run.epochs]
    assert measured == [(3, False), (6, True), (9, False), (10, True)]


def test_no_global_randomness_is_used_or_changed(
    tmp_path: Path, few: Recipes, results: Callable[[Path], dict[str, bytes]]
) -> None:
    states = (torch.random.get_rng_state(), np.random.get_state()[1].tolist())
    first = train(few(), tmp_path / "first")
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    torch.manual_seed(1)
    second = train(few(), tmp_path / "second")
    assert results(first.folder) == results(second.folder)


def test_another_seed_gives_another_network(tmp_path: Path, few: Recipes) -> None:
    first, second = (train(few({"seed": seed}), tmp_path / str(seed)) for seed in (0, 1))
    assert not torch.equal(
        weights_of(first.model)["fc.weight"], weights_of(second.model)["fc.weight"]
    )


def test_no_split_is_measured_that_was_trained_on_under_another_name(
    tmp_path: Path, few: Recipes
) -> None:
    changes = {"data.train_on": "train+validation", "evaluation.split": "test"}
    final = train(few(changes), tmp_path).final
    assert final is not None
    assert final.validation is None
    assert final.train.count + final.test.count == 150


def test_training_images_are_not_measured_where_the_recipe_does_without_them(
    tmp_path: Path, few: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    evaluation = DeviceLoader.evaluation

    def watched(self: DeviceLoader, sample_ids: Tensor, *args: Any, **options: Any) -> Any:
        measured.append(len(sample_ids))
        return evaluation(self, sample_ids, *args, **options)

    monkeypatch.setattr(DeviceLoader, "evaluation", watched)
    changes = {"evaluation.final_train": False, "evaluation.every_epochs": 2}
    run = train(few(changes), tmp_path)
    final = run.final
    assert final is not None
    assert (final.train, final.test_flipped) == (None, None)
    sizes = {split: len(ids) for split, ids in open_dataset("few").splits.items()}
    assert sizes["train"] not in measured
    assert measured == [sizes["validation"], sizes["validation"], sizes["test"]]
    assert "| train |" not in (run.model / "README.md").read_text()


# The numbers, measured again


def test_flips_are_averaged_as_evaluate_does(
    tmp_path: Path, few: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored = replace(open_dataset("few"), mirrored=True)
    monkeypatch.setitem(DATASETS, "few", lambda: mirrored)
    run = train(few({"optimizer.lr": 0.5, "evaluation.final_flip": True}), tmp_path)
    final = run.final
    assert final is not None
    assert final.test_flipped is not None
    again = evaluate(load_network(run.folder), mirrored, flip=True).metrics
    assert final.test_flipped.error == pytest.approx(again.top1.error)
    assert final.test_flipped.loss == pytest.approx(again.loss, rel=1e-4)
    assert final.test_flipped.loss != final.test.loss
    alone = evaluate(load_network(run.folder), mirrored).metrics
    assert final.test.error == pytest.approx(alone.top1.error)


def logits_of(model_folder: Path, images: np.ndarray) -> Tensor:
    """Loads an exported network with plain tools and runs it on pixels from 0 to 255."""
    config = json.loads((model_folder / "config.json").read_text())
    model = create_model(
        config["architecture"],
        num_classes=len(config["class_names"]),
        in_channels=config["layers"]["in_channels"],
    )
    model.load_state_dict(weights_of(model_folder))
    preprocessing = weights_of(model_folder, "preprocessing.safetensors")
    pixels = torch.from_numpy(images.astype(np.float32))[:, None]
    with torch.no_grad():
        return model.eval()((pixels - preprocessing["mean"]) / preprocessing["std"])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema_decay": 0.9},
        {"data.normalize": "pixel-mean"},
        {"model.name": "preresnet20", "evaluation.split": "test"},
    ],
    ids=str,
)
def test_final_numbers_are_those_of_the_exported_network(
    tmp_path: Path, few: Recipes, changes: dict[str, Any]
) -> None:
    run = train(few({"optimizer.lr": 0.5, **changes}), tmp_path)
    final = run.final
    assert final is not None
    digits = load_digits()
    images = np.rint(digits.images * 255 / 16)
    for split, ids in open_dataset("few").splits.items():
        logits = logits_of(run.model, images[ids.numpy()])
        guessed, known = logits.argmax(1).numpy(), digits.target[ids.numpy()]
        shares = logits.double().softmax(1).numpy()
        wrong = 100 * (1 - accuracy_score(known, guessed))
        assert final.scores[split].error == pytest.approx(wrong, abs=1e-9)
        assert final.scores[split].loss == pytest.approx(log_loss(known, shares), rel=1e-4)
        if split == "test":
            table = confusion_matrix(known, guessed, labels=range(10)).tolist()
            assert final.confusion == table
    watched = "test" if changes.get("evaluation.split") == "test" else "validation"
    assert run.epochs[-1].error(watched) == final.scores[watched].error


def twin_of_three_steps(
    recipe: Recipe, *, smoothing: float, clip: float, nesterov: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Trains resnet8 for three steps with every formula written out; returns its last state.

    The first state is returned, too.

    One float32 tensor a parameter, no channels-last memory, no fused optimizer, no autograd beyond
    the loss.
    """
    data = open_dataset("few")
    train_ids = data.splits["train"]
    pixels = data.images.double()
    mean, std = pixels[train_ids].mean(), pixels[train_ids].std(correction=0)
    images = ((pixels - mean) / std).float()
    generator = torch.Generator().manual_seed(recipe.seed)
    model = create_model("resnet8", generator=generator, num_classes=10, in_channels=1).train()
    initial = {name: value.double().clone() for name, value in model.state_dict().items()}
    velocities: dict[str, Tensor] = {}
    order = epoch_order(Draws(train_ids, recipe.seed))
    for step in range(3):
        ids = order[step * 32 : (step + 1) * 32]
        log_shares = model(images[ids]).log_softmax(1)
        right = log_shares[torch.arange(32), data.labels[ids]]
        loss = -((1 - smoothing) * right + smoothing * log_shares.mean(1)).mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        norm = torch.stack([(g.double() ** 2).sum() for g in gradients]).sum().sqrt().item()
        factor = min(1.0, clip / norm) if clip else 1.0
        lr = 0.002 * (1 - step / 3) * (step + 1) / 3  # 3 batches of 32 are an epoch of warm-up
        with torch.no_grad():
            for (name, weight), gradient in zip(model.named_parameters(), gradients, strict=True):
                pull = gradient * factor + (0.1 * weight if weight.dim() == 4 else 0)
                velocities[name] = 0.9 * velocities[name] + pull if step else pull
                weight -= lr * (pull + 0.9 * velocities[name] if nesterov else velocities[name])
    return {name: value.double() for name, value in model.state_dict().items()}, initial


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("nesterov", [False, True])
def test_three_steps_equal_those_of_formulas_written_out(
    tmp_path: Path, few: Recipes, smoothing: float, clip: float, nesterov: bool
) -> None:
    recipe = few(
        {
            "length": "3 steps",
            "data.augment.crop_padding": 0,
            "optimizer.lr": 0.002,
            "optimizer.weight_decay": 0.1,
            "optimizer.nesterov": nesterov,
            "label_smoothing": smoothing,
            "gradient_clip": clip,
            "log_every": 1,
        }
    )
    run = train(recipe, tmp_path)
    assert all(event.gradient_norm > 0.5 for event in run.intervals)
    ours = weights_of(run.model)
    theirs, initial = twin_of_three_steps(recipe, smoothing=smoothing, clip=clip, nesterov=nesterov)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        way = (value - initial[name]).norm()
        assert (ours[name] - value).norm() <= 0.01 * way + 1e-6, name  # float32 ends at 1e-7


def test_reported_losses_are_without_smoothing(tmp_path: Path, few: Recipes) -> None:
    """At the first step both runs have the same network, so the same loss is reported."""
    runs = [
        train(few({"label_smoothing": smoothing, "log_every": 1}), tmp_path / str(smoothing))
        for smoothing in (0.0, 0.5)
    ]
    first, smoothed = (run.intervals[0] for run in runs)
    assert first.loss == smoothed.loss
    assert first.gradient_norm > smoothed.gradient_norm


def test_averaged_weights_are_the_average_of_the_weights_of_every_step(
    tmp_path: Path, few: Recipes
) -> None:
    changes = {"ema_decay": 0.6, "checkpoint.every": "1 steps", "checkpoint.keep": 9}
    run = train(few(changes), tmp_path)
    average: dict[str, Tensor] = {}
    for step in range(1, 7):
        tensors, _ = load_checkpoint(run.checkpoints, step)
        for name, value in tensors["model"].items():
            if value.is_floating_point():
                weight = value.double()
                average[name] = 0.6 * average[name] + 0.4 * weight if step > 1 else weight
                kept = tensors["averaged"][f"module.{name}"]
                torch.testing.assert_close(kept, average[name].float(), rtol=1e-5, atol=1e-7)
    exported, last = weights_of(run.model), load_checkpoint(run.checkpoints, 6)[0]["model"]
    for name, value in average.items():
        torch.testing.assert_close(exported[name], value.float(), rtol=1e-5, atol=1e-7)
    assert not torch.equal(exported["fc.weight"], last["fc.weight"])


def test_bfloat16_trains_and_keeps_float32_weights(
    tmp_path: Path, few: Recipes, whole: Run
) -> None:
    sessions: list[Event] = []
    run = train(few({"precision": "bfloat16"}), tmp_path / "half", observe=sessions.append)
    assert sessions[0].precision["name"] == "bfloat16"
    weights, exact = weights_of(run.model), weights_of(whole.model)
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}
    assert not torch.equal(weights["conv1.weight"], exact["conv1.weight"])
    for event, twin in zip(run.intervals, whole.intervals, strict=True):
        assert event.loss == pytest.approx(twin.loss, rel=0.05)
        assert event.loss != twin.loss


# Ends


def test_a_reached_target_ends_the_training_early(tmp_path: Path, few: Recipes) -> None:
    run = train(few({"length": "40 epochs", "target_error": 99.9}), tmp_path)
    assert run.final is not None
    assert (run.final.step, run.final.reached) == (3, True)
    assert run.epochs[-1].validation_error <= 99.9
    assert checkpoint_steps(run.checkpoints) == [3]


def test_a_target_is_reached_by_an_error_that_is_no_higher(tmp_path: Path, few: Recipes) -> None:
    measured = train(few(), tmp_path / "measured").epochs[0].validation_error
    final = train(few({"target_error": measured}), tmp_path / "run").final
    assert final is not None
    assert (final.step, final.reached) == (3, True)


def test_a_target_is_only_reached_where_it_is_measured(tmp_path: Path, few: Recipes) -> None:
    changes = {"length": "40 epochs", "target_error": 99.9, "evaluation.every_epochs": 2}
    final = train(few(changes), tmp_path).final
    assert final is not None
    assert final.step == 6


def test_a_target_out_of_reach_does_not_end_the_training(tmp_path: Path, few: Recipes) -> None:
    final = train(few({"target_error": 0.01}), tmp_path).final
    assert final is not None
    assert (final.step, final.reached) == (6, False)


def scripted_errors(monkeypatch: pytest.MonkeyPatch, errors: list[float]) -> None:
    """Lets the intervals have these training errors, one a step; epochs keep their own."""
    script: Iterator[float] = iter(errors)
    real = MetricSums.score

    def score(self: MetricSums, world: World) -> Score:
        measured = real(self, world)
        is_interval = measured.count == 32 and self.sums.dtype == torch.float64
        return replace(measured, error=next(script)) if is_interval else measured

    monkeypatch.setattr(MetricSums, "score", score)


@pytest.mark.parametrize(
    ("errors", "waiting"),
    [
        ([95, 90, 79, 95, 85, 99], 3),  # below once, and never back: the steps after are scheduled
        ([79, 95, 95, 95, 95, 95], 1),
        ([80, 80, 80, 80, 80, 79], 6),  # 80 is not below 80
        ([95, 95, 95, 95, 95, 95], 6),
    ],
)
def test_the_papers_warmup_ends_for_ever_once_the_error_was_below(
    tmp_path: Path,
    few: Recipes,
    monkeypatch: pytest.MonkeyPatch,
    errors: list[float],
    waiting: int,
) -> None:
    scripted_errors(monkeypatch, errors)
    warmup = {"kind": "until-error", "lr": 0.01, "below": 80}
    run = train(few({"warmup": warmup, "optimizer.lr": 0.1, "log_every": 1}), tmp_path)
    intervals = run.intervals
    assert [event.error for event in intervals] == errors
    scheduled = [0.1 * (1 - step / 6) for step in range(6)]
    expected = [0.01] * waiting + scheduled[waiting:]
    assert [event.lr for event in intervals] == pytest.approx(expected)


def test_the_papers_warmup_looks_at_whole_intervals(
    tmp_path: Path, few: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of two steps is below at the first reading: from the third step on, 0.1 rules."""
    warmup = {"kind": "until-error", "lr": 0.01, "below": 99.9}
    changes = {"warmup": warmup, "optimizer.lr": 0.1, "log_every": 2}
    rates: list[float] = []
    real = step_module.apply_gradient

    def apply(setup: Any, state: Any, lr: float, norm: Tensor) -> None:
        rates.append(lr)
        real(setup, state, lr, norm)

    monkeypatch.setattr(step_module, "apply_gradient", apply)
    train(few(changes), tmp_path)
    assert rates == pytest.approx([0.01, 0.01, *(0.1 * (1 - step / 6) for step in range(2, 6))])


def test_the_papers_warmup_stays_ended_after_a_resume(
    tmp_path: Path, few: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_errors(monkeypatch, [95, 79, 95, *[95, 95, 95, 95]])  # the third step is lost
    warmup = {"kind": "until-error", "lr": 0.01, "below": 80}
    recipe = few({"warmup": warmup, "optimizer.lr": 0.1, "log_every": 1})

    def crash(event: Event) -> None:
        if isinstance(event, IntervalEvent) and event.step == 3:
            raise KeyError("crash")

    with pytest.raises(KeyError, match="crash"):
        train(recipe, tmp_path, observe=crash)
    run = train(recipe, tmp_path)
    rates = [event.lr for event in run.intervals]
    assert rates == pytest.approx([0.01, 0.01, *(0.1 * (1 - step / 6) for step in range(2, 6))])


# Failures


def spoil(monkeypatch: pytest.MonkeyPatch, step: int) -> list[int]:
    """Makes one pixel of one image of a step not a number; returns where its samples will be."""
    samples: list[int] = []
    real = DeviceLoader.training

    def training(self: DeviceLoader, batch: Batch, *, size: int = 0) -> tuple[Tensor, Tensor]:
        images, labels = real(self, batch, size=size)
        if batch.step == step:
            samples.extend(batch.sample_ids.tolist())
            images[3, 0, 4, 4] = float("nan")
        return images, labels

    monkeypatch.setattr(DeviceLoader, "training", training)
    return samples


def test_a_loss_that_is_not_a_number_ends_the_training_before_the_step(
    tmp_path: Path,
    few: Recipes,
    whole: Run,
    monkeypatch: pytest.MonkeyPatch,
    results: Callable[[Path], dict[str, bytes]],
) -> None:
    expected = results(whole.folder)
    with monkeypatch.context() as patch:
        samples = spoil(patch, 3)
        with pytest.raises(TrainingDiverged) as caught:
            train(few(), tmp_path / "run")
    message = str(caught.value)
    assert message.startswith("training diverged: at step 3 the loss is nan and the gradient's")
    assert f"that step was not taken. {tmp_path}/run/failure.json names the samples." in message
    assert "The checkpoint of step 2 is kept." in message
    assert caught.value.exit_code == 1
    failure = json.loads((tmp_path / "run" / "failure.json").read_text())
    assert (failure["step"], failure["epoch"], failure["loss"]) == (3, 1, "nan")
    assert failure["sample_ids"] == samples
    assert len(samples) == 32
    tensors, _ = load_checkpoint(tmp_path / "run" / "checkpoints", 2)
    assert all(value.isfinite().all() for group in tensors.values() for value in group.values())
    # Without the spoilt image, the same command goes on as if nothing had been.
    assert read_run(tmp_path / "run").diverged
    assert results(train(few(), tmp_path / "run").folder) == expected
    assert not (tmp_path / "run" / "failure.json").exists()


def test_a_gradient_that_is_not_finite_ends_the_training(
    tmp_path: Path, few: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_module, "get_total_norm", lambda gradients: torch.tensor(float("inf")))
    with pytest.raises(TrainingDiverged, match=r"at step 0 the loss is 2.* norm inf; that step"):
        train(few(), tmp_path)
    assert checkpoint_steps(tmp_path / "checkpoints") == []


ABSURD = {
    "optimizer.lr": 100,
    "optimizer.weight_decay": 0.9,
    "optimizer.decay": "all",
    "warmup": {"kind": "none"},
    "length": "200 steps",
}


def test_an_absurd_learning_rate_diverges_and_says_what_to_try(
    tmp_path: Path, few: Recipes
) -> None:
    with pytest.raises(TrainingDiverged, match=r"Try a lower optimizer\.lr \(it was "):
        train(few(ABSURD), tmp_path)
    newest = checkpoint_steps(tmp_path / "checkpoints")[-1]
    tensors, _ = load_checkpoint(tmp_path / "checkpoints", newest)
    weights = {name: v for name, v in tensors["model"].items() if "running_" not in name}
    assert all(value.isfinite().all() for value in weights.values())


def test_metrics_are_json_even_when_a_measured_loss_is_not_a_number(
    tmp_path: Path, few: Recipes
) -> None:
    with pytest.raises(TrainingDiverged):
        train(few(ABSURD), tmp_path)
    assert lines_of(Run(tmp_path, few(ABSURD)))


def test_a_failing_observer_is_not_taken_for_a_failing_disk(tmp_path: Path, few: Recipes) -> None:
    def print_on_a_closed_terminal(event: Event) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        train(few(), tmp_path, observe=print_on_a_closed_terminal)


def test_a_rank_that_stops_because_another_was_asked_to_has_that_exit_code(
    tmp_path: Path, few: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(World, "any", lambda self, *flags: [True, *flags[1:]])
    with pytest.raises(Interrupted) as caught:
        train(few(), tmp_path)
    assert caught.value.exit_code in (130, 143)


def test_the_speed_counts_the_images_that_were_shown(
    tmp_path: Path, few: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(clock)))
    seen: list[Event] = []
    train(
        few({"batch_size": 1000, "length": "2 steps", "log_every": 1}),
        tmp_path,
        observe=seen.append,
    )
    speeds = [event.timing.images_per_second for event in seen if isinstance(event, IntervalEvent)]
    assert speeds == [100, 100]  # a step takes one tick of this clock
