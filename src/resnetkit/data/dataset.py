"""What a data set is: labeled images with their parts."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from resnetkit.data.images.listing import ImageList
from resnetkit.data.images.photos import Photos
from resnetkit.data.splits import Split

__all__ = ["Dataset", "Images"]

Images = Tensor | Photos
"""uint8 (N, C, H, W): in memory or mapped into it, or photos, which are decoded when indexed."""


@dataclass(frozen=True)
class Dataset:
    """Labeled images, in memory, mapped into it, or in files.

    Attributes:
        name: on the command line and in recipes.
        images: uint8 (N, C, H, W), in any memory format; see `Images`.
        labels: int64 (N,), from 0.
        class_names: one a label.
        splits: int64 sample ids of each part.
        mirrored: whether the horizontal flip of a sample is an image of its class.
        sha256: digest of the content; of custom images, of their names and sizes.
        custom: custom images with their parts, as they were listed; none for other data.
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
        """Returns its name for people: of custom images the name of the folder, not its path."""
        return Path(self.name).name if self.custom else self.name

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def crop_pct(self) -> float:
        """Returns the fraction of the shorter side that is kept: 1 for images in memory."""
        return self.images.crop_pct if isinstance(self.images, Photos) else 1.0

    @property
    def image_size(self) -> tuple[int, int]:
        """Returns height and width in pixels."""
        return self.images.shape[2], self.images.shape[3]
