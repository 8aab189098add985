"""The predictor: an engine, a transform and class names; images in, ranked labels out."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from resnetkit.data.images.check import BadImage
from resnetkit.data.prefetch import BATCHES_AHEAD, prefetch
from resnetkit.errors import DataError, UsageError
from resnetkit.inference.engine import Engine, Pixels, check_head, check_layer
from resnetkit.inference.transform import EvalTransform, Picture

if TYPE_CHECKING:
    from resnetkit.weights.network import TrainedNetwork

__all__ = ["Activations", "Answer", "Guess", "Predictor", "batches", "load_predictor"]

BATCH_SIZE = 32
LARGEST_BATCH = 4096
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
    """The pixels of an image, or what a network or one of its layers computes of them.

    Attributes:
        name: as in `Answer`.
        values: pixels uint8 (C, H, W), probabilities float64 (K,) or activations float32 (D,).
    """

    name: str | None
    values: npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Predictor:
    """Predicts the classes of images of any size, exactly as evaluation does.

    In batches of the same size, the probabilities are bit-identical to those of evaluation. Several
    threads may use one predictor at the same time.

    Attributes:
        engine: computes the network.
        transform: from an image to the pixels that the network takes.
        class_names: names in the order of the logits; empty if unknown.
        batch_size: images per forward pass.

    Raises:
        UsageError: when the batch size is out of range.
    """

    engine: Engine
    transform: EvalTransform
    class_names: tuple[str, ...] = ()
    batch_size: int = BATCH_SIZE

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= LARGEST_BATCH:
            raise UsageError(
                f"a batch of {self.batch_size} images: expected from 1 to {LARGEST_BATCH:,}."
            )

    @classmethod
    def of(
        cls,
        network: "TrainedNetwork",
        *,
        device: str = "auto",
        precision: str = "float32",
        batch_size: int = BATCH_SIZE,
    ) -> "Predictor":
        """Returns the predictor of a network that torch computes.

        Args:
            network: see `load_network`.
            device: auto, cpu, cuda or cuda:N.
            precision: auto, float32 or bfloat16.
            batch_size: images per forward pass.

        Raises:
            UsageError: when the device does not exist or the batch size is out of range.
            DataError: when the network takes neither 1 nor 3 channels.
        """
        from resnetkit.inference.engines.torch import TorchEngine

        transform = EvalTransform.of(network)
        engine = TorchEngine(network, device=device, precision=precision)
        return cls(engine, transform, network.class_names, batch_size)

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
        check_head(self.engine)
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
            layer: one of `Engine.layers`: of a network of torch, a key of `ResNet.feature_maps`,
                averaged over space; pool, the last of them; or fc, the logits.

        Raises:
            UsageError: for a layer that this network does not have.
        """
        check_layer(layer, self.engine.layers)
        return self.outputs(pictures, partial(self.engine.features, layer=layer))

    def class_name(self, label: int) -> str:
        """Returns the name of a class, or `class 3` and the like if the network has no names."""
        return self.class_names[label] if self.class_names else f"class {label}"

    def answer(self, probabilities: Activations, top: int) -> Answer:
        """Ranks probabilities (K,); equal ones are in ascending order of their labels."""
        labels = largest(probabilities.values, top)
        ranked = zip(labels.tolist(), probabilities.values[labels].tolist(), strict=True)
        return Answer(
            probabilities.name,
            tuple(Guess(label, self.class_name(label), value) for label, value in ranked),
        )

    def outputs(
        self,
        pictures: Picture | Iterable[Picture | BadImage],
        compute: Callable[[Pixels], npt.NDArray[Any]],
    ) -> Iterator[Activations | BadImage]:
        """Yields the output of `compute` for each image, batch by batch."""
        if isinstance(pictures, Picture):
            pictures = [pictures]
        decoded = prefetch(self.decoded, pictures, most=BATCHES_AHEAD * self.batch_size)
        for batch in batches((pending.result() for _, pending in decoded), self.batch_size):
            pixels = [image.values for image in batch if not isinstance(image, BadImage)]
            rows = iter(compute(np.stack(pixels)) if pixels else ())
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
    precision: str | None = None,
    batch_size: int = BATCH_SIZE,
) -> Predictor:
    """Loads a trained or an exported network for prediction.

    An exported network computes its golden images first; a warning is logged if this processor
    answers differently than the one that it was exported on.

    Args:
        path: of a run folder or of weights, see `load_network`; or of the folder of an exported
            network, for which torch is not imported.
        variant: v1 or v1.5, the position of the stride in bottlenecks, which some files lack.
        device: as for `Predictor.of`; an exported network computes on the processor.
        precision: as for `Predictor.of`, by default float32; that of an exported network.
        batch_size: as for `Predictor.of`.

    Raises:
        WeightsError: when the network is missing, corrupt or unsafe.
        UsageError: as for `Predictor.of`; or when an option contradicts an exported network, or the
            library of its engine is not installed.
        DataError: as for `Predictor.of`.
    """
    from resnetkit.weights.exported import is_exported

    if is_exported(Path(path)):
        from resnetkit.inference.parity import load_exported

        exported = load_exported(Path(path), variant=variant, device=device, precision=precision)
        return Predictor(exported.engine, exported.transform, exported.class_names, batch_size)
    from resnetkit.weights.load import load_network

    network = load_network(Path(path), variant=variant)
    return Predictor.of(
        network, device=device, precision=precision or "float32", batch_size=batch_size
    )


def largest(values: npt.NDArray[Any], count: int) -> npt.NDArray[np.intp]:
    """Returns the indices of the largest values in descending order; equal ones in ascending order.

    Sorting them all takes longer than the rest of an answer.
    """
    if count < len(values):
        least = np.partition(values, -count)[-count]
        indices = np.flatnonzero(values >= least)
    else:
        indices = np.arange(len(values))
    return indices[np.argsort(-values[indices], kind="stable")][:count]


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


def finite(name: str | None, values: npt.NDArray[Any]) -> Activations | BadImage:
    """Returns the activations of an image, or a `BadImage` when they are not finite."""
    if np.isfinite(values).all():
        return Activations(name, values)
    return BadImage(
        path_of(name),
        f"{name or 'the image'}: the output of the network is not finite: its weights do not fit"
        " this image.",
    )
