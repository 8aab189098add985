"""Writes trained networks in the formats of other libraries, and verifies what was written."""

import shutil
from pathlib import Path

import torch
from torch import Tensor

from resnetkit.errors import StorageError, UsageError, WeightsError, did_you_mean
from resnetkit.storage import new_folder, storage_errors, write_file, write_synced
from resnetkit.weights.conventions import view_of
from resnetkit.weights.format import Contents, check_held
from resnetkit.weights.formats import FORMATS
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork, check_head
from resnetkit.weights.variants import variant_of

__all__ = ["export_weights"]


def export_weights(
    network: TrainedNetwork,
    path: str | Path,
    format: str,  # noqa: A002
) -> TrainedNetwork:
    """Writes a network in one of `FORMATS`, reads it again, and returns the network read.

    The path is written atomically. All tensors and the logits of a fixed input must be equal bit by
    bit after reading, or what was written is removed.

    Args:
        network: network to write; not every format can hold every network.
        path: file to create; a folder for resnetkit, timm and transformers. For torchvision, a name
            that ends in .safetensors selects that format; others are written by `torch.save`.
        format: name of the format.

    Raises:
        UsageError: if the format does not exist, or requires an extra.
        WeightsError: if readers of the format would not compute the same as this network.
        StorageError: if the path cannot be written, or exists already.
    """
    if format not in FORMATS:
        raise UsageError(
            f"unknown format '{format}': expected one of {', '.join(FORMATS)}."
            + did_you_mean(format, FORMATS)
        )
    path = Path(path)
    if path.exists() or path.is_symlink():
        raise StorageError(f"{path} already exists: choose another path.")
    check_head(network)
    check_held(network, FORMATS[format])
    # An evaluation may have left it on another device, or channels-last, which rounds differently.
    network.model.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    write(path, FORMATS[format].save(network, path))
    try:
        again = load_network(path, variant=variant_of(network.architecture))
        check_equal(path, network, again)
    except WeightsError:
        remove(path)
        raise
    return again


def remove(path: Path) -> None:
    """Removes a file or folder that was written."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def write(path: Path, contents: Contents) -> None:
    """Writes a file, or the files of a folder, atomically."""
    with storage_errors(path, "Choose another path."):
        if isinstance(contents, bytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, contents)
            return
        with new_folder(path) as folder:
            for name, content in contents.items():
                write_synced(folder / name, content)


def check_equal(path: Path, network: TrainedNetwork, again: TrainedNetwork) -> None:
    """Checks that the network read again is equal to the one written, bit by bit.

    Raises:
        WeightsError: if it is not.
    """
    convention = FORMATS[again.format].convention
    counted = convention is None or convention.counts_batches
    written, read = network.model.state_dict(), again.model.state_dict()
    differing = [
        name
        for name in written.keys() | read.keys()
        if (counted or not name.endswith("num_batches_tracked"))
        and not same_bits(written.get(name), read.get(name))
    ]
    ours, theirs = network.normalization, again.normalization
    if not torch.allclose(ours.mean, theirs.mean) or not torch.allclose(ours.std, theirs.std):
        differing.append("the mean or standard deviation of images")
    if view_of(network) != view_of(again):
        differing.append("how images are resized and cropped")
    if not torch.equal(logits(network), logits(again)):
        differing.append("the logits")
    if differing:
        raise WeightsError(
            f"reading {path} after writing it gave another network: a difference in"
            f" {', '.join(sorted(differing)[:3])}. It was removed; please report this."
        )


def same_bits(one: Tensor | None, other: Tensor | None) -> bool:
    """Returns whether two tensors exist and are equal bit by bit."""
    if one is None or other is None or one.dtype != other.dtype or one.shape != other.shape:
        return False
    return one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()


@torch.inference_mode()
def logits(network: TrainedNetwork) -> Tensor:
    """Returns the logits of a fixed input."""
    channels = network.architecture.in_channels
    images = torch.randn(2, channels, 64, 64, generator=torch.Generator().manual_seed(0))
    outputs: Tensor = network.model(images)
    return outputs
