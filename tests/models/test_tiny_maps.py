"""Convolutions of few pixels as matrix products, against torch's convolution."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from resnetkit.models import tiny_maps
from resnetkit.models.tiny_maps import Conv3x3, DenseConvolution, PixelConvolution
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


def record(function: type[Function], monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Returns a list that grows by the shape of each input that the function is applied to."""
    taken: list[torch.Size] = []
    real = function.apply

    def apply(x: Tensor, *others: object) -> Tensor:
        taken.append(x.shape)
        output: Tensor = real(x, *others)
        return output

    monkeypatch.setattr(function, "apply", apply)
    return taken


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
    taken = record(DenseConvolution, monkeypatch)
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


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "size", [(1, 1), (2, 2), (3, 3), (4, 4), (1, 7), (3, 5), (2, 6), (7, 7), (8, 8)]
)
def test_products_of_pixels_are_torchs_convolution(size: tuple[int, int], stride: int) -> None:
    """In double precision, where nothing hides in rounding."""
    torch.manual_seed(0)
    x = torch.randn(3, 5, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 5, 3, 3, dtype=torch.float64, requires_grad=True)
    expected = functional.conv2d(x, weight, stride=stride, padding=1)
    output = PixelConvolution.apply(x, weight, stride)
    towards = torch.randn_like(expected)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(
        torch.autograd.grad(output, (x, weight), towards),
        torch.autograd.grad(expected, (x, weight), towards),
    )


def test_products_of_pixels_of_no_images() -> None:
    x = torch.empty(0, 5, 3, 3, requires_grad=True)
    weight = torch.randn(4, 5, 3, 3, requires_grad=True)
    output = PixelConvolution.apply(x, weight, 1)
    output.sum().backward()
    assert output.shape == (0, 4, 3, 3)
    assert weight.grad is not None
    assert not weight.grad.any()


@pytest.mark.parametrize("needed", [0, 1])
def test_products_of_pixels_give_the_gradients_that_are_needed(needed: int) -> None:
    tensors = [torch.randn(2, 5, 3, 3), torch.randn(4, 5, 3, 3)]
    tensors[needed].requires_grad_()
    (gradient,) = torch.autograd.grad(PixelConvolution.apply(*tensors, 1).sum(), tensors[needed])
    (expected,) = torch.autograd.grad(
        functional.conv2d(tensors[0], tensors[1], padding=1).sum(), tensors[needed]
    )
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("side", "stride"), [(2, 1), (3, 1), (4, 1), (8, 2)])
def test_wide_convolutions_under_autocast_are_as_close_as_torchs(
    side: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = record(PixelConvolution, monkeypatch)
    torch.manual_seed(side)
    ours = Conv3x3(256, 256, 3, stride=stride, padding=1, bias=False)
    theirs = nn.Conv2d(256, 256, 3, stride=stride, padding=1, bias=False)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 256, side, side).to(memory_format=torch.channels_last)
    exact = gradients(deepcopy(theirs).double(), x.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = [ours(x), theirs(x)]
    assert {output.dtype for output in outputs} == {torch.bfloat16}
    assert outputs[0].is_contiguous(memory_format=torch.channels_last)
    by_us, by_torch = gradients_under_autocast(ours, x), gradients_under_autocast(theirs, x)
    for mine, torchs, truth in zip(by_us, by_torch, exact, strict=True):
        assert mine.dtype == torchs.dtype
        assert distance(mine, truth) < 1.01 * distance(torchs, truth) < 0.01
    assert set(taken) == {x.shape}


def gradients_under_autocast(conv: nn.Conv2d, x: Tensor) -> list[Tensor]:
    """Returns what `gradients` does, with the convolution in bfloat16."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return gradients(conv, x)


def distance(values: Tensor, truth: Tensor) -> float:
    """Returns the norm of the difference, as a part of the norm of the truth."""
    return float((values.double() - truth).norm() / truth.norm())


def test_products_of_pixels_are_taken_only_where_they_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = record(PixelConvolution, monkeypatch)
    wide = Conv3x3(256, 256, 3, padding=1, bias=False)
    small, large = torch.randn(2, 256, 4, 4), torch.randn(2, 256, 5, 5)
    narrow, few_channels = Conv3x3(128, 256, 3, padding=1, bias=False), torch.randn(2, 128, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for conv, x in (
            (Conv3x3(256, 256, 3, padding=1, bias=False).eval(), small),
            (wide, large),
            (narrow, few_channels),
            (Conv3x3(256, 256, 3, padding=2, dilation=2, bias=False), small),
            (Conv3x3(256, 256, 3, padding=1, groups=2, bias=False), small),
            (Conv3x3(256, 256, 3, padding=1), small),  # whose bias is added before rounding
            (wide, small[0]),  # without a batch
        ):
            expected = functional.conv2d(
                x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups
            )
            assert torch.equal(conv(x), expected)
    wide(small)  # in float32, where torch is faster
    with torch.autocast("cpu", dtype=torch.float16):
        wide(small)
    assert taken == []
    wide.bfloat16()(small.bfloat16())
    assert taken == [small.shape]


def test_a_network_learns_the_same_from_small_images_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gradient is as close to the exact one as that of torch's convolutions in bfloat16."""
    taken = record(PixelConvolution, monkeypatch)
    torch.manual_seed(0)
    model = create_model("resnet18_3x3", generator=torch.Generator().manual_seed(0))
    images, labels = torch.randn(8, 3, 24, 24), torch.arange(8)

    def gradient(*, precise: bool = False) -> Tensor:
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not precise):
            logits = model(images)
        functional.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    exact = gradient(precise=True)
    assert taken == []
    ours = gradient()
    assert len(taken) == 4  # the last stage
    monkeypatch.setattr(tiny_maps, "FEW_PIXELS", 0)
    torchs = gradient()
    assert len(taken) == 4
    assert distance(ours, exact) < 1.2 * distance(torchs, exact)


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
