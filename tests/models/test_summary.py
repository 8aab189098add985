"""Traced costs against the paper, torchvision's documented figures and torch's own counter."""

import re
from functools import cache
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model_weights

from resnetkit.models.summary import Complexity, Totals, count, trace
from resnetkit.models.zoo import ARCHITECTURES, Architecture, cifar

# Parameters with option A (and of the plain network), B and C; millions of multiply-adds.
# Source: He et al. 2015, sec. 4.2 and table 6; computed by formula where the paper rounds.
CIFAR: dict[int, tuple[int, int, int, float]] = {
    20: (269_722, 272_474, 283_962, 40.6),
    32: (464_154, 466_906, 489_594, 68.9),
    44: (658_586, 661_338, 695_226, 97.2),
    56: (853_018, 855_770, 900_858, 125.5),
    110: (1_727_962, 1_730_714, 1_826_202, 252.9),
    1202: (19_421_274, 19_424_026, 20_538_714, 2829),
}

# Parameters with option A (and of the plain network), B and C; billions of multiply-adds with the
# stride in the first 1x1 convolution (paper) and in the 3x3 (torchvision). He et al. 2015, table 1.
IMAGENET: dict[int, tuple[int, int, int, float, float]] = {
    18: (11_515_688, 11_689_512, 12_043_816, 1.814, 1.814),
    34: (21_623_848, 21_797_672, 22_716_840, 3.664, 3.664),
    50: (22_780_456, 25_557_032, 40_128_552, 3.858, 4.089),
    101: (41_772_584, 44_549_160, 76_981_288, 7.570, 7.801),
    152: (57_416_232, 60_192_808, 107_335_720, 11.282, 11.514),
}


def bottleneck_parameters(depth: int, *, projects: bool) -> int:
    """Returns the count by hand: 1x1, 3x3 and 1x1 layers, each with two numbers a channel."""
    total, inputs = 3 * 16 * 9 + 2 * 16, 16
    for width in (16, 32, 64):
        for block in range((depth - 2) // 9):
            total += inputs * width + 9 * width**2 + 4 * width**2 + 2 * (width + width + 4 * width)
            if projects and block == 0:
                total += 4 * inputs * width + 2 * 4 * width
            inputs = 4 * width
    return total + inputs * 10 + 10


OTHERS: dict[str, int] = {
    **{
        f"{family}{depth}_bottleneck": bottleneck_parameters(depth, projects=family == "resnet")
        for family in ("resnet", "plain")
        for depth in (29, 47, 83, 164)
    },
    # Every block normalizes its input: what the stem loses, the last normalization gains.
    "preresnet20": 269_722,
    "preresnet56": 853_018,
    "preresnet110": 1_727_962,
    "preresnet164": 1_703_258,
    "preresnet1001": 10_327_706,
    # timm's resnetv2_18 to resnetv2_152; 200: its ResNetV2 of (3, 24, 36, 3) blocks.
    "preresnet18": 11_687_720,
    "preresnet34": 21_795_880,
    "preresnet50": 25_549_352,
    "preresnet101": 44_541_480,
    "preresnet152": 60_185_128,
    "preresnet200": 64_666_152,
    # kuangliu/pytorch-cifar; torchvision's count less the 7x7 stem and 990 classes.
    "resnet18_3x3": 11_689_512 - 64 * 3 * (49 - 9) - 990 * 513,
    "resnet34_3x3": 21_797_672 - 64 * 3 * (49 - 9) - 990 * 513,
    "resnet50_3x3": 25_557_032 - 64 * 3 * (49 - 9) - 990 * 2049,
    "resnext50_32x4d": 25_028_904,
    "wide_resnet50_2": 68_883_240,
}

PARAMETERS: dict[tuple[str, str], int] = {
    **{
        (f"resnet{depth}", shortcut): count
        for table in (CIFAR, IMAGENET)
        for depth, counts in table.items()
        for shortcut, count in zip("ABC", counts[:3], strict=True)
    },
    **{
        (f"plain{depth}", "none"): counts[0]
        for table in (CIFAR, IMAGENET)
        for depth, counts in table.items()
    },
    **{(name, ARCHITECTURES[name].shortcut): count for name, count in OTHERS.items()},
}

TORCHVISION = [*(f"resnet{depth}" for depth in IMAGENET), "resnext50_32x4d", "wide_resnet50_2"]


def is_deep(name: str) -> bool:
    """Returns whether it takes seconds to build a network."""
    return "1202" in name or "1001" in name


# One of each family is traced whole; the others, which repeat its blocks, in slow tests.
TRACED = {
    "resnet20",
    "plain20",
    "preresnet20",
    "resnet29_bottleneck",
    "plain29_bottleneck",
    "preresnet164",
    "resnet34",
    "plain18",
    "plain50",
    "resnet50",
    "preresnet18",
    "preresnet50",
    "resnet18_3x3",
    "resnet50_3x3",
    "resnext50_32x4d",
    "wide_resnet50_2",
}
TRACED_OR_SLOW = [
    pytest.param(name, marks=() if name in TRACED else pytest.mark.slow) for name in ARCHITECTURES
]


@cache
def cost(name: str, **options: Any) -> Complexity:
    """Traces each network once, however many tests look at it."""
    return trace(ARCHITECTURES[name].with_options(**options))


@pytest.mark.parametrize(("name", "shortcut"), PARAMETERS)
def test_parameters_are_the_published_count(name: str, shortcut: str) -> None:
    architecture = ARCHITECTURES[name].with_options(shortcut=shortcut)
    assert count(architecture).parameters == PARAMETERS[name, shortcut]


def test_every_named_network_has_a_published_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ARCHITECTURES, "resnet8")  # which the tests alone have
    defaults = {(name, architecture.shortcut) for name, architecture in ARCHITECTURES.items()}
    assert defaults <= set(PARAMETERS)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_depth_is_the_number_in_the_name(name: str) -> None:
    number = re.search(r"\d+", name)
    assert number is not None
    assert count(ARCHITECTURES[name]).depth == int(number[0])


