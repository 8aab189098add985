"""Every probe against a direct computation; and after each, the network as if nothing had been."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from resnetkit.errors import ArchitectureError, ResnetkitError, UsageError
from resnetkit.models.resnet import ResNet
from resnetkit.models.zoo import create_model
from resnetkit.probes.gradients import gradient_flow, slope_per_layer
from resnetkit.probes.hooks import unchanged
from resnetkit.probes.lesions import removable_blocks, swapped, without_blocks
from resnetkit.probes.memory import bytes_kept
from resnetkit.probes.paths import path_gradients
from resnetkit.probes.receptive import receptive_fields
from resnetkit.probes.residuals import residual_magnitudes
from resnetkit.probes.responses import layer_responses

Networks = Callable[..., ResNet]


def lesioned(model: nn.Module, images: Tensor, labels: Tensor) -> object:
    with without_blocks(model, ["layer1.1"]), unchanged(model, training=False):
        return model(images)


def exchanged(model: nn.Module, images: Tensor, labels: Tensor) -> object:
    with swapped(model, "layer1.0", "layer1.1"), unchanged(model, training=False):
        return model(images)


PROBES: dict[str, Callable[[nn.Module, Tensor, Tensor], object]] = {
    "gradients": gradient_flow,
    "responses": lambda model, images, labels: layer_responses(model, images),
    "residuals": lambda model, images, labels: residual_magnitudes(model, images),
    "paths": lambda model, images, labels: path_gradients(model, images, labels, lengths=(0, 2)),
    "lesion": lesioned,
    "swap": exchanged,
    "memory": lambda model, images, labels: bytes_kept(model, images),
}


def answers(model: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Returns outputs in both modes, gradients and everything the network remembers."""
    model.eval()
    evaluated = model(images).detach()
    model.train()
    trained = model(images)
    functional.cross_entropy(trained, labels).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [evaluated, trained.detach(), *gradients, *model.state_dict().values()]


