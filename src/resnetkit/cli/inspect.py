"""resnet inspect: the structure of a network, and what happens inside a trained one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from resnetkit.cli.options import Changes, Json, Variant, parse_changes
from resnetkit.cli.output import print_json, print_table, remark, say

if TYPE_CHECKING:
    from torch import Tensor

    from resnetkit.data.dataset import Dataset
    from resnetkit.models.outline import BlockOutline, StageOutline
    from resnetkit.models.zoo import Architecture
    from resnetkit.weights.network import TrainedNetwork

__all__ = ["inspect"]

IMAGES = 64  # of the test split, for probes
NOISE_IMAGES = 4  # for a network that was not trained


def inspect(
    network: str,
    /,
    *,
    compare: Annotated[
        str | None, Parameter(help="A second architecture or run to compare with.")
    ] = None,
    out: Annotated[Path | None, Parameter(help="Draw the network, or both, as SVG.")] = None,
    saliency: Annotated[
        str | None,
        Parameter(help="An image file, or the number of a test image: draw its saliency maps."),
    ] = None,
    thorough: Annotated[
        bool, Parameter(negative=(), help="Run the slow probes as well; see above.")
    ] = False,
    changes: Changes = (),
    variant: Variant = None,
    json: Json = False,
) -> None:
    """Show the stages, blocks, shortcuts, shapes and costs of a network, and probe a trained one.

    For a run more tables follow, measured on 64 test images: the gradient at each layer, its
    response, the size of each block's F(x) compared with its shortcut, and the receptive field of
    each feature map. With --thorough also the test error without each block and with neighboring
    blocks exchanged, and the gradient that paths of each length carry; for an architecture, the
    gradient at each layer before training, on noise.

    Args:
        network: An architecture of 'resnet models', a run folder or a file of weights.
    """
    from resnetkit.errors import UsageError
    from resnetkit.models.outline import outline
    from resnetkit.report.diagram import network_sheet
    from resnetkit.storage import storage_errors, write_file

    if saliency is not None:
        if compare or changes:
            raise UsageError("--saliency takes one network: leave out --compare and --set.")
        show_saliency(network, saliency, out or Path("saliency.png"), variant, json=json)
        return
    options = parse_changes(changes)
    if compare and Path(compare) == Path(network):
        raise UsageError(f"--compare {compare}: it is the same network; name another.")
    names = [network, compare] if compare else [network]
    subjects = {name: subject(name, options, variant) for name in names}
    stages = {name: outline(*parts[:2]) for name, parts in subjects.items()}
    if out is not None:
        with storage_errors(out, "Choose another place with --out."):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_file(out, network_sheet(stages))
        remark(f"drawn in {out}")
    probed = {name: probes_of(*parts, thorough=thorough) for name, parts in subjects.items()}
    if json:
        print_json({name: facts(stages[name], probed[name]) for name in subjects})
        return
    for name in subjects:
        show_outline(name, stages[name])
        show_probes(probed[name])
    if compare:
        show_comparison(stages)


def subject(
    name: str, options: dict[str, Any], variant: str | None
) -> "tuple[Architecture, int, TrainedNetwork | None]":
    """Returns the architecture of a name or path, its image size, and the trained network."""
    from resnetkit.errors import UsageError
    from resnetkit.models.zoo import ARCHITECTURES, find_architecture
    from resnetkit.weights.load import is_trained, load_network

    if name in ARCHITECTURES or not is_trained(name):
        architecture = find_architecture(name).with_options(**options)
        return architecture, architecture.input_size, None
    if options:
        raise UsageError(f"--set changes an architecture: {name} is a trained network.")
    loaded = load_network(Path(name), variant=variant)
    return loaded.architecture, min(loaded.image_size), loaded


def show_outline(name: str, stages: "Sequence[StageOutline]") -> None:
    """Prints one line for each sequence of equal blocks."""
    from itertools import groupby

    from resnetkit.report.diagram import SHORTCUT_WORDS, short

    rows = []
    for stage in stages:
        for (layers, shortcut), members in groupby(stage.blocks, key=look):
            blocks = list(members)
            rows.append(
                [
                    stage.name,
                    "x".join(map(str, blocks[-1].output_shape)),
                    str(len(blocks)),
                    " > ".join(layers),
                    SHORTCUT_WORDS[shortcut] if stage.name not in ("stem", "head") else "",
                    short(sum(block.parameters for block in blocks)),
                    short(sum(block.multiply_adds for block in blocks)),
                ]
            )
    say(summary(name, stages))
    print_table(
        ["stage", "output", "blocks", "layers", "shortcut", "parameters", "mult-adds"],
        rows,
        numbers="llrllrr",
    )


def look(block: "BlockOutline") -> tuple[tuple[str, ...], Any]:
    """Returns the convolutions and the shortcut of a block, by which neighbors are grouped."""
    return tuple(layer for layer in block.layers if layer not in ("BN", "ReLU")), block.shortcut


def summary(name: str, stages: "Sequence[StageOutline]") -> str:
    """Returns one line on a network."""
    parameters = sum(stage.parameters for stage in stages)
    multiply_adds = sum(stage.multiply_adds for stage in stages)
    return f"{name}: {parameters:,} parameters, {multiply_adds / 1e6:,.1f} M multiply-adds"


def show_comparison(stages: "Mapping[str, Sequence[StageOutline]]") -> None:
    """Prints the counts of two networks and which of them are equal."""
    counted = [counts(network) for network in stages.values()]
    rows = [
        [what, *(f"{row[what]:,}" for row in counted), same([row[what] for row in counted])]
        for what in counted[0]
    ]
    say()
    print_table(["", *stages, ""], rows, numbers="l" + "r" * len(stages) + "l")


def counts(stages: "Sequence[StageOutline]") -> dict[str, int]:
    """Returns the counts of a network that are compared."""
    blocks = [block for stage in stages[1:-1] for block in stage.blocks]
    return {
        "parameters": sum(stage.parameters for stage in stages),
        "multiply-adds": sum(stage.multiply_adds for stage in stages),
        "blocks": len(blocks),
        "shortcuts": sum(block.shortcut != "none" for block in blocks),
        "projections": sum(block.shortcut == "projection" for block in blocks),
    }


def same(values: list[int]) -> str:
    """Returns a word where all values are equal."""
    return "equal" if len(set(values)) == 1 else ""


def probes_of(
    architecture: "Architecture", size: int, network: "TrainedNetwork | None", *, thorough: bool
) -> dict[str, Any]:
    """Returns what the probes measure in a trained network, or in one before training."""
    from dataclasses import asdict

    if network is not None:
        measured = probe(network, thorough=thorough)
    else:
        measured = probe_untrained(architecture, size) if thorough else {}
    return {name: [asdict(row) for row in rows] for name, rows in measured.items()}


def probe_untrained(architecture: "Architecture", size: int) -> dict[str, Any]:
    """Returns the gradient at each layer of a network with fresh weights, on images of noise."""
    import torch

    from resnetkit.probes.gradients import gradient_flow
    from resnetkit.probes.receptive import receptive_fields

    generator = torch.Generator().manual_seed(0)
    model = architecture.build(generator).double()  # the smallest gradients have 300 zeros
    shape = (NOISE_IMAGES, architecture.in_channels, size, size)
    images = torch.randn(shape, generator=generator, dtype=torch.float64)
    labels = torch.arange(NOISE_IMAGES) % architecture.num_classes
    return {
        "gradients": gradient_flow(model, images, labels),
        "receptive_fields": receptive_fields(model),
    }


def probe(network: "TrainedNetwork", *, thorough: bool) -> dict[str, Any]:
    """Returns what the probes measure in a trained network, on images of its test split."""
    from resnetkit.errors import ArchitectureError, UsageError
    from resnetkit.evaluation.evaluate import data_of
    from resnetkit.probes.gradients import gradient_flow
    from resnetkit.probes.paths import path_gradients
    from resnetkit.probes.receptive import receptive_fields
    from resnetkit.probes.residuals import residual_magnitudes
    from resnetkit.probes.responses import layer_responses

    try:
        dataset = data_of(network)
    except UsageError as error:
        remark(f"no probe was run: {error}")
        return {}
    sample_ids = dataset.splits["test"][:IMAGES]
    images = network.normalization(dataset.images[sample_ids])
    labels = dataset.labels[sample_ids]
    measured: dict[str, Any] = {
        "gradients": gradient_flow(network.model, images, labels),
        "receptive_fields": receptive_fields(network.model),
    }
    try:
        measured["responses"] = layer_responses(network.model, images)
        if thorough:
            measured["lesions"] = lesions(network, dataset)
        measured["residuals"] = residual_magnitudes(network.model, images)
        if thorough:
            measured["paths"] = path_gradients(network.model, images, labels)
    except ArchitectureError as error:
        remark(str(error))
    return measured


@dataclass(frozen=True)
class Lesion:
    """The error of a network without a block, or with two blocks exchanged.

    Attributes:
        blocks: which blocks, in words.
        error: on the test split, in percent.
        points: by how many percentage points it is higher than that of the whole network.
    """

    blocks: str
    error: float
    points: float


def lesions(network: "TrainedNetwork", dataset: "Dataset") -> list[Lesion]:
    """Measures the error without each block, and with each pair of neighbors exchanged."""
    from resnetkit.probes.lesions import removable_blocks
    from resnetkit.studies.measurements import lesion_errors, neighbors

    errors, blocks = lesion_errors(network, dataset), removable_blocks(network.model)
    (whole,) = errors["whole"]
    named = [(f"without {name}", error) for name, error in zip(blocks, errors["one"], strict=True)]
    named += [
        (f"{first} and {second} exchanged", error)
        for (first, second), error in zip(neighbors(blocks), errors["swapped"], strict=True)
    ]
    return [Lesion(words, error, error - whole) for words, error in named]


def show_saliency(name: str, which: str, out: Path, variant: str | None, *, json: bool) -> None:
    """Draws saliency maps of the prediction for one image, and prints the prediction."""
    import torch

    from resnetkit.errors import UsageError
    from resnetkit.models.zoo import ARCHITECTURES
    from resnetkit.probes.saliency import grad_cam, integrated_gradients
    from resnetkit.report.saliency_sheet import write_saliency_sheet
    from resnetkit.storage import storage_errors
    from resnetkit.weights.load import load_network

    if not Path(name).exists() and name in ARCHITECTURES:
        raise UsageError(f"{name} is an architecture without trained weights: name a run.")
    loaded = load_network(Path(name), variant=variant)
    image = chosen_image(loaded, which)
    normalized = loaded.normalization(image[None])[0]
    with torch.inference_mode():
        probabilities = loaded.model(normalized[None]).double().softmax(1)[0]
    label = int(probabilities.argmax())
    answer = loaded.class_names[label] if loaded.class_names else f"class {label}"
    probability = float(probabilities[label])
    maps = {
        "Grad-CAM": grad_cam(loaded.model, normalized, label),
        "integrated gradients": integrated_gradients(loaded.model, normalized, label),
    }
    with storage_errors(out, "Choose another place with --out."):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_saliency_sheet(out, image, maps, answer=f"{answer}, {probability:.0%}")
    if json:
        print_json({"answer": answer, "probability": probability, "drawing": str(out)})
    else:
        say(f"{answer}, probability {probability:.4f}")
    remark(f"drawn in {out}")


def chosen_image(network: "TrainedNetwork", which: str) -> "Tensor":
    """Returns a test image by its number, or the pixels of a file as the network sees them."""
    from resnetkit.errors import UsageError
    from resnetkit.evaluation.evaluate import data_of
    from resnetkit.inference.transform import EvalTransform

    if which.isascii() and which.isdecimal() and len(which) < 10:
        dataset = data_of(network)
        tests = dataset.splits["test"]
        if int(which) >= len(tests):
            raise UsageError(
                f"--saliency {which}: '{dataset.name}' has {len(tests):,} test images, from 0."
            )
        return dataset.images[tests[int(which)]]
    return EvalTransform.of(network).pixels(Path(which))


def show_probes(probed: dict[str, Any]) -> None:
    """Prints a table for each probe."""
    headings = {
        "gradients": ["layer", "gradient of weight", "gradient of input"],
        "responses": ["response of", "deviation"],
        "residuals": ["block", "|F(x)| / |shortcut|", "|block(x) - x| / |x|"],
        "receptive_fields": ["feature map", "pixels seen", "stride"],
        "lesions": ["blocks", "test error, %", "points more"],
        "paths": ["through blocks", "paths", "gradient of one"],
    }
    for name, columns in headings.items():
        if name in probed:
            say()
            rows = [[figure(value) for value in row.values()] for row in probed[name]]
            print_table(columns, rows, numbers="l" + "r" * (len(columns) - 1))


def figure(value: object) -> str:
    """Returns a value with four significant figures; a dash for NaN."""
    if isinstance(value, float):
        return "-" if value != value else f"{value:.4g}"
    return str(value)


def facts(stages: "Sequence[StageOutline]", probed: dict[str, Any]) -> dict[str, Any]:
    """Returns a network as JSON values."""
    from dataclasses import asdict

    from resnetkit.training.events import finite

    drawn = [{**asdict(stage), "output_shape": stage.output_shape} for stage in stages]
    return {
        "stages": drawn,
        **{name: [finite(row) for row in rows] for name, rows in probed.items()},
    }
