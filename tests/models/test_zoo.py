"""Names and options: what they build, torchvision's twins, and what is refused in which words."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from resnetkit.errors import ArchitectureError
from resnetkit.models.blocks import PadShortcut, PreactivationBasicBlock
from resnetkit.models.resnet import ResNet
from resnetkit.models.zoo import (
    ARCHITECTURES,
    PAPER_RESULTS,
    cifar_resnet,
    create_model,
    find_architecture,
    known_as,
)

TORCHVISION = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "wide_resnet50_2",
)


def without_values(build: Callable[..., nn.Module], *args: Any, **options: Any) -> Any:
    """Builds a model on the meta device: shapes only, at no cost."""
    with torch.device("meta"):
        return build(*args, **options)


def torchvision_twins(name: str, **options: Any) -> tuple[nn.Module, nn.Module]:
    """Returns our model and torchvision's, both without values."""
    theirs = getattr(torchvision.models, name)
    return without_values(create_model, name, **options), without_values(theirs, **options)


def random_weights(shapes: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns values for a state_dict that keep activations of a trained network's size."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in shapes.items():
        value = torch.empty(shape.shape, dtype=shape.dtype)
        if name.endswith("num_batches_tracked"):
            value.fill_(1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
        elif value.dim() > 1:
            value.normal_(std=value[0].numel() ** -0.5, generator=generator)
        else:
            value.uniform_(-0.5, 0.7, generator=generator)
        weights[name] = value
    return weights


def logits_of(model: nn.Module, weights: dict[str, Tensor]) -> Tensor:
    model.load_state_dict(weights, strict=True, assign=True)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model.eval()(images)


def assert_equal_logits(ours: nn.Module, theirs: nn.Module) -> None:
    weights = random_weights(theirs.state_dict())
    expected = logits_of(theirs, weights)
    assert expected.isfinite().all()
    assert expected.std() > 1e-3
    assert torch.equal(logits_of(ours, weights), expected)


# Torchvision's twins

QUICK = ("resnet18", "resnet50", "resnext50_32x4d")  # the others are of the same blocks


@pytest.mark.parametrize("name", TORCHVISION)
def test_weights_load_strictly_into_torchvision_and_back(name: str) -> None:
    ours, theirs = torchvision_twins(name)
    theirs.load_state_dict(ours.state_dict(), strict=True, assign=True)
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in TORCHVISION],
)
def test_logits_equal_those_of_torchvision_to_the_bit(name: str) -> None:
    assert_equal_logits(*torchvision_twins(name))


@pytest.mark.parametrize("dilates", [(False, True, True), (True, False, True)])
def test_dilated_logits_equal_those_of_torchvision_to_the_bit(dilates: tuple[bool, ...]) -> None:
    assert_equal_logits(*torchvision_twins("resnet50", replace_stride_with_dilation=dilates))


def test_the_stride_in_the_first_convolution_changes_the_logits_but_not_the_weights() -> None:
    paper = without_values(create_model, "resnet50", stride_in="1x1")
    ours = without_values(create_model, "resnet50")
    weights = random_weights(ours.state_dict())
    assert not torch.allclose(logits_of(paper, weights), logits_of(ours, weights))


def zero_weights(model: nn.Module) -> set[str]:
    return {
        name
        for name, parameter in model.named_parameters()
        if name.endswith("weight") and not parameter.count_nonzero()
    }


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_zero_init_residual_zeroes_what_torchvision_zeroes(name: str) -> None:
    theirs = getattr(torchvision.models, name)(zero_init_residual=True)
    expected = zero_weights(theirs)
    assert len(expected) == sum(ARCHITECTURES[name].depths)
    assert zero_weights(create_model(name, zero_init_residual=True)) == expected
    assert zero_weights(create_model(name)) == set()


