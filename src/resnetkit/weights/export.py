"""From a trained network to files that other libraries read; what was written is read again."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from resnetkit.errors import StorageError, UsageError, WeightsError, did_you_mean
from resnetkit.storage import new_folder, storage_errors, write_file, write_synced
from resnetkit.weights.akamaster import akamaster_bytes
from resnetkit.weights.caffe import caffe_bytes
from resnetkit.weights.conventions import CONVENTIONS, FORMATS, check_held, variant_of, view_of
from resnetkit.weights.keras import keras_bytes
from resnetkit.weights.load import load_network
from resnetkit.weights.native import model_folder_files
from resnetkit.weights.network import TrainedNetwork, check_head
from resnetkit.weights.state_dicts import timm_files, torchvision_bytes
from resnetkit.weights.transformers import transformers_files

__all__ = ["export_weights"]

FOLDERS: dict[str, Callable[[TrainedNetwork], dict[str, bytes]]] = {
    "resnetkit": model_folder_files,
    "timm": timm_files,
    "transformers": transformers_files,
}
FILES: dict[str, Callable[[TrainedNetwork, Path], bytes]] = {
    "torchvision": torchvision_bytes,
    "keras": keras_bytes,
    "caffe": caffe_bytes,
    "akamaster": lambda network, path: akamaster_bytes(network),
}


def export_weights(network: TrainedNetwork, path: Path, format: str) -> TrainedNetwork:  # noqa: A002
    """Writes a network in one of `FORMATS`, and returns what reading it again gives.

    The file is there whole or not at all. Every tensor read again is equal to the bit, and so are
    the logits of a fixed input.

    Args:
        network: any, if the format can hold it.
        path: a file; a folder for resnetkit, timm and transformers. Nothing may be there yet.
            torchvision's is safetensors where the name ends so, else as `torch.save` writes it.
        format: which.

    Raises:
        UsageError: when there is no such format, or it needs an extra.
        WeightsError: when its readers would not compute what this network does.
        StorageError: when it cannot be written, or something is there already.
    """
    if format not in FORMATS:
        raise UsageError(
            f"unknown format '{format}': expected one of {', '.join(FORMATS)}."
            + did_you_mean(format, FORMATS)
        )
    if path.exists() or path.is_symlink():
        raise StorageError(f"{path} already exists: choose another path.")
    check_head(network)
    if format in CONVENTIONS:
        check_held(network, format)
    # Whoever evaluated it may have left it elsewhere, and in another order, which rounds otherwise.
    network.model.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    write(network, path, format)
    try:
        again = load_network(path, variant=variant_of(network.architecture))
        check_equal(path, network, again)
    except WeightsError:
        remove(path)
        raise
    return again


def remove(path: Path) -> None:
    """Removes what was written."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def write(network: TrainedNetwork, path: Path, format: str) -> None:  # noqa: A002
    """Puts the files of a format in place at once."""
    with storage_errors(path, "Choose another place."):
        if format in FOLDERS:
            contents = FOLDERS[format](network)
            with new_folder(path) as folder:
                for name, content in contents.items():
                    write_synced(folder / name, content)
        else:
            content = FILES[format](network, path)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, content)


def check_equal(path: Path, network: TrainedNetwork, again: TrainedNetwork) -> None:
    """Checks that what was read again is what was written, to the bit.

    Raises:
        WeightsError: when it is not.
    """
    counted = again.format not in CONVENTIONS or CONVENTIONS[again.format].counts_batches
    written, read = network.model.state_dict(), again.model.state_dict()
    differing = [
        name
        for name in written.keys() | read.keys()
        if (counted or not name.endswith("num_batches_tracked"))
        and not same_bits(written.get(name), read.get(name))
    ]
    constants = ((network.mean, again.mean), (network.std, again.std))
    if not all(torch.allclose(one, other) for one, other in constants):
        differing.append("the mean or deviation of images")
    if view_of(network) != view_of(again):
        differing.append("how images are shown")
    if not torch.equal(logits(network), logits(again)):
        differing.append("the logits")
    if differing:
        raise WeightsError(
            f"reading {path} again after writing it gave something else:"
            f" {', '.join(sorted(differing)[:3])}. It was removed; please report this."
        )


def same_bits(one: Tensor | None, other: Tensor | None) -> bool:
    """Returns whether two tensors are there, and equal in every bit."""
    if one is None or other is None or one.dtype != other.dtype or one.shape != other.shape:
        return False
    return one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()


@torch.inference_mode()
def logits(network: TrainedNetwork) -> Tensor:
    """Returns the answers to a fixed input."""
    channels = network.architecture.in_channels
    images = torch.randn(2, channels, 64, 64, generator=torch.Generator().manual_seed(0))
    answers: Tensor = network.model(images)
    return answers
