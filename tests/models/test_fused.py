"""Fused normalization, addition and relu against the modules they stand in for."""

import copy
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from resnetkit.models import fused
from resnetkit.models.fused import build_error, normalize_add_relu
from resnetkit.models.resnet import ResNet
from resnetkit.models.zoo import cifar_resnet


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    """Asked when the first test runs: compiling takes seconds, also where no test runs."""
    if reason := build_error():
        pytest.skip(f"no fused kernels: {reason}")


@pytest.fixture(params=["functions", pytest.param("compiled", marks=pytest.mark.slow)])
def _either(request: pytest.FixtureRequest) -> None:
    """Runs the kernels as plain functions, and compiled in slow tests."""
    if request.param == "functions":
        request.getfixturevalue("_uncompiled")


SHAPE = (4, 16, 6, 6)  # 144 rows, which are not a multiple of 64


def images(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    values = torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return values.contiguous(memory_format=torch.channels_last)


def norm_with_history(dtype: torch.dtype = torch.float64) -> nn.BatchNorm2d:
    """Returns batch normalization with weights and statistics of its own."""
    norm = nn.BatchNorm2d(SHAPE[1]).to(dtype)
    generator = torch.Generator().manual_seed(3)
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
        assert tensor is not None
        tensor.copy_(torch.randn(SHAPE[1], generator=generator))
    return norm


def by_modules(norm: nn.BatchNorm2d, x: Tensor, shortcut: Tensor | None) -> Tensor:
    normalized = norm(x)
    return torch.relu(normalized if shortcut is None else normalized + shortcut)


@pytest.mark.parametrize("adds", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("offset", [0.0, 1e4], ids=["centered", "far from zero"])
def test_everything_equals_the_modules(adds: bool, offset: float) -> None:
    results = []
    for compute in (by_modules, normalize_add_relu):
        norm = norm_with_history()
        x = (images(*SHAPE) * 3 + offset).requires_grad_()
        shortcut = images(*SHAPE, seed=1).requires_grad_() if adds else None
        output = compute(norm, x, shortcut)
        output.backward(images(*SHAPE, seed=2))
        gradients = [x.grad, norm.weight.grad, norm.bias.grad]
        gradients += [shortcut.grad] if shortcut is not None else []
        results.append([output.detach(), *gradients, *norm.buffers()])
    for ours, theirs in zip(results[1], results[0], strict=True):
        assert ours is not None
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
        assert ours.dim() < 4 or ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("adds", [False, True])
def test_the_gradient_is_that_of_finite_differences(adds: bool) -> None:
    norm = norm_with_history()
    assert norm.running_mean is not None
    shift = norm.running_mean.clone()

    def function(x: Tensor, shortcut: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        added = shortcut if adds else None
        return fused.NormalizeAddRelu.apply(x, added, weight, bias, shift, 1e-5)[0]  # type: ignore[no-any-return]

    arguments = (images(2, 16, 2, 2), images(2, 16, 2, 2, seed=1), norm.weight, norm.bias)
    leaves = [argument.detach().clone().requires_grad_() for argument in arguments]
    if adds:
        assert torch.autograd.gradcheck(function, leaves)
    else:
        x, _, weight, bias = leaves
        assert torch.autograd.gradcheck(lambda x, w, b: function(x, x, w, b), (x, weight, bias))


def rows_of(rows: int, channels: int, dtype: torch.dtype, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, channels, generator=generator) * 3 + 1).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1000, 16), (777, 24), (5, 3), (130, 64)], ids=str)
@pytest.mark.parametrize("adds", [False, True], ids=["alone", "with shortcut"])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_compiled_functions_equal_those_they_stand_for(
    dtype: torch.dtype, shape: tuple[int, int], adds: bool, threads: int
) -> None:
    rows, gradient = (rows_of(*shape, dtype, seed=seed) for seed in (0, 1))
    added = rows_of(*shape, dtype, seed=2) if adds else None
    weight, bias, shift = rows_of(3, shape[1], torch.float32, seed=3)
    affine, results = fused.Affine(weight, bias), []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for functions in (fused.kernels(), fused):
        output, mean, variance = functions.forward(rows, added, weight, bias, shift, 1e-5)
        if results:  # a last bit of the output decides what passes relu
            output = results[0][0]
        statistics = fused.Statistics(mean, variance)
        gradients = functions.backward(
            gradient, rows, output if adds else None, affine, statistics, 1e-5
        )
        results.append([output, mean, variance, *gradients])
        results[-1][0] = functions.forward(rows, added, weight, bias, shift, 1e-5)[0]
    torch.set_num_threads(before)
    for ours, reference in zip(*results, strict=True):
        if reference is None:
            assert ours is None
            continue
        assert ours.dtype == reference.dtype
        scale = reference.float().abs().max().item()
        tolerance = 1e-5 if ours.dtype == torch.float32 else 2**-8
        torch.testing.assert_close(ours, reference, rtol=tolerance, atol=tolerance * scale)


