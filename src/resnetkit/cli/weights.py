"""resnet weights: published weights, files of weights, and conversion between formats."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from resnetkit.cli.options import Json, Variant
from resnetkit.cli.output import bar, print_json, print_table, remark, say

if TYPE_CHECKING:
    from torch import Tensor

    from resnetkit.weights.network import TrainedNetwork

__all__ = ["weights"]

weights = App(
    name="weights",
    help="List and fetch published weights; show, convert and publish weights.",
    help_epilogue="Example: resnet weights fetch resnet50.a1_in1k",
    help_format="markdown",
)


@weights.command(name="list", help_epilogue="Example: resnet weights list")
def list_weights(*, json: Json = False) -> None:
    """List the published weights, and whether they are on this machine."""
    from resnetkit.weights.published import published

    rows: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "library": entry.library,
            "source": entry.source,
            "variant": entry.variant or None,
            "accuracy": entry.accuracy,
            "megabytes": round(entry.megabytes, 2),
            "sha256": entry.sha256 or None,
            "path": str(entry.path) if entry.path else None,
        }
        for entry in published().values()
    ]
    if json:
        print_json(rows)
        return
    print_table(
        ["name", "variant", "top-1 (%)", "download", "here", "from", "SHA-256"],
        [
            [
                row["name"],
                row["variant"] or "",
                f"{row['accuracy']:.2f}" if row["accuracy"] else "",
                f"{row['megabytes']:.0f} MB",
                "yes" if row["path"] else "no",
                row["library"],
                f"{row['sha256']}..." if row["sha256"] else "stated by the Hub",
            ]
            for row in rows
        ],
        numbers="llrrlll",
    )


@weights.command(help_epilogue="Example: resnet weights fetch resnet50.a1_in1k")
def fetch(name: str, /, *, json: Json = False) -> None:
    """Download published weights and verify them.

    They are stored where their library looks for them as well: those of torchvision in TORCH_HOME,
    those of timm, from the Hugging Face Hub, in HF_HOME. Every command then takes them by name.

    Args:
        name: A name of 'resnet weights list'.
    """
    from resnetkit.weights.fetch import fetch_weights

    with bar(f"fetch {name}") as progress:

        def observe(done: int, total: int) -> None:
            progress.update(done / total if total else 0.0, f"{done / 1e6:,.0f} MB")

        path = fetch_weights(name, observe=observe)
    if json:
        print_json({"name": name, "path": str(path)})
    else:
        say(path)


@weights.command(help_epilogue="Example: resnet weights push runs/NAME OWNER/NAME")
def push(
    run: Path,
    repository: str,
    /,
    *,
    public: Annotated[
        bool,
        Parameter(negative=(), help="Make a new repository public; private by default."),
    ] = False,
    json: Json = False,
) -> None:
    """Upload a finished run to the Hugging Face Hub: weights, configuration, preprocessing, card.

    Log in with 'hf auth login' or set HF_TOKEN before.

    Args:
        run: A run folder, or a folder of 'resnet weights convert --to resnetkit'.
        repository: OWNER/NAME; created if it does not exist.
    """
    from resnetkit.weights.hub import push as push_folder

    hide_bars_of_the_hub()
    address = push_folder(run, repository, public=public)
    if json:
        print_json({"repository": repository, "commit": address})
    else:
        say(address)


@weights.command(help_epilogue="Example: resnet weights pull OWNER/NAME --out mine")
def pull(
    repository: str,
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="A new folder; NAME in the current folder by default.")
    ] = None,
    json: Json = False,
) -> None:
    """Download a run from the Hugging Face Hub and verify it; nothing in it is executed.

    For a private repository, log in with 'hf auth login' or set HF_TOKEN before.

    Args:
        repository: OWNER/NAME.
    """
    from resnetkit.weights.hub import pull as pull_folder

    hide_bars_of_the_hub()
    folder = pull_folder(repository, out or Path(repository.rpartition("/")[2]))
    if json:
        print_json({"repository": repository, "folder": str(folder)})
    else:
        say(folder)


def hide_bars_of_the_hub() -> None:
    """Lets huggingface_hub, which is not imported yet, show bars on a terminal only."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@weights.command(help_epilogue="Example: resnet weights show ResNet-50-model.caffemodel")
def show(file: Path, /, *, variant: Variant = None, json: Json = False) -> None:
    """Describe a file or folder of weights: format, network, preprocessing, classes.

    Args:
        file: Weights of torchvision, timm, transformers, Keras, Caffe or akamaster, or a run.
    """
    from resnetkit.weights.load import load_network

    network = load_network(file, variant=variant)
    if json:
        print_json(facts(network))
        return
    print_table(["what", "value"], list(described(network).items()), numbers="ll")


