"""Networks and blocks as drawings, made from the outline of the model itself."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from resnetkit.models.outline import BlockOutline, ShortcutKind, StageOutline
from resnetkit.report.colors import COLORS
from resnetkit.report.drawing import FONT, color, opening
from resnetkit.report.language import ENGLISH, Language
from resnetkit.studies.phrase import Phrase, phrase
from resnetkit.untrusted import markup_text

__all__ = [
    "SHORTCUT_NAMES",
    "block_drawing",
    "network_drawing",
    "network_sheet",
    "short",
]

SHORTCUT_NAMES: dict[ShortcutKind, Phrase] = {
    "none": phrase("no shortcut"),
    "identity": phrase("identity"),
    "zeros": phrase("identity, zeros for new channels"),
    "projection": phrase("1x1 projection"),
}
DASHES: dict[ShortcutKind, str] = {"zeros": "2 4", "projection": "7 4"}
ARC_LABELS: dict[ShortcutKind, str] = {"zeros": "zeros", "projection": "1x1"}

WIDTH = 380.0  # of a panel, in which a font of 12 is readable on a phone
BOX, GAP, MARGIN = 74.0, 16.0, 14.0  # of a block, of what lies between two, before the first
MOST_BOXES = 4  # in a row; of more blocks, the first two and the last are drawn
LINE = 15.0


def network_drawing(stages: Sequence[StageOutline], *, title: str) -> str:
    """Draws a network for use inside a page: a row for each stage, an arc for each shortcut."""
    body, height = network_panel(stages, title, left=0)
    return opening((WIDTH, height), describe(stages, title)) + with_variables(body) + "</svg>"


def network_sheet(networks: Mapping[str, Sequence[StageOutline]]) -> str:
    """Draws networks side by side for a separate file, on a solid background."""
    panels = [
        network_panel(stages, title, left=index * WIDTH)
        for index, (title, stages) in enumerate(networks.items())
    ]
    size = WIDTH * len(panels), max(height for _, height in panels)
    ground = f'<rect width="{size[0]:g}" height="{size[1]:g}" fill="{color("surface")}"/>'
    extent = f'xmlns="http://www.w3.org/2000/svg" width="{size[0]:g}" height="{size[1]:g}"'
    description = " ".join(describe(stages, title) for title, stages in networks.items())
    bodies = "".join(body for body, _ in panels)
    return opening(size, description, attributes=extent) + ground + bodies + "</svg>\n"


def describe(stages: Sequence[StageOutline], title: str) -> str:
    """Describes what a drawing of a network shows."""
    rows = [
        f"{stage.name}: {len(stage.blocks)} blocks of {', '.join(weights(stage.blocks[-1]))},"
        f" {SHORTCUT_NAMES[stage.blocks[-1].shortcut]}"
        for stage in stages[1:-1]
    ]
    return f"{title}. {'; '.join(rows)}."


def weights(block: BlockOutline) -> list[str]:
    """Returns the descriptions of the layers of a block that have weights."""
    return [layer for layer in block.layers if layer not in ("BN", "ReLU")]


def network_panel(stages: Sequence[StageOutline], title: str, *, left: float) -> tuple[str, float]:
    """Returns the drawing of one network and its height."""
    elements = [text(left + MARGIN, 22, title, TextStyle(size=15, weight="bold"))]
    y = 44.0
    for stage in stages:
        drawn, height = stage_row(stage, left, y)
        elements.append(drawn)
        y += height
    return "".join(elements), y


def stage_row(stage: StageOutline, left: float, y: float) -> tuple[str, float]:
    """Returns the drawing of one stage, whose row begins at `y`, and its height."""
    shape = "x".join(map(str, stage.output_shape))
    count = f", {len(stage.blocks)} blocks" if len(stage.blocks) > 1 else ""
    facts = f"{stage.name}{count}: {shape}"
    costs = f"{short(stage.parameters)} parameters, {short(stage.multiply_adds)} mult-adds"
    elements = [
        text(left + MARGIN, y, facts, TextStyle(weight="bold")),
        text(left + MARGIN, y + LINE, costs, TextStyle(role="muted")),
    ]
    top = y + LINE + (32 if any(block.shortcut != "none" for block in stage.blocks) else 12)
    lines = max(len(weights(block)) for block in stage.blocks)
    height = max(lines, 1) * LINE + 12
    x, middle = left + MARGIN, top + height / 2
    for block in drawn_blocks(stage.blocks):
        if isinstance(block, int):
            elements.append(
                text(
                    x + BOX / 2,
                    middle + 4,
                    f"+ {block} more",
                    TextStyle(role="muted", anchor="middle"),
                )
            )
        else:
            elements.append(box(block, x, top, height))
            if block.shortcut != "none":
                elements.append(arc(block.shortcut, x, top, height))
        elements.append(line(x + BOX, middle, x + BOX + GAP, middle))
        x += BOX + GAP
    return "".join(elements), top + height + 26 - y


def drawn_blocks(blocks: Sequence[BlockOutline]) -> Iterator[BlockOutline | int]:
    """Yields the blocks that are drawn, and the number of those left out between them."""
    if len(blocks) <= MOST_BOXES:
        yield from blocks
        return
    yield from blocks[:2]
    yield len(blocks) - 3
    yield blocks[-1]


def box(block: BlockOutline, x: float, y: float, height: float) -> str:
    """Returns a block as a box with its convolutions."""
    names = weights(block)
    first = y + height / 2 - (len(names) - 1) * LINE / 2 + 4
    labels = [
        text(x + BOX / 2, first + index * LINE, name, TextStyle(anchor="middle", fit=BOX - 8))
        for index, name in enumerate(names)
    ]
    look = f'fill="{color("page")}" stroke="{color("muted")}" stroke-width="1.2"'
    rect = f'<rect x="{x:g}" y="{y:g}" width="{BOX:g}" height="{height:g}" rx="7" {look}/>'
    return rect + "".join(labels)


def arc(kind: ShortcutKind, x: float, y: float, height: float) -> str:
    """Returns the shortcut over a block, as an arc from its input to its output."""
    start, end, middle = x - GAP / 2 + 3, x + BOX + GAP / 2, y + height / 2
    path = f"M{start:g} {middle:g}V{y - 6:g}Q{start:g} {y - 14:g} {start + 8:g} {y - 14:g}"
    path += f"H{end - 8:g}Q{end:g} {y - 14:g} {end:g} {y - 6:g}V{middle:g}"
    dashes = f' stroke-dasharray="{DASHES[kind]}"' if kind in DASHES else ""
    look = f'fill="none" stroke="{color("series-1")}" stroke-width="2"{dashes}'
    drawing = f'<path d="{path}" {look}/>'
    if kind not in ARC_LABELS:
        return drawing
    label = text(
        x + BOX / 2, y - 18, ARC_LABELS[kind], TextStyle(role="series-1", anchor="middle", size=11)
    )
    return drawing + label


def block_drawing(block: BlockOutline, *, title: str, t: Language = ENGLISH) -> str:
    """Draws one block layer by layer, for use inside a page."""
    steps = list(block.layers)
    top, step = 58.0, 38.0
    middle, right = 150.0, 288.0
    elements = [
        text(middle, 20, title, TextStyle(weight="bold", anchor="middle", size=14)),
        text(middle, top - 14, "x", TextStyle(anchor="middle", style="italic")),
    ]
    y = top
    elements.append(line(middle, top - 8, middle, y + 4))
    for layer in steps:
        elements.append(layer_box(layer, middle, y + 4))
        elements.append(line(middle, y + 30, middle, y + step + 4))
        y += step
    if block.shortcut != "none":
        elements.append(joined(block.shortcut, middle, right, top, y + 14, t))
        y += 32
        elements.append(line(middle, y - 8, middle, y + 4))
    if block.ends_with_relu:
        elements.append(layer_box("ReLU", middle, y + 4))
        elements.append(line(middle, y + 30, middle, y + step + 4))
        y += step
    elements.append(
        text(middle, y + 20, formula(block), TextStyle(anchor="middle", style="italic"))
    )
    body = with_variables("".join(elements))
    description = t(
        "{network}: x goes through {layers}; {shortcut}.",
        network=title,
        layers=", ".join(steps),
        shortcut=SHORTCUT_NAMES[block.shortcut],
    )
    return opening((WIDTH, y + 34), description) + body + "</svg>"


def formula(block: BlockOutline) -> str:
    """Returns what a block computes."""
    added = {"none": "", "projection": " + W x"}.get(block.shortcut, " + x")
    return f"relu(F(x){added})" if block.ends_with_relu else f"F(x){added}"


def with_variables(body: str) -> str:
    """Returns a drawing whose colors are those of the page around it."""
    for role, (light, _) in COLORS.items():
        body = body.replace(light, f"var(--{role})")
    return body


def layer_box(layer: str, middle: float, y: float) -> str:
    """Returns one layer as a box; those with weights stand out."""
    fill = color("page") if layer in ("BN", "ReLU") else color("good-soft")
    look = f'fill="{fill}" stroke="{color("muted")}" stroke-width="1.2"'
    rect = f'<rect x="{middle - 65:g}" y="{y:g}" width="130" height="26" rx="7" {look}/>'
    return rect + text(middle, y + 17, layer, TextStyle(anchor="middle", fit=122))


def joined(
    kind: ShortcutKind, middle: float, right: float, top: float, y: float, t: Language
) -> str:
    """Returns the shortcut around the layers of a block and the sum at their end."""
    dashes = f' stroke-dasharray="{DASHES[kind]}"' if kind in DASHES else ""
    look = f'fill="none" stroke="{color("series-1")}" stroke-width="2.4"{dashes}'
    path = f"M{middle:g} {top - 4:g}H{right - 10:g}Q{right:g} {top - 4:g} {right:g} {top + 6:g}"
    path += f"V{y - 10:g}Q{right:g} {y:g} {right - 10:g} {y:g}H{middle + 13:g}"
    ink = f'fill="{color("surface")}" stroke="{color("series-1")}" stroke-width="2"'
    plus = f'<circle cx="{middle:g}" cy="{y:g}" r="11" {ink}/>' + text(
        middle, y + 5, "+", TextStyle(anchor="middle", size=16, role="series-1")
    )
    label = text(
        right + 14,
        (top + y) / 2,
        t(SHORTCUT_NAMES[kind]),
        TextStyle(role="series-1", anchor="middle", rotated=True, size=11.5),
    )
    return f'<path d="{path}" {look}/>{plus}{label}'


@dataclass(frozen=True)
class TextStyle:
    """How a text is drawn.

    Attributes:
        role: of the color.
        anchor: start, middle or end of the text at its point.
        size: of the font.
        weight: of the font.
        style: of the font.
        fit: width beyond which the text is condensed.
        rotated: whether it runs from top to bottom.
    """

    role: str = "ink"
    anchor: str = "start"
    size: float = 12
    weight: str = "normal"
    style: str = "normal"
    fit: float = math.inf
    rotated: bool = False


def text(x: float, y: float, content: str, look: TextStyle) -> str:
    """Returns a text at a point."""
    condensed = ""
    if len(content) * look.size * 0.56 > look.fit:
        condensed = f' textLength="{look.fit:g}" lengthAdjust="spacingAndGlyphs"'
    turn = f' transform="rotate(90 {x:g} {y:g})"' if look.rotated else ""
    font = (
        f"font-family: {FONT}; font-size: {look.size:g}px; font-weight: {look.weight};"
        f" font-style: {look.style}"
    )
    # 3x3 and 16x32x32, but not resnext50_32x4d
    displayed = re.sub(
        r"(?<=\d)x(?=\d+(?![a-wyz\d]))", "\N{MULTIPLICATION SIGN}", markup_text(escape(content))
    )
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{look.anchor}" fill="{color(look.role)}"'
        f' style="{font}"{condensed}{turn}>{displayed}</text>'
    )


def line(x1: float, y1: float, x2: float, y2: float) -> str:
    """Returns a straight wire."""
    look = f'stroke="{color("muted")}" stroke-width="1.4"'
    return f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" fill="none" {look}/>'


def short(count: int) -> str:
    """Returns a count in three figures or so, such as 269.7 k or 4.1 G."""
    for size, unit in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)
