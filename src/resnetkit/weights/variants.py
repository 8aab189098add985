"""Where bottleneck blocks stride: v1 or v1.5."""

from pathlib import Path

from resnetkit.errors import WeightsError
from resnetkit.models.blocks import StrideIn
from resnetkit.models.zoo import Architecture, BlockName

__all__ = ["VARIANTS", "check_variant", "stride_named", "variant_of"]

VARIANTS: dict[str, StrideIn] = {"v1": "1x1", "v1.5": "3x3"}
"""Convolution that strides. The tensors of both variants have the same shapes."""


def variant_of(architecture: Architecture) -> str:
    """Returns v1 or v1.5; empty for networks without bottlenecks, to which it does not apply."""
    if architecture.block == "basic":
        return ""
    return next(name for name, stride in VARIANTS.items() if stride == architecture.stride_in)


def stride_named(path: Path, block: BlockName, variant: str | None) -> StrideIn:
    """Returns where the blocks of a file stride that does not state it.

    Raises:
        WeightsError: if the caller does not name the variant, and both are possible.
    """
    if variant or block == "basic":
        return VARIANTS[variant or "v1.5"]
    raise WeightsError(
        f"{path} does not state where its bottleneck blocks stride, and its tensors fit both: v1"
        " strides in the first 1x1 convolution (the paper, Caffe, Keras), v1.5 in the 3x3"
        " (torchvision, timm). The wrong one computes, but badly. Choose: --variant v1 or"
        ' --variant v1.5 (in Python: variant="v1.5").'
    )


def check_variant(path: Path, architecture: Architecture, variant: str | None) -> None:
    """Checks that a file is of the variant that the caller names, if any.

    Raises:
        WeightsError: if it is of the other.
    """
    actual = variant_of(architecture)
    if variant and actual and variant != actual:
        raise WeightsError(
            f"{path} is of the variant {actual}, not {variant}, by its format. Leave out the"
            " variant."
        )
