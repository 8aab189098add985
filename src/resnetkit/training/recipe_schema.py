"""The sections of a recipe, validated when it is read."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass

from resnetkit.data.augment.crop_and_flip import Augmentation
from resnetkit.data.datasets import CROP_PCT, check_name, custom_path, is_custom
from resnetkit.data.normalization import NormalizationKind
from resnetkit.errors import UsageError
from resnetkit.schema import Fraction, Real, Section, Whole
from resnetkit.weights.configuration import LARGEST_SIDE, SMALLEST_CROP
from resnetkit.weights.published import find_published

__all__ = [
    "CheckpointSection",
    "DataSection",
    "Decay",
    "Duration",
    "EvaluationSection",
    "FinetuneSection",
    "Kernels",
    "Length",
    "ModelSection",
    "OptimizerSection",
    "Precision",
]

Precision = Literal["auto", "float32", "bfloat16"]

Kernels = Literal["auto", "modules", "fused"]

LONGEST = 10**9  # steps or epochs of a training


Decay = Literal["convolutions", "weights", "all"]


@dataclass(frozen=True)
class Duration:
    """A length of training, in steps or epochs."""

    count: int
    unit: Literal["steps", "epochs"]

    def steps(self, steps_per_epoch: int) -> int:
        """Returns the length in steps."""
        return self.count * (steps_per_epoch if self.unit == "epochs" else 1)

    def __str__(self) -> str:
        return f"{self.count} {self.unit}"


def parse_duration(value: object) -> object:
    """Parses '12 epochs' or '64000 steps'; a Duration stays as it is."""
    if isinstance(value, Duration):
        return value
    match = re.fullmatch(r"0*(\d+) (step|epoch)s?", str(value).strip())
    if match is None or match[1] == "0":
        raise ValueError("expected a number of epochs or steps, such as '12 epochs'")
    if len(match[1]) > 10 or int(match[1]) > LONGEST:
        raise ValueError(f"expected at most {LONGEST:,} epochs or steps")
    return Duration(int(match[1]), "steps" if match[2] == "step" else "epochs")


Length = Annotated[
    Duration,
    BeforeValidator(parse_duration),
    PlainSerializer(str),
    Field(examples=["12 epochs", "64000 steps"]),
]


class ModelSection(Section):
    """The network, and the weights that training starts from.

    Attributes:
        name: the network, a name of `resnet models`.
        options: options of `create_model`, such as `{shortcut: B}`; classes and channels follow the
            data.
        weights: a run folder, a file of weights or the name of published weights; training starts
            from them, with a new head.
        variant: where bottlenecks stride, for a file of weights that does not say so.
    """

    name: str = "resnet20"
    options: dict[str, Any] = Field(default={})
    weights: str = ""
    variant: Literal["", "v1", "v1.5"] = ""

    @field_validator("weights")
    @classmethod
    def absolute_path(cls, weights: str) -> str:
        """Makes the path of weights absolute; the name of published weights stays as it is."""
        is_path = weights and (Path(weights).exists() or find_published(weights) is None)
        return str(Path(weights).resolve()) if is_path else weights


class FinetuneSection(Section):
    """Fine-tuning: which layers are trained, how fast, and for how long.

    Attributes:
        freeze: the last feature map whose layers are frozen, such as `stem` or `stage2`, with the
            statistics of their batch normalization.
        frozen_norm: whether the batch normalization of all layers is frozen, whose statistics small
            batches would spoil.
        backbone_lr: learning rate of all layers but the head, relative to `optimizer.lr`.
        patience: training ends after this number of epochs without a lower validation error, and
            the network of the best epoch is the result; 0 is off.
    """

    freeze: str = ""
    frozen_norm: bool = False
    backbone_lr: Real = Field(default=1.0, gt=0, le=1)
    patience: Whole = Field(default=0, ge=0)


class DataSection(Section):
    """The images, and their normalization and augmentation.

    Attributes:
        name: a data set of `resnet data list`, or the path of your images.
        train_on: the splits to train on.
        image_size: side of the square that the network sees, in pixels, for your images; 0 for the
            named data sets, whose images keep their size.
        crop_pct: fraction of the shorter side that is kept in evaluation: 224 of 256 pixels.
        normalize: the mean and standard deviation of each channel, the mean of each pixel (He et
            al. 2015, sec. 4.2), or the normalization of `model.weights`; measured on 1,000 images
            for your images.
        augment: see `data.augment`.
        on_bad_image: whether an image that cannot be used is an error or left out.
        cache: with `disk`, your images are decoded once, reduced to the smallest size that crops
            allow, and kept in the cache folder, for photos whose decoding takes longer than the
            network.
        early_size: side of the smaller, cheaper crops that training begins with, in pixels; 0 is
            off.
        early_fraction: the fraction of the steps that uses these crops. With 1 all steps do, and
            errors are measured in full size (Touvron et al. 2019).
    """

    name: str = "digits"
    train_on: Literal["train", "train+validation"] = "train"
    image_size: Whole = Field(default=0, ge=0, le=LARGEST_SIDE)
    crop_pct: Annotated[Fraction, Field(ge=SMALLEST_CROP)] = CROP_PCT
    normalize: NormalizationKind = "channel"
    augment: Augmentation = Augmentation()
    on_bad_image: Literal["error", "skip"] = "error"
    cache: Literal["none", "disk"] = "none"
    early_size: Whole = Field(default=0, ge=0)
    early_fraction: Real = Field(default=0.5, gt=0, le=1)

    @field_validator("name")
    @classmethod
    def absolute_path(cls, name: str) -> str:
        """Makes the path of custom images absolute; refuses unknown names of data sets."""
        try:
            check_name(name)
        except UsageError as error:
            raise ValueError(str(error)) from None
        path = custom_path(name)
        return name if path is None else str(path.resolve())

    @model_validator(mode="after")
    def check_combination(self) -> Self:
        if is_custom(self.name) != (self.image_size > 0):
            raise ValueError(
                "image_size is the size of the input for custom images, in pixels: set it for a"
                " folder of images, and leave it out for a named data set"
            )
        augment = self.augment
        if augment.crop != "padded" and not is_custom(self.name):
            raise ValueError(
                f"augment.crop '{augment.crop}' is for custom images, decoded from their files"
            )
        if self.cache != "none" and augment.crop == "padded":
            raise ValueError("cache 'disk' keeps custom images for crops by area and scale")
        if augment.crop == "scale" and augment.side[0] < self.image_size:
            raise ValueError(
                f"augment.side begins at {augment.side[0]}, below the image_size of"
                f" {self.image_size} pixels"
            )
        if self.normalize == "pixel-mean" and self.early_size:
            raise ValueError("a mean of each pixel does not fit smaller crops: set early_size=0")
        return self


class OptimizerSection(Section):
    """Stochastic gradient descent with momentum, and Muon for convolutions.

    Attributes:
        lr: peak learning rate.
        momentum: momentum of stochastic gradient descent, as in torch.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: weight decay of the parameters that `decay` names.
        decay: the parameters that decay: the weights of convolutions (the paper), those and the
            weights of the head, or every parameter (torchvision).
        muon_lr: peak learning rate of Muon, which then optimizes the convolutions that `muon_on`
            names, without weight decay, on the same schedule; 0 is off.
        muon_momentum: momentum of Muon.
        muon_on: the convolutions inside blocks, or all of them, with that of the stem.
    """

    lr: Real = Field(default=0.1, gt=0, le=100)
    momentum: Real = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: Real = Field(default=1e-4, ge=0, lt=1)
    decay: Decay = "convolutions"
    muon_lr: Real = Field(default=0.0, ge=0, le=10)
    muon_momentum: Real = Field(default=0.6, ge=0, lt=1)
    muon_on: Literal["blocks", "convolutions"] = "blocks"

    @model_validator(mode="after")
    def nesterov_has_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    @model_validator(mode="after")
    def muon_is_on(self) -> Self:
        if self.muon_on != "blocks" and self.muon_lr == 0:
            raise ValueError("muon_on needs a muon_lr above 0: set it, or leave muon_on out")
        return self


class EvaluationSection(Section):
    """How often, and on which splits, the error is measured.

    Attributes:
        every_epochs: number of epochs between two measurements during training.
        split: the split that is measured during training.
        final_train: whether the finished network is also measured on the images that it was trained
            on.
        final_flip: whether the test error of the finished network is measured a second time, with
            the probabilities averaged over each image and its horizontal flip.
    """

    every_epochs: Whole = Field(default=1, ge=1)
    split: Literal["validation", "test"] = "validation"
    final_train: bool = True
    final_flip: bool = False


class CheckpointSection(Section):
    """How often a checkpoint is saved, and how many are kept.

    Attributes:
        every: the length of training between two checkpoints.
        keep: number of the newest checkpoints that are kept.
        snapshots: number of checkpoints, evenly spaced over the training, that are kept
            permanently, with one of its beginning: probes measure the network at these steps; 0
            keeps none.
    """

    every: Length = Duration(1, "epochs")
    keep: Whole = Field(default=1, ge=1)
    snapshots: Whole = Field(default=0, ge=0, le=1000)
