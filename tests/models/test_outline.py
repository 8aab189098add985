"""The outline against the trace, and against what is known of the networks."""

import pytest

from resnetkit.models.outline import outline
from resnetkit.models.summary import trace
from resnetkit.models.zoo import ARCHITECTURES, find_architecture

QUICK = ("resnet20", "plain20", "preresnet20", "resnet29_bottleneck", "resnet18", "preresnet50")
QUICK += ("plain50", "resnet18_3x3", "resnext50_32x4d", "wide_resnet50_2")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in ARCHITECTURES
        if "1202" not in name and "1001" not in name
    ],
)
def test_stages_add_up_to_the_network(name: str) -> None:
    architecture = ARCHITECTURES[name]
    stages = outline(architecture)
    whole = trace(architecture)
    assert sum(stage.parameters for stage in stages) == whole.parameters
    assert sum(stage.multiply_adds for stage in stages) == whole.multiply_adds
    assert tuple(len(stage.blocks) for stage in stages[1:-1]) == architecture.depths
    assert stages[-1].output_shape == (architecture.num_classes,)


def kinds(name: str, **options: object) -> list[list[str]]:
    stages = outline(find_architecture(name).with_options(**options))
    return [[block.shortcut for block in stage.blocks] for stage in stages[1:-1]]


def test_shortcuts_are_of_the_kinds_of_their_options() -> None:
    assert kinds("plain20") == [["none"] * 3] * 3
    grown = ["zeros", "identity", "identity"]
    assert kinds("resnet20") == [["identity"] * 3, grown, grown]
    projected = ["projection", "identity", "identity"]
    assert kinds("resnet20", shortcut="B") == [["identity"] * 3, projected, projected]
    assert kinds("resnet20", shortcut="C") == [["projection"] * 3] * 3
    assert kinds("resnet50")[0] == projected  # 64 to 256 channels at stride 1


def test_layers_are_named_as_in_the_paper() -> None:
    stem, first, *_, head = outline(ARCHITECTURES["resnet50"])
    assert stem.blocks[0].layers == ("7x7, 64, /2", "BN", "ReLU", "max pool 3x3, /2")
    inner = ("1x1, 64", "BN", "ReLU", "3x3, 64", "BN", "ReLU", "1x1, 256", "BN")
    assert first.blocks[0].layers == inner
    assert first.blocks[0].ends_with_relu
    assert head.blocks[0].layers == ("average pool", "fc 1000")
    before = outline(ARCHITECTURES["preresnet20"])[1].blocks[0]
    assert before.layers == ("BN", "ReLU", "3x3, 16", "BN", "ReLU", "3x3, 16")
    assert not before.ends_with_relu
    grouped = outline(ARCHITECTURES["resnext50_32x4d"])[1].blocks[0]
    assert "3x3, 128, 32 groups" in grouped.layers


def test_shapes_follow_the_image() -> None:
    architecture = ARCHITECTURES["resnet20"]
    assert [s.output_shape for s in outline(architecture)[:-1]] == [
        (16, 32, 32),
        (16, 32, 32),
        (32, 16, 16),
        (64, 8, 8),
    ]
    assert outline(architecture, 8)[-2].output_shape == (64, 2, 2)
