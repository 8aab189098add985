"""Predictor: weights, preprocessing and class names: images in, ranked labels out."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from resnetkit.data.augment.crop_and_flip import normalize
from resnetkit.data.images.check import BadImage
from resnetkit.data.prefetch import prefetch
from resnetkit.errors import DataError, OutOfMemory, UsageError, did_you_mean, is_out_of_memory
from resnetkit.evaluation.evaluate import class_probabilities
from resnetkit.inference.transform import EvalTransform, Picture
from resnetkit.models.resnet import ResNet
from resnetkit.runtime.world import ChosenPrecision, choose_precision, open_world
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork, check_head

__all__ = ["Answer", "Guess", "Output", "Predictor", "batches", "load_predictor"]

BATCH_SIZE = 32
LARGEST_BATCH = 4096
AHEAD = 2  # batches that are decoded before they are needed
TOP = 5

Compute = Callable[[ResNet, Tensor, ChosenPrecision], Tensor]
"""From the network, normalized images (B, C, H, W) and the precision to values (B, D)."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Guess:
    """A class that an image may belong to.

    Attributes:
        label: its number, from 0.
        name: of the class.
        probability: from 0 to 1.
    """

    label: int
    name: str
    probability: float


@dataclass(frozen=True)
class Answer:
    """What a network says of an image.

    Attributes:
        name: the path as it was given; empty for an image that came without one.
        ranked: the most probable classes, the first one first; empty when there is an error.
        error: why there is no answer; empty when there is one.
    """

    name: str
    ranked: tuple[Guess, ...]
    error: str = ""


@dataclass(frozen=True, eq=False)
class Output:
    """What a network computed for an image.

    Attributes:
        name: as in `Answer`.
        values: on the CPU, (D,); empty when there is an error.
        error: as in `Answer`.
    """

    name: str
    values: Tensor
    error: str = ""


@dataclass(frozen=True, eq=False)
class Predictor:
    """Answers for images of any size what evaluation would say of them.

    In batches of equal size the probabilities are equal to the bit.

    Attributes:
        network: see `load_network`.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, float32 or bfloat16.
        batch_size: images that the network sees at once.

    Raises:
        UsageError: when the device does not exist, or a batch can have no such size.
        DataError: when the network takes images that no file holds.
    """

    network: TrainedNetwork
    device: str = "auto"
    precision: str = "float32"
    batch_size: int = BATCH_SIZE

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= LARGEST_BATCH:
            raise UsageError(
                f"a batch of {self.batch_size} images: expected from 1 to {LARGEST_BATCH:,}."
            )
        EvalTransform.of(self.network)
        with open_world(self.device):
            pass

    @property
    def transform(self) -> EvalTransform:
        """Returns what the network is shown of an image."""
        return EvalTransform.of(self.network)

    @property
    def layers(self) -> tuple[str, ...]:
        """Returns the names of the layers that `features` takes."""
        head = ("fc",) if self.network.has_head else ()
        return (*self.network.model.feature_maps, "pool", *head)

    def predict(
        self, pictures: Picture | Iterable[Picture | BadImage], *, top: int = TOP
    ) -> Iterator[Answer]:
        """Yields an answer for each image, in order; a bad image gets an error, the rest go on.

        Images are decoded by threads while the network computes, and no more than a few batches
        are in memory at a time.

        Args:
            pictures: paths, contents of files or decoded images, or a single one; what is known to
                be bad is passed on as such.
            top: how many classes are ranked, at most.

        Raises:
            UsageError: when none are to be ranked.
        """
        check_head(self.network)
        if top < 1:
            raise UsageError(f"the {top} most probable classes: expected 1 or more.")
        return (self.answer(each, top) for each in self.outputs(pictures, probabilities))

    def features(
        self, pictures: Picture | Iterable[Picture | BadImage], *, layer: str = "pool"
    ) -> Iterator[Output]:
        """Yields the features of each image, in order: float32 (D,).

        Args:
            pictures: as for `predict`.
            layer: a key of the network's `feature_maps`, averaged over space; pool, the last of
                them; or fc, the logits.

        Raises:
            UsageError: for a layer that this network does not have.
        """
        self.check_layer(layer)
        return self.outputs(pictures, features_of(layer))

    def check_layer(self, layer: str) -> None:
        """Raises UsageError for a layer that this network does not have."""
        if layer not in self.layers:
            raise UsageError(
                f"unknown layer '{layer}': expected one of {', '.join(self.layers)}."
                + did_you_mean(layer, self.layers)
            )

    def probabilities(self, pixels: Tensor) -> Tensor:
        """Returns softmax(logits): float64 (B, K).

        Args:
            pixels: uint8 (B, C, H, W), as `transform.pixels` makes them.
        """
        return self.computed(pixels, probabilities)

    def class_name(self, label: int) -> str:
        """Returns the name of a class; `class 3` where the network does not say it."""
        names = self.network.class_names
        return names[label] if names else f"class {label}"

    def answer(self, output: Output, top: int) -> Answer:
        """Returns the answer in probabilities (K,); of equal ones the lower label comes first."""
        values, labels = output.values.sort(descending=True, stable=True)
        ranked = zip(labels.tolist()[:top], values.tolist()[:top], strict=True)
        return Answer(
            output.name,
            tuple(Guess(label, self.class_name(label), value) for label, value in ranked),
            output.error,
        )

    def outputs(
        self, pictures: Picture | Iterable[Picture | BadImage], compute: Compute
    ) -> Iterator[Output]:
        """Yields what is computed for each image, batch by batch."""
        if isinstance(pictures, Picture):
            pictures = [pictures]
        decoded = prefetch(self.decoded, pictures, most=AHEAD * self.batch_size)
        for batch in batches((each.result() for _, each in decoded), self.batch_size):
            good = [each.values for each in batch if not each.error]
            rows = iter(self.computed(torch.stack(good), compute) if good else ())
            for each in batch:
                yield each if each.error else checked(each.name, next(rows))

    def decoded(self, picture: Picture | BadImage) -> Output:
        """Returns the pixels of an image: uint8 (C, H, W), or why there are none."""
        name = name_of(picture)
        if isinstance(picture, BadImage):
            return Output(name, torch.empty(0), picture.reason)
        try:
            return Output(name, self.transform.pixels(picture))
        except DataError as error:
            return Output(name, torch.empty(0), str(error))

    def computed(self, pixels: Tensor, compute: Compute) -> Tensor:
        """Returns what is computed for a batch, uint8 (B, C, H, W), on the CPU."""
        with open_world(self.device) as world, enough_memory():
            device = world.device
            precision = choose_precision(self.precision, device)
            model = self.network.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            mean, std = self.network.mean.to(device), self.network.std.to(device)
            with torch.inference_mode():
                return compute(model, normalize(pixels.to(device), mean, std), precision).cpu()


