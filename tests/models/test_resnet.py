"""The whole network: feature maps, gradients, activations, recomputation and initial weights."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import product
from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu
from torch.utils._python_dispatch import TorchDispatchMode

from resnetkit.errors import ArchitectureError
from resnetkit.models.blocks import Block, Bottleneck, PreactivationBottleneck
from resnetkit.models.resnet import FeatureMap, ResNet
from resnetkit.models.zoo import ARCHITECTURES, Architecture, create_model

# Every width stays at 16 or more: oneDNN issue 6035 (see performance-notes.md, "What bites").


def small(name: str, **options: Any) -> Architecture:
    """Returns the named architecture with two blocks a stage and ten classes."""
    architecture = ARCHITECTURES[name].with_options(num_classes=10, **options)
    return replace(architecture, depths=(2,) * len(architecture.depths))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(architecture: Architecture, size: int, *, count: int = 4) -> Tensor:
    return torch.randn(count, architecture.in_channels, size, size, generator=generator(7))


CIFAR_FAMILIES = {
    f"{'pre' if preactivation else 'post'}-{block}-{shortcut}-{norm}": replace(
        small("resnet20", shortcut=shortcut, norm=norm), block=block, preactivation=preactivation
    )
    for block, preactivation, shortcut, norm in product(
        ("basic", "bottleneck"), (False, True), ("none", "A", "B", "C"), ("batch", "none")
    )
}


def narrow(name: str, **options: Any) -> Architecture:
    """Returns a small network with a quarter of the channels."""
    architecture = small(name, **options)
    return replace(architecture, widths=tuple(width // 4 for width in architecture.widths))


IMAGENET_FAMILIES = {
    "basic": narrow("resnet18"),
    "basic-plain": narrow("plain18"),
    "basic-small-images": narrow("resnet18_3x3"),
    "bottleneck": narrow("resnet50"),
    "bottleneck-paper": narrow("resnet50", stride_in="1x1", shortcut="A"),
    "bottleneck-plain": narrow("plain50"),
    "bottleneck-without-norm": narrow("resnet50", norm="none"),
    "dilated": narrow("resnet50", replace_stride_with_dilation=(False, True, True)),
    "pre-basic": narrow("preresnet18"),
    "pre-bottleneck": narrow("preresnet50"),
    "resnext": narrow("resnext50_32x4d"),
    "wide": narrow("wide_resnet50_2"),
}

FAMILIES = {**CIFAR_FAMILIES, **IMAGENET_FAMILIES}


# Gradients


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_every_parameter(family: str) -> None:
    architecture = FAMILIES[family]
    model = architecture.build(generator())
    images = random_images(architecture, 64 if architecture.stem == "7x7" else 16)
    cross_entropy(model(images), torch.arange(len(images))).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    silent = [name for name, g in gradients.items() if g is None or not g.count_nonzero()]
    broken = [name for name, g in gradients.items() if g is not None and not g.isfinite().all()]
    assert gradients
    assert (silent, broken) == ([], [])


# Feature maps


def feature_maps(channels: tuple[int, ...], strides: tuple[int, ...]) -> dict[str, FeatureMap]:
    names = ("stem", "stage2", "stage3", "stage4", "stage5")
    return {
        name: FeatureMap(*values)
        for name, *values in zip(names[: len(channels)], channels, strides, strict=True)
    }


FEATURE_MAPS = {
    "cifar": (small("resnet20"), feature_maps((16, 16, 32, 64), (1, 1, 2, 4))),
    "cifar-pre-bottleneck": (
        small("preresnet164"),
        feature_maps((16, 64, 128, 256), (1, 1, 2, 4)),
    ),
    "basic": (small("resnet34"), feature_maps((64, 64, 128, 256, 512), (4, 4, 8, 16, 32))),
    "bottleneck": (
        small("resnet50"),
        feature_maps((64, 256, 512, 1024, 2048), (4, 4, 8, 16, 32)),
    ),
    "small-images": (
        small("resnet18_3x3"),
        feature_maps((64, 64, 128, 256, 512), (1, 1, 2, 4, 8)),
    ),
    "dilated": (
        small("resnet50", replace_stride_with_dilation=(False, True, True)),
        feature_maps((64, 256, 512, 1024, 2048), (4, 4, 8, 8, 8)),
    ),
    "dilated-in-the-middle": (
        small("resnet18", replace_stride_with_dilation=(False, True, False)),
        feature_maps((64, 64, 128, 256, 512), (4, 4, 8, 8, 16)),
    ),
    "pre-bottleneck": (
        small("preresnet50"),
        feature_maps((64, 256, 512, 1024, 2048), (4, 4, 8, 16, 32)),
    ),
}


@pytest.mark.parametrize("case", FEATURE_MAPS)
def test_feature_maps_have_the_channels_and_strides_they_claim(case: str) -> None:
    architecture, expected = FEATURE_MAPS[case]
    with torch.device("meta"):
        model = architecture.build().eval()
        features = model.features(torch.empty(2, 3, 64, 64))
    assert model.feature_maps == expected
    assert {name: tuple(feature.shape) for name, feature in features.items()} == {
        name: (2, one.channels, 64 // one.stride, 64 // one.stride)
        for name, one in expected.items()
    }


@pytest.mark.parametrize("case", FEATURE_MAPS)
def test_the_last_feature_map_pooled_and_projected_is_the_forward_pass(case: str) -> None:
    architecture, _ = FEATURE_MAPS[case]
    architecture = replace(architecture, widths=architecture.widths[:1] * len(architecture.widths))
    model = architecture.build(generator()).eval()
    images = random_images(architecture, 64, count=2)
    with torch.no_grad():
        last = list(model.features(images).values())[-1]
        torch.testing.assert_close(model.fc(last.mean((2, 3))), model(images))


@pytest.mark.parametrize("name", ["resnet20", "preresnet20"])
def test_each_stage_reads_the_feature_map_before_it(name: str) -> None:
    model = small(name).build(generator()).eval()
    with torch.no_grad():
        features = model.features(random_images(small(name), 16))
        for number in (1, 2):
            stage = model.get_submodule(f"layer{number}")
            before, after = list(features.values())[number - 1 : number + 1]
            assert torch.equal(stage(before), after)


def test_a_preactivated_network_activates_its_last_feature_map_only() -> None:
    model = small("preresnet20").build(generator()).eval()
    features = model.features(random_images(small("preresnet20"), 16))
    negative = {name: bool((feature < 0).any()) for name, feature in features.items()}
    assert negative == {"stem": True, "stage2": True, "stage3": True, "stage4": False}


def test_only_the_named_feature_maps_are_returned() -> None:
    model = small("resnet20").build(generator()).eval()
    images = random_images(small("resnet20"), 16)
    everything = model.features(images)
    chosen = model.features(images, ["stage4", "stem"])
    assert set(chosen) == {"stem", "stage4"}
    assert all(torch.equal(feature, everything[name]) for name, feature in chosen.items())


def test_an_unknown_feature_map_is_refused_with_the_nearest_name() -> None:
    model = small("resnet20").build()
    with pytest.raises(ArchitectureError) as refusal:
        model.features(torch.zeros(1, 3, 16, 16), ["stage2", "stag4"])
    assert str(refusal.value) == (
        "unknown feature map 'stag4': expected stem, stage2, stage3, stage4. Did you mean 'stage4'?"
    )


def test_blocks_are_named_in_order() -> None:
    model = small("resnet50").build()
    names = [f"layer{stage}.{number}" for stage in (1, 2, 3, 4) for number in (0, 1)]
    assert [name for name, _ in model.blocks()] == names
    assert all(module is model.get_submodule(name) for name, module in model.blocks())


def test_a_network_takes_images_of_other_channels_and_sizes() -> None:
    model = ResNet(Bottleneck, (1, 1), (16, 32), stem="3x3", num_classes=5, in_channels=1)
    assert model(torch.zeros(2, 1, 13, 17)).shape == (2, 5)


# Activations


class OperationCounter(TorchDispatchMode):
    """Counts every operation that reaches the tensors, such as aten::relu."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.counts[operation.name().split(".")[0]] += 1
        return operation(*args, **(kwargs or {}))


