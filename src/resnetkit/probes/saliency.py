"""Saliency: the pixels that a prediction depends on, by two methods of captum (an extra)."""

from typing import Any

import torch
from torch import Tensor

from resnetkit.errors import UsageError
from resnetkit.models.resnet import ResNet
from resnetkit.probes.hooks import by_modules, unchanged

__all__ = ["grad_cam", "integrated_gradients"]

STEPS = 32  # of the integral


def grad_cam(model: ResNet, image: Tensor, label: int) -> Tensor:
    """Weights the last feature map by the gradient of a logit: Selvaraju et al. 2017.

    It costs a forward and a backward pass. The map is coarse: a cell of the last feature map covers
    `stride` pixels.

    Args:
        model: in any mode; it is evaluated in evaluation mode.
        image: float (C, H, W), normalized.
        label: class whose logit is explained.

    Returns:
        float (H, W) from 0 to 1: the influence of each pixel.

    Raises:
        UsageError: when captum is not installed.
    """
    methods = captum()
    with unchanged(model, training=False), by_modules(model), torch.enable_grad():
        cam = methods.LayerGradCam(model, model.relu_out)  # whose output is the last feature map
        coarse = cam.attribute(image[None], target=label, relu_attributions=True)
    size = (image.shape[1], image.shape[2])
    fine = methods.LayerAttribution.interpolate(coarse, size, interpolate_mode="bilinear")
    return scaled(fine.detach()[0, 0])


def integrated_gradients(model: ResNet, image: Tensor, label: int) -> Tensor:
    """Integrates gradients from the mean image to this one: Sundararajan et al. 2017.

    It costs 32 forward and backward passes. Arguments, result and errors are those of `grad_cam`.
    """
    methods = captum()
    with unchanged(model, training=False), by_modules(model), torch.enable_grad():
        integral = methods.IntegratedGradients(model)
        attributions = integral.attribute(
            image[None], target=label, n_steps=STEPS, internal_batch_size=8
        )
    return scaled(attributions.detach()[0].abs().sum(0).float())


def captum() -> Any:
    """Imports the methods of captum.

    Raises:
        UsageError: when it is not installed.
    """
    try:
        import captum.attr  # type: ignore[import-untyped]
    except ImportError:
        raise UsageError(
            "saliency needs captum, which is not installed: pip install 'resnetkit[explain]'."
        ) from None
    return captum.attr


def scaled(values: Tensor) -> Tensor:
    """Returns nonnegative values divided by the largest; zeros stay zeros."""
    return values / values.max().clamp_min(torch.finfo(values.dtype).tiny)
