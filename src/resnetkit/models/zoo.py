"""The table of named architectures, and the functions that build them."""

import re
from dataclasses import KW_ONLY, MISSING, asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

import torch

from resnetkit.errors import ArchitectureError, did_you_mean
from resnetkit.models.blocks import (
    BasicBlock,
    BlockOptions,
    Bottleneck,
    Norm,
    PreactivationBasicBlock,
    PreactivationBottleneck,
    Shortcut,
    StrideIn,
    ZeroPadding,
)
from resnetkit.models.resnet import BlockType, Initialization, Pooling, ResNet, Stem

__all__ = [
    "ARCHITECTURES",
    "PAPER_RESULTS",
    "Architecture",
    "BlockName",
    "PaperResult",
    "cifar",
    "cifar_resnet",
    "create_model",
    "find_architecture",
    "known_as",
]


BlockName = Literal["basic", "bottleneck"]


@dataclass(frozen=True)
class Architecture:
    """A network: everything that determines its layers and its initial weights.

    The fields with a default are the options of `create_model`; they are explained in `ResNet` and
    `BlockOptions`.
    """

    block: BlockName
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem: Stem
    input_size: int
    preactivation: bool
    _: KW_ONLY
    shortcut: Shortcut = "B"
    padding: ZeroPadding = "append"
    stride_in: StrideIn = "3x3"
    groups: int = 1
    base_width: int = 64
    norm: Norm = "batch"
    norm_eps: float = 1e-5
    pooling: Pooling = "padded"
    initialization: Initialization = "he"
    zero_init_residual: bool = False
    replace_stride_with_dilation: tuple[bool, ...] = ()
    num_classes: int = 1000
    in_channels: int = 3
    recompute: bool = False

    def differences(self, other: "Architecture") -> dict[str, object]:
        """Returns the fields in which the layers of another network differ, with its values.

        Without differences, two networks have layers of the same shapes up to the head, and compute
        the same features from the same weights. The number of classes, the input size and the
        initial weights are not compared.
        """
        return {
            field.name: getattr(other, field.name)
            for field in fields(self)
            if field.name not in NOT_LAYERS
            and getattr(self, field.name) != getattr(other, field.name)
        }

    def with_options(self, /, **options: Any) -> "Architecture":
        """Returns a copy with some options replaced.

        Raises:
            ArchitectureError: for an unknown option or an impossible value.
        """
        names = [field.name for field in fields(self) if field.default is not MISSING]
        for name, value in options.items():
            if name not in names:
                raise ArchitectureError(
                    f"unknown option '{name}' of an architecture: expected one of"
                    f" {', '.join(names)}." + did_you_mean(name, names)
                )
            check_option(name, value)
        if "replace_stride_with_dilation" in options:
            options["replace_stride_with_dilation"] = tuple(options["replace_stride_with_dilation"])
        architecture = replace(self, **options)
        architecture.check_combination()
        return architecture

    def check_combination(self) -> None:
        """Raises ArchitectureError when options contradict each other."""
        dilations, strides = len(self.replace_stride_with_dilation), len(self.depths) - 1
        if dilations not in (0, strides):
            raise ArchitectureError(
                f"replace_stride_with_dilation has {dilations} entries: this network has {strides}"
                " stages that stride. Give one true or false for each."
            )
        if self.block == "basic":
            self.block_options().check_basic()
        if self.widths[0] * self.base_width < 64:
            raise ArchitectureError(
                f"base_width is {self.base_width}: the first stage, {self.widths[0]} wide, would"
                f" have no channels. Use at least {64 // self.widths[0]}."
            )
        if self.pooling == "ceil" and self.stem == "3x3":
            raise ArchitectureError(
                "pooling belongs to the 7x7 stem: this network has a 3x3 one, which does not pool."
            )
        if self.zero_init_residual and self.shortcut == "none":
            raise ArchitectureError(
                "zero_init_residual makes every block start with F(x) = 0: the output of a plain"
                " network, which has no shortcuts, would be zero. Leave it out."
            )

    def block_options(self) -> BlockOptions:
        """Returns the options that all blocks share."""
        return BlockOptions(
            **{field.name: getattr(self, field.name) for field in fields(BlockOptions)}
        )

    def build(self, generator: torch.Generator | None = None) -> ResNet:
        """Returns the network with initial weights."""
        values = asdict(self)
        for unused in ("input_size", "block", "preactivation"):
            values.pop(unused)
        block = BLOCKS[self.block, self.preactivation]
        # Constructors of layers draw from torch's global generator, which is restored afterwards.
        with torch.random.fork_rng(devices=[], enabled=generator is not None):
            return ResNet(block, **values, generator=generator)


