"""The table of published weights, and their paths in the caches of their libraries."""

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from resnetkit.errors import StorageError, WeightsError, did_you_mean
from resnetkit.models.zoo import ARCHITECTURES
from resnetkit.storage import path_in_home
from resnetkit.weights.variants import variant_of

__all__ = [
    "PublishedWeights",
    "find_published",
    "hub_address",
    "hub_cache",
    "published",
    "similar",
]

# Plain networks of timm under the Apache or BSD license: the repositories timm/ARCHITECTURE.TAG.
TIMM_TAGS = {
    "resnet18": "a1_in1k a2_in1k a3_in1k gluon_in1k tv_in1k",
    "resnet34": "a1_in1k a2_in1k a3_in1k bt_in1k gluon_in1k ra4_e3600_r224_in1k tv_in1k",
    "resnet50": "a1_in1k a1h_in1k a2_in1k a3_in1k am_in1k b1k_in1k b2k_in1k bt_in1k c1_in1k c2_in1k"
    " d_in1k gluon_in1k ra_in1k ram_in1k tv2_in1k tv_in1k",
    "resnet101": "a1_in1k a1h_in1k a2_in1k a3_in1k gluon_in1k tv2_in1k tv_in1k",
    "resnet152": "a1_in1k a1h_in1k a2_in1k a3_in1k gluon_in1k tv2_in1k tv_in1k",
    "resnext50_32x4d": "a1_in1k a1h_in1k a2_in1k a3_in1k gluon_in1k ra_in1k tv2_in1k tv_in1k",
    "wide_resnet50_2": "racm_in1k tv2_in1k tv_in1k",
}


@dataclass(frozen=True)
class PublishedWeights:
    """Weights that a library publishes.

    Attributes:
        name: ARCHITECTURE.WEIGHTS, as in the library.
        library: torchvision or timm.
        files: names of the files; the first holds the tensors.
        source: URL of torchvision's file, or repository on the Hub.
        megabytes: size of the download, by torchvision's metadata or the number of parameters.
        accuracy: top-1 accuracy on ImageNet in percent by torchvision; None if it is not stated.
        sha256: beginning of the digest, from the name of torchvision's file; empty if only the
            server states a digest.
        crop_pct: fraction of the shorter side of images for that accuracy; 0 if the file states it.
    """

    name: str
    library: str
    files: tuple[str, ...]
    source: str
    megabytes: float
    accuracy: float | None
    sha256: str
    crop_pct: float

    @property
    def variant(self) -> str:
        """Returns v1.5, as both libraries build bottlenecks; empty for networks without them."""
        return variant_of(ARCHITECTURES[self.name.partition(".")[0]])

    @property
    def cache(self) -> Path:
        """Returns the folder in which the library of the weights keeps them.

        Raises:
            StorageError: if it is in the home folder of a user who has none.
        """
        if self.library == "torchvision":
            return path_in_home(torch.hub.get_dir(), "TORCH_HOME") / "checkpoints"
        return hub_cache()

    @property
    def path(self) -> Path | None:
        """Returns the file or folder that `load_network` reads; None if it was not downloaded."""
        try:
            return self.path_in(self.cache)
        except StorageError:
            return None

    def path_in(self, cache: Path) -> Path | None:
        """Returns the file or folder in a cache that `load_network` reads; None if missing."""
        if self.library == "torchvision":
            path = cache / self.files[0]
            return path if path.is_file() else None
        from huggingface_hub import try_to_load_from_cache  # here: most commands need no Hub

        paths = [try_to_load_from_cache(self.source, file, cache_dir=cache) for file in self.files]
        folders = {Path(path).parent if isinstance(path, str) else None for path in paths}
        return folders.pop() if len(folders) == 1 else None

    def required_path(self) -> Path:
        """Returns the file or folder that `load_network` reads.

        Raises:
            WeightsError: if it was not downloaded.
        """
        try:
            cache = self.cache
        except StorageError as error:
            raise WeightsError(
                f"the weights '{self.name}' are not on this machine: {error}"
            ) from error
        path = self.path_in(cache)
        if path is None:
            raise WeightsError(
                f"the weights '{self.name}' are not on this machine (searched in {cache}):"
                f" 'resnet weights fetch {self.name}' downloads them ({self.megabytes:,.0f} MB)."
            )
        return path


def hub_cache() -> Path:
    """Returns the cache of the Hub: HF_HUB_CACHE, HF_HOME/hub or the XDG cache.

    Raises:
        StorageError: if none is set, and this user has no home folder.
    """
    general = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{general}/huggingface"
    path = os.path.expandvars(os.environ.get("HF_HUB_CACHE") or f"{home}/hub")
    return path_in_home(path, "HF_HOME")


def hub_address() -> str:
    """Returns the URL of the Hub: HF_ENDPOINT or the official one."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


@functools.cache
def published() -> Mapping[str, PublishedWeights]:
    """Returns the published weights of supported networks, by name."""
    entries = [*torchvision_weights(), *timm_weights()]
    return MappingProxyType({entry.name: entry for entry in entries})


def torchvision_weights() -> list[PublishedWeights]:
    """Returns torchvision's weights, by its own metadata."""
    from torchvision import models

    return [
        PublishedWeights(
            name=f"{name}.{weights.name}",
            library="torchvision",
            files=(weights.url.rpartition("/")[2],),
            source=weights.url,
            megabytes=weights.meta["_file_size"] * 2**20 / 1e6,
            accuracy=weights.meta["_metrics"]["ImageNet-1K"]["acc@1"],
            sha256=weights.url.rpartition("-")[2].removesuffix(".pth"),
            crop_pct=crop_pct_of(weights.transforms()),
        )
        for name in ARCHITECTURES
        if name in models.list_models(module=models)
        for weights in models.get_model_weights(name)
    ]


def crop_pct_of(transforms: Any) -> float:
    """Returns the crop_pct of torchvision's preprocessing: 224 of 256 pixels, or of 232."""
    return transforms.crop_size[0] / transforms.resize_size[0]


def timm_weights() -> list[PublishedWeights]:
    """Returns timm's weights; the Hub states their digests."""
    from torchvision import models

    return [
        PublishedWeights(
            name=f"{name}.{tag}",
            library="timm",
            files=("model.safetensors", "config.json"),
            source=f"timm/{name}.{tag}",
            megabytes=models.get_model_weights(name).DEFAULT.meta["num_params"] * 4 / 1e6,
            accuracy=None,
            sha256="",
            crop_pct=0.0,
        )
        for name, tags in TIMM_TAGS.items()
        for tag in tags.split()
    ]


def find_published(name: str) -> PublishedWeights | None:
    """Returns the published weights of a name; None if there are none.

    torchvision is imported only for a name that could be in its table.
    """
    architecture, point, _ = name.partition(".")
    return published().get(name) if point and architecture in ARCHITECTURES else None


def similar(name: str) -> str:
    """Returns a sentence that suggests names of weights; empty without a suggestion."""
    if name in TIMM_TAGS:
        examples = [weights for weights in published() if weights.startswith(f"{name}.")][:4]
        return f" Weights of {name}: {', '.join(examples)}, ... ('resnet weights list')."
    if name.partition(".")[0] in TIMM_TAGS:
        return did_you_mean(name, published())
    return ""