@pytest.mark.parametrize("name", ["resnet20", "resnet34", "resnet50"])
def test_projections_count_as_work_but_not_as_depth(name: str) -> None:
    padded, projected = cost(name, shortcut="A"), cost(name, shortcut="C")
    assert projected.depth == padded.depth
    assert projected.multiply_adds > padded.multiply_adds


@pytest.mark.parametrize(
    "depth",
    [pytest.param(n, marks=pytest.mark.slow if is_deep(f"resnet{n}") else ()) for n in CIFAR],
)
def test_cifar_multiply_adds_are_the_published_count(depth: int) -> None:
    millions = cost(f"resnet{depth}", shortcut="A").multiply_adds / 1e6
    assert round(millions, 1 if depth < 1000 else 0) == CIFAR[depth][3]


@pytest.mark.parametrize("depth", IMAGENET)
def test_imagenet_multiply_adds_are_the_published_counts(depth: int) -> None:
    *_, paper, torchvision = IMAGENET[depth]
    as_torchvision = cost(f"resnet{depth}", shortcut="B").multiply_adds
    as_paper = cost(f"resnet{depth}", stride_in="1x1").multiply_adds
    assert round(as_torchvision / 1e9, 3) == torchvision
    assert round(as_paper / 1e9, 3) == paper


@pytest.mark.parametrize("name", TORCHVISION)
def test_costs_are_those_torchvision_documents(name: str) -> None:
    documented = get_model_weights(name)["IMAGENET1K_V1"].meta
    traced = cost(name, shortcut="B")
    assert traced.parameters == documented["num_params"]
    assert round(traced.multiply_adds / 1e9, 3) == documented["_ops"]


def flops_by_torch(architecture: Architecture) -> int:
    with torch.device("meta"):
        model = architecture.build().eval()
        images = torch.empty(1, 3, architecture.input_size, architecture.input_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet20", {"shortcut": "A"}),
        ("resnet20", {"shortcut": "C"}),
        ("plain20", {"shortcut": "none"}),
        ("preresnet50", {"shortcut": "B"}),
        ("resnet34", {"shortcut": "B"}),
        ("resnet50", {"stride_in": "1x1"}),
        ("resnet50", {"replace_stride_with_dilation": (False, True, True)}),
        ("resnet18_3x3", {"shortcut": "B"}),
        ("resnet34", {"pooling": "ceil"}),
        ("resnext50_32x4d", {"shortcut": "B"}),
        ("wide_resnet50_2", {"shortcut": "B"}),
    ],
)
def test_multiply_adds_are_half_the_flops_that_torch_counts(
    name: str, options: dict[str, Any]
) -> None:
    architecture = ARCHITECTURES[name].with_options(**options)
    assert 2 * cost(name, **options).multiply_adds == flops_by_torch(architecture)


