"""Convolutions of 2x2 pixels as matrix products, against torch's convolution."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from resnetkit.models.tiny_maps import Conv3x3, DenseConvolution
from resnetkit.models.zoo import create_model


def pair(inputs: int, outputs: int, *, bias: bool = False) -> tuple[Conv3x3, nn.Conv2d]:
    """Returns a convolution and torch's with the same weights, in channels-last memory."""
    torch.manual_seed(inputs)
    ours = Conv3x3(inputs, outputs, 3, padding=1, bias=bias)
    theirs = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    return ours.to(memory_format=torch.channels_last), theirs.to(memory_format=torch.channels_last)


def gradients(conv: nn.Conv2d, x: Tensor) -> list[Tensor]:
    """Returns the output, and the gradients of a weighted sum of it."""
    x = x.detach().requires_grad_()
    output = conv(x)
    weights = torch.linspace(-1, 1, output.numel()).view_as(output)
    (output * weights).sum().backward()
    assert x.grad is not None
    return [output.detach(), x.grad, *(p.grad for p in conv.parameters() if p.grad is not None)]


@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("inputs", "outputs", "bias"), [(64, 64, False), (16, 24, True)])
def test_output_and_gradients_are_torchs(
    inputs: int, outputs: int, bias: bool, memory: torch.memory_format
) -> None:
    ours, theirs = pair(inputs, outputs, bias=bias)
    x = torch.randn(5, inputs, 2, 2).to(memory_format=memory)
    assert ours.is_dense(x)
    torch.testing.assert_close(gradients(ours, x), gradients(theirs, x), rtol=1e-4, atol=1e-4)


def test_the_matrix_product_is_taken_only_where_it_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.Size] = []
    real = DenseConvolution.apply

    def apply(x: Tensor, weight: Tensor) -> Tensor:
        taken.append(x.shape)
        output: Tensor = real(x, weight)
        return output

    monkeypatch.setattr(DenseConvolution, "apply", apply)
    tiny, small = torch.randn(3, 16, 2, 2), torch.randn(3, 16, 4, 4)
    for conv, x in (
        (Conv3x3(16, 16, 3, padding=1).eval(), tiny),
        (Conv3x3(16, 16, 3, padding=1), small),
        (Conv3x3(16, 16, 3, padding=1, stride=2), tiny),
        (Conv3x3(16, 16, 3, padding=2, dilation=2), tiny),
        (Conv3x3(16, 16, 3, padding=1, groups=2), tiny),
        (Conv3x3(16, 16, 3, padding=1).double(), tiny.double()),
    ):
        expected = functional.conv2d(
            x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups
        )
        assert torch.equal(conv(x), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Conv3x3(16, 16, 3, padding=1)(tiny).dtype == torch.bfloat16
    assert taken == []
    Conv3x3(16, 16, 3, padding=1)(tiny)
    assert taken == [tiny.shape]


def test_a_frozen_kernel_hands_on_the_gradient_of_its_input() -> None:
    ours, theirs = pair(16, 16)
    for conv in (ours, theirs):
        conv.requires_grad_(False)
    x = torch.randn(4, 16, 2, 2)
    torch.testing.assert_close(gradients(ours, x), gradients(theirs, x), rtol=1e-4, atol=1e-4)
    assert ours.weight.grad is None


def test_a_network_learns_the_same_on_digits() -> None:
    """Against itself with the modules of torch, in double precision."""
    model = create_model("resnet20", in_channels=1, generator=torch.Generator().manual_seed(0))
    images, labels = torch.randn(8, 1, 8, 8), torch.arange(8)
    functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
    exact = create_model("resnet20", in_channels=1, generator=torch.Generator().manual_seed(0))
    exact = exact.double()
    functional.cross_entropy(exact(images.double()), labels).backward()  # type: ignore[no-untyped-call]
    for (name, ours), theirs in zip(model.named_parameters(), exact.parameters(), strict=True):
        assert ours.grad is not None, name
        assert theirs.grad is not None, name
        error = (ours.grad - theirs.grad).norm() / theirs.grad.norm()
        assert error < 1e-3, name