@weights.command(
    help_epilogue="Example: resnet weights convert resnet50.pth --variant v1.5 --to transformers"
    " --out resnet50"
)
def convert(
    file: Path,
    /,
    *,
    to: Annotated[
        str,
        Parameter(help="torchvision, timm, transformers, keras, caffe, akamaster or resnetkit."),
    ],
    out: Annotated[
        Path,
        Parameter(help="A new file; for timm, transformers and resnetkit a new folder."),
    ],
    variant: Variant = None,
    json: Json = False,
) -> None:
    """Convert weights to another format; every tensor is read again and compared bit by bit.

    Args:
        file: Weights of any format, or a run folder.
    """
    from resnetkit.weights.export import export_weights
    from resnetkit.weights.load import load_network

    network = load_network(file, variant=variant)
    again = export_weights(network, out, to)
    if json:
        print_json({"file": str(out), "from": network.format, "to": to, **counts(again)})
        return
    remark(f"read: {network.origin}")
    if network.class_names and not again.class_names:
        remark(f"the format {to} has no class names: they are left out")
    if network.resize.mode == "center" and again.resize.offset != network.resize.offset:
        remark(
            f"{to} crops the center of an image up to one pixel away, depending on the size of the"
            " image, so that probabilities can differ slightly"
        )
    remark(
        f"all {counts(again)['tensors']} tensors and the logits were read again: equal bit by bit"
    )
    say(out)


def counts(network: "TrainedNetwork") -> dict[str, int]:
    """Returns the numbers of parameters and of tensors."""
    return {
        "parameters": sum(parameter.numel() for parameter in network.model.parameters()),
        "tensors": len(network.model.state_dict()),
    }


def facts(network: "TrainedNetwork") -> dict[str, Any]:
    """Returns a network as JSON values; of a mean image, the mean of each channel."""
    from dataclasses import asdict

    from resnetkit.models.zoo import known_as
    from resnetkit.weights.variants import variant_of

    return {
        "format": network.format,
        "name": known_as(network.architecture) or "",
        "variant": variant_of(network.architecture) or None,
        **counts(network),
        "architecture": asdict(network.architecture),
        "preprocessing": {
            "mean": network.normalization.mean.mean((1, 2)).tolist(),
            "mean_shape": list(network.normalization.mean.shape),
            "std": network.normalization.std.flatten().tolist(),
        },
        "image_size": list(network.image_size),
        "crop_pct": network.crop_pct,
        "resize": asdict(network.resize),
        "data": network.data,
        "class_names": list(network.class_names),
        "has_head": network.has_head,
        "origin": network.origin,
    }


def described(network: "TrainedNetwork") -> dict[str, str]:
    """Returns the rows of the table that describes a network."""
    from resnetkit.models.zoo import known_as
    from resnetkit.weights.variants import variant_of

    architecture, counted = network.architecture, counts(network)
    blocks = ", ".join(map(str, architecture.depths))
    name = known_as(architecture) or "an unnamed network"
    variant = variant_of(architecture)
    return {
        "format": network.format,
        "network": f"{name}: {blocks} {architecture.block} blocks",
        "variant": f"{variant}, stride in the {architecture.stride_in}" if variant else "none",
        "parameters": f"{counted['parameters']:,}",
        "tensors": str(counted["tensors"]),
        "images": f"{architecture.in_channels} x {network.image_size[0]} x {network.image_size[1]}",
        "evaluated on": describe_crop(network),
        "mean": describe_constants(network.normalization.mean),
        "deviation": describe_constants(network.normalization.std),
        "classes": describe_network_classes(network),
        "trained on": network.data or "unknown",
        "recognized as": network.origin,
    }


def describe_crop(network: "TrainedNetwork") -> str:
    """Returns how an image is resized and cropped."""
    resize, size = network.resize, network.image_size
    sides = [resize.side(side, network.crop_pct) for side in size]
    to = f"{sides[0]} x {sides[1]}"
    if resize.mode == "squash":
        resized = f"both sides resized to {to}"
    else:
        resized = (
            f"the shorter side resized to {sides[0]}"
            if sides[0] == sides[1]
            else f"resized to cover {to}"
        )
    return f"the center crop, {resized} ({resize.interpolation})"


def describe_constants(constants: "Tensor") -> str:
    """Returns the mean or the standard deviation of pixels of 0 to 255."""
    if constants.shape[1:] != (1, 1):
        return f"an image of {' x '.join(map(str, constants.shape))}"
    return ", ".join(f"{float(value):.6g}" for value in constants.flatten())


def describe_network_classes(network: "TrainedNetwork") -> str:
    """Returns the number of classes and the first of their names."""
    count = network.architecture.num_classes
    if not network.has_head:
        return "none (no head)"
    if not network.class_names:
        return f"{count:,}, without names"
    more = ", ..." if count > 3 else ""
    return f"{count:,}: {', '.join(network.class_names[:3])}{more}"