def operations(model: nn.Module) -> Counter[str]:
    with torch.no_grad(), OperationCounter() as counter:
        model(torch.empty(1, 3, 64, 64, device="meta"))
    return counter.counts


def built_without_values(architecture: Architecture) -> ResNet:
    with torch.device("meta"):
        return architecture.build().eval()


@cache
def family_operations(family: str) -> tuple[Counter[str], list[int]]:
    """Returns the operations of a forward pass, and how often each activation module was called."""
    model, calls = built_without_values(FAMILIES[family]), Counter[nn.Module]()
    activations = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    for module in activations:
        module.register_forward_hook(lambda module, *_: calls.update([module]))
    return operations(model), [calls[module] for module in activations]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_activation_module_runs_exactly_once(family: str) -> None:
    performed, calls = family_operations(family)
    assert calls == [1] * performed["aten::relu"]
    assert calls


@pytest.mark.parametrize("name", ["resnet20", "plain20", "preresnet20", "resnet50", "preresnet50"])
def test_one_activation_follows_every_layer_but_the_head(name: str) -> None:
    depth = int(name.removeprefix("pre").removeprefix("resnet").removeprefix("plain"))
    model = built_without_values(ARCHITECTURES[name])
    assert operations(model)["aten::relu"] == depth - 1


