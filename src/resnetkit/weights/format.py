"""Formats of weights: which networks one can hold, how it is recognized, read and written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from resnetkit.data.normalization import Normalization
from resnetkit.errors import WeightsError
from resnetkit.models.zoo import Architecture
from resnetkit.weights.checkpoints import State, read_state
from resnetkit.weights.configuration import JsonObject, weights_next_to
from resnetkit.weights.conventions import implied_classes, view_of
from resnetkit.weights.network import TrainedNetwork
from resnetkit.weights.tensors import read_beginning

__all__ = ["Contents", "Convention", "Format", "WeightsSource", "check_held"]

BEGINNING_BYTES = 16

Contents = bytes | dict[str, bytes]
"""What a format writes: the content of a file, or the files of a folder by name."""


@dataclass(frozen=True)
class Convention:
    """What a format does not store, and so assumes.

    Attributes:
        options: values of an architecture's options that the format can hold.
        stages: number of stages of its networks; 0 for any.
        normalization: normalization of its images; None if the format stores it.
        view: size of the images and fraction of the shorter side that the crop keeps; None if the
            format stores them.
        offset: rounding of the center crop's offset in its readers; see `Resize`.
        names_classes: whether it holds class names.
        counts_batches: whether it holds the number of batches seen by the running statistics.
        data: data set whose class names are assumed if the number of classes agrees.
    """

    options: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    stages: int = 4
    normalization: Normalization | None = None
    view: tuple[tuple[int, int], float] | None = None
    offset: Literal["round", "floor"] = "round"
    names_classes: bool = False
    counts_batches: bool = True
    data: Literal["ImageNet", "CIFAR-10"] = "ImageNet"


@dataclass(frozen=True)
class WeightsSource:
    """Weights to be loaded: a file, or a config.json with the files next to it.

    Attributes:
        path: path of the file, or of the config.json.
        configuration: contents of the config.json; None for a file of weights on its own.
        variant: v1 or v1.5, as named by the caller.
        entry: entry of the file to read; see `read_state`.
        named: file next to the config.json that the caller named; None if a folder was named.
    """

    path: Path
    configuration: JsonObject | None = None
    variant: str | None = None
    entry: str | None = None
    named: Path | None = None

    @cached_property
    def weights(self) -> Path:
        """File that holds the tensors."""
        if self.configuration is None:
            return self.path
        return self.named or weights_next_to(self.path)

    @cached_property
    def beginning(self) -> bytes:
        """First bytes of the file."""
        return read_beginning(self.path, BEGINNING_BYTES)

    @cached_property
    def state(self) -> State:
        """Tensors of the file by name."""
        return read_state(self.weights, self.entry)

    @property
    def config(self) -> JsonObject:
        """Contents of the config.json, for a source that has one."""
        assert self.configuration is not None
        return self.configuration


@dataclass(frozen=True)
class Format:
    """A format of weights.

    Attributes:
        name: name on the command line.
        convention: what it assumes; None if it holds every network as it is.
        recognizes: whether a source is in this format.
        load: reads a source that was recognized; raises WeightsError if it cannot be trusted.
        save: returns what is to be written at a path; raises WeightsError for a network or a path
            that the readers of the format would not understand.
    """

    name: str
    convention: Convention | None
    recognizes: Callable[[WeightsSource], bool]
    load: Callable[[WeightsSource], TrainedNetwork]
    save: Callable[[TrainedNetwork, Path], Contents]


def check_held(network: TrainedNetwork, format: Format) -> None:  # noqa: A002
    """Checks that a format can hold a network, so that its readers compute what the network does.

    Raises:
        WeightsError: with all problems.
    """
    convention = format.convention
    if convention is None:
        return
    problems = [
        *unheld_options(network.architecture, convention),
        *unheld_facts(network, convention),
    ]
    if problems:
        raise WeightsError(
            f"the format {format.name} cannot store this network: {'; '.join(problems)}."
            " 'resnetkit' stores every network."
        )


def unheld_options(architecture: Architecture, convention: Convention) -> list[str]:
    """Returns the options of an architecture that a format cannot hold, as phrases."""
    meaningless = {"stride_in"} if architecture.block == "basic" else set()
    if architecture.shortcut != "A":
        meaningless.add("padding")
    problems = [
        f"{option} is {getattr(architecture, option)}, expected {' or '.join(map(str, allowed))}"
        for option, allowed in convention.options.items()
        if option not in meaningless and getattr(architecture, option) not in allowed
    ]
    stages = len(architecture.depths)
    if convention.stages not in (0, stages):
        problems.append(f"it has {stages} stages, expected {convention.stages}")
    if any(architecture.replace_stride_with_dilation):
        problems.append("it dilates instead of striding, which no file of weights states")
    return problems


def unheld_facts(network: TrainedNetwork, convention: Convention) -> list[str]:
    """Returns what readers of a format would wrongly assume of images and classes, as phrases."""
    problems = [
        *unheld_normalization(network.normalization, convention.normalization),
        *unheld_view(network, convention),
    ]
    if not convention.names_classes:
        assumed = implied_classes(convention.data, network.architecture.num_classes)
        if assumed and network.class_names != assumed:
            problems.append(
                f"its {len(assumed)} classes are not those of {convention.data}, which readers"
                " would assume"
            )
    return problems


def unheld_normalization(normalization: Normalization, expected: Normalization | None) -> list[str]:
    """Returns how a normalization differs from the one that a format implies, as phrases."""
    if normalization.is_per_pixel:
        return ["its images are normalized with a mean of each pixel, expected of each channel"]
    if expected is None:
        return []
    return [
        f"its images are normalized with the {name} {constants_as_text(ours)}, expected"
        f" {constants_as_text(theirs)}, which the format does not store"
        for name, ours, theirs in (
            ("mean", normalization.mean, expected.mean),
            ("standard deviation", normalization.std, expected.std),
        )
        if ours.shape != theirs.shape or not torch.allclose(ours, theirs)
    ]


def unheld_view(network: TrainedNetwork, convention: Convention) -> list[str]:
    """Returns how readers of a format would resize and crop images differently, as phrases."""
    problems = []
    if convention.view is not None:
        size, crop_pct = convention.view
        if view_of(network) != (size, round(max(size) / crop_pct), "bilinear", "center"):
            height, width = network.image_size
            problems.append(
                f"its images are of {height}x{width} pixels, {network.crop_pct:g} of the shorter"
                f" side, {network.resize.interpolation} and {network.resize.mode}; the format does"
                f" not store that, and its readers expect {size[0]} pixels, {crop_pct:g},"
                " bilinear and center"
            )
    pixels = max(network.image_size)
    side = network.resize.side(pixels, network.crop_pct)
    ours = network.resize.margin(side, pixels)
    theirs = replace(network.resize, offset=convention.offset).margin(side, pixels)
    if ours != theirs:
        problems.append(
            f"the center crop of {side} pixels begins at {ours}, for readers of the format at"
            f" {theirs}"
        )
    return problems


def constants_as_text(constants: Tensor) -> str:
    """Returns constants for pixels of 0 to 255 as text."""
    return ", ".join(f"{float(value):.6g}" for value in constants.flatten())
