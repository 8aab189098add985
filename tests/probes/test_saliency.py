"""Saliency against what is known of the methods, and on a network that looks at one corner."""

import copy
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from resnetkit.errors import UsageError
from resnetkit.models.resnet import ResNet
from resnetkit.probes.saliency import grad_cam, integrated_gradients

Networks = Callable[..., ResNet]
METHODS = {"grad_cam": grad_cam, "integrated_gradients": integrated_gradients}


@pytest.mark.parametrize("method", METHODS)
def test_maps_have_the_size_of_the_image_and_reach_one(
    method: str, network: Networks, images: Tensor
) -> None:
    model = network(8)
    found = METHODS[method](model, images[0], 3)
    assert found.shape == (16, 16)
    assert found.min() >= 0
    assert found.max() == pytest.approx(1) or (found == 0).all()


def test_gradients_of_a_linear_answer_are_the_pixels_themselves(network: Networks) -> None:
    """Where a network is linear, the integral is the gradient times the image."""
    model = network(8)

    class FirstRow(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            total = x[:, :, 0].sum((1, 2))
            return torch.stack([total, -total], 1)

    model.stages = lambda images: iter([("all", images)])  # type: ignore[method-assign]
    model.avgpool, model.fc = torch.nn.Identity(), FirstRow()  # type: ignore[assignment]
    model.forward = lambda images: model.fc(images)  # type: ignore[method-assign,assignment]
    image = torch.rand(3, 16, 16, dtype=torch.float64) + 0.1
    found = integrated_gradients(model, image, 0)
    assert (found[1:] == 0).all()
    expected = image[:, 0].sum(0)
    torch.testing.assert_close(found[0], (expected / expected.max()).float())


def test_grad_cam_is_the_weighted_last_map(network: Networks, images: Tensor) -> None:
    """With average pooling and one linear layer, the weights are those of the head."""
    model = network(8).eval()
    with torch.no_grad():
        last = model.features(images[:1])["stage4"][0]
    expected = torch.relu(torch.einsum("chw,c->hw", last, model.fc.weight[2]))
    fine = functional.interpolate(expected[None, None], (16, 16), mode="bilinear")[0, 0]
    torch.testing.assert_close(grad_cam(model, images[0], 2), (fine / fine.max()).detach())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_as_if_nobody_had_looked(
    method: str, training: bool, network: Networks, images: Tensor
) -> None:
    model = network(8).train(training)
    model.fused = True
    twin = copy.deepcopy(model)
    METHODS[method](model, images[0], 1)
    assert model.fused
    assert model.training == training
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, twin.state_dict()[name])


def test_without_captum_it_is_said_how_to_get_it(
    network: Networks, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(UsageError, match=r"pip install 'resnetkit\[explain\]'"):
        grad_cam(network(8), images[0], 0)
