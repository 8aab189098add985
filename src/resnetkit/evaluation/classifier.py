"""What evaluation knows of a network, whichever engine computes it."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from resnetkit.evaluation.metrics import Floats
from resnetkit.resizing import Resize
from resnetkit.weights.network import RunImages

__all__ = ["Classifier", "PixelClassifier"]


class Classifier(Protocol):
    """The facts of a network; the attributes are those of `TrainedNetwork`."""

    @property
    def origin(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def data(self) -> str: ...
    @property
    def images(self) -> RunImages | None: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def has_head(self) -> bool: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def image_size(self) -> tuple[int, int]: ...
    @property
    def crop_pct(self) -> float: ...
    @property
    def resize(self) -> Resize: ...


class PixelClassifier(Classifier, Protocol):
    """A network that takes pixels of one size and normalizes them itself, as exported ones do.

    Attributes:
        precision: of the computation: float32, bfloat16 or int8.
        has_pixel_mean: whether each pixel has its own mean.
    """

    @property
    def precision(self) -> str: ...
    @property
    def has_pixel_mean(self) -> bool: ...

    def probabilities(self, pixels: npt.NDArray[np.uint8]) -> Floats:
        """Returns the probabilities of pixels (B, C, H, W): float64 (B, K)."""
        ...
