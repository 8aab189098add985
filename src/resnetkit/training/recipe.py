"""The recipe: everything that decides the outcome of a training, as one validated value."""

import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Literal, Self, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from resnetkit.data.datasets import DATASETS, is_custom
from resnetkit.errors import ArchitectureError, RecipeError, did_you_mean
from resnetkit.models.zoo import Architecture, find_architecture
from resnetkit.schema import Real, Section, Whole
from resnetkit.strict_yaml import YAML_ERRORS, read_yaml
from resnetkit.training.recipe_schema import (
    CheckpointSection,
    DataSection,
    EvaluationSection,
    FinetuneSection,
    Kernels,
    Length,
    ModelSection,
    OptimizerSection,
    Precision,
)
from resnetkit.training.schedules import NoWarmup, Schedule, Warmup

__all__ = [
    "Recipe",
    "checked_recipe",
    "load_recipe",
    "named_recipes",
    "read_values",
    "recipe_text",
]


class Recipe(Section):
    """A training: architecture, data, augmentation, optimizer, schedule, precision, seed.

    Attributes:
        model: see `model`.
        data: see `data`.
        optimizer: see `optimizer`.
        finetune: see `finetune`.
        schedule: how the learning rate falls from `optimizer.lr`; see `schedule`.
        warmup: how training begins; see `warmup`.
        length: the length of the training.
        batch_size: images of a step, of all processes together.
        micro_batch: images that each process takes at a time, to save memory. Their gradients are
            accumulated, but batch normalization uses the statistics of a micro-batch; 0 is off.
        label_smoothing: the probability that is spread evenly over all classes (Szegedy et al.
            2016, sec. 7); 0 is off.
        class_weights: with `balanced`, images of rare classes count more in the loss.
        precise_bn: number of training images over which the statistics of batch normalization are
            averaged after training, as in the authors' published networks; 0 is off.
        gradient_clip: largest norm of the whole gradient; 0 is off.
        ema_decay: decay of the exponential moving average of the weights, which is then the result;
            0 is off.
        target_error: in percent; training ends once the validation error is no higher; 0 is off.
        precision: `auto` is bfloat16 where the processor has the instructions.
        kernels: normalization, addition and relu one by one as modules, or fused into fewer
            passes that are compiled; `auto` compiles for long trainings of basic blocks on a CPU
            with a C++ compiler.
        seed: decides the initial weights, the order of the images, and their augmentation.
        log_every: number of steps between two records of loss and training error.
        evaluation: see `evaluation`.
        checkpoint: see `checkpoint`.
    """

    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    optimizer: OptimizerSection = OptimizerSection()
    finetune: FinetuneSection = FinetuneSection()
    schedule: Schedule
    warmup: Warmup = NoWarmup()
    length: Length
    batch_size: Whole = Field(default=128, ge=1, le=2**20)
    micro_batch: Whole = Field(default=0, ge=0, le=2**20)
    label_smoothing: Real = Field(default=0.0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"
    precise_bn: Whole = Field(default=0, ge=0)
    gradient_clip: Real = Field(default=0.0, ge=0)
    ema_decay: Real = Field(default=0.0, ge=0, lt=1)
    target_error: Real = Field(default=0.0, ge=0, lt=100)
    precision: Precision = "auto"
    kernels: Kernels = "auto"
    seed: Whole = Field(default=0, ge=0, lt=2**63)
    log_every: Whole = Field(default=50, ge=1)
    evaluation: EvaluationSection = EvaluationSection()
    checkpoint: CheckpointSection = CheckpointSection()

    @model_validator(mode="after")
    def check_combination(self) -> Self:
        choices = {
            "target_error": self.target_error,
            "finetune.patience": self.finetune.patience,
            "schedule.kind=plateau": self.schedule.kind == "plateau",
        }
        for key, value in choices.items():
            if value and self.evaluation.split == "test":
                raise ValueError(
                    f"{key} would choose the course of training on the test split: set"
                    " evaluation.split=validation, or do without it"
                )
        if self.class_weights != "none" and self.data.augment.mixes:
            raise ValueError(
                "class_weights needs images of a single class: set data.augment.mixup and"
                " data.augment.cutmix to 0"
            )
        if not self.model.weights and (self.finetune.freeze or self.model.variant):
            raise ValueError(
                "finetune.freeze and model.variant are for pretrained weights: name these in"
                " model.weights"
            )
        if self.data.normalize == "weights" and not self.model.weights:
            raise ValueError(
                "data.normalize=weights takes the constants of model.weights, which names no file"
            )
        if self.data.train_on == "train+validation" and self.evaluation.split == "validation":
            raise ValueError(
                "data.train_on=train+validation leaves nothing to validate on: set"
                " evaluation.split=test to watch the test error, or data.train_on=train"
            )
        return self

    @property
    def name(self) -> str:
        """Returns a readable name of network, data and seed."""
        return f"{self.model.name}-{Path(self.data.name).stem}-seed{self.seed}"

    @property
    def digest(self) -> str:
        """Returns the SHA-256 of the recipe, as 64 hexadecimal digits.

        Defaults are left out, so that a key added by a later version does not change it.
        """
        canonical = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def architecture(self, *, num_classes: int, in_channels: int) -> Architecture:
        """Returns the network for data of this kind.

        Raises:
            RecipeError: when the options name other numbers of classes or channels than the data.
        """
        derived = {"num_classes": num_classes, "in_channels": in_channels}
        for option, value in derived.items():
            requested = self.model.options.get(option, value)
            if requested != value:
                raise RecipeError(
                    f"model.options.{option} is {requested}, but the data set '{self.data.name}'"
                    f" has {value}: leave the option out, it follows the data."
                )
        return find_architecture(self.model.name).with_options(**{**self.model.options, **derived})

    def to_yaml(self) -> str:
        """Returns the recipe as YAML that `load_recipe` reads."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def recipe_folder() -> Path:
    return Path(str(files("resnetkit.training") / "recipes"))


def named_recipes() -> dict[str, Path]:
    """Returns the recipes that come with resnetkit, by name."""
    return {path.stem: path for path in sorted(recipe_folder().glob("*.yaml"))}


def load_recipe(name_or_path: str | Path, changes: Mapping[str, object] | None = None) -> Recipe:
    """Reads a named recipe or a YAML file, with some values replaced.

    Args:
        name_or_path: a name of `named_recipes`, or the path of a YAML file.
        changes: values by dotted key, such as {"optimizer.lr": 0.05}.

    Raises:
        RecipeError: for an unknown name, a file that is not YAML, an unknown key or an impossible
            value.
    """
    values = read_values(name_or_path)
    kinds_first = sorted(
        (changes or {}).items(), key=lambda change: not change[0].endswith(".kind")
    )
    for key, value in kinds_first:
        set_value(values, key, value)
    return checked_recipe(values)


def recipe_text(name: str) -> str:
    """Returns the text of a named recipe, with the comment that explains it.

    Raises:
        RecipeError: when there is none of that name.
    """
    read_values(name)
    return named_recipes().get(name, Path(name)).read_text(encoding="utf-8")


def read_values(name_or_path: str | Path) -> dict[str, object]:
    """Returns the mapping in a recipe file."""
    named = named_recipes()
    name, path = str(name_or_path), Path(name_or_path)
    if isinstance(name_or_path, str):
        path = named.get(name, path)
    try:
        values = read_yaml(path)
    except FileNotFoundError:
        raise RecipeError(
            f"unknown recipe '{name}': expected one of {', '.join(named)}, or a YAML file."
            + (data_hint(name) or did_you_mean(name, named))
        ) from None
    except IsADirectoryError:
        raise RecipeError(
            f"the recipe '{path}' is a folder, expected a YAML file.{data_hint(name)}"
        ) from None
    except OSError as error:
        raise RecipeError(
            f"the recipe '{path}' cannot be read: {error.strerror or error}."
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"the recipe '{path}' is not text in UTF-8 ({error}).") from error
    except YAML_ERRORS as error:
        raise RecipeError(
            f"the recipe '{path}' is not YAML: {' '.join(str(error).split())}."
        ) from error
    if not isinstance(values, dict):
        raise RecipeError(
            f"the recipe '{path}' holds no keys: expected lines such as 'batch_size: 128'."
        )
    return values


def data_hint(word: str) -> str:
    """Returns a hint for users who name images or a data set in place of a recipe."""
    means_data = word in DATASETS or is_custom(word)
    return f" Did you mean '--data {word}'?" if means_data else ""


def set_value(values: dict[str, object], key: str, value: object) -> None:
    """Replaces the value at a dotted key in a nested mapping."""
    *parents, last = key.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"'{key}' cannot be set: '{parent}' is a value, not a group of keys.")
        values = inner
    current = values.get(last)
    if isinstance(current, dict) and current and not isinstance(value, dict):
        raise RecipeError(
            f"'{key}' is a group of keys, not a value: set one of them, such as"
            f" '{key}.{next(iter(current))}'."
        )
    if last == "kind" and values.get("kind") != value:
        values.clear()  # the keys of another kind
    values[last] = value


def checked_recipe(values: Mapping[str, object]) -> Recipe:
    """Validates the values of a recipe.

    Raises:
        RecipeError: with one sentence for each problem.
    """
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems = [problem_sentence(problem) for problem in error.errors()]
        raise RecipeError(" ".join(problems)) from None
    try:
        find_architecture(recipe.model.name).with_options(**recipe.model.options)
    except ArchitectureError as error:
        raise RecipeError(f"model: {error}") from None
    return recipe


def problem_sentence(problem: ErrorDetails) -> str:
    """Returns a sentence about one of pydantic's error details."""
    path = [str(item) for item in problem["loc"]]
    if len(path) > 1 and len(section_types([path[0]])) > 1:
        del path[1]  # pydantic's own name for the kind of section
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        keys = known_keys(path[:-1])
        if key in keys:
            return f"'{key}' belongs to another {path[0]}.kind than this recipe has."
        return f"unknown key '{key}' in the recipe.{key_hint(key, keys)}"
    if problem["type"] in ("missing", "union_tag_not_found"):
        missing = key if problem["type"] == "missing" else f"{key}.kind"
        return f"the recipe lacks '{missing}'."
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "union_tag_invalid":
        key, context = f"{key}.kind", problem["ctx"]
        message = f"is {context['tag']!r}: expected one of {context['expected_tags']}"
    elif key and isinstance(problem["input"], dict) and known_keys(path):
        key = f"{key}:"
    elif problem["type"] in ("dataclass_type", "model_type"):
        message = f"is {problem['input']!r}: expected keys, such as '{known_keys(path)[0]}'"
    elif message.startswith("unknown data set"):
        key = ""
    elif key:
        message = f"is {problem['input']!r}: {message[0].lower()}{message[1:]}"
    return f"{key} {message}".lstrip() + ("" if message[-1] in ".?" else ".")


def key_hint(key: str, keys: list[str]) -> str:
    """Returns a hint for an unknown key: first a key of the same name in another section."""
    name = key.rpartition(".")[2]
    candidates = [*keys, *known_keys([])]
    moved = [other for other in candidates if other.rpartition(".")[2] == name]
    return f" Did you mean '{moved[0]}'?" if moved else did_you_mean(key, keys)


def known_keys(path: list[str]) -> list[str]:
    """Returns the dotted keys of a section of the recipe and of the sections in it."""
    names = {name for section in section_types(path) for name in section.model_fields}
    keys = {".".join([*path, name]) for name in names}
    return sorted(keys.union(*(known_keys([*path, name]) for name in names)))


def section_types(path: list[str]) -> list[type[BaseModel]]:
    """Returns the section classes that may stand at a path of keys in the recipe."""
    if not path:
        return [Recipe]
    annotations = [
        section.model_fields[path[-1]].annotation
        for section in section_types(path[:-1])
        if path[-1] in section.model_fields
    ]
    members = [member for a in annotations for member in get_args(a) or (a,)]
    return [m for m in members if isinstance(m, type) and issubclass(m, BaseModel)]