@pytest.mark.parametrize("family", FAMILIES)
def test_no_operation_works_in_place(family: str) -> None:
    performed, _ = family_operations(family)
    assert performed["aten::convolution"] > 0
    assert [name for name in performed if name.endswith("_")] == []


# Recomputation


def training_step(model: ResNet, images: Tensor) -> dict[str, Tensor]:
    """Returns the logits, the gradients, and the weights and statistics after one step of SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    logits = model(images)
    cross_entropy(logits, torch.arange(len(images))).backward()
    gradients = {f"{name}.grad": p.grad for name, p in model.named_parameters()}
    optimizer.step()
    return {"logits": logits, **gradients, **model.state_dict()}


RECOMPUTED = {
    "cifar": small("resnet20"),
    "cifar-without-norm": small("resnet20", norm="none"),
    "plain": small("plain20"),
    "pre-basic": small("preresnet20", shortcut="B"),
    "pre-bottleneck": small("preresnet164"),
    "bottleneck": narrow("resnet50"),
}


@pytest.mark.parametrize("family", RECOMPUTED)
def test_recomputing_changes_no_bit_of_a_training_step(family: str) -> None:
    architecture = RECOMPUTED[family]
    images = random_images(architecture, 64 if architecture.stem == "7x7" else 16)
    kept = training_step(architecture.build(generator()), images)
    recomputing = replace(architecture, recompute=True).build(generator())
    recomputed = training_step(recomputing, images)
    assert kept.keys() == recomputed.keys()
    assert [name for name in kept if not torch.equal(kept[name], recomputed[name])] == []


def test_recomputing_updates_the_running_statistics_once_a_step() -> None:
    model = replace(small("resnet20"), recompute=True).build(generator())
    for _ in range(3):
        training_step(model, random_images(small("resnet20"), 16))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {int(norm.num_batches_tracked) for norm in norms} == {3}
    assert all(norm.training and norm.track_running_stats for norm in norms)


def test_recomputing_leaves_frozen_statistics_alone() -> None:
    model = replace(small("resnet20"), recompute=True).build(generator()).eval()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    training_step(model, random_images(small("resnet20"), 16))
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())


@pytest.mark.parametrize("recompute", [False, True])
def test_blocks_run_twice_only_when_recomputing(recompute: bool) -> None:
    model = replace(small("resnet20", norm="none"), recompute=recompute).build(generator())
    calls: Counter[nn.Module] = Counter()
    first_convolutions = [block.get_submodule("conv1") for _, block in model.blocks()]
    for module in first_convolutions:
        module.register_forward_hook(lambda module, *_: calls.update([module]))
    training_step(model, random_images(small("resnet20"), 16))
    assert calls == dict.fromkeys(first_convolutions, 1 + recompute)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_recomputing_allows_two_backward_passes_over_one_graph(norm: str) -> None:
    gradients = []
    for recompute in (False, True):
        architecture = small("resnet20", norm=norm, recompute=recompute)
        model = architecture.build(generator())
        loss = model(random_images(architecture, 16)).square().mean()
        loss.backward(retain_graph=True)
        loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    kept, recomputed = gradients
    assert [name for name in kept if not torch.equal(kept[name], recomputed[name])] == []


def test_recomputing_under_autocast_changes_no_bit() -> None:
    steps = []
    for recompute in (False, True):
        model = small("resnet20", recompute=recompute).build(generator())
        with torch.autocast("cpu", torch.bfloat16):
            steps.append(training_step(model, random_images(small("resnet20"), 16)))
    kept, recomputed = steps
    assert [name for name in kept if not torch.equal(kept[name], recomputed[name])] == []


STEP_OF_1202_LAYERS = """
import json, resource, time, torch
from torch.nn.functional import cross_entropy
from resnetkit.models.zoo import create_model