NOT_LAYERS = ("num_classes", "input_size", "initialization", "zero_init_residual", "recompute")
"""Fields that `differences` does not compare."""

BLOCKS: dict[tuple[str, bool], BlockType] = {
    ("basic", False): BasicBlock,
    ("basic", True): PreactivationBasicBlock,
    ("bottleneck", False): Bottleneck,
    ("bottleneck", True): PreactivationBottleneck,
}


LARGEST_COUNT = 10**6


def check_option(name: str, value: object) -> None:
    """Raises ArchitectureError when a value is not possible for an option."""
    expected = get_type_hints(Architecture)[name]
    choices = get_args(expected)
    if name == "replace_stride_with_dilation":
        if not isinstance(value, tuple | list) or not all(isinstance(item, bool) for item in value):
            raise ArchitectureError(
                f"{name} is {value!r}: expected a list of true and false, one for each stage"
                " that strides."
            )
    elif choices:
        if value not in choices:
            raise ArchitectureError(
                f"{name} is {value!r}: expected one of {', '.join(map(str, choices))}."
                + did_you_mean(str(value), map(str, choices))
            )
    elif expected is bool and not isinstance(value, bool):
        raise ArchitectureError(f"{name} is {value!r}: expected true or false.")
    elif expected is int and not is_count(value):
        raise ArchitectureError(
            f"{name} is {value!r}: expected a whole number from 1 to {LARGEST_COUNT:,}."
        )
    elif expected is float and not is_fraction(value):
        raise ArchitectureError(f"{name} is {value!r}: expected a number above 0 and below 1.")


def is_count(value: object) -> bool:
    """Returns whether a value is a number of classes, channels or groups."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_COUNT


def is_fraction(value: object) -> bool:
    """Returns whether a value lies between 0 and 1, both excluded."""
    return isinstance(value, int | float) and 0 < value < 1


LARGEST_DEPTH = 10_000  # layers; the deepest published network has 1,202


def cifar(depth: int, *, block: BlockName = "basic", **options: Any) -> Architecture:
    """Returns the architecture of He et al. 2015, sec. 4.2: three stages of n blocks."""
    check_option("block", block)
    if isinstance(depth, bool) or not isinstance(depth, int):
        raise ArchitectureError(f"depth is {depth!r}: expected a whole number, such as 56.")
    if depth > LARGEST_DEPTH:
        raise ArchitectureError(
            f"a network of {depth:,} layers would take minutes to build and gigabytes to hold:"
            f" expected up to {LARGEST_DEPTH:,}."
        )
    layers = {"basic": 6, "bottleneck": 9}[block]
    if depth < layers + 2 or (depth - 2) % layers:
        lower = max((depth - 2) // layers, 1) * layers + 2
        raise ArchitectureError(
            f"impossible depth {depth}: a CIFAR network of {block} blocks has {layers}n+2 layers."
            f" The nearest are {lower} and {lower + layers}."
        )
    count = (depth - 2) // layers
    defaults = {
        "stem": "3x3",
        "input_size": 32,
        "preactivation": False,
        "shortcut": "A",
        "num_classes": 10,
    }
    return Architecture(block, (count,) * 3, (16, 32, 64), **{**defaults, **options})


def imagenet(depth: int, **options: Any) -> Architecture:
    """Returns the architecture of He et al. 2015, table 1 (200: He et al. 2016)."""
    block, depths = IMAGENET_STAGES[depth]
    defaults = {"stem": "7x7", "input_size": 224, "preactivation": False}
    return Architecture(block, depths, (64, 128, 256, 512), **{**defaults, **options})


def small_images(depth: int) -> Architecture:
    """Returns the ImageNet architecture with a stem that keeps the size of the image."""
    return imagenet(depth, stem="3x3", input_size=32, num_classes=10)


CIFAR_DEPTHS = (20, 32, 44, 56, 110, 1202)

IMAGENET_STAGES: dict[int, tuple[BlockName, tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
}
PAPER_DEPTHS = (18, 34, 50, 101, 152)

ARCHITECTURES: dict[str, Architecture] = {
    **{f"resnet{depth}": cifar(depth) for depth in CIFAR_DEPTHS},
    **{f"plain{depth}": cifar(depth, shortcut="none") for depth in CIFAR_DEPTHS},
    **{f"preresnet{depth}": cifar(depth, preactivation=True) for depth in (20, 56, 110)},
    # The deep pre-activated networks of the authors' code project: KaimingHe/resnet-1k-layers.
    "preresnet164": cifar(164, block="bottleneck", preactivation=True, shortcut="B"),
    "preresnet1001": cifar(1001, block="bottleneck", preactivation=True, shortcut="B"),
    # As many blocks as the basic networks of 20, 32, 56 and 110 layers, at about equal cost.
    **{
        f"{family}{depth}_bottleneck": cifar(depth, block="bottleneck", shortcut=shortcut)
        for family, shortcut in (("resnet", "B"), ("plain", "none"))
        for depth in (29, 47, 83, 164)
    },
    **{f"resnet{depth}": imagenet(depth) for depth in PAPER_DEPTHS},
    **{f"plain{depth}": imagenet(depth, shortcut="none") for depth in PAPER_DEPTHS},
    **{f"preresnet{depth}": imagenet(depth, preactivation=True) for depth in IMAGENET_STAGES},
    **{f"resnet{depth}_3x3": small_images(depth) for depth in (18, 34, 50)},
    "resnext50_32x4d": imagenet(50, groups=32, base_width=4),
    "wide_resnet50_2": imagenet(50, base_width=128),
}


@dataclass(frozen=True)
class PaperResult:
    """A result of He et al. 2015.

    Attributes:
        error: top-1 error in percent.
        protocol: data, views and table.
    """

    error: float
    protocol: str


PAPER_RESULTS: dict[str, PaperResult] = {
    **{
        name: PaperResult(error, "CIFAR-10 test, table 6")
        for name, error in {
            "resnet20": 8.75,
            "resnet32": 7.51,
            "resnet44": 7.17,
            "resnet56": 6.97,
            "resnet110": 6.43,
            "resnet1202": 7.93,
        }.items()
    },
    "plain18": PaperResult(27.94, "ImageNet validation, 10 crops, table 2"),
    "plain34": PaperResult(28.54, "ImageNet validation, 10 crops, table 2"),
    "resnet18": PaperResult(27.88, "ImageNet validation, 10 crops, option A, table 2"),
    "resnet34": PaperResult(24.52, "ImageNet validation, 10 crops, table 3"),
    "resnet50": PaperResult(22.85, "ImageNet validation, 10 crops, table 3"),
    "resnet101": PaperResult(21.75, "ImageNet validation, 10 crops, table 3"),
    "resnet152": PaperResult(21.43, "ImageNet validation, 10 crops, table 3"),
}


def find_architecture(name: str) -> Architecture:
    """Returns the named architecture.

    Raises:
        ArchitectureError: for an unknown name; the message suggests the nearest.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    match = re.fullmatch(r"(resnet|plain|preresnet)(\d+)", name)
    if match is None:
        raise ArchitectureError(
            f"unknown architecture '{name}': 'resnet models' lists the names."
            + did_you_mean(name, ARCHITECTURES)
        )
    family, depth = match[1], int(match[2])
    depths = sorted(
        int(n[len(family) :])
        for n in ARCHITECTURES
        if n[len(family) :].isdecimal() and n.startswith(family)
    )
    nearest = min(depths, key=lambda other: abs(other - depth))
    custom = f" cifar_resnet({depth}) builds one in Python." if depth % 6 == 2 else ""
    raise ArchitectureError(
        f"unknown architecture '{name}': {family} comes with {', '.join(map(str, depths))} layers;"
        f" a CIFAR network may have any 6n+2.{custom} Did you mean '{family}{nearest}'?"
    )


