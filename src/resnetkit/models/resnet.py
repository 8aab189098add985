"""The residual network: stem, stages of blocks, head; logits or named feature maps."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from resnetkit.errors import ArchitectureError, did_you_mean
from resnetkit.models.blocks import (
    BasicBlock,
    Block,
    BlockOptions,
    Bottleneck,
    PreactivationBasicBlock,
    PreactivationBlock,
    PreactivationBottleneck,
    normalization,
)
from resnetkit.models.fused import fused_block, normalize_add_relu

__all__ = [
    "BlockType",
    "FeatureMap",
    "Initialization",
    "Pooling",
    "PreservedRunningStatistics",
    "ResNet",
    "Stem",
    "initialize",
]

BlockType = type[BasicBlock | Bottleneck | PreactivationBasicBlock | PreactivationBottleneck]

Stem = Literal["3x3", "7x7"]
"""3x3: a convolution at full size (CIFAR); 7x7: stride 2, then max pooling of 2 (ImageNet)."""

Pooling = Literal["padded", "ceil"]
"""Max pooling of the 7x7 stem: padded by one cell on each side (torchvision), or not padded, with
the output size rounded up (Caffe)."""

Initialization = Literal["he", "xavier", "normal"]
"""he: He et al. 2015 (ICCV), fan-out; xavier: Glorot and Bengio 2010; normal: standard deviation
0.01."""


@dataclass(frozen=True)
class FeatureMap:
    """Channels and stride of a feature map.

    Attributes:
        channels: of the map.
        stride: distance of two cells of the map, in pixels of the input.
    """

    channels: int
    stride: int


class ResNet(nn.Module):
    """A residual network, or with `shortcut="none"` its plain counterpart.

    Sources: He et al. 2015, table 1 and sec. 4.2; He et al. 2016 for pre-activated blocks, whose
    last stage is followed by one more normalization and relu.

    Args:
        block: one of the block classes of `blocks.py`.
        depths: blocks in each stage.
        widths: channels of each stage, before the block's expansion.
        stem: see `Stem`.
        num_classes: logits of the head.
        in_channels: channels of the images.
        norm_eps: added to the variance by batch normalization.
        pooling: see `Pooling`.
        initialization: see `Initialization`.
        zero_init_residual: start with F(x) = 0 in every block (Goyal et al. 2017, sec. 5.1).
        replace_stride_with_dilation: for each stage after the first, whether it dilates instead of
            striding; empty for no dilation.
        recompute: keep only the inputs of blocks for the backward pass and compute the rest again:
            less memory, one more forward pass, identical results.
        generator: draws the initial weights; torch's global generator by default.
        **block_options: fields of `BlockOptions`, such as shortcut and norm.

    Attributes:
        fused: whether training uses the fused kernels of `fused.py`: the results are equal up to
            rounding, but the modules are not called, and so are no hooks on them.
        frozen: the modules that `freeze` has frozen.

    Shapes: images (B, in_channels, H, W) -> logits (B, num_classes).
    """

    def __init__(
        self,
        block: BlockType,
        depths: Sequence[int],
        widths: Sequence[int],
        *,
        stem: Stem = "7x7",
        num_classes: int = 1000,
        in_channels: int = 3,
        norm_eps: float = 1e-5,
        pooling: Pooling = "padded",
        initialization: Initialization = "he",
        zero_init_residual: bool = False,
        replace_stride_with_dilation: Sequence[bool] = (),
        recompute: bool = False,
        generator: torch.Generator | None = None,
        **block_options: Any,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        self.fused = False
        self.frozen: tuple[nn.Module, ...] = ()
        self.feature_maps: dict[str, FeatureMap] = {}
        options = BlockOptions(**block_options)
        preactivated = issubclass(block, PreactivationBlock)

        self.conv1 = stem_convolution(stem, in_channels, widths[0], options)
        self.bn1 = nn.Identity() if preactivated else normalization(widths[0], options.norm)
        self.relu = nn.Identity() if preactivated else nn.ReLU()
        self.maxpool = nn.Identity() if stem == "3x3" else max_pooling(pooling)
        self.feature_maps["stem"] = FeatureMap(widths[0], 1 if stem == "3x3" else 4)

        dilates = replace_stride_with_dilation or (False,) * (len(depths) - 1)
        self.add_stages(block, depths, widths, options, dilates=(False, *dilates))

        channels = widths[-1] * block.expansion
        self.bn_out = normalization(channels, options.norm) if preactivated else nn.Identity()
        self.relu_out = nn.ReLU() if preactivated else nn.Identity()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = norm_eps
        initialize(self, initialization, zero_init_residual=zero_init_residual, generator=generator)

    def add_stages(
        self,
        block: BlockType,
        depths: Sequence[int],
        widths: Sequence[int],
        options: BlockOptions,
        *,
        dilates: Sequence[bool],
    ) -> None:
        """Adds the stages `layer1`, `layer2`, ..., and their feature maps.

        Every stage after the first one halves the size of the image, or doubles the dilation of its
        convolutions instead; the first block of such a stage still has the dilation before it.
        """
        stem, dilation = self.feature_maps["stem"], 1
        channels, stride = stem.channels, stem.stride
        for number, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
            block_stride = 1 if number == 1 or dilates[number - 1] else 2
            blocks = [block(channels, width, block_stride, options, dilation=dilation)]
            if dilates[number - 1]:
                dilation *= 2
            channels, stride = width * block.expansion, stride * block_stride
            blocks += [
                block(channels, width, options=options, dilation=dilation) for _ in range(depth - 1)
            ]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            self.feature_maps[f"stage{number + 1}"] = FeatureMap(channels, stride)

    def forward(self, images: Tensor) -> Tensor:
        for _, feature in self.stages(images):  # noqa: B007  # only the last one is needed
            pass
        return self.fc(torch.flatten(self.avgpool(feature), 1))

    def features(self, images: Tensor, names: str | Iterable[str] = ()) -> dict[str, Tensor]:
        """Returns the named feature maps; all of them without names.

        Names, channels and strides are those of `feature_maps`: stem, then stage2 (conv2_x of the
        paper), stage3, and so on.

        Raises:
            ArchitectureError: for a name that this network does not have.
        """
        requested = [names] if isinstance(names, str) else list(names) or list(self.feature_maps)
        for name in requested:
            if name not in self.feature_maps:
                raise ArchitectureError(
                    f"unknown feature map '{name}': expected {', '.join(self.feature_maps)}."
                    + did_you_mean(name, self.feature_maps)
                )
        maps: dict[str, Tensor] = {}
        for name, feature in self.stages(images):
            if name in requested:
                maps[name] = feature
            if len(maps) == len(set(requested)):
                break
        return maps

    def stages(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yields the name and the feature map of the stem and of each stage, in order."""
        names = list(self.feature_maps)
        recompute = self.recompute and torch.is_grad_enabled()
        fused = self.fused and self.training
        x = self.conv1(images)
        x = self.maxpool(normalize_add_relu(self.bn1, x) if fused else self.relu(self.bn1(x)))
        yield names[0], x
        for number, name in enumerate(names[1:], start=1):
            for block in self.get_submodule(f"layer{number}").children():
                x = run_block(block, x, recompute=recompute, fused=fused)
            yield name, self.relu_out(self.bn_out(x)) if name == names[-1] else x

    def freeze(self, up_to: str | None = None, *, norms: bool = False) -> None:
        """Freezes layers.

        Their weights get no gradient. Their batch normalization keeps its statistics and stays in
        evaluation mode, so that the features of an image do not change during training.

        Args:
            up_to: name of the feature map up to which layers are frozen, such as stage3; None
                freezes none.
            norms: also freeze the batch normalization of the whole network.

        Raises:
            ArchitectureError: for a name that this network does not have.
        """
        if up_to and up_to not in self.feature_maps:
            raise ArchitectureError(
                f"unknown feature map '{up_to}': expected {', '.join(self.feature_maps)}."
                + did_you_mean(up_to, self.feature_maps)
            )
        stages = list(self.feature_maps).index(up_to) if up_to else -1
        modules: list[nn.Module] = [self.conv1, self.bn1] if up_to else []
        modules += [self.get_submodule(f"layer{number}") for number in range(1, stages + 1)]
        if up_to == list(self.feature_maps)[-1]:
            modules.append(self.bn_out)
        if norms:
            modules += [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        for module in modules:
            module.requires_grad_(False)
        self.frozen = tuple(modules)
        self.train(self.training)

    def train(self, mode: bool = True) -> "ResNet":
        """Sets the mode of all modules except the frozen ones, which stay in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def blocks(self) -> Iterator[tuple[str, nn.Module]]:
        """Yields the name and the module of every block, from input to output."""
        for name, module in self.named_modules():
            if isinstance(module, Block | PreactivationBlock):
                yield name, module


def stem_convolution(
    stem: Stem, in_channels: int, channels: int, options: BlockOptions
) -> nn.Conv2d:
    """Returns the first convolution of a network."""
    kernel, stride = (3, 1) if stem == "3x3" else (7, 2)
    bias = options.norm == "none"
    return nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2, bias=bias)


def max_pooling(pooling: Pooling) -> nn.MaxPool2d:
    """Returns the max pooling of the 7x7 stem: 3x3, with stride 2."""
    if pooling == "ceil":
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)
    return nn.MaxPool2d(3, stride=2, padding=1)


def run_block(block: Any, x: Tensor, *, recompute: bool, fused: bool) -> Tensor:
    """Returns `block(x)`.

    With `recompute`, it is computed again in the backward pass; with `fused`, by `fused_block`.
    """
    function = partial(fused_block, block) if fused else block
    if not recompute:
        return function(x)
    output: Tensor = checkpoint(
        function,
        x,
        use_reentrant=False,
        preserve_rng_state=False,  # nothing in a block is random
        context_fn=lambda: (nullcontext(), PreservedRunningStatistics(block)),
    )
    return output


class PreservedRunningStatistics:
    """Lets the second forward pass of a batch update copies of the running statistics.

    Checkpointing compares the tensors that both passes save, so that updates cannot be turned off.
    The context is entered again for every backward pass, which a generator would not allow.
    """

    def __init__(self, block: nn.Module) -> None:
        self.norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d) and m.training]

    def __enter__(self) -> None:
        self.buffers = [dict(norm.named_buffers(recurse=False)) for norm in self.norms]
        for norm, buffers in zip(self.norms, self.buffers, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer.clone())

    def __exit__(self, *_: object) -> None:
        for norm, buffers in zip(self.norms, self.buffers, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)


def initialize(
    model: nn.Module,
    initialization: Initialization,
    *,
    zero_init_residual: bool = False,
    generator: torch.Generator | None = None,
) -> None:
    """Draws the weights of all convolutions and of the head; biases start at zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            draw(module.weight, initialization, generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if zero_init_residual:
        for module in model.modules():
            if isinstance(module, Block | PreactivationBlock):
                nn.init.zeros_(module.last_layer().get_parameter("weight"))


def draw(weight: Tensor, initialization: Initialization, generator: torch.Generator | None) -> None:
    """Fills the weight of a convolution (4 dimensions) or of the head (2 dimensions) in place."""
    if weight.is_meta:  # a shape without values
        return
    if initialization == "normal":
        nn.init.normal_(weight, std=0.01, generator=generator)
    elif initialization == "xavier":
        nn.init.xavier_normal_(weight, generator=generator)
    elif weight.dim() == 4:
        nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu", generator=generator)
    else:  # no relu follows the head: the default bound of torch for linear layers
        bound = weight.shape[1] ** -0.5
        nn.init.uniform_(weight, -bound, bound, generator=generator)
