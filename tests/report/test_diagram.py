"""Drawings of networks and blocks: what is drawn is what the model has."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from resnetkit.models.outline import outline
from resnetkit.models.zoo import ARCHITECTURES, find_architecture
from resnetkit.report.colors import COLORS
from resnetkit.report.diagram import block_drawing, network_drawing, network_sheet, short

NAMES = ["resnet20", "plain56", "resnet50", "preresnet20", "resnet152", "resnext50_32x4d"]


def words_of(drawing: str) -> list[str]:
    return [
        "".join(element.itertext())
        for element in ElementTree.fromstring(drawing).iter()
        if "text" in element.tag
    ]


def arcs(drawing: str) -> int:
    return len(re.findall(r'stroke="(?:var\(--series-1\)|#0072b2)" stroke-width="2"', drawing))


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_is_named_with_its_shape_and_cost(name: str) -> None:
    stages = outline(ARCHITECTURES[name])
    words = words_of(network_drawing(stages, title=name))
    assert words[0] == name
    for stage in stages:
        shape = "\N{MULTIPLICATION SIGN}".join(map(str, stage.output_shape))
        (facts,) = [w for w in words if w.startswith((f"{stage.name}:", f"{stage.name},"))]
        assert facts.endswith(f": {shape}")
        assert (
            f"{short(stage.parameters)} parameters, {short(stage.multiply_adds)} mult-adds" in words
        )


def test_an_arc_stands_for_each_shortcut_that_is_drawn() -> None:
    assert arcs(network_drawing(outline(ARCHITECTURES["plain20"]), title="")) == 0
    assert arcs(network_drawing(outline(ARCHITECTURES["resnet20"]), title="")) == 9
    deep = network_drawing(outline(ARCHITECTURES["resnet56"]), title="")
    assert arcs(deep) == 9  # three of nine blocks a stage
    assert words_of(deep).count("+ 6 more") == 3


def test_kinds_of_shortcuts_look_and_read_differently() -> None:
    drawings = {
        option: network_drawing(
            outline(find_architecture("resnet20").with_options(shortcut=option)), title=""
        )
        for option in ("A", "B", "C")
    }
    dashed = {option: len(re.findall("stroke-dasharray", d)) for option, d in drawings.items()}
    assert dashed == {"A": 2, "B": 2, "C": 9}
    assert words_of(drawings["A"]).count("zeros") == 2
    assert words_of(drawings["C"]).count("1\N{MULTIPLICATION SIGN}1") == 9


def test_a_block_is_drawn_layer_by_layer() -> None:
    blocks = {
        name: outline(ARCHITECTURES[name])[1].blocks[0]
        for name in ("plain20", "resnet20", "resnet50")
    }
    drawn = {name: words_of(block_drawing(block, title=name)) for name, block in blocks.items()}
    times = "\N{MULTIPLICATION SIGN}"
    layers = [f"3{times}3, 16", "BN", "ReLU", f"3{times}3, 16", "BN"]
    assert drawn["plain20"] == ["plain20", "x", *layers, "ReLU", "relu(F(x))"]
    assert drawn["resnet20"] == [
        "resnet20",
        "x",
        *layers,
        "+",
        "identity",
        "ReLU",
        "relu(F(x) + x)",
    ]
    assert drawn["resnet50"][-1] == "relu(F(x) + W x)"
    preactivated = outline(ARCHITECTURES["preresnet20"])[1].blocks[0]
    assert words_of(block_drawing(preactivated, title=""))[-1] == "F(x) + x"


def test_a_sheet_stands_alone_and_a_drawing_in_a_page() -> None:
    networks = {name: outline(ARCHITECTURES[name]) for name in ("plain20", "resnet20")}
    sheet = network_sheet(networks)
    assert 'xmlns="http://www.w3.org/2000/svg" width="760"' in sheet
    assert "var(--" not in sheet
    inside = network_drawing(networks["resnet20"], title="resnet20")
    assert not any(light in inside for light, _ in COLORS.values())
    for drawing in (sheet, inside):
        assert 'role="img" aria-label="' in drawing
    assert "stage3: 3 blocks of 3x3, 32, 3x3, 32, identity" in inside


def test_control_characters_leave_the_drawing_readable() -> None:
    sheet = network_sheet({"a\x1b\x85\u202e": outline(ARCHITECTURES["resnet20"])})
    assert "a\\x1b\\x85\\u202e" in "".join(ElementTree.fromstring(sheet).itertext())


def test_words_from_outside_cannot_become_markup() -> None:
    drawing = network_drawing(outline(ARCHITECTURES["resnet20"]), title="<script>&")
    assert words_of(drawing)[0] == "<script>&"
    assert "<script>" not in drawing


@pytest.mark.parametrize(
    ("count", "words"),
    [(640, "640"), (269_722, "269.7 k"), (40_600_000, "40.6 M"), (4.1e9, "4.1 G")],
)
def test_counts_are_short(count: int, words: str) -> None:
    assert short(int(count)) == words
