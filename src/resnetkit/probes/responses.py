"""Layer responses: the standard deviation of the outputs of layers (He et al. 2015, fig. 7)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resnetkit.errors import ArchitectureError
from resnetkit.probes.hooks import blocks_of, inputs_and_outputs, unchanged

__all__ = ["Response", "layer_responses"]


@dataclass(frozen=True)
class Response:
    """The response of a layer.

    Attributes:
        name: of the normalization whose output is measured, or of the convolution without one.
        deviation: standard deviation over images, channels and pixels.
    """

    name: str
    deviation: float


def layer_responses(model: nn.Module, images: Tensor) -> list[Response]:
    """Measures the output of every 3x3 layer, after normalization and before relu and addition.

    Source: He et al. 2015, sec. 4.2, "Analysis of layer responses": residual functions should lie
    nearer to zero than non-residual ones, and nearer the deeper the network. It costs a forward
    pass, and the memory of these outputs.

    Args:
        model: a `ResNet` whose blocks end with addition and relu, with running statistics.
        images: float (B, C, H, W), normalized.

    Returns:
        An entry for each 3x3 layer, including that of the stem, in order.

    Raises:
        ArchitectureError: when the network is pre-activated, has no 3x3 layer or is not a `ResNet`.
    """
    names = response_names(model)
    hooked = inputs_and_outputs(model, names)
    with unchanged(model, training=False), torch.no_grad(), hooked as activations:
        model(images)
    return [
        Response(name, activations[name][1].double().std(correction=0).item()) for name in names
    ]


def response_names(model: nn.Module) -> list[str]:
    """Returns the modules whose outputs are the responses of 3x3 convolutions."""
    blocks = blocks_of(model)
    layers = [(model.get_submodule("conv1"), model.get_submodule("bn1"))]
    layers += [layer for block in blocks.values() for layer in block.layers()]
    module_names = {module: name for name, module in model.named_modules()}
    names = [
        module_names[norm if isinstance(norm, nn.BatchNorm2d) else conv]
        for conv, norm in layers
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3)
    ]
    if not names:
        raise ArchitectureError(
            "this network has no 3x3 convolution, whose response could be measured."
        )
    return names