def test_stages_have_the_sizes_of_table_1() -> None:
    shapes = {layer.name: layer.output_shape for layer in cost("resnet50", shortcut="B").layers}
    assert shapes["conv1"] == (64, 112, 112)
    assert shapes["maxpool"] == (64, 56, 56)
    assert shapes["layer1.2.relu_out"] == (256, 56, 56)
    assert shapes["layer2.3.relu_out"] == (512, 28, 28)
    assert shapes["layer3.5.relu_out"] == (1024, 14, 14)
    assert shapes["layer4.2.relu_out"] == (2048, 7, 7)
    assert shapes["fc"] == (1000,)


@pytest.mark.parametrize(
    ("name", "layer", "kind", "parameters", "multiply_adds"),
    [
        ("resnet50", "conv1", "Conv2d", 64 * 3 * 49, 64 * 3 * 49 * 112 * 112),
        ("resnet50", "bn1", "BatchNorm2d", 2 * 64, 0),
        ("resnet50", "layer1.0.relu1", "ReLU", 0, 0),
        ("resnet50", "fc", "Linear", 2049 * 1000, 2048 * 1000),
        ("resnext50_32x4d", "layer1.0.conv2", "Conv2d", 128 * 4 * 9, 128 * 4 * 9 * 56 * 56),
    ],
)
def test_one_layer_costs_what_its_shape_says(
    name: str, layer: str, kind: str, parameters: int, multiply_adds: int
) -> None:
    (found,) = [one for one in cost(name, shortcut="B").layers if one.name == layer]
    assert (found.kind, found.parameters, found.multiply_adds) == (kind, parameters, multiply_adds)


@pytest.mark.parametrize("name", ["resnet20", "preresnet20", "resnet50", "resnext50_32x4d"])
def test_layers_add_up_to_the_network(name: str) -> None:
    traced = cost(name, shortcut=ARCHITECTURES[name].shortcut)
    assert sum(layer.parameters for layer in traced.layers) == traced.parameters
    assert sum(layer.multiply_adds for layer in traced.layers) == traced.multiply_adds


def test_layers_come_in_the_order_of_execution() -> None:
    names = [layer.name for layer in cost("resnet20", shortcut="A").layers]
    first_block = [f"layer1.0.{part}" for part in ("conv1", "bn1", "relu1", "conv2", "bn2")]
    assert names[:9] == ["conv1", "bn1", "relu", *first_block, "layer1.0.relu_out"]
    assert names[-2:] == ["avgpool", "fc"]


def test_twice_the_image_side_costs_four_times_the_convolutions() -> None:
    head = 512 * 1000
    convolutions = cost("resnet18", shortcut="B").multiply_adds - head
    enlarged = trace(ARCHITECTURES["resnet18"], input_size=448)
    assert enlarged.multiply_adds == 4 * convolutions + head
    assert enlarged.parameters == PARAMETERS["resnet18", "B"]


def test_tracing_leaves_the_global_generator_as_it_was() -> None:
    never_traced = ARCHITECTURES["resnet20"].with_options(num_classes=17)
    before = torch.get_rng_state()
    trace(never_traced)
    assert torch.equal(torch.get_rng_state(), before)


def totals_of(traced: Complexity) -> Totals:
    return Totals(traced.depth, traced.parameters, traced.multiply_adds)


@pytest.mark.parametrize("name", TRACED_OR_SLOW)
def test_counting_one_block_of_each_kind_counts_them_all(name: str) -> None:
    traced = cost(name, shortcut=ARCHITECTURES[name].shortcut)
    assert count(ARCHITECTURES[name]) == totals_of(traced)


@pytest.mark.parametrize(
    ("architecture", "size"),
    [
        (cifar(8), 32),  # no stage has a second block
        (cifar(20, shortcut="C"), 33),
        (cifar(20, norm="none"), 32),
        (cifar(32, num_classes=3, in_channels=1), 8),
        (ARCHITECTURES["resnet34"].with_options(pooling="ceil"), 97),
        (
            ARCHITECTURES["resnet50"].with_options(
                replace_stride_with_dilation=(False, True, True), stride_in="1x1", shortcut="C"
            ),
            224,
        ),
    ],
)
def test_counting_follows_options_and_size(architecture: Architecture, size: int) -> None:
    assert count(architecture, size) == totals_of(trace(architecture, size))
