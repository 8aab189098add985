"""The folder of an exported network: what lies in it, and how it is read without being believed.

    config.json            what the network is, how images become its input, digests of all files
    model.xml, model.bin   the graph for OpenVINO
    model.onnx             or the graph for ONNX Runtime
    golden.safetensors     images and the answers that torch gives in float32
    int8.json              of an int8 graph, how it was chosen and what it costs
    parity.json            how the answers of the engine differed from these on export
    predict.py, README.md  prediction without this package; the model card

Nothing here imports torch.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from resnetkit.errors import UsageError, WeightsError
from resnetkit.inference.engine import Pixels, Scores
from resnetkit.inference.engines.graph import GraphEngine, graph_engine
from resnetkit.inference.transform import EvalTransform
from resnetkit.resizing import Resize
from resnetkit.schema import Real, Section, Whole
from resnetkit.untrusted import parse_json, read_bounded
from resnetkit.weights.exported import CONFIG_FILE, EXPORTED, config_digest, read_config

__all__ = [
    "GOLDEN_FILE",
    "GRAPH_FILES",
    "INT8_FILE",
    "LARGEST_GOLDEN",
    "LARGEST_GRAPH",
    "PARITY_FILE",
    "EngineName",
    "ExportedConfig",
    "ExportedNetwork",
    "GraphPrecision",
    "SourceFacts",
    "check_choices",
    "read_exported",
]

VERSION = 1  # of the folder; a change that older versions would misread increases it

EngineName = Literal["openvino", "onnx"]
GraphPrecision = Literal["float32", "bfloat16", "int8"]

GRAPH_FILES: Mapping[EngineName, tuple[str, ...]] = {
    "openvino": ("model.xml", "model.bin"),
    "onnx": ("model.onnx",),
}
GOLDEN_FILE = "golden.safetensors"
PARITY_FILE = "parity.json"
INT8_FILE = "int8.json"

OTHER_FILES = frozenset({GOLDEN_FILE, PARITY_FILE, "README.md", "predict.py"})

LARGEST_GRAPH = 2**31  # bytes; ResNet-152 has 240 MB
LARGEST_GOLDEN = 2**30  # bytes; 16 images of 4,096 pixels have 800 MB

Count = Annotated[Whole, Field(ge=1, le=10**6)]
Side = Annotated[Whole, Field(ge=1, le=4096)]
Text = Annotated[str, Field(max_length=2000)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SourceFacts(Section):
    """The network that was exported.

    Attributes:
        origin: its description, for messages.
        format: of its file, a name of `weights.formats.FORMATS`.
        network_sha256: see `features.network_sha256`.
        data: name of the data set that it was trained on; empty if unknown.
    """

    origin: Text
    format: Text
    network_sha256: Digest
    data: Text


class ExportedConfig(Section):
    """The content of config.json.

    Attributes:
        format: always the same, which tells this file from those of other libraries.
        version: of the folder.
        engine: which computes the graph.
        precision: of the computation.
        architecture: name of the architecture, or a description.
        variant: v1 or v1.5; empty for networks without bottlenecks.
        class_names: in the order of the logits; empty if unknown.
        num_classes: K, the number of logits.
        num_features: D, the width of the pooled features.
        channels: 3 for RGB, 1 for gray.
        image_size: height and width of the input in pixels.
        crop_pct: see `EvalTransform`.
        resize: see `Resize`.
        mean: of each channel, which the graph subtracts from pixels of 0 to 255; None if it
            subtracts a mean of each pixel.
        std: of each channel, by which the graph divides.
        opset: of an ONNX graph.
        source: the network that was exported.
        versions: of the libraries that wrote the folder.
        sha256: digests of the other files, and of this one without its digests.
    """

    format: Literal["resnetkit-exported"]
    version: Literal[1]
    engine: EngineName
    precision: GraphPrecision
    architecture: Text
    variant: Literal["", "v1", "v1.5"]
    class_names: tuple[Text, ...]
    num_classes: Count
    num_features: Count
    channels: Literal[1, 3]
    image_size: tuple[Side, Side]
    crop_pct: Annotated[Real, Field(ge=0.1, le=1)]
    resize: Resize
    mean: tuple[Real, ...] | None
    std: tuple[Annotated[Real, Field(gt=0)], ...]
    opset: Count | None
    source: SourceFacts
    versions: dict[str, Text]
    sha256: dict[str, Digest]

    @model_validator(mode="after")
    def check_counts(self) -> "ExportedConfig":
        """Checks that numbers of classes and channels agree."""
        if len(self.class_names) not in (0, self.num_classes):
            raise ValueError(f"{len(self.class_names)} names for {self.num_classes} classes")
        if not (self.mean is None or len(self.mean) == self.channels == len(self.std)):
            raise ValueError(f"mean or std do not have {self.channels} channel(s)")
        return self


Record = TypeVar("Record")


@dataclass(frozen=True, eq=False)
class ExportedNetwork:
    """An exported network: evaluated and asked like a `TrainedNetwork`, but without torch.

    Attributes:
        folder: that it was read from.
        config: its description.
    """

    folder: Path
    config: ExportedConfig

    @property
    def origin(self) -> str:
        """Returns its description: the engine, the precision, and the network exported."""
        return f"{self.config.engine} {self.config.precision}: {self.config.source.origin}"

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.config.class_names

    @property
    def num_classes(self) -> int:
        return self.config.num_classes

    @property
    def in_channels(self) -> int:
        return self.config.channels

    @property
    def image_size(self) -> tuple[int, int]:
        return self.config.image_size

    @property
    def crop_pct(self) -> float:
        return self.config.crop_pct

    @property
    def resize(self) -> Resize:
        return self.config.resize

    @property
    def data(self) -> str:
        return self.config.source.data

    @property
    def format(self) -> str:
        return self.config.source.format

    @property
    def has_head(self) -> bool:
        return True

    @property
    def images(self) -> None:
        """Returns None: the list of the images that it was trained on stays in its run."""
        return

    @property
    def has_pixel_mean(self) -> bool:
        """Returns whether each pixel has its own mean, so that flips must follow it."""
        return self.config.mean is None

    @property
    def transform(self) -> EvalTransform:
        """Returns how images become its input."""
        config = self.config
        return EvalTransform(config.channels, config.image_size, config.crop_pct, config.resize)

    @property
    def network_sha256(self) -> str:
        """Returns the digest under which features can be compared.

        In float32 and bfloat16 it is that of the network exported; an int8 graph is another
        network.
        """
        if self.config.precision != "int8":
            return self.config.source.network_sha256
        digests = [self.config.sha256[name] for name in GRAPH_FILES[self.config.engine]]
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()

    @cached_property
    def engine(self) -> GraphEngine:
        """Reads, verifies and compiles the graph, once.

        Raises:
            WeightsError: when a file is missing, corrupt, or not a graph.
            UsageError: when the library of the engine is not installed.
        """
        config = self.config
        return graph_engine(
            config.engine,
            {name: self.verified(name, LARGEST_GRAPH) for name in GRAPH_FILES[config.engine]},
            precision=config.precision,
            origin=self.origin,
            network_sha256=self.network_sha256,
        )

    @property
    def precision(self) -> str:
        """Returns the precision of the computation on this machine."""
        return self.engine.precision

    def probabilities(self, pixels: Pixels) -> Scores:
        """Returns softmax(logits); see `Engine`."""
        return self.engine.probabilities(pixels)

    def verify_all(self) -> None:
        """Compares the digest of every file of the folder that has one.

        Raises:
            WeightsError: when a file is missing, or is not what was written.
        """
        int8 = {INT8_FILE} if self.config.precision == "int8" else set[str]()
        for name in sorted(OTHER_FILES | int8 | {*GRAPH_FILES[self.config.engine]}):
            self.verified(name, LARGEST_GRAPH)

    def verified(self, name: str, max_bytes: int) -> bytes:
        """Returns the content of a file of the folder after comparing its digest.

        Raises:
            WeightsError: when it cannot be read, is too large, or is not what was written.
        """
        path = self.folder / name
        try:
            content = read_bounded(path, max_bytes)
        except OSError as error:
            raise WeightsError(
                f"{path} cannot be read: {error.strerror or error}. Restore the folder, or export"
                " again."
            ) from error
        check_digest(path, hashlib.sha256(content).hexdigest(), self.config.sha256.get(name))
        return content

    def record(self, name: str, kind: type[Record], max_bytes: int) -> Record:
        """Returns the dataclass in a JSON file of the folder, after comparing its digest.

        Raises:
            WeightsError: when the file is missing or corrupt.
        """
        content = self.verified(name, max_bytes)
        try:
            return TypeAdapter(kind).validate_python(parse_json(content))
        except ValueError as error:  # those of pydantic too
            raise WeightsError(
                f"{self.folder / name} is corrupt ({str(error).splitlines()[0][:200]}). Export the"
                " network again."
            ) from error


def read_exported(folder: Path) -> ExportedNetwork:
    """Reads the description of an exported network; its files are verified when they are used.

    Raises:
        WeightsError: when the folder is of another version, or its description is corrupt.
    """
    content = read_config(folder)
    path, version = folder / CONFIG_FILE, content.get("version")
    if version != VERSION:
        raise WeightsError(
            f"{folder} was exported in version {str(version)[:20]} of the folder's format, and"
            f" this version of resnetkit reads version {VERSION}. Export the network again with"
            " the resnetkit that is installed here."
        )
    try:
        config = ExportedConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, first["loc"])) or "its keys"
        raise WeightsError(
            f"{path} is corrupt: {key}: {first['msg'][:200]}. Restore the folder, or export again."
        ) from error
    check_digest(path, config_digest(content), config.sha256.get(CONFIG_FILE))
    return ExportedNetwork(folder, config)


def check_digest(path: Path, actual: str, expected: str | None) -> None:
    """Raises WeightsError for a file that is not as it was written."""
    if expected is None:
        raise WeightsError(
            f"{path.parent / CONFIG_FILE} holds no digest (sha256) of {path.name}. Export again."
        )
    if actual != expected:
        raise WeightsError(
            f"{path} is not what was written: its SHA-256 is {actual[:16]}..., expected"
            f" {expected[:16]}.... Restore the folder, or export again."
        )


def check_choices(
    network: ExportedNetwork, *, variant: str | None, device: str, precision: str | None
) -> None:
    """Checks options of a command that an exported network has settled already.

    Raises:
        UsageError: when one of them contradicts the folder.
    """
    config = network.config
    if device not in ("auto", "cpu"):
        raise UsageError(
            f"the device {device}: {network.folder} is exported, and its engine ({config.engine})"
            " computes on the processor. Leave --device out, or use the network it came from."
        )
    if precision not in (None, "auto", config.precision):
        raise UsageError(
            f"the precision {precision}: {network.folder} is exported in {config.precision}. Leave"
            " --precision out, or export the network in that precision."
        )
    if variant and config.variant and variant != config.variant:
        raise UsageError(
            f"the variant {variant}: {network.folder} is of the variant {config.variant}. Leave"
            " --variant out."
        )


assert set(GRAPH_FILES) == set(get_args(EngineName))
assert EXPORTED in get_args(ExportedConfig.model_fields["format"].annotation)
