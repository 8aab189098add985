"""Where bottleneck blocks stride: v1 or v1.5."""

from pathlib import Path

from resnetkit.errors import WeightsError
from resnetkit.models.blocks import StrideIn
from resnetkit.models.zoo import Architecture, BlockName

__all__ = ["VARIANTS", "check_variant", "stride_named", "variant_of"]

VARIANTS: dict[str, StrideIn] = {"v1": "1x1", "v1.5": "3x3"}
"""Convolution that strides. The tensors of both variants have the same shapes."""


def variant_of(architecture: Architecture) -> str:
    """Returns v1 or v1.5; empty for networks without bottlenecks, which know no difference."""
    if architecture.block == "basic":
        return ""
    return next(name for name, stride in VARIANTS.items() if stride == architecture.stride_in)


def stride_named(path: Path, block: BlockName, variant: str | None) -> StrideIn:
    """Returns where the blocks of a file stride that does not say it.

    Raises:
        WeightsError: when nobody says it, though both are possible.
    """
    if variant or block == "basic":
        return VARIANTS[variant or "v1.5"]
    raise WeightsError(
        f"{path} does not say where its bottleneck blocks stride, and its tensors fit both: v1"
        " strides in the first 1x1 convolution (the paper, Caffe, Keras), v1.5 in the 3x3"
        " (torchvision, timm). The wrong one answers, but badly. Name it: --variant v1 or"
        ' --variant v1.5 (in Python: variant="v1.5").'
    )


def check_variant(path: Path, architecture: Architecture, variant: str | None) -> None:
    """Checks that a file is of the variant that was named, if one was.

    Raises:
        WeightsError: when it is of the other.
    """
    found = variant_of(architecture)
    if variant and found and variant != found:
        raise WeightsError(
            f"{path} is of the variant {found}, not {variant}: its format says so. Leave the"
            " variant out."
        )
