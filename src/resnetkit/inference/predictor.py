"""The predictor: an engine, a transform and class names; images in, ranked labels out."""

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
PREFETCHED = 2  # batches that are decoded ahead
TOP = 5

Item = TypeVar("Item")


@dataclass(frozen=True)
class Guess:
    """A class and its probability.

    Attributes:
        label: index of the class, from 0.
        name: of the class.
        probability: from 0 to 1.
    """

    label: int
    name: str
    probability: float


@dataclass(frozen=True)
class Answer:
    """The most probable classes of an image.

    Attributes:
        name: the path as it was given; None for an image without one.
        ranked: in descending order of probability.
    """

    name: str | None
    ranked: tuple[Guess, ...]


@dataclass(frozen=True, eq=False)
class Activations:
    """The output of a network, or of one of its layers, for an image.

    Attributes:
        name: as in `Answer`.
        values: (D,), on the CPU.
    """

    name: str | None
    values: Tensor


@dataclass(frozen=True, eq=False)
class Predictor:
    """Predicts the classes of images of any size, exactly as evaluation does.

    In batches of the same size, the probabilities are bit-identical to those of evaluation. Several
    threads may use one predictor at the same time.

    Attributes:
        network: see `load_network`.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, float32 or bfloat16.
        batch_size: images per forward pass.

    Raises:
        UsageError: when the device does not exist or the batch size is out of range.
        DataError: when the network takes neither 1 nor 3 channels.
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
        _ = self.transform, self.engine  # created here, before threads share them

    @cached_property
    def transform(self) -> EvalTransform:
        """Returns the transform from an image to the input of the network."""
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
        """Yields an answer for each image, in order, or a `BadImage` if it cannot be read.

        Threads decode images while the network computes, and only a few batches are in memory at
        the same time.

        Args:
            pictures: paths, contents of files or decoded images, or a single one; a `BadImage` is
                yielded unchanged.
            top: the largest number of classes in an answer.

        Raises:
            UsageError: when `top` is less than 1.
        """
        check_head(self.network)
        if top < 1:
            raise UsageError(f"the {top} most probable classes: expected at least 1.")
        outputs = self.outputs(pictures, self.engine.probabilities)
        return (out if isinstance(out, BadImage) else self.answer(out, top) for out in outputs)

    def features(
        self, pictures: Picture | Iterable[Picture | BadImage], *, layer: str = "pool"
    ) -> Iterator[Activations | BadImage]:
        """Yields the activations of a layer for each image, in order: float32 (D,).

        Args:
            pictures: as for `predict`.
            layer: a key of `ResNet.feature_maps`, averaged over space; pool, the last of them; or
                fc, the logits.

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
        """Returns the name of a class, or `class 3` and the like if the network has no names."""
        names = self.network.class_names
        return names[label] if names else f"class {label}"

    def answer(self, probabilities: Activations, top: int) -> Answer:
        """Ranks probabilities (K,); equal ones are in ascending order of their labels."""
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
        """Yields the output of `compute` for each image, batch by batch."""
        if isinstance(pictures, Picture):
            pictures = [pictures]
        decoded = prefetch(self.decoded, pictures, most=PREFETCHED * self.batch_size)
        for batch in batches((pending.result() for _, pending in decoded), self.batch_size):
            pixels = [image.values for image in batch if not isinstance(image, BadImage)]
            rows = iter(compute(torch.stack(pixels)) if pixels else ())
            for image in batch:
                yield image if isinstance(image, BadImage) else finite(image.name, next(rows))

    def decoded(self, picture: Picture | BadImage) -> Activations | BadImage:
        """Returns the pixels of an image, uint8 (C, H, W), or a `BadImage`."""
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
    """Loads a trained network for prediction.

    Args:
        path: of a run folder or of weights; see `load_network`.
        variant: v1 or v1.5, the position of the stride in bottlenecks, which some files lack.
        device: as for `Predictor`.
        precision: as for `Predictor`.
        batch_size: as for `Predictor`.

    Raises:
        WeightsError: when the weights are missing, corrupt or unsafe.
        UsageError: as for `Predictor`.
        DataError: as for `Predictor`.
    """
    return Predictor(load_network(Path(path), variant=variant), device, precision, batch_size)


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yields lists of `size` items; the last one may be shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def name_of(picture: Picture) -> str | None:
    """Returns the path of an image as it was given; None for bytes or a decoded image."""
    return None if isinstance(picture, bytes | Image.Image) else os.fspath(picture)


def path_of(name: str | None) -> Path | None:
    """Returns a name as a path."""
    return None if name is None else Path(name)


def finite(name: str | None, values: Tensor) -> Activations | BadImage:
    """Returns the activations of an image, or a `BadImage` when they are not finite."""
    if torch.isfinite(values).all():
        return Activations(name, values)
    return BadImage(
        path_of(name),
        f"{name or 'the image'}: the output of the network is not finite: its weights do not fit"
        " this image.",
    )