def load_predictor(
    path: Path | str,
    *,
    variant: str = "",
    device: str = "auto",
    precision: str = "float32",
    batch_size: int = BATCH_SIZE,
) -> Predictor:
    """Loads a trained network, ready to be asked about images.

    Args:
        path: of a run folder or of weights; see `load_network`.
        variant: where bottlenecks stride, v1 or v1.5, which some files do not say.
        device: see `Predictor`.
        precision: likewise.
        batch_size: likewise.

    Raises:
        WeightsError: when there is no network that can be trusted.
        UsageError: as for `Predictor`.
        DataError: likewise.
    """
    return Predictor(load_network(Path(path), variant=variant), device, precision, batch_size)


def probabilities(model: ResNet, images: Tensor, precision: ChosenPrecision) -> Tensor:
    """Returns softmax(logits): float64 (B, K)."""
    return class_probabilities(model, [images], precision=precision)


def features_of(layer: str) -> Compute:
    """Returns the function that computes the features of a layer: float32 (B, D)."""

    def compute(model: ResNet, images: Tensor, precision: ChosenPrecision) -> Tensor:
        name = list(model.feature_maps)[-1] if layer == "pool" else layer
        with precision.autocast():
            if layer == "fc":
                return model(images).float()
            return model.avgpool(model.features(images, name)[name]).flatten(1).float()

    return compute


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yields so many items at a time; the last ones may be fewer."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def name_of(picture: Picture | BadImage) -> str:
    """Returns the path of an image as it was given; empty for one that came without."""
    if isinstance(picture, BadImage):
        return str(picture.path)
    return "" if isinstance(picture, bytes | Image.Image) else os.fspath(picture)


def checked(name: str, values: Tensor) -> Output:
    """Returns what was computed for an image, or an error when it is no numbers."""
    if torch.isfinite(values).all():
        return Output(name, values)
    return Output(
        name,
        torch.empty(0),
        f"{name or 'the image'}: the network answers with values that are no numbers: its weights"
        " do not fit this image.",
    )


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turns what torch raises when memory is short into a sentence."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            "there is not enough memory for a batch of this size: take a smaller --batch-size."
        ) from error
