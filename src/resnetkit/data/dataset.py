"""The data set: labeled images and their splits."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from resnetkit.data.images.listing import ImageList
from resnetkit.data.images.photos import Photos
from resnetkit.data.splits import Split

__all__ = ["Dataset", "Images"]

Images = Tensor | Photos
"""uint8 (N, C, H, W): in memory, memory-mapped, or photos, which are decoded when indexed."""


@dataclass(frozen=True)
class Dataset:
    """Labeled images with their splits.

    Attributes:
        name: as on the command line and in recipes.
        images: uint8 (N, C, H, W), in any memory format; see `Images`.
        labels: int64 (N,), from 0.
        class_names: one per label.
        splits: int64 sample ids of each split.
        mirrored: whether the horizontal flip of an image belongs to the same class.
        sha256: digest of the content; for custom images, of their names and sizes.
        custom: the list of custom images; None for other data sets.
    """

    name: str
    images: Images
    labels: Tensor
    class_names: tuple[str, ...]
    splits: dict[Split, Tensor]
    mirrored: bool
    sha256: str
    custom: ImageList | None = None

    @property
    def title(self) -> str:
        """Returns the name to display; for custom images, the folder without its path."""
        return Path(self.name).name if self.custom else self.name

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def crop_pct(self) -> float:
        """Returns the fraction of the shorter side that the center crop keeps; 1 in memory."""
        return self.images.crop_pct if isinstance(self.images, Photos) else 1.0

    @property
    def image_size(self) -> tuple[int, int]:
        """Returns height and width in pixels."""
        return self.images.shape[2], self.images.shape[3]