FREE = (
    "input_size",
    "padding",
    "stride_in",
    "norm_eps",
    "pooling",
    "initialization",
    "zero_init_residual",
    "num_classes",
    "in_channels",
    "recompute",
)
"""Fields in which networks of the same name may differ."""


def known_as(architecture: Architecture) -> str | None:
    """Returns the name of a network with these blocks in the table; None if it has no name."""
    free = {name: getattr(architecture, name) for name in FREE}
    for name, named in ARCHITECTURES.items():
        if replace(named, **free) == architecture:
            return name
    return None


def create_model(name: str, *, generator: torch.Generator | None = None, **options: Any) -> ResNet:
    """Returns a named network with initial weights.

    Args:
        name: a key of `ARCHITECTURES`, such as resnet56, plain56 or resnet50.
        generator: draws the initial weights; torch's global generator by default.
        **options: fields of `Architecture` to replace, such as `shortcut="C"` or `num_classes=100`.

    Raises:
        ArchitectureError: for an unknown name or option, or an impossible value.
    """
    return find_architecture(name).with_options(**options).build(generator)


def cifar_resnet(
    depth: int,
    *,
    block: BlockName = "basic",
    preactivation: bool = False,
    generator: torch.Generator | None = None,
    **options: Any,
) -> ResNet:
    """Returns a CIFAR network of any possible depth: 6n+2 layers, or 9n+2 with bottlenecks.

    Raises:
        ArchitectureError: for an impossible depth or option.
    """
    architecture = cifar(depth, block=block, preactivation=preactivation)
    return architecture.with_options(**options).build(generator)
