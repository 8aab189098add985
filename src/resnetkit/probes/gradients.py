"""Gradient flow: the norm of the loss gradient at every layer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from resnetkit.probes.hooks import inputs_and_outputs, unchanged

__all__ = ["LayerGradient", "gradient_flow", "slope_per_layer"]


@dataclass(frozen=True)
class LayerGradient:
    """The loss gradient at a convolution, or at the head.

    Attributes:
        name: of the module.
        weight: norm of the loss gradient with respect to its weight.
        input: norm of the loss gradient with respect to its input.
    """

    name: str
    weight: float
    input: float


def gradient_flow(model: nn.Module, images: Tensor, labels: Tensor) -> list[LayerGradient]:
    """Measures the gradient of the mean cross entropy of a batch at every layer with weights.

    Batch normalization uses the statistics of the batch, as in training. It costs a training step
    without the optimizer, and the memory of the inputs of all layers.

    Args:
        model: images -> logits.
        images: float (B, C, H, W), normalized.
        labels: int64 (B,).

    Returns:
        An entry for each convolution and linear layer from the input to the output, without the
        projections of shortcuts.
    """
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and ".downsample." not in name
    ]
    weights = [model.get_submodule(name).get_parameter("weight") for name in names]
    with unchanged(model, training=True), torch.enable_grad(), trainable(weights):
        with inputs_and_outputs(model, names) as activations:
            loss = functional.cross_entropy(model(images.detach().requires_grad_()), labels)
        inputs = [activations[name][0] for name in names]
        gradients = torch.autograd.grad(loss, [*weights, *inputs])
    norms = [gradient.double().norm().item() for gradient in gradients]
    return [
        LayerGradient(name, weight, input_norm)
        for name, weight, input_norm in zip(
            names, norms[: len(names)], norms[len(names) :], strict=True
        )
    ]


@contextmanager
def trainable(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Lets gradients reach frozen weights while the block runs."""
    frozen = [weight for weight in weights if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)


def slope_per_layer(norms: Sequence[float]) -> float:
    """Returns the slope of log10(norm) over the layers, from the input, by least squares.

    A positive slope means that gradients vanish toward the input, a negative one that they explode.
    It is infinite if a norm is zero (positive) or not finite (negative).
    """
    values = np.asarray(norms, dtype=np.float64)
    if not np.isfinite(values).all():
        return -np.inf
    if (values == 0).any():
        return np.inf
    return float(np.polyfit(np.arange(len(values)), np.log10(values), 1)[0])
