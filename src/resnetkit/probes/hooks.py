"""Looking into a network and leaving it as it was."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from resnetkit.errors import ArchitectureError
from resnetkit.models.blocks import Block, PreactivationBlock
from resnetkit.models.resnet import ResNet, RunningStatisticsKept

__all__ = [
    "blocks_of",
    "by_modules",
    "inputs_and_outputs",
    "put_in_place",
    "unchanged",
]

Passed = dict[str, tuple[Tensor, Tensor]]
"""Input and output of modules, by name."""


@contextmanager
def unchanged(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Puts a network into a mode for a while; running statistics and mode come back afterwards.

    Args:
        model: any network.
        training: whether batch normalization takes the statistics of the batch, as in training.
    """
    modes = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        with RunningStatisticsKept(model):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def inputs_and_outputs(model: nn.Module, names: Sequence[str]) -> Iterator[Passed]:
    """Collects what passes through some modules while the block runs.

    In training the network is made to call its modules, which fused kernels would not.
    """
    passed: Passed = {}

    def keep(name: str) -> None:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            passed[name] = (inputs[0], output)

        stack.callback(model.get_submodule(name).register_forward_hook(hook).remove)

    with ExitStack() as stack:
        stack.enter_context(by_modules(model))
        for name in names:
            keep(name)
        yield passed


@contextmanager
def by_modules(model: nn.Module) -> Iterator[None]:
    """Lets every module of a network be called, and drops no intermediate value."""
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
def put_in_place(model: nn.Module, replacements: dict[str, nn.Module]) -> Iterator[None]:
    """Replaces modules by name for a while; no fused kernel goes around them."""
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
            " pre-activated. Take the one without 'pre' in its name."
        )
    activated = {name: block for name, block in blocks.items() if isinstance(block, Block)}
    if with_shortcuts and any(block.downsample is None for block in activated.values()):
        raise ArchitectureError(
            "this probe compares F(x) with the shortcut, and a plain network has none. Take its"
            " residual counterpart."
        )
    return activated