model = create_model("resnet1202", recompute=True)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
start = time.perf_counter()
loss = cross_entropy(model(torch.randn(128, 3, 32, 32)), torch.arange(128) % 10)
loss.backward()
optimizer.step()
seconds = time.perf_counter() - start
peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"loss": loss.item(), "seconds": seconds, "peak_bytes": peak_bytes}))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_resnet1202_trains_on_batches_of_128_within_16_gib() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STEP_OF_1202_LAYERS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert 0 < measured["loss"] < 100
    assert measured["peak_bytes"] < 16 * 2**30


# Initial weights


def differing(one: nn.Module, other: nn.Module) -> set[str]:
    others = other.state_dict()
    return {key for key, value in one.state_dict().items() if not torch.equal(value, others[key])}


@pytest.mark.parametrize("initialization", ["he", "xavier", "normal"])
def test_one_seed_gives_one_set_of_weights(initialization: str) -> None:
    architecture = small("resnet20", initialization=initialization, shortcut="B")
    torch.manual_seed(1)
    one = architecture.build(generator(0))
    torch.manual_seed(2)
    same, other = architecture.build(generator(0)), architecture.build(generator(1))
    drawn = {
        f"{name}.weight"
        for name, module in one.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    assert differing(one, same) == set()
    assert differing(one, other) == drawn


def test_without_a_generator_the_global_seed_decides() -> None:
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(small("resnet20").build())
    assert differing(models[0], models[1]) == set()
    assert differing(models[0], models[2]) != set()


def expected_deviation(weight: Tensor, initialization: str) -> float:
    fan_in, fan_out = weight[0].numel(), weight.shape[0] * weight[0, 0].numel()
    if initialization == "normal":
        return 0.01
    if initialization == "xavier":
        return sqrt(2 / (fan_in + fan_out))
    is_head = weight.dim() == 2
    return sqrt(1 / (3 * fan_in)) if is_head else sqrt(2 / fan_out)


@pytest.mark.parametrize("initialization", ["he", "xavier", "normal"])
@pytest.mark.parametrize("name", ["resnet20", "resnet50", "preresnet50"])
def test_weights_have_the_deviation_of_their_formula(name: str, initialization: str) -> None:
    make = small if name == "resnet20" else narrow
    model = make(name, initialization=initialization).build(generator())
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            deviation = expected_deviation(module.weight, initialization)
            relative_error = 1 / sqrt(2 * module.weight.numel())  # one sigma, of normal values
            assert module.weight.std().item() == pytest.approx(deviation, rel=5 * relative_error)
            assert abs(module.weight.mean().item()) < 5 * deviation / sqrt(module.weight.numel())


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_biases_start_at_zero_and_scales_at_one(norm: str) -> None:
    model = small("resnet20", norm=norm).build(generator())
    values = {
        name: parameter.unique().tolist()
        for name, parameter in model.named_parameters()
        if name.endswith("bias") or "bn" in name
    }
    assert values == {name: [1.0 if name.endswith("weight") else 0.0] for name in values}
    assert any("conv" in name for name in values) == (norm == "none")


@pytest.mark.parametrize(
    "family", [family for family in FAMILIES if "none-" not in family and "plain" not in family]
)
def test_zero_init_residual_starts_every_block_as_its_shortcut(family: str) -> None:
    model = replace(FAMILIES[family], zero_init_residual=True).build(generator()).eval()
    for _, block in model.blocks():
        x = torch.randn(2, block.conv1.in_channels, 6, 6, generator=generator(1))
        with torch.no_grad():
            if isinstance(block, Block):
                assert torch.equal(block(x), relu(block.downsample(x)))
            else:
                projects = isinstance(block.downsample, nn.Sequential)
                read = relu(block.bn1(x)) if projects else x
                assert torch.equal(block(x), block.downsample(read))


def test_without_zero_init_residual_no_block_starts_as_its_shortcut() -> None:
    for _, block in small("resnet20").build(generator()).eval().blocks():
        x = torch.randn(2, block.conv1.in_channels, 6, 6, generator=generator(1))
        assert not torch.equal(block(x), relu(block.downsample(x)))


def test_zero_init_residual_zeroes_one_layer_a_block_and_no_other() -> None:
    model = create_model("preresnet50", zero_init_residual=True)
    zeroed = {
        name
        for name, parameter in model.named_parameters()
        if name.endswith("weight") and not parameter.count_nonzero()
    }
    assert all(isinstance(block, PreactivationBottleneck) for _, block in model.blocks())
    assert zeroed == {f"{name}.conv3.weight" for name, _ in model.blocks()}
