"""Golden images: whether an engine answers here as torch answered in float32.

Beside an exported graph lie images with the answers of the network it was made from. Every machine
computes them before its first answer, because a graph that is right on one processor may be wrong
on another: an int8 graph on a processor without VNNI, a kernel of another version. Where they have
been right before, with nothing changed (see `passed_checks`), one of them is computed again.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from resnetkit.errors import WeightsError
from resnetkit.inference.engine import Floats, Pixels, softmax
from resnetkit.inference.engines.graph import GraphEngine, first_outputs
from resnetkit.inference.exported import (
    GOLDEN_FILE,
    LARGEST_GOLDEN,
    PARITY_FILE,
    ExportedNetwork,
    check_choices,
    read_exported,
)
from resnetkit.inference.passed_checks import facts_of, has_passed, remember
from resnetkit.runtime.processor import processor_features, processor_name

__all__ = [
    "GOLDEN_IMAGES",
    "LARGEST_ERROR",
    "LARGEST_ROUNDING",
    "Check",
    "Golden",
    "Parity",
    "ParityReport",
    "allowed",
    "check_first",
    "check_here",
    "compare",
    "golden_bytes",
    "load_exported",
    "read_golden",
    "read_parity",
    "report_on",
    "warn_of_differences",
]

GOLDEN_IMAGES = 16
MOST_GOLDEN = 64
LARGEST_ERROR = 1e-4  # of the largest logit, in float32
LARGEST_ROUNDING = 2**-4  # in bfloat16: 256 independent roundings of 2**-8 add up to it
WORSE = 1.5  # times the error on export, from which a rounded engine answers differently
LARGEST_PARITY = 2**20  # bytes

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Golden:
    """Images and the answers of torch in float32.

    Attributes:
        pixels: uint8 (N, C, H, W).
        logits: float32 (N, K).
        features: float32 (N, D), the input of the head.
    """

    pixels: Pixels
    logits: Floats
    features: Floats

    @property
    def one(self) -> "Golden":
        """Returns the image with the largest logit alone: errors are relative to that logit."""
        row = int(np.abs(self.logits).max(axis=1).argmax())
        chosen = slice(row, row + 1)
        return Golden(self.pixels[chosen], self.logits[chosen], self.features[chosen])


@dataclass(frozen=True)
class Parity:
    """How the answers of an engine differ from those of torch in float32.

    Attributes:
        images: their number.
        same_top1: for how many the most probable class is the same, or one of several whose logits
            torch could not tell apart within `LARGEST_ERROR`.
        logits_error: largest difference of a logit, divided by the largest logit.
        features_error: the same of the pooled features.
        probability_error: largest difference of a probability.
    """

    images: int
    same_top1: int
    logits_error: float
    features_error: float
    probability_error: float

    @property
    def other_top1(self) -> int:
        """Returns for how many images the most probable class is another one."""
        return self.images - self.same_top1


@dataclass(frozen=True)
class ParityReport:
    """The content of parity.json: the parity on the machine that wrote the folder.

    Attributes:
        golden: where the golden images came from.
        engine: name of the engine.
        precision: of the computation.
        parity: how the answers differed.
        processor: its name.
        processor_features: its instructions; see `processor_features`.
    """

    golden: str
    engine: str
    precision: str
    parity: Parity
    processor: str
    processor_features: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """The golden images, computed here.

    Attributes:
        parity: how the answers differ here.
        on_export: how they differed where the folder was written.
        precision: of the computation here.
        origin: description of the network.
    """

    parity: Parity
    on_export: ParityReport
    precision: str
    origin: str

    @property
    def holds(self) -> bool:
        """Returns whether the engine answers as it did on export.

        In float32 logits and features agree with those of torch within `LARGEST_ERROR`, in bfloat16
        within `LARGEST_ROUNDING`; an engine that rounds makes hardly more errors than on export, on
        these images or on some of them.
        """
        here, before = self.parity, self.on_export.parity
        pairs = (
            (here.logits_error, before.logits_error),
            (here.features_error, before.features_error),
        )
        return (
            here.other_top1 <= (0 if self.precision == "float32" else before.other_top1)
            and all(error <= allowed(self.precision, old) for error, old in pairs)
            and bool(np.isfinite(pairs).all())
        )

    @property
    def sentence(self) -> str:
        """Returns how the answers differ, as a sentence."""
        here, before = self.parity, self.on_export.parity
        verdict = "answers as on export" if self.holds else "answers differently than on export"
        return (
            f"{self.origin}: this processor ({processor_name()}) {verdict}: on {here.images} golden"
            f" images, {here.same_top1} have the top-1 class of torch in float32 (on export"
            f" {before.same_top1}), and logits differ by up to {here.logits_error:.2g} of the"
            f" largest (on export {before.logits_error:.2g}), probabilities by up to"
            f" {here.probability_error:.2g} ({before.probability_error:.2g})."
        )


def allowed(precision: str, on_export: float) -> float:
    """Returns the error that an engine may make here, by that on export."""
    if precision == "float32":
        return LARGEST_ERROR
    rounding = max(LARGEST_ERROR, WORSE * on_export)
    return min(rounding, LARGEST_ROUNDING) if precision == "bfloat16" else rounding


def compare(engine: GraphEngine, golden: Golden) -> Parity:
    """Computes golden images and compares the answers.

    Raises:
        WeightsError: when the graph cannot compute them.
    """
    widths = golden.logits.shape[1], golden.features.shape[1]
    outputs = first_outputs(engine, golden.pixels, widths)
    rounding = LARGEST_ERROR * np.abs(golden.logits).max()
    rows = np.arange(len(golden.logits))
    chosen = golden.logits[rows, outputs.logits.argmax(1)]
    return Parity(
        images=len(golden.pixels),
        same_top1=int((chosen >= golden.logits.max(1) - rounding).sum()),
        logits_error=relative_error(outputs.logits, golden.logits),
        features_error=relative_error(outputs.features, golden.features),
        probability_error=float(
            np.abs(softmax(outputs.logits) - softmax(golden.logits)).max(initial=0)
        ),
    )


def relative_error(values: Floats, expected: Floats) -> float:
    """Returns the largest difference divided by the largest expected value.

    Values that are not finite give infinity.
    """
    error = np.abs(values - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny)
    return float(error) if np.isfinite(error) else float("inf")


def check_here(network: ExportedNetwork) -> Check:
    """Computes the golden images of an exported network on this machine.

    Raises:
        WeightsError: when a file of the folder is missing or corrupt.
        UsageError: when the library of the engine is not installed.
    """
    return checked(network, read_golden(network))


def check_first(network: ExportedNetwork) -> Check:
    """Computes golden images before the first answer: all, or one where all were right before.

    Raises:
        WeightsError: when a file of the folder is missing or corrupt.
        UsageError: when the library of the engine is not installed.
    """
    golden, facts = read_golden(network), facts_of(network, network.engine.precision)
    if has_passed(facts):
        check = checked(network, golden.one)
        if check.holds:
            return check
    check = checked(network, golden)
    if check.holds:
        remember(facts)
    return check


def checked(network: ExportedNetwork, golden: Golden) -> Check:
    """Returns how a network answers golden images here."""
    parity = compare(network.engine, golden)
    return Check(parity, read_parity(network), network.engine.precision, network.origin)


def warn_of_differences(network: ExportedNetwork) -> None:
    """Computes golden images, and logs a warning when this processor answers differently.

    Raises:
        WeightsError: when a file of the folder is missing or corrupt.
        UsageError: when the library of the engine is not installed.
    """
    check = check_first(network)
    if not check.holds:
        logger.warning("%s", check.sentence)
    if check.precision != network.config.precision:
        logger.warning(
            "%s: this processor has no instructions for %s; the engine computes in %s.",
            network.origin,
            network.config.precision,
            check.precision,
        )


def load_exported(
    folder: str | Path,
    *,
    variant: str | None = None,
    device: str = "auto",
    precision: str | None = None,
) -> ExportedNetwork:
    """Reads and compiles an exported network, and computes golden images.

    A warning is logged when this processor answers differently than on export.

    Args:
        folder: of the exported network.
        variant: v1 or v1.5 if the caller expects it.
        device: auto or cpu.
        precision: auto, or that of the folder.

    Raises:
        WeightsError: when the folder is missing, corrupt, or of another version.
        UsageError: when an option contradicts the folder, or a library is not installed.
    """
    network = read_exported(Path(folder))
    check_choices(network, variant=variant, device=device, precision=precision)
    warn_of_differences(network)
    return network


def golden_bytes(golden: Golden) -> bytes:
    """Returns the content of golden.safetensors."""
    tensors: dict[str, npt.NDArray[Any]] = {
        "pixels": np.ascontiguousarray(golden.pixels),
        "logits": np.ascontiguousarray(golden.logits),
        "features": np.ascontiguousarray(golden.features),
    }
    return safetensors.numpy.save(tensors)


def read_golden(network: ExportedNetwork) -> Golden:
    """Reads the golden images of an exported network.

    Raises:
        WeightsError: when the file is missing, corrupt, or not of this network.
    """
    content = network.verified(GOLDEN_FILE, LARGEST_GOLDEN)
    try:
        tensors = safetensors.numpy.load(content)
        golden = Golden(*(tensors[name] for name in ("pixels", "logits", "features")))
        check_golden(golden, network)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise WeightsError(
            f"{network.folder / GOLDEN_FILE} does not hold golden images of this network"
            f" ({error}). Export the network again."
        ) from error
    return golden


def check_golden(golden: Golden, network: ExportedNetwork) -> None:
    """Raises ValueError for golden images that are not of a network."""
    config, count = network.config, len(golden.pixels)
    if not 1 <= count <= MOST_GOLDEN:
        raise ValueError(f"{count} images, expected from 1 to {MOST_GOLDEN}")
    for name, values, dtype, shape in (
        ("pixels", golden.pixels, np.uint8, (count, config.channels, *config.image_size)),
        ("logits", golden.logits, np.float32, (count, config.num_classes)),
        ("features", golden.features, np.float32, (count, config.num_features)),
    ):
        if values.dtype != dtype or values.shape != shape:
            raise ValueError(f"{name} are {values.dtype} {values.shape}, expected {shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"{name} are not finite")


def read_parity(network: ExportedNetwork) -> ParityReport:
    """Reads the parity on the machine that wrote the folder.

    Raises:
        WeightsError: when the file is missing or corrupt.
    """
    return network.record(PARITY_FILE, ParityReport, LARGEST_PARITY)


def report_on(engine: GraphEngine, golden: Golden, source: str) -> ParityReport:
    """Compares an engine with torch on this machine.

    Args:
        engine: of the graph to be written.
        golden: images with their answers.
        source: where the images came from.
    """
    return ParityReport(
        golden=source,
        engine=engine.name,
        precision=engine.precision,
        parity=compare(engine, golden),
        processor=processor_name(),
        processor_features=processor_features(),
    )
