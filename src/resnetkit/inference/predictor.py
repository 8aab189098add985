"""Predictor: weights, preprocessing and class names: images in, ranked labels out."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from resnetkit.data.images.check import BadImage
from resnetkit.data.prefetch import prefetch
from resnetkit.errors import DataError, UsageError, did_you_mean
from resnetkit.inference.torch_engine import TorchEngine
from resnetkit.inference.transform import EvalTransform, Picture
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork, check_head

__all__ = ["Activations", "Answer", "Guess", "Predictor", "batches", "load_predictor"]

BATCH_SIZE = 32
LARGEST_BATCH = 4096
PREFETCHED = 2  # batches that are decoded before they are needed
TOP = 5

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
    """The classes that an image may belong to.

    Attributes:
        name: the path as it was given; None for an image that was given without one.
        ranked: the most probable classes, in descending order of probability.
    """

    name: str | None
    ranked: tuple[Guess, ...]


@dataclass(frozen=True, eq=False)
class Activations:
    """What a network computed for an image.

    Attributes:
        name: as in `Answer`.
        values: on the CPU, (D,).
    """

    name: str | None
    values: Tensor


@dataclass(frozen=True, eq=False)
class Predictor:
    """Answers for images of any size what evaluation would say of them.

    In batches of equal size the probabilities are equal to the bit.

    Attributes:
        network: see `load_network`.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, float32 or bfloat16.
        batch_size: images that the network sees at once.

    Several threads may use one predictor at the same time.

    Raises:
        UsageError: when the device does not exist, or for a batch size out of range.
        DataError: when the network takes images of a number of channels that no image file has.
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
        _ = self.transform, self.engine  # made once, before threads may share them

    @cached_property
    def transform(self) -> EvalTransform:
        """Returns what turns an image into the pixels that the network sees."""
        return EvalTransform.of(self.network)

    @cached_property
    def engine(self) -> TorchEngine:
        """Returns the network on its device."""
        return TorchEngine(self.network, device=self.device, precision=self.precision)

    @property
    def layers(self) -> tuple[str, ...]:
        """Returns the names of the layers that `features` takes."""
        head = ("fc",) if self.network.has_head else ()
        return (*self.network.model.feature_maps, "pool", *head)

    def predict(
        self, pictures: Picture | Iterable[Picture | BadImage], *, top: int = TOP
    ) -> Iterator[Answer | BadImage]:
        """Yields an answer for each image, in order; an unreadable image yields a `BadImage`.

        Images are decoded by threads while the network computes, and no more than a few batches
        are in memory at a time.

        Args:
            pictures: paths, contents of files or decoded images, or a single one; a `BadImage` is
                passed on.
            top: the largest number of classes that are ranked.

        Raises:
            UsageError: when `top` is less than 1.
        """
        check_head(self.network)
        if top < 1:
            raise UsageError(f"the {top} most probable classes: expected 1 or more.")
        outputs = self.outputs(pictures, self.engine.probabilities)
        return (out if isinstance(out, BadImage) else self.answer(out, top) for out in outputs)

    def features(
        self, pictures: Picture | Iterable[Picture | BadImage], *, layer: str = "pool"
    ) -> Iterator[Activations | BadImage]:
        """Yields the activations of a layer for each image, in order: float32 (D,).

        Args:
            pictures: as for `predict`.
            layer: a key of the network's `feature_maps`, averaged over space; pool, the last of
                them; or fc, the logits.

        Raises:
            UsageError: for a layer that this network does not have.
        """
        self.check_layer(layer)
        return self.outputs(pictures, partial(self.engine.features, layer=layer))

    def check_layer(self, layer: str) -> None:
        """Raises UsageError for a layer that this network does not have."""
        if layer not in self.layers:
            raise UsageError(
                f"unknown layer '{layer}': expected one of {', '.join(self.layers)}."
                + did_you_mean(layer, self.layers)
            )

    def class_name(self, label: int) -> str:
        """Returns the name of a class, such as `class 3` where the network has no names."""
        names = self.network.class_names
        return names[label] if names else f"class {label}"

    def answer(self, probabilities: Activations, top: int) -> Answer:
        """Ranks probabilities (K,); of equal ones the lower label comes first."""
        values, labels = probabilities.values.sort(descending=True, stable=True)
        ranked = zip(labels.tolist()[:top], values.tolist()[:top], strict=True)
        return Answer(
            probabilities.name,
            tuple(Guess(label, self.class_name(label), value) for label, value in ranked),
        )

    def outputs(
        self,
        pictures: Picture | Iterable[Picture | BadImage],
        compute: Callable[[Tensor], Tensor],
    ) -> Iterator[Activations | BadImage]:
        """Yields what is computed for each image, batch by batch."""
        if isinstance(pictures, Picture):
            pictures = [pictures]
        decoded = prefetch(self.decoded, pictures, most=PREFETCHED * self.batch_size)
        for batch in batches((pending.result() for _, pending in decoded), self.batch_size):
            pixels = [image.values for image in batch if not isinstance(image, BadImage)]
            rows = iter(compute(torch.stack(pixels)) if pixels else ())
            for image in batch:
                yield image if isinstance(image, BadImage) else finite(image.name, next(rows))

    def decoded(self, picture: Picture | BadImage) -> Activations | BadImage:
        """Returns the pixels of an image, uint8 (C, H, W), or why there are none."""
        if isinstance(picture, BadImage):
            return picture
        name = name_of(picture)
        try:
            return Activations(name, self.transform.pixels(picture))
        except DataError as error:
            return BadImage(path_of(name), str(error))


def load_predictor(
    path: Path | str,
    *,
    variant: str | None = None,
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


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yields so many items at a time; the last ones may be fewer."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def name_of(picture: Picture) -> str | None:
    """Returns the path of an image as it was given; None for one that was given without one."""
    return None if isinstance(picture, bytes | Image.Image) else os.fspath(picture)


def path_of(name: str | None) -> Path | None:
    """Returns the path that a name is."""
    return None if name is None else Path(name)


def finite(name: str | None, values: Tensor) -> Activations | BadImage:
    """Returns what was computed for an image, or a `BadImage` when it is not finite."""
    if torch.isfinite(values).all():
        return Activations(name, values)
    return BadImage(
        path_of(name),
        f"{name or 'the image'}: the output of the network is not finite: its weights do not fit"
        " this image.",
    )
