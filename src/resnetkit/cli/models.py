"""resnet models: the table of architectures, or the layers of one of them."""

from dataclasses import dataclass

from resnetkit.cli.options import Changes, Json, parse_changes
from resnetkit.cli.output import print_json, print_table

__all__ = ["models"]


def models(name: str | None = None, /, *, changes: Changes = (), json: Json = False) -> None:
    """List the architectures, or show the layers of one.

    All numbers come from running the network, or its distinct blocks for the list, on tensors that
    have a shape but no values.

    Args:
        name: An architecture, such as resnet56; all are listed without it.
    """
    from resnetkit.errors import UsageError

    if name:
        show_layers(name, parse_changes(changes), json=json)
    elif changes:
        raise UsageError(
            "--set changes one architecture: name it, such as 'resnet models resnet56'."
        )
    else:
        list_models(json=json)


def list_models(*, json: bool) -> None:
    """Prints one line for each architecture."""
    from resnetkit.models.zoo import ARCHITECTURES

    rows = [listed(name) for name in ARCHITECTURES]
    if json:
        print_json(rows)
        return
    print_table(
        ["name", "layers", "parameters", "mult-adds", "input", "paper's error", "measured on"],
        [
            [
                row.name,
                row.layers,
                f"{row.parameters:,}",
                millions(row.multiply_adds),
                "x".join(map(str, row.input)),
                f"{row.paper_error:.2f} %" if row.paper_error is not None else "",
                row.paper_protocol or "",
            ]
            for row in rows
        ],
        numbers="lrrrlrl",
    )


@dataclass(frozen=True)
class ListedArchitecture:
    """One row of the list of architectures.

    Attributes:
        name: by which it is built.
        layers: with weights, projections not counted.
        parameters: learned values.
        multiply_adds: for one image.
        input: channels, height and width of an image.
        shortcut: see `models.blocks.Shortcut`.
        paper_error: in percent, by He et al. 2015; None if they give none.
        paper_protocol: data, views and table of this error.
    """

    name: str
    layers: int
    parameters: int
    multiply_adds: int
    input: tuple[int, int, int]
    shortcut: str
    paper_error: float | None
    paper_protocol: str | None


def listed(name: str) -> ListedArchitecture:
    """Returns the row of an architecture."""
    from resnetkit.models.summary import count
    from resnetkit.models.zoo import ARCHITECTURES, PAPER_RESULTS

    architecture = ARCHITECTURES[name]
    totals = count(architecture)
    paper = PAPER_RESULTS.get(name)
    size = architecture.input_size
    return ListedArchitecture(
        name=name,
        layers=totals.depth,
        parameters=totals.parameters,
        multiply_adds=totals.multiply_adds,
        input=(architecture.in_channels, size, size),
        shortcut=architecture.shortcut,
        paper_error=paper.error if paper else None,
        paper_protocol=paper.protocol if paper else None,
    )


def show_layers(name: str, options: dict[str, object], *, json: bool) -> None:
    """Prints one line for each layer, and the totals."""
    from dataclasses import asdict

    from resnetkit.models.summary import trace
    from resnetkit.models.zoo import find_architecture

    architecture = find_architecture(name).with_options(**options)
    complexity = trace(architecture)
    if json:
        print_json({"name": name, "architecture": asdict(architecture), **asdict(complexity)})
        return
    rows = [
        [
            layer.name,
            layer.kind,
            "x".join(map(str, layer.output_shape)),
            f"{layer.parameters:,}" if layer.parameters else "",
            millions(layer.multiply_adds) if layer.multiply_adds else "",
        ]
        for layer in complexity.layers
    ]
    total = [f"{name}, {complexity.depth} layers", "", ""]
    total += [f"{complexity.parameters:,}", millions(complexity.multiply_adds)]
    print_table(
        ["layer", "kind", "output", "parameters", "mult-adds"], [*rows, total], numbers="lllrr"
    )


def millions(count: int) -> str:
    """Returns a count as millions, such as 40.6 M."""
    return f"{count / 1e6:,.1f} M"
