"""Recipes: round trips, digests, and one sentence for each thing that is wrong."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnetkit.data.dataset import Dataset
from resnetkit.data.datasets import DATASETS
from resnetkit.data.stratified import stratified_split
from resnetkit.errors import RecipeError
from resnetkit.runtime.process_group import World
from resnetkit.strict_yaml import parse_yaml
from resnetkit.training.recipe import Recipe, load_recipe, named_recipes, recipe_text
from resnetkit.training.recipe_schema import Duration
from resnetkit.training.schedules import ScheduleState
from resnetkit.training.setup import prepare

ALONE = World(0, 1, torch.device("cpu"))


def refusal(changes: dict[str, Any]) -> str:
    """Returns the one line with which the changed digits recipe is refused."""
    with pytest.raises(RecipeError) as caught:
        load_recipe("digits", changes)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", "?"))
    return message


def leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in values.items():
        if isinstance(value, dict) and key != "options":
            found.update(leaves(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value
    return found


# Named recipes


def test_there_are_named_recipes() -> None:
    assert {"digits", "digits-study"} <= set(named_recipes())


@pytest.mark.parametrize("name", sorted(named_recipes()))
def test_a_named_recipe_round_trips_through_yaml(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    again = load_recipe(str(path))
    assert again == recipe
    assert again.digest == recipe.digest
    assert again.to_yaml() == recipe.to_yaml()


@pytest.mark.parametrize("name", sorted(named_recipes()))
def test_a_named_recipe_fits_its_data(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(DATASETS, "cifar10", photographs)
    changes = {"kernels": "modules"}  # compiling takes seconds
    recipe = load_recipe(name, changes)
    if recipe.data.image_size:  # the folder is the user's
        for label in "ab":
            for number in range(4):
                (tmp_path / label).mkdir(exist_ok=True)
                noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(noise).save(tmp_path / label / f"{number}.png")
        recipe = load_recipe(name, {**changes, "data.name": str(tmp_path)})
    assert prepare(recipe, ALONE)[0].total_steps > 0


def photographs() -> Dataset:
    """Returns 300 random images of the size and classes of CIFAR-10, which may not be here."""
    labels = torch.arange(300) % 10
    images = torch.randint(0, 256, (300, 3, 32, 32), dtype=torch.uint8)
    splits = stratified_split(labels, test_fraction=0.1, validation_fraction=0.1)
    return Dataset("cifar10", images, labels, tuple("0123456789"), splits, True, "")


def test_the_recipe_of_the_paper_is_the_papers() -> None:
    """He et al. 2015, sec. 4.2, value by value."""
    recipe = load_recipe("paper-cifar10")
    assert (recipe.batch_size, str(recipe.length)) == (128, "64000 steps")
    assert (recipe.data.augment.crop_padding, recipe.data.augment.flip) == (4, "random")
    assert (recipe.data.normalize, recipe.data.augment.padding) == ("pixel-mean", "zeros")
    assert (recipe.optimizer.momentum, recipe.optimizer.nesterov) == (0.9, False)
    assert (recipe.optimizer.weight_decay, recipe.optimizer.decay) == (1e-4, "convolutions")
    rates = [
        recipe.optimizer.lr * recipe.schedule.factor_at(step, 64_000, 351)
        for step in (0, 31_999, 32_000, 47_999, 48_000, 63_999)
    ]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert recipe.warmup.kind == "none"
    deep = {"model.name": "resnet110", "warmup.kind": "until-error", "warmup.lr": 0.01}
    warmed = load_recipe("paper-cifar10", {**deep, "warmup.below": 80}).warmup
    assert warmed.lr_at(500, 0.1, 351) == 0.01
    assert warmed.lr_at(500, 0.1, 351, ScheduleState(below=True)) == 0.1


@pytest.mark.parametrize("name", sorted(named_recipes()))
def test_a_named_recipe_says_what_it_is_before_its_values(name: str) -> None:
    text = recipe_text(name)
    headers = [line for line in text.splitlines() if line.startswith("#")]
    assert text.startswith("# ")
    for word in ("Reproduces:", "Cost:", "Expected:"):
        assert any(word in line for line in headers)


def test_every_value_of_a_file_arrives_in_the_recipe() -> None:
    for name, path in named_recipes().items():
        written = leaves(yaml.safe_load(path.read_text()))
        read = leaves(load_recipe(name).model_dump(mode="json"))
        assert written.items() <= read.items()


def test_a_recipe_travels_between_processes() -> None:
    recipe = load_recipe("digits")
    assert pickle.loads(pickle.dumps(recipe)) == recipe


# Digest

ANOTHER = {
    "model.name": "plain20",
    "model.options": {"shortcut": "B"},
    "model.weights": "/run",
    "model.variant": "v1",
    "finetune.freeze": "stem",
    "finetune.frozen_norm": True,
    "finetune.backbone_lr": 0.1,
    "finetune.patience": 3,
    "micro_batch": 16,
    "precise_bn": 1000,
    "class_weights": "balanced",
    "data.name": "digits-again",
    "data.train_on": "train+validation",
    "data.normalize": "pixel-mean",
    "data.augment.crop_padding": 2,
    "data.augment.padding": "reflect",
    "data.image_size": 72,
    "data.crop_pct": 1.0,
    "data.augment.crop": "scale",
    "data.augment.area": [0.2, 1],
    "data.augment.side": [256, 400],
    "data.on_bad_image": "skip",
    "data.cache": "disk",
    "data.augment.color": "pca",
    "data.augment.policy": "trivial",
    "data.augment.erasing": 0.1,
    "data.augment.mixup": 0.2,
    "data.augment.cutmix": 1.0,
    "data.early_size": 4,
    "data.early_fraction": 0.25,
    "data.augment.flip": "random",
    "optimizer.lr": 0.05,
    "optimizer.momentum": 0.8,
    "optimizer.nesterov": True,
    "optimizer.weight_decay": 0.0005,
    "optimizer.decay": "all",
    "optimizer.muon_lr": 0.05,
    "optimizer.muon_momentum": 0.9,
    "optimizer.muon_on": "convolutions",
    "schedule.kind": "cosine",
    "schedule.final": 0.1,
    "warmup.kind": "none",
    "warmup.length": "2 epochs",
    "length": "15 epochs",
    "batch_size": 65,
    "label_smoothing": 0.1,
    "gradient_clip": 1.0,
    "ema_decay": 0.9,
    "target_error": 5.0,
    "precision": "bfloat16",
    "kernels": "modules",
    "seed": 1,
    "log_every": 20,
    "evaluation.every_epochs": 2,
    "evaluation.split": "test",
    "evaluation.final_train": False,
    "evaluation.final_flip": True,
    "checkpoint.every": "2 epochs",
    "checkpoint.keep": 2,
    "checkpoint.snapshots": 4,
}


def test_a_key_that_a_later_version_adds_leaves_the_digest_alone() -> None:
    class Later(Recipe):
        added: int = 0

    recipe = load_recipe("digits")
    values = recipe.model_dump(mode="json")
    assert Later.model_validate(values).digest == recipe.digest
    assert Later.model_validate({**values, "added": 1}).digest != recipe.digest


@pytest.mark.parametrize("key", sorted(leaves(load_recipe("digits").model_dump(mode="json"))))
def test_the_digest_changes_with_every_value(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "digits-again", DATASETS["digits"])
    own = {"data.name": "/photos", "data.image_size": 64}
    of_base = {  # what a value needs that the named recipe has not
        "data.train_on": {"evaluation.split": "test"},
        "finetune.freeze": {"model.weights": "/other"},
        "model.variant": {"model.weights": "/other"},
        "optimizer.muon_on": {"optimizer.muon_lr": 0.05},
        "data.image_size": own,
        "data.augment.crop": own,
        "data.augment.policy": {**own, "data.augment.crop": "area"},
        "data.cache": {**own, "data.augment.crop": "area"},
    }.get(key, {})
    together: dict[str, dict[str, Any]] = {  # what one value needs of another
        "warmup.kind": {"warmup": {"kind": "none"}},
    }
    changes = of_base | together.get(key, {key: ANOTHER[key]})
    assert load_recipe("digits", changes).digest != load_recipe("digits", of_base).digest


def test_equal_values_have_equal_digests_however_they_are_written() -> None:
    digests = {
        load_recipe("digits", changes).digest
        for changes in (
            {"length": "14 epochs", "optimizer.lr": 1},
            {"length": " 14 epoch ", "optimizer.lr": 1.0},
            {"length": Duration(14, "epochs"), "optimizer.lr": "1"},
        )
    }
    assert len(digests) == 1


def test_the_digest_of_a_recipe_never_changes(tmp_path: Path) -> None:
    """A finished run is found again by it: computing it in another way would orphan every run."""
    path = written(tmp_path / "r.yaml", "length: 3 epochs\nschedule: {kind: cosine}\nseed: 7\n")
    assert load_recipe(path).digest == (
        "85e3c384ca7eac57bf0d9b0eb2e123a551d096f036f087c1f17435a8ac3f3de6"
    )


# Values that are not in the file


def test_changes_replace_values_and_make_groups() -> None:
    recipe = load_recipe(
        "digits",
        {"optimizer.lr": 0.5, "model.options.shortcut": "B", "checkpoint.every": "3 steps"},
    )
    assert recipe.optimizer.lr == 0.5
    assert recipe.optimizer.momentum == 0.9
    assert recipe.model.options == {"shortcut": "B"}
    assert str(recipe.checkpoint.every) == "3 steps"


def test_a_group_can_be_replaced_as_a_whole() -> None:
    recipe = load_recipe("digits", {"schedule": {"kind": "one-cycle", "peak": 0.4}})
    assert recipe.schedule.model_dump() == {
        "kind": "one-cycle",
        "start": 0.04,
        "peak": 0.4,
        "final": 0.0,
    }


def test_changes_do_not_reach_the_named_recipe() -> None:
    load_recipe("digits", {"optimizer.lr": 0.5})
    assert load_recipe("digits").optimizer.lr == 0.02


def test_a_recipe_cannot_be_changed_later() -> None:
    recipe = load_recipe("digits")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 2


# Lengths


@given(
    count=st.integers(1, 10**9), unit=st.sampled_from(["steps", "epochs"]), epoch=st.integers(1, 9)
)
def test_a_length_is_as_many_steps_as_it_says(count: int, unit: Any, epoch: int) -> None:
    length = load_recipe("digits", {"length": f"{count} {unit}"}).length
    assert str(length) == f"{count} {unit}"
    assert length.steps(epoch) == (count * epoch if unit == "epochs" else count)


@pytest.mark.parametrize(
    "length",
    ["0 epochs", "-1 epochs", "1.5 epochs", "epochs", "3", 3, "3 hours", "3epochs", "", None, [],
     "3 epochs 2", "1e3 steps", "nan steps", True, {"count": 3}, "3  epochs", "0 steps"],
)  # fmt: skip
def test_an_impossible_length_is_refused(length: object) -> None:
    assert refusal({"length": length}) == (
        f"length is {length!r}: expected a number of epochs or steps, such as '12 epochs'."
    )


@pytest.mark.parametrize("count", ["1000000001", "1" + 310 * "0", "1" + 5000 * "0"], ids=len)
def test_a_length_without_end_is_refused(count: str) -> None:
    assert refusal({"length": f"{count} steps"}).endswith(
        "expected at most 1,000,000,000 epochs or steps."
    )
    assert load_recipe("digits", {"length": "0001000000000 steps"}).length.count == 10**9


@pytest.mark.parametrize("key", ["warmup.length", "checkpoint.every"])
def test_impossible_lengths_are_refused_everywhere(key: str) -> None:
    assert refusal({key: "0 steps"}).startswith(f"{key} is '0 steps': expected a number of")


def test_an_impossible_milestone_is_refused() -> None:
    schedule = {"kind": "step", "milestones": ["1 epochs", "soon"]}
    message = refusal({"schedule": schedule})
    assert message.startswith("schedule.milestones.1 is 'soon': expected a number of")


# What is refused

NAN, INFINITY = float("nan"), float("inf")
IMPOSSIBLE: dict[str, list[object]] = {
    "batch_size": [0, -1, 1.5, NAN, INFINITY, "many", None, [], {}],
    "label_smoothing": [-0.1, 1, 2, NAN, "some", None],
    "gradient_clip": [-1, NAN, INFINITY, "some", None],
    "ema_decay": [-0.1, 1, NAN, "some"],
    "target_error": [-1, 100, NAN, "low"],
    "precision": ["float16", "fp32", 32, None, ["auto"]],
    "seed": [-1, 2**63, 0.5, NAN, "lucky", None],
    "log_every": [0, -5, 2.5, NAN, "often"],
    "optimizer.lr": [0, -0.1, 101, NAN, INFINITY, "fast", None, [0.1]],
    "optimizer.momentum": [-0.1, 1, NAN, "much"],
    "optimizer.nesterov": ["perhaps", 2, None],
    "optimizer.weight_decay": [-1e-4, 1, NAN],
    "optimizer.decay": ["biases", 1, None],
    "data.augment.crop_padding": [-1, 1.5, NAN, "much"],
    "data.augment.padding": ["ones", 0],
    "data.augment.flip": ["both", True, 1],
    "data.normalize": ["imagenet", None],
    "data.train_on": ["test", "all"],
    "evaluation.every_epochs": [0, -1, 0.5],
    "evaluation.split": ["train", "val"],
    "checkpoint.keep": [0, -1, 0.5],
    "checkpoint.snapshots": [-1, 0.5, 1001],
    "data.early_size": [-1, 0.5, NAN],
    "data.early_fraction": [0, 1.1, -0.1, NAN],
    "optimizer.muon_on": ["stem", True],
    "schedule.final": [-0.1, 1.1, NAN],
    "model.name": [5, None, ["resnet20"]],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in IMPOSSIBLE.items() for value in values]
)
def test_an_impossible_value_is_refused_in_one_sentence_that_names_it(
    key: str, value: object
) -> None:
    message = refusal({key: value})
    assert message.startswith(f"{key} is {value!r}: ")
    assert message.count(". ") == 0


@pytest.mark.parametrize(
    "key", ["batch_size", "optimizer.lr", "seed", "log_every", "gradient_clip"]
)
def test_true_is_not_a_number(key: str) -> None:
    assert refusal({key: True}).startswith(f"{key} is True: ")


SECTIONS: dict[str, dict[str, Any]] = {
    "one-cycle": {"kind": "one-cycle"},
    "step": {"kind": "step", "milestones": ["1 epochs"]},
    "cosine": {"kind": "cosine"},
}


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("one-cycle", "peak", 0),
        ("one-cycle", "peak", 1),
        ("one-cycle", "start", -0.1),
        ("one-cycle", "final", NAN),
        ("step", "factor", 0),
        ("step", "factor", 1),
        ("step", "milestones", "1 epochs"),
        ("step", "milestones", None),
        ("cosine", "final", 2),
    ],
)
def test_an_impossible_value_of_a_schedule_is_refused(kind: str, key: str, value: object) -> None:
    message = refusal({"schedule": {**SECTIONS[kind], key: value}})
    assert message.startswith(f"schedule.{key} is {value!r}: ")


@pytest.mark.parametrize(
    ("key", "value"), [("lr", 0), ("lr", NAN), ("below", 0), ("below", 100), ("below", "80 %")]
)
def test_an_impossible_value_of_a_warmup_is_refused(key: str, value: object) -> None:
    message = refusal({"warmup": {"kind": "until-error", key: value}})
    assert message.startswith(f"warmup.{key} is {value!r}: ")


@pytest.mark.parametrize("group", ["schedule", "warmup"])
@pytest.mark.parametrize("kind", ["sine", 5, None, ["linear"]])
def test_an_unknown_kind_is_refused_with_the_known_ones(group: str, kind: object) -> None:
    message = refusal({group: {"kind": kind}})
    assert message.startswith(f"{group}.kind is ")
    assert "'linear'" in message


@pytest.mark.parametrize("group", ["schedule", "warmup"])
def test_a_group_without_its_kind_is_refused(group: str) -> None:
    assert refusal({group: {"length": "1 epochs"}}) == f"the recipe lacks '{group}.kind'."


@pytest.mark.parametrize(
    ("group", "key"),
    [
        ("model", "model.name"),
        ("data", "data.name"),
        ("optimizer", "optimizer.lr"),
        ("schedule", "schedule.kind"),
    ],
)
@pytest.mark.parametrize("value", [None, 5, "resnet20", ["a"]])
def test_a_value_where_a_group_of_keys_belongs_is_refused(
    group: str, key: str, value: object
) -> None:
    assert refusal({group: value}) == (
        f"'{group}' is a group of keys, not a value: set one of them, such as '{key}'."
    )


@pytest.mark.parametrize("value", [None, 5, "resnet20", ["a"]])
def test_a_value_for_a_group_that_the_file_leaves_out_is_refused(value: object) -> None:
    expected = f"checkpoint is {value!r}: expected keys, such as 'checkpoint.every'."
    assert refusal({"checkpoint": value}) == expected


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("bach_size", "batch_size"),
        ("optimzer", "optimizer"),
        ("learning_rate", None),
        ("optimizer.learning_rate", "optimizer.lr"),
        ("optimizer.weightdecay", "optimizer.weight_decay"),
        ("model.nam", "model.name"),
        ("data.augment.crop_pading", "data.augment.crop_padding"),
        ("data.flip", "data.augment.flip"),
        ("data.crop", "data.augment.crop"),
        ("data.area", "data.augment.area"),
        ("lr", "optimizer.lr"),
        ("optimizer.batch_size", "batch_size"),
        ("schedule.finl", "schedule.final"),
        ("warmup.lenght", "warmup.length"),
        ("evaluation.every_epoch", "evaluation.every_epochs"),
        ("checkpoint.evry", "checkpoint.every"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(key: str, nearest: str | None) -> None:
    suggestion = f" Did you mean '{nearest}'?" if nearest else ""
    assert refusal({key: 1}) == f"unknown key '{key}' in the recipe.{suggestion}"


@pytest.mark.parametrize(
    ("key", "value"), [("schedule.milestones", ["1 epochs"]), ("warmup.below", 80)]
)
def test_a_key_of_another_kind_is_not_suggested_as_itself(key: str, value: object) -> None:
    assert f"Did you mean '{key}'?" not in refusal({key: value})


def test_every_problem_has_its_sentence() -> None:
    message = refusal({"batch_size": 0, "optimizer.lr": -1, "lenght": 5})
    assert "batch_size is 0: " in message
    assert "optimizer.lr is -1: " in message
    assert "unknown key 'lenght' in the recipe. Did you mean 'length'?" in message


def test_nesterov_needs_momentum() -> None:
    changes = {"optimizer.nesterov": True, "optimizer.momentum": 0}
    assert "nesterov needs a momentum above 0" in refusal(changes)
    load_recipe("digits", {**changes, "optimizer.momentum": 0.9})


def test_the_end_of_training_is_not_chosen_on_the_test_part() -> None:
    changes = {"target_error": 5, "evaluation.split": "test"}
    assert refusal(changes) == (
        "target_error would choose the course of training on the test split: set"
        " evaluation.split=validation, or do without it."
    )
    load_recipe("digits", {**changes, "evaluation.split": "validation"})


def test_what_is_trained_on_is_not_validated_on() -> None:
    changes = {"data.train_on": "train+validation"}
    assert refusal(changes).startswith("data.train_on=train+validation leaves nothing to validate")
    load_recipe("digits", {**changes, "evaluation.split": "test"})


def test_an_unknown_data_set_is_refused_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(DATASETS, "few")  # which only tests have
    assert refusal({"data.name": "digit"}) == (
        "unknown data set 'digit': expected one of digits, cifar10, cifar100, fashion-mnist,"
        " mnist, or the path of a folder of images. Did you mean 'digits'?"
    )


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"model.name": "resnet21"}, "unknown architecture 'resnet21'"),
        ({"model.name": "resnet200"}, "Did you mean '"),
        ({"model.options.shortcut": "Z"}, "shortcut is 'Z': expected one of none, A, B, C."),
        ({"model.options.shortcuts": "A"}, "Did you mean 'shortcut'?"),
        ({"model.options.num_classes": -1}, "num_classes is -1: expected a whole number"),
    ],
)
def test_an_impossible_network_is_refused(changes: dict[str, Any], part: str) -> None:
    message = refusal(changes)
    assert message.startswith("model: ")
    assert part in message


def test_an_option_called_self_is_an_unknown_option() -> None:
    assert "unknown option 'self'" in refusal({"model.options.self": 1})


@pytest.mark.parametrize(("option", "value"), [("num_classes", 11), ("in_channels", 3)])
def test_classes_and_channels_follow_the_data(option: str, value: int) -> None:
    recipe = load_recipe("digits", {f"model.options.{option}": value})
    with pytest.raises(RecipeError, match=rf"model.options.{option} is {value}, but the data set"):
        recipe.architecture(num_classes=10, in_channels=1)
    agreed = load_recipe("digits", {f"model.options.{option}": {"num_classes": 10}.get(option, 1)})
    assert agreed.architecture(num_classes=10, in_channels=1).num_classes == 10


def test_an_absurd_batch_size_is_refused() -> None:
    with pytest.raises(RecipeError, match="batch_size"):
        next(prepare(load_recipe("digits", {"batch_size": 10**30}), ALONE).batches.between(0, 1))


@pytest.mark.parametrize("key", ["optimizer.lr.deep", "batch_size.deep", "model.name.deep.er"])
def test_a_value_has_no_keys_of_its_own(key: str) -> None:
    parent = key.split(".deep")[0].split(".")[-1]
    assert refusal({key: 1}) == (
        f"'{key}' cannot be set: '{parent}' is a value, not a group of keys."
    )


# Files


def written(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def refusal_of_file(path: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "model: [1, 2",
        "a: b: c",
        "\tlength: 1 epochs",
        "{",
        "length: !!python/object/apply:os.system ['exit 1']",
        "length: &a 1\nlength2: *b",
        "\x00\x01",
    ],
)
def test_what_is_not_yaml_is_refused(tmp_path: Path, content: str) -> None:
    path = written(tmp_path / "bad.yaml", content)
    assert refusal_of_file(path).startswith(f"the recipe '{path}' is not YAML: ")


def test_absurdly_nested_yaml_is_refused(tmp_path: Path) -> None:
    words = refusal_of_file(written(tmp_path / "deep.yaml", "[" * 5_000))
    assert "it is nested more than 100 levels deep" in words


def test_a_number_of_too_many_digits_is_refused(tmp_path: Path) -> None:
    words = refusal_of_file(written(tmp_path / "digits.yaml", "seed: " + "9" * 5_000))
    assert "a number of 5,000 digits" in words


@pytest.mark.parametrize("content", ["", "# nothing\n", "- a\n- b\n", "resnet20", "5", "null"])
def test_a_file_without_keys_is_refused(tmp_path: Path, content: str) -> None:
    path = written(tmp_path / "bad.yaml", content)
    assert refusal_of_file(path) == (
        f"the recipe '{path}' holds no keys: expected lines such as 'batch_size: 128'."
    )


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "image.png", b"\x89PNG\r\n\x1a\n\xff\xfe\x00")
    assert refusal_of_file(path).startswith(f"the recipe '{path}' is not text in UTF-8")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert refusal_of_file(str(tmp_path)).startswith(f"the recipe '{tmp_path}' is a folder, ")


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    message = refusal_of_file("digit")
    assert message.startswith("unknown recipe 'digit': expected one of ")
    assert message.endswith("Did you mean 'digits'?")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "none.yaml")
    assert refusal_of_file(path).startswith(f"unknown recipe '{path}': expected one of ")


def test_a_file_without_the_needed_keys_is_refused(tmp_path: Path) -> None:
    assert refusal_of_file(written(tmp_path / "short.yaml", "batch_size: 64\n")) == (
        "the recipe lacks 'schedule'. the recipe lacks 'length'."
    )


def test_the_text_of_a_recipe_is_its_file() -> None:
    assert recipe_text("digits") == named_recipes()["digits"].read_text()


def test_a_schedule_is_needed_and_the_rest_has_the_papers_values(tmp_path: Path) -> None:
    path = written(tmp_path / "r.yaml", "length: 1 epochs\nschedule: {kind: cosine}\n")
    recipe: Recipe = load_recipe(path)
    assert (recipe.batch_size, recipe.optimizer.lr) == (128, 0.1)
    assert (recipe.optimizer.momentum, recipe.optimizer.weight_decay) == (0.9, 1e-4)
    assert recipe.optimizer.decay == "convolutions"
    assert recipe.target_error == recipe.gradient_clip == recipe.ema_decay == 0


def test_names_tell_runs_apart(on_digits: Callable[..., Recipe]) -> None:
    assert on_digits({"seed": 3, "model.name": "plain20"}).name == "plain20-digits-seed3"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("length: 1 epochs\nlength: 2 epochs\n", "'length' occurs twice, first in line 1"),
        ("optimizer:\n  lr: 0.1\nlength: 1 epochs\noptimizer:\n  momentum: 0\n", "line 4"),
        ("schedule: {kind: cosine, final: 0.1, final: 0.2}\n", "'final' occurs twice"),
        ("seed: 012\n", "012 begins with a zero"),
        ("a: &a [x, x]\nb: [*a, *a]\n", "a recipe has no aliases"),
        ("[" * 50_000, "is not YAML"),
        ('{"seed": 1, "seed": 2}', "'seed' occurs twice"),
    ],
    ids=["twice", "section twice", "inside", "octal", "alias", "deep", "JSON"],
)
def test_what_would_be_read_otherwise_than_written_is_refused(
    tmp_path: Path, text: str, words: str
) -> None:
    assert words in refusal_of_file(written(tmp_path / "mine.yaml", text))


def test_a_file_larger_than_a_recipe_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "large.yaml", "# " + "x" * 2**20)
    assert refusal_of_file(path).endswith("it is larger than 1 MiB.")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-4", 1e-4), ("1:30", "1:30"), ("no", "no"), ("off", "off"), ("0x10", "0x10")),
        *(("2026-11-26", "2026-11-26"), ("true", True), ("-3", -3), (".5", 0.5), ("null", None)),
    ],
)
def test_a_value_is_what_it_looks_like(text: str, value: object) -> None:
    assert parse_yaml(text) == value
    assert type(parse_yaml(text)) is type(value)


@pytest.mark.parametrize(
    "options",
    [{"a": "no"}, {"a": "012"}, {"a": 1e-05}, {"a": ["\udce9", None, True]}],
)
def test_what_is_written_is_read_back(options: dict[str, object]) -> None:
    assert parse_yaml(yaml.safe_dump(options, sort_keys=False)) == options


def test_what_is_done_to_values_that_were_read_changes_nothing_that_is_read_later() -> None:
    first = parse_yaml("data: {name: digits, augment: [1, 2]}")
    first["data"]["name"] = "changed"
    first["data"]["augment"].clear()
    assert parse_yaml("data: {name: digits, augment: [1, 2]}") == {
        "data": {"name": "digits", "augment": [1, 2]}
    }
