"""Hooks: read and replace what is inside a network, and restore it afterwards."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from resnetkit.errors import ArchitectureError
from resnetkit.models.blocks import Block, PreactivationBlock
from resnetkit.models.resnet import PreservedRunningStatistics, ResNet

__all__ = [
    "blocks_of",
    "by_modules",
    "inputs_and_outputs",
    "replaced_modules",
    "unchanged",
]

Activations = dict[str, tuple[Tensor, Tensor]]
"""Inputs and outputs of modules by name."""


@contextmanager
def unchanged(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Sets the mode of a network while the block runs; mode and running statistics are restored.

    Args:
        model: any network.
        training: whether batch normalization uses the statistics of the batch, as in training.
    """
    modes = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        with PreservedRunningStatistics(model):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def inputs_and_outputs(model: nn.Module, names: Sequence[str]) -> Iterator[Activations]:
    """Collects the inputs and outputs of some modules while the block runs.

    Fused kernels, which do not call modules, are switched off.
    """
    activations: Activations = {}

    def keep(name: str) -> None:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            activations[name] = (inputs[0], output)

        stack.callback(model.get_submodule(name).register_forward_hook(hook).remove)

    with ExitStack() as stack:
        stack.enter_context(by_modules(model))
        for name in names:
            keep(name)
        yield activations


@contextmanager
def by_modules(model: nn.Module) -> Iterator[None]:
    """Switches off fused kernels and recomputation while the block runs."""
    if not isinstance(model, ResNet):
        yield
        return
    before = model.fused, model.recompute
    model.fused = model.recompute = False
    try:
        yield
    finally:
        model.fused, model.recompute = before


@contextmanager
def replaced_modules(model: nn.Module, replacements: dict[str, nn.Module]) -> Iterator[None]:
    """Replaces modules by name while the block runs, without fused kernels."""
    originals = {name: model.get_submodule(name) for name in replacements}
    try:
        for name, module in replacements.items():
            model.set_submodule(name, module)
        with by_modules(model):
            yield
    finally:
        for name, module in originals.items():
            model.set_submodule(name, module)


def blocks_of(model: nn.Module, *, with_shortcuts: bool = False) -> dict[str, Block]:
    """Returns the blocks of a network by name, in order.

    Args:
        model: a `ResNet` whose blocks end with addition and relu.
        with_shortcuts: whether the probe needs the shortcuts of all blocks.

    Raises:
        ArchitectureError: when the network has no such blocks.
    """
    if not isinstance(model, ResNet):
        raise ArchitectureError(
            f"this probe reads the blocks of a resnetkit network, not of {type(model).__name__}:"
            " load its weights with load_network, or build one with create_model."
        )
    blocks = dict(model.blocks())
    if any(isinstance(block, PreactivationBlock) for block in blocks.values()):
        raise ArchitectureError(
            "this probe reads blocks that end with addition and relu; this network is"
            " pre-activated. Use the one without 'pre' in its name."
        )
    activated = {name: block for name, block in blocks.items() if isinstance(block, Block)}
    if with_shortcuts and any(block.downsample is None for block in activated.values()):
        raise ArchitectureError(
            "this probe compares F(x) with the shortcut, and a plain network has none. Use its"
            " residual counterpart."
        )
    return activated