def test_norm_eps_reaches_every_normalization_and_changes_the_logits() -> None:
    ours, other = (without_values(create_model, "resnet50", norm_eps=eps) for eps in (1e-5, 0.1))
    norms = [module for module in other.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 53
    assert {norm.eps for norm in norms} == {0.1}
    for name in ("resnet50", "preresnet20"):
        standard = without_values(create_model, name)
        assert {m.eps for m in standard.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-5}
    weights = random_weights(ours.state_dict())
    assert not torch.allclose(logits_of(ours, weights), logits_of(other, weights), atol=1e-3)


def windows(side: int) -> int:
    """Counts the windows of 3, two apart, that touch a row of cells, from its first cell on."""
    return len([start for start in range(0, side, 2) if start == 0 or start + 1 < side])


@pytest.mark.parametrize("side", [64, 66, 70, 75, 224])
def test_pooling_that_is_not_padded_rounds_up(side: int) -> None:
    model = without_values(create_model, "resnet18", pooling="ceil").eval()
    cells = torch.rand(1, 2, -(-side // 2), -(-side // 2), generator=torch.Generator())
    pooled = model.maxpool(cells)
    assert pooled.shape[2] == windows(cells.shape[2])
    assert pooled[0, 0, 0, 0] == cells[0, 0, :3, :3].max()
    assert (
        pooled[0, 1, -1, -1]
        == cells[0, 1, 2 * pooled.shape[2] - 2 :, 2 * pooled.shape[2] - 2 :].max()
    )
    padded = without_values(create_model, "resnet18").maxpool(cells)
    assert padded[0, 0, 0, 0] == cells[0, 0, :2, :2].max()


@pytest.mark.parametrize("value", [0, 1, -1e-5, "small", True, float("nan"), float("inf"), None])
def test_impossible_norm_eps_is_refused(value: object) -> None:
    with pytest.raises(ArchitectureError, match=r"norm_eps is .*: expected a number above 0"):
        create_model("resnet20", norm_eps=value)


def test_impossible_pooling_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="pooling is 'floor': expected one of padded, ceil"):
        create_model("resnet18", pooling="floor")
    with pytest.raises(ArchitectureError, match="pooling belongs to the 7x7 stem"):
        create_model("resnet20", pooling="ceil")


def test_networks_are_known_by_their_blocks() -> None:
    for name, architecture in ARCHITECTURES.items():
        assert known_as(architecture) == name
    changed = ARCHITECTURES["resnet50"].with_options(
        stride_in="1x1", num_classes=7, in_channels=1, norm_eps=0.01, pooling="ceil"
    )
    assert known_as(changed) == "resnet50"
    assert known_as(changed.with_options(shortcut="C")) is None


# What names and options build


def test_create_model_builds_a_network_with_the_options_given() -> None:
    model = create_model("resnet20", shortcut="A", padding="split", num_classes=7, in_channels=1)
    shortcuts = [module for module in model.modules() if isinstance(module, PadShortcut)]
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    assert [shortcut.zeros for shortcut in shortcuts] == [(8, 8), (16, 16)]


def test_without_normalization_there_is_none_and_convolutions_have_biases() -> None:
    model = without_values(create_model, "resnet50", norm="none")
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert len(convolutions) == 53
    assert all(convolution.bias is not None for convolution in convolutions)


@pytest.mark.parametrize(("shortcut", "projections"), [("none", 0), ("A", 0), ("B", 3), ("C", 16)])
def test_resnet34_has_the_projections_of_the_paper(shortcut: str, projections: int) -> None:
    """He et al. 2015, sec. 4.1: option C adds thirteen projections to those of option B."""
    model = without_values(create_model, "resnet34", shortcut=shortcut)
    names = [name for name, _ in model.named_parameters()]
    assert sum(name.endswith("downsample.0.weight") for name in names) == projections


def test_options_leave_the_table_unchanged() -> None:
    before = ARCHITECTURES["resnet20"]
    changed = before.with_options(shortcut="C", num_classes=100)
    assert (changed.shortcut, changed.num_classes) == ("C", 100)
    assert (before.shortcut, before.num_classes) == ("A", 10)
    assert ARCHITECTURES["resnet20"] is before


def test_no_options_mean_the_same_architecture() -> None:
    assert all(one.with_options() == one for one in ARCHITECTURES.values())


def test_dilations_from_a_list_and_from_a_tuple_are_one_architecture() -> None:
    """A recipe read from YAML has lists; an architecture is a value that can be a key."""
    from_list, from_tuple = (
        ARCHITECTURES["resnet50"].with_options(replace_stride_with_dilation=value)
        for value in ([False, True, True], (False, True, True))
    )
    assert from_list == from_tuple
    assert hash(from_list) == hash(from_tuple)


def test_every_result_of_the_paper_is_of_a_named_network() -> None:
    assert set(PAPER_RESULTS) <= set(ARCHITECTURES)


@pytest.mark.parametrize(
    ("table", "errors"),
    [
        ("table 6", [("resnet20", 8.75), ("resnet56", 6.97), ("resnet110", 6.43)]),
        ("table 2", [("plain18", 27.94), ("plain34", 28.54), ("resnet18", 27.88)]),
        ("table 3", [("resnet34", 24.52), ("resnet50", 22.85), ("resnet152", 21.43)]),
    ],
)
def test_results_are_those_printed_in_the_paper(
    table: str, errors: list[tuple[str, float]]
) -> None:
    assert [(name, PAPER_RESULTS[name].error) for name, _ in errors] == errors
    assert all(PAPER_RESULTS[name].protocol.endswith(table) for name, _ in errors)


# CIFAR networks of any depth


def counted_depth(model: ResNet) -> int:
    return sum(
        isinstance(module, nn.Conv2d | nn.Linear) and ".downsample." not in name
        for name, module in model.named_modules()
    )


@settings(max_examples=10, deadline=None)
@given(
    n=st.integers(1, 4),
    block=st.sampled_from(["basic", "bottleneck"]),
    shortcut=st.sampled_from(["none", "A", "B", "C"]),
)
def test_n_blocks_a_stage_give_6n_plus_2_or_9n_plus_2_layers(
    n: int, block: str, shortcut: str
) -> None:
    depth = {"basic": 6, "bottleneck": 9}[block] * n + 2
    model = without_values(cifar_resnet, depth, block=block, shortcut=shortcut)
    assert counted_depth(model) == depth
    assert len(list(model.blocks())) == 3 * n


@settings(max_examples=8, deadline=None)
@given(
    n=st.integers(1, 4),
    block=st.sampled_from(["basic", "bottleneck"]),
    padding=st.sampled_from(["append", "split"]),
)
def test_option_a_has_exactly_the_weights_of_the_plain_network(
    n: int, block: str, padding: str
) -> None:
    depth = {"basic": 6, "bottleneck": 9}[block] * n + 2
    plain, padded = (
        without_values(cifar_resnet, depth, block=block, **options)
        for options in ({"shortcut": "none"}, {"shortcut": "A", "padding": padding})
    )
    shapes = [
        {name: value.shape for name, value in model.state_dict().items()}
        for model in (plain, padded)
    ]
    assert shapes[0] == shapes[1]


@settings(max_examples=20, deadline=None)
@given(depth=st.integers(-20, 70), block=st.sampled_from(["basic", "bottleneck"]))
def test_a_depth_is_built_or_refused_with_two_depths_that_can_be_built(
    depth: int, block: str
) -> None:
    try:
        assert counted_depth(without_values(cifar_resnet, depth, block=block)) == depth
    except ArchitectureError as refusal:
        nearest = [int(number) for number in re.findall(r"\d+", str(refusal).split("nearest")[1])]
        assert len(nearest) == 2
        assert depth < nearest[0] or nearest[0] < depth < nearest[1]
        for possible in nearest:
            assert counted_depth(without_values(cifar_resnet, possible, block=block)) == possible


def test_cifar_resnet_equals_the_named_network_of_its_depth() -> None:
    by_depth = cifar_resnet(20, generator=torch.Generator().manual_seed(0)).state_dict()
    by_name = create_model("resnet20", generator=torch.Generator().manual_seed(0)).state_dict()
    assert by_depth.keys() == by_name.keys()
    assert all(torch.equal(by_depth[name], by_name[name]) for name in by_name)


# What is refused, and in which words


def refusal(request: Callable[[], object]) -> str:
    with pytest.raises(ArchitectureError) as caught:
        request()
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason", "suggestion"),
    [
        ("resnet57", "resnet comes with 18, 20, 32, 34, 44, 50, 56, 101, 110, 152", "resnet56"),
        ("plain57", "a CIFAR network may have any 6n+2.", "plain56"),
        ("plain62", "cifar_resnet(62) builds one in Python", "plain56"),
        ("preresnet44", "preresnet comes with 18, 20, 34, 50, 56", "preresnet50"),
        ("resnet151", "resnet comes with 18, 20, 32", "resnet152"),
        ("ResNet50", "'resnet models' lists the names", "resnet50"),
        ("resnext50_32x8d", "'resnet models' lists the names", "resnext50_32x4d"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(
    name: str, reason: str, suggestion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(ARCHITECTURES, "resnet8")  # which the tests alone have
    message = refusal(lambda: create_model(name))
    assert message.startswith(f"unknown architecture '{name}': ")
    assert reason in message
    assert message.endswith(f". Did you mean '{suggestion}'?")


def test_a_name_like_no_other_is_refused_without_a_suggestion() -> None:
    message = refusal(lambda: find_architecture("vgg16"))
    assert message == "unknown architecture 'vgg16': 'resnet models' lists the names."


def test_an_unknown_option_is_refused_with_the_nearest() -> None:
    message = refusal(lambda: create_model("resnet20", num_class=100))
    assert message.startswith(
        "unknown option 'num_class' of an architecture: expected one of shortcut, padding, "
    )
    assert message.endswith(" Did you mean 'num_classes'?")


@pytest.mark.parametrize("fixed", ["block", "depths", "widths", "stem", "input_size"])
def test_what_the_name_decides_is_no_option(fixed: str) -> None:
    message = refusal(lambda: create_model("resnet20", **{fixed: 1}))
    assert message.startswith(f"unknown option '{fixed}' of an architecture: ")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("shortcut", "D", "shortcut is 'D': expected one of none, A, B, C."),
        (
            "padding",
            "splits",
            "padding is 'splits': expected one of append, split. Did you mean 'split'?",
        ),
        (
            "initialization",
            "xavir",
            "initialization is 'xavir': expected one of he, xavier, normal. Did you mean 'xavier'?",
        ),
        ("stride_in", 3, "stride_in is 3: expected one of 1x1, 3x3."),
        ("norm", True, "norm is True: expected one of batch, none."),
        ("num_classes", -1, "num_classes is -1: expected a whole number from 1 to 1,000,000."),
        ("num_classes", 0, "num_classes is 0: expected a whole number from 1 to 1,000,000."),
        ("num_classes", True, "num_classes is True: expected a whole number from 1 to 1,000,000."),
        ("num_classes", 10.0, "num_classes is 10.0: expected a whole number from 1 to 1,000,000."),
        ("in_channels", "3", "in_channels is '3': expected a whole number from 1 to 1,000,000."),
        ("recompute", 1, "recompute is 1: expected true or false."),
        ("zero_init_residual", "no", "zero_init_residual is 'no': expected true or false."),
        (
            "replace_stride_with_dilation",
            True,
            "replace_stride_with_dilation is True: expected a list of true and false, one for each"
            " stage that strides.",
        ),
        (
            "replace_stride_with_dilation",
            [0, 1, 1],
            "replace_stride_with_dilation is [0, 1, 1]: expected a list of true and false,"
            " one for each stage that strides.",
        ),
        (
            "replace_stride_with_dilation",
            (True,),
            "replace_stride_with_dilation has 1 entries: this network has 3 stages that stride."
            " Give one true or false for each.",
        ),
    ],
)
def test_an_impossible_value_is_refused(option: str, value: object, message: str) -> None:
    assert refusal(lambda: create_model("resnet50", **{option: value})) == message


def test_a_cifar_network_wants_two_dilations() -> None:
    message = refusal(
        lambda: create_model("resnet20", replace_stride_with_dilation=[False, True, True])
    )
    assert message == (
        "replace_stride_with_dilation has 3 entries: this network has 2 stages that stride."
        " Give one true or false for each."
    )


@pytest.mark.parametrize("option", [{"groups": 2}, {"base_width": 128}])
@pytest.mark.parametrize("name", ["resnet18", "resnet20", "preresnet18"])
def test_groups_and_base_width_are_refused_for_basic_blocks(
    name: str, option: dict[str, int]
) -> None:
    assert refusal(lambda: create_model(name, **option)) == (
        "groups and base_width belong to bottleneck blocks: this network has basic ones."
    )


@pytest.mark.parametrize(
    ("depth", "block", "layers", "nearest"),
    [
        (57, "basic", "6n+2", "56 and 62"),
        (1, "basic", "6n+2", "8 and 14"),
        (2, "basic", "6n+2", "8 and 14"),
        (-4, "basic", "6n+2", "8 and 14"),
        (57, "bottleneck", "9n+2", "56 and 65"),
        (163, "bottleneck", "9n+2", "155 and 164"),
        (2, "bottleneck", "9n+2", "11 and 20"),
    ],
)
def test_an_impossible_depth_is_refused_with_the_nearest(
    depth: int, block: str, layers: str, nearest: str
) -> None:
    assert refusal(lambda: cifar_resnet(depth, block=block)) == (
        f"impossible depth {depth}: a CIFAR network of {block} blocks has {layers} layers."
        f" The nearest are {nearest}."
    )


def test_an_unknown_block_is_refused() -> None:
    message = refusal(lambda: cifar_resnet(20, block="bottle"))
    assert "'bottle'" in message
    assert "basic" in message
    assert "bottleneck" in message


def test_a_base_width_that_leaves_no_channels_is_refused() -> None:
    """16 * 1 / 64 channels would be none."""
    message = refusal(lambda: without_values(create_model, "preresnet164", base_width=1))
    assert "base_width" in message


def test_zero_init_residual_is_refused_for_a_plain_network() -> None:
    message = refusal(lambda: create_model("plain20", zero_init_residual=True))
    assert message.startswith("zero_init_residual makes every block start with F(x) = 0: ")


def test_a_generator_of_its_own_leaves_the_global_one_as_it_was() -> None:
    before = torch.random.get_rng_state()
    create_model("resnet20", generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_preactivated_network_of_any_depth_can_be_built() -> None:
    model = cifar_resnet(14, preactivation=True)
    assert isinstance(model.get_submodule("layer1.0"), PreactivationBasicBlock)


@pytest.mark.parametrize("depth", [600_002, 10**30])
def test_no_network_is_deeper_than_can_be_built(depth: int) -> None:
    with pytest.raises(ArchitectureError, match="expected up to 10,000"):
        cifar_resnet(depth)