@pytest.mark.parametrize(
    ("probe", "training"),
    [
        pytest.param(probe, training, marks=pytest.mark.slow if slow else ())
        for probe in PROBES
        for training in (False, True)
        for slow in [training and probe not in ("gradients", "lesion")]
    ],
)
def test_a_probed_network_is_as_one_that_never_was(
    probe: str, training: bool, network: Networks, images: Tensor, labels: Tensor
) -> None:
    model = network(recompute=True).train(training)
    model.fused = fused = probe != "memory"  # which runs a step as it is, and would compile it
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    twin = copy.deepcopy(model)
    random_state = torch.random.get_rng_state()
    without_gradient = [p.grad is None for p in model.parameters()]
    PROBES[probe](model, images, labels)
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert [m.training for m in model.modules()] == [m.training for m in twin.modules()]
    assert (model.fused, model.recompute) == (fused, True)
    assert [p.grad is None for p in model.parameters()] == without_gradient
    assert torch.equal(model.fc.weight.grad, torch.ones_like(model.fc.weight))
    model.fc.weight.grad = None
    assert [name for name, _ in model.named_modules()] == [n for n, _ in twin.named_modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not images.requires_grad
    model.fused = twin.fused = False  # fused kernels round, and are tested elsewhere
    for ours, untouched in zip(
        answers(model, images, labels), answers(twin, images, labels), strict=True
    ):
        assert torch.equal(ours, untouched)


@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_that_fails_leaves_everything_in_place(
    probe: str, network: Networks, labels: Tensor
) -> None:
    model = network().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    names = [name for name, _ in model.named_modules()]
    with pytest.raises(RuntimeError):
        PROBES[probe](model, torch.zeros(6, 1, 16, 16, dtype=torch.float64), labels)
    assert [name for name, _ in model.named_modules()] == names
    assert all(m.training for m in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


# Gradient flow


def test_gradients_are_those_of_autograd(network: Networks, images: Tensor, labels: Tensor) -> None:
    model = network(shortcut="B")
    found = {each.name: each for each in gradient_flow(model, images, labels)}
    twin = copy.deepcopy(model).train()
    inputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            given[0].requires_grad_() if given[0].is_leaf else given[0].retain_grad()
            inputs[name] = given[0]

        return hook

    for name in found:
        twin.get_submodule(name).register_forward_pre_hook(keep(name))
    functional.cross_entropy(twin(images.clone()), labels).backward()
    assert next(iter(found)) == "conv1"
    assert list(found)[-1] == "fc"
    assert len(found) == 14  # the projections lie beside the way
    for name, each in found.items():
        weight = twin.get_submodule(name).get_parameter("weight")
        assert weight.grad is not None
        assert each.weight == pytest.approx(weight.grad.norm().item(), rel=1e-9)
        gradient = inputs[name].grad
        assert gradient is not None
        assert each.input == pytest.approx(gradient.norm().item(), rel=1e-9)


def test_a_linear_chain_has_the_gradient_of_the_formula() -> None:
    """Ten layers that double: the gradient at layer k is 2 ** (10 - k) times that of the end."""
    layers = [nn.Linear(4, 4, bias=False).double() for _ in range(10)]
    for layer in layers:
        layer.weight.data = 2 * torch.eye(4, dtype=torch.float64)
    chain = nn.Sequential(*layers)
    x = torch.full((2, 4), 1e-3, dtype=torch.float64)
    found = gradient_flow(chain, x, torch.tensor([0, 1]))
    assert slope_per_layer([each.input for each in found]) == pytest.approx(-math.log10(2))


def test_slopes_of_what_vanishes_explodes_or_is_nothing() -> None:
    assert slope_per_layer([1e-4, 1e-3, 1e-2, 1e-1]) == pytest.approx(1)
    assert slope_per_layer([8, 4, 2]) == pytest.approx(-math.log10(2))
    assert slope_per_layer([0.0, 1.0]) == math.inf
    assert slope_per_layer([math.nan, 1.0]) == slope_per_layer([math.inf, 1.0]) == -math.inf


# Responses


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_responses_are_what_comes_before_relu_and_addition(
    norm: str, network: Networks, images: Tensor
) -> None:
    model = network(8, norm=norm).eval()
    expected = []
    with torch.no_grad():
        x = model.bn1(model.conv1(images))
        expected.append(x.std(correction=0).item())
        x = torch.relu(x)
        for _, block in model.blocks():
            inner = block.bn1(block.conv1(x))
            outer = block.bn2(block.conv2(torch.relu(inner)))
            expected += [inner.std(correction=0).item(), outer.std(correction=0).item()]
            x = torch.relu(outer + block.downsample(x))
    found = layer_responses(model, images)
    assert [each.deviation for each in found] == pytest.approx(expected, rel=1e-9)
    last = "bn2" if norm == "batch" else "conv2"
    assert (found[0].name, found[-1].name) == (
        "bn1" if last == "bn2" else "conv1",
        f"layer3.0.{last}",
    )


def test_a_bottleneck_answers_with_its_3x3_layer_alone(network: Networks, images: Tensor) -> None:
    found = layer_responses(network(11, block="bottleneck"), images)
    assert [each.name for each in found] == ["bn1", *(f"layer{k}.0.bn2" for k in (1, 2, 3))]


# Residuals


def test_magnitudes_are_those_of_the_formula(network: Networks, images: Tensor) -> None:
    model = network().eval()
    expected, x = [], torch.relu(model.bn1(model.conv1(images)))
    with torch.no_grad():
        for _, block in model.blocks():
            residual, shortcut, y = block.residual(x), block.downsample(x), block(x)
            ratios = [(f.norm() / s.norm()).item() for f, s in zip(residual, shortcut, strict=True)]
            changes = (
                [((b - a).norm() / a.norm()).item() for a, b in zip(x, y, strict=True)]
                if x.shape == y.shape
                else [math.nan]
            )
            expected.append((sum(ratios) / len(ratios), sum(changes) / len(changes)))
            x = y
    found = residual_magnitudes(model, images)
    assert [each.name for each in found] == [name for name, _ in model.blocks()]
    assert [each.ratio for each in found] == pytest.approx([r for r, _ in expected])
    assert [each.change for each in found] == pytest.approx([c for _, c in expected], nan_ok=True)


def test_blocks_that_start_at_zero_are_the_identity(network: Networks, images: Tensor) -> None:
    model = network(zero_init_residual=True)
    for name, buffer in model.named_buffers():
        buffer.zero_() if "mean" in name else buffer.fill_(1)
    for each in residual_magnitudes(model, images):
        assert each.ratio == 0
        assert math.isnan(each.change) or each.change == 0


# Lesions


def test_a_block_taken_out_passes_what_it_gets(network: Networks, images: Tensor) -> None:
    model = network(20).eval()
    shorter = copy.deepcopy(model)
    del shorter.layer2[1]  # type: ignore[union-attr,operator]
    whole = model(images)
    with without_blocks(model, ["layer2.1"]):
        assert torch.equal(model(images), shorter(images))
    assert torch.equal(model(images), whole)


def test_plain_networks_lose_blocks_in_the_same_way(network: Networks, images: Tensor) -> None:
    model = network(20, shortcut="none").eval()
    shorter = copy.deepcopy(model)
    del shorter.layer2[2]  # type: ignore[union-attr,operator]
    with without_blocks(model, ["layer2.2"]):
        assert torch.equal(model(images), shorter(images))


def test_two_blocks_change_places(network: Networks, images: Tensor) -> None:
    model = network(20).eval()
    other = copy.deepcopy(model)
    other.layer3[1], other.layer3[2] = other.layer3[2], other.layer3[1]  # type: ignore[index,operator]
    with swapped(model, "layer3.1", "layer3.2"):
        exchanged = model(images)
    assert torch.equal(exchanged, other(images))
    assert not torch.equal(exchanged, model(images))


def test_the_blocks_that_keep_the_shape_can_be_taken_out(network: Networks) -> None:
    expected = ["layer1.0", "layer1.1", "layer2.1", "layer3.1"]
    assert (
        removable_blocks(network(14)) == removable_blocks(network(14, shortcut="none")) == expected
    )
    assert removable_blocks(network(20, block="bottleneck"))[0] == "layer1.1"  # the first widens


def test_lesions_that_cannot_be_are_refused(network: Networks) -> None:
    model = network(14)
    with pytest.raises(ArchitectureError, match=r"'layer2\.0' cannot be removed: expected one of"):
        without_blocks(model, ["layer2.0"]).__enter__()
    with pytest.raises(UsageError, match="are in different stages"):
        swapped(model, "layer1.0", "layer2.1").__enter__()


# Paths


def test_all_paths_together_are_the_whole_gradient(
    network: Networks, images: Tensor, labels: Tensor
) -> None:
    """Without relu after the addition, a network is the sum of its paths: so are the gradients."""
    model = network(8).eval()
    for _, block in model.blocks():
        block.relu_out = nn.Identity()
    from resnetkit.probes import paths

    blocks = dict(model.blocks())
    x = torch.relu(model.bn1(model.conv1(images))).detach().requires_grad_()
    model.conv1 = model.bn1 = model.relu = nn.Identity()  # type: ignore[assignment]
    loss = functional.cross_entropy(model(x), labels)
    (whole,) = torch.autograd.grad(loss, x)
    total = torch.zeros_like(whole)
    for number in range(8):
        chosen = {name for place, name in enumerate(blocks) if number >> place & 1}
        ways = {
            name: paths.OneWay(block, through_residual=name in chosen)  # type: ignore[arg-type]
            for name, block in blocks.items()
        }
        with paths.replaced_modules(model, dict(ways)):
            one = functional.cross_entropy(model(x), labels)
            assert one.item() == pytest.approx(loss.item(), rel=1e-12)
            total += torch.autograd.grad(one, x)[0]
    torch.testing.assert_close(total, whole)


def test_paths_are_counted_and_drawn(network: Networks, images: Tensor, labels: Tensor) -> None:
    found = path_gradients(network(14), images, labels, draws=3)
    assert [each.blocks for each in found] == list(range(7))
    assert [each.paths for each in found] == [1, 6, 15, 20, 15, 6, 1]
    assert all(each.gradient > 0 for each in found)
    assert found[2].total == 15 * found[2].gradient
    assert path_gradients(network(14), images, labels, draws=3) == found
    assert path_gradients(network(14), images, labels, draws=3, seed=1) != found


# Receptive fields


def test_fields_are_where_the_gradient_is_not_zero(network: Networks) -> None:
    """The longest path alone: with all weights one and no relu, its field is what arrives."""
    model = network(8, shortcut="none")
    for name, parameter in model.named_parameters():
        parameter.data.fill_(1.0 if "weight" in name else 0.0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    image = torch.ones(1, 3, 96, 96, dtype=torch.float64, requires_grad=True)
    maps = model.eval().features(image)
    for field in receptive_fields(model):
        middle = maps[field.name].shape[-1] // 2
        (gradient,) = torch.autograd.grad(
            maps[field.name][0, :, middle, middle].sum(), image, retain_graph=True
        )
        rows = (gradient[0, 0].abs().sum(1) > 0).nonzero().flatten()
        assert rows[-1] - rows[0] + 1 == field.pixels
        assert 96 // maps[field.name].shape[-1] == field.stride


@pytest.mark.parametrize(("name", "pixels"), [("resnet50", 483), ("resnet101", 1027)])
def test_the_fields_of_the_papers_networks_are_the_known_ones(name: str, pixels: int) -> None:
    """Araujo, Norris and Sim 2019, "Computing receptive fields", for the paper's strides."""
    model = create_model(name, stride_in="1x1")
    fields = {each.name: each for each in receptive_fields(model)}
    assert (fields["stage5"].pixels, fields["stem"].pixels) == (pixels, 11)
    for feature, expected in model.feature_maps.items():
        assert fields[feature].stride == expected.stride


# Networks that a probe cannot read


NEED_SHORTCUTS = ["residuals", "paths"]
NEED_BLOCKS = ["responses", "residuals", "paths", "lesion", "swap"]


@pytest.mark.parametrize("probe", NEED_SHORTCUTS)
def test_a_plain_network_is_refused_in_words(
    probe: str, network: Networks, images: Tensor, labels: Tensor
) -> None:
    with pytest.raises(ArchitectureError, match="a plain network has none"):
        PROBES[probe](network(shortcut="none"), images, labels)


@pytest.mark.parametrize("probe", NEED_BLOCKS)
def test_foreign_and_preactivated_networks_are_refused_in_words(
    probe: str, network: Networks, images: Tensor, labels: Tensor
) -> None:
    with pytest.raises(ResnetkitError, match="not of Sequential"):
        PROBES[probe](nn.Sequential(nn.Flatten(), nn.Linear(768, 10)), images, labels)
    with pytest.raises(ResnetkitError, match="pre-activated"):
        PROBES[probe](network(preactivation=True), images, labels)


def test_gradients_flow_in_any_network(images: Tensor, labels: Tensor) -> None:
    foreign = nn.Sequential(nn.Flatten(), nn.Linear(768, 10)).double()
    assert [each.name for each in gradient_flow(foreign, images, labels)] == ["1"]


# Memory


def test_what_is_kept_is_counted_once_and_without_weights() -> None:
    """A chain of relus keeps each output; a linear layer keeps its input, which is one of them."""
    chain = nn.Sequential(nn.ReLU(), nn.ReLU(), nn.Linear(100, 10))
    x = torch.randn(8, 100, requires_grad=True)
    assert bytes_kept(chain, x) == 2 * 8 * 100 * 4


def test_memory_grows_with_the_batch_and_shrinks_with_recomputation(
    network: Networks, images: Tensor
) -> None:
    model, thrifty = network(14), network(14, recompute=True)
    whole = bytes_kept(model, images)
    assert whole == pytest.approx(3 * bytes_kept(model, images[:2]), rel=0.05)
    assert bytes_kept(thrifty, images) < whole / 2
    assert bytes_kept(network(20), images) > whole


@pytest.mark.parametrize("probe", ["gradients", "paths"])
def test_a_frozen_network_can_be_looked_into(
    probe: str, network: Networks, images: Tensor, labels: Tensor
) -> None:
    model, frozen = network(), network().requires_grad_(False)
    expected = PROBES[probe](model, images, labels)
    assert PROBES[probe](frozen, images, labels) == expected
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