def test_what_is_not_finite_stays_so_and_negative_values_end_at_zero() -> None:
    ones, zeros = torch.ones(3), torch.zeros(3)
    rows = torch.tensor([[float("nan"), 2.0, -1.0], [0.0, -2.0, 1.0]]).bfloat16()
    output, _, _ = fused.kernels().forward(rows, None, ones, zeros, zeros, 0.0)
    assert output[:, 0].isnan().all()
    assert output[:, 1:].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_memory_of_another_format_is_as_good() -> None:
    norm, twin = norm_with_history(), norm_with_history()
    x = images(*SHAPE)
    torch.testing.assert_close(
        normalize_add_relu(norm, x.contiguous()), normalize_add_relu(twin, x)
    )


def twins(name: str, dtype: torch.dtype, **options: Any) -> tuple[ResNet, ResNet]:
    """Returns a network of 8 or 11 layers and its copy that trains fused, in channels-last."""
    depth = 11 if name == "bottleneck" else 8  # one block a stage
    generator = torch.Generator().manual_seed(0)
    model = cifar_resnet(depth, block=name, generator=generator, **options).to(dtype)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    twin = copy.deepcopy(model)
    twin.fused = True
    return model, twin


def gradients_of(model: ResNet, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Returns the logits of a batch and the gradients of all parameters."""
    logits = model(x)
    functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    return logits.detach(), [p.grad for p in model.parameters() if p.grad is not None]


NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "padding": ("basic", {}),
    "projections": ("basic", {"shortcut": "C"}),
    "plain": ("basic", {"shortcut": "none"}),
    "bottlenecks": ("bottleneck", {}),
    "recomputed": ("basic", {"recompute": True}),
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.slow if "bottle" in case else ()) for case in NETWORKS],
)
@pytest.mark.usefixtures("_either")
def test_a_network_learns_the_same(case: str) -> None:
    block, options = NETWORKS[case]
    model, twin = twins(block, torch.float64, **options)
    logits, gradients = gradients_of(model, images(4, 3, 16, 16))
    twin_logits, twin_gradients = gradients_of(twin, images(4, 3, 16, 16))
    torch.testing.assert_close(twin_logits, logits)
    torch.testing.assert_close(twin_gradients, gradients)
    torch.testing.assert_close(dict(twin.named_buffers()), dict(model.named_buffers()))


@pytest.mark.slow
def test_bfloat16_strays_no_further_than_with_modules() -> None:
    model, twin = twins("basic", torch.float32)
    x = images(4, 3, 16, 16, dtype=torch.float32)
    exact = copy.deepcopy(model)(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        modules_stray, fused_strays = model(x) - exact, twin(x) - exact
    assert 0 < fused_strays.norm() <= 1.5 * modules_stray.norm()


@pytest.mark.usefixtures("_either")
def test_evaluation_calls_the_modules() -> None:
    model, twin = twins("basic", torch.float64)
    heard: list[str] = []
    for _, block in twin.blocks():
        block.get_submodule("relu1").register_forward_hook(lambda *_: heard.append("relu1"))
    x = images(4, 3, 16, 16)
    twin(x)
    assert heard == []
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin.eval()(x), model.eval()(x))
    assert len(heard) == 3


def test_without_a_compiler_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler")
    monkeypatch.setenv("PATH", "")
    assert build_error.__wrapped__() == "there is no C++ compiler"


@pytest.mark.slow
def test_with_a_compiler_that_fails_there_is_a_reason() -> None:
    environment = {**os.environ, "CXX": "/bin/false"}
    question = "from resnetkit.models.fused import build_error; print(build_error())"
    answer = subprocess.run(
        [sys.executable, "-c", question], env=environment, capture_output=True, text=True
    )
    assert answer.stdout.startswith("compiling fails ("), answer.stderr


def test_frozen_and_unusual_normalization_works_as_it_would_alone() -> None:
    cases = [nn.BatchNorm2d(16).eval(), nn.BatchNorm2d(16, momentum=None), nn.Identity()]
    cases.append(nn.BatchNorm2d(16, affine=False))
    for norm in cases:
        twin = copy.deepcopy(norm)
        x, shortcut = images(4, 16, 3, 3, dtype=torch.float32), torch.ones(4, 16, 3, 3)
        found = normalize_add_relu(norm, x, shortcut)
        torch.testing.assert_close(found, torch.relu(twin(x) + shortcut))
        torch.testing.assert_close(dict(norm.named_buffers()), dict(twin.named_buffers()))
    with pytest.raises(ValueError, match="more than 1 value"):
        normalize_add_relu(nn.BatchNorm2d(16), images(1, 16, 1, 1, dtype=torch.float32))
