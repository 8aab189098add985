"""resnet weights: what a file of weights holds, and the same network for another library."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from resnetkit.cli.options import Json, Variant
from resnetkit.cli.output import print_json, print_table, remark

if TYPE_CHECKING:
    from torch import Tensor

    from resnetkit.models.weights.network import TrainedNetwork

__all__ = ["weights"]

weights = App(
    name="weights",
    help="Show weights of other libraries, and convert them.",
    help_epilogue="Example: resnet weights show resnet50.pth --variant v1.5",
)


@weights.command(help_epilogue="Example: resnet weights show ResNet-50-model.caffemodel")
def show(file: Path, /, *, variant: Variant = "", json: Json = False) -> None:
    """Say what a file or folder of weights is: format, network, preprocessing, classes.

    Args:
        file: Of torchvision, timm, transformers, keras.applications, Caffe, akamaster, or a run.
    """
    from resnetkit.models.weights.load import load_network

    network = load_network(file, variant=variant)
    if json:
        print_json(facts(network))
        return
    print_table(["what", "value"], list(in_words(network).items()), numbers="ll")


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
        Parameter(help="File, or folder for timm, transformers and resnetkit; nothing lies there."),
    ],
    variant: Variant = "",
    json: Json = False,
) -> None:
    """Write a network for another library; every tensor is read again and compared to the bit.

    Args:
        file: Weights of any format, or a run folder.
    """
    from resnetkit.models.weights.export import export_weights
    from resnetkit.models.weights.load import load_network

    network = load_network(file, variant=variant)
    again = export_weights(network, out, to)
    if json:
        print_json({"file": str(out), "from": network.format, "to": to, **counts(again)})
        return
    remark(f"read: {network.origin}")
    remark(f"{counts(again)['tensors']} tensors and the logits read again are equal to the bit")
    print(out)


def counts(network: "TrainedNetwork") -> dict[str, int]:
    """Returns how many learned values and how many tensors a network has."""
    return {
        "parameters": sum(parameter.numel() for parameter in network.model.parameters()),
        "tensors": len(network.model.state_dict()),
    }


def facts(network: "TrainedNetwork") -> dict[str, Any]:
    """Returns a network for machines; of a mean image, the mean of each channel."""
    from dataclasses import asdict

    from resnetkit.models.weights.conventions import variant_of
    from resnetkit.models.zoo import known_as

    return {
        "format": network.format,
        "name": known_as(network.architecture),
        "variant": variant_of(network.architecture),
        **counts(network),
        "architecture": asdict(network.architecture),
        "preprocessing": {
            "mean": network.mean.mean((1, 2)).tolist(),
            "mean_shape": list(network.mean.shape),
            "std": network.std.flatten().tolist(),
        },
        "image_size": list(network.image_size),
        "data": network.data,
        "class_names": list(network.class_names),
        "origin": network.origin,
    }


def in_words(network: "TrainedNetwork") -> dict[str, str]:
    """Returns a network for people."""
    from resnetkit.models.weights.conventions import variant_of
    from resnetkit.models.zoo import known_as

    architecture, counted = network.architecture, counts(network)
    blocks = ", ".join(map(str, architecture.depths))
    name = known_as(architecture) or "a network of the user's own"
    variant = variant_of(architecture)
    return {
        "format": network.format,
        "network": f"{name}: {blocks} {architecture.block} blocks",
        "variant": f"{variant}, stride in the {architecture.stride_in}" if variant else "has none",
        "parameters": f"{counted['parameters']:,}",
        "tensors": str(counted["tensors"]),
        "images": f"{architecture.in_channels} x {network.image_size[0]} x {network.image_size[1]}",
        "mean": constants_in_words(network.mean),
        "deviation": constants_in_words(network.std),
        "classes": classes_in_words(network),
        "trained on": network.data or "not said",
        "recognised as": network.origin,
    }


def constants_in_words(constants: "Tensor") -> str:
    """Returns what is subtracted from pixels of 0 to 255, or what they are divided by."""
    if constants.shape[1:] != (1, 1):
        return f"an image of {' x '.join(map(str, constants.shape))}"
    return ", ".join(f"{float(value):.6g}" for value in constants.flatten())


def classes_in_words(network: "TrainedNetwork") -> str:
    """Returns how many classes there are, and the first of their names."""
    count = network.architecture.num_classes
    if not network.class_names:
        return f"{count:,}, without names"
    more = ", ..." if count > 3 else ""
    return f"{count:,}: {', '.join(network.class_names[:3])}{more}"
