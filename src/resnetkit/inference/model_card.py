"""The README.md of an exported network."""

from collections.abc import Mapping
from typing import Any

from resnetkit.inference.parity import ParityReport
from resnetkit.untrusted import markup_text

__all__ = ["model_card"]

CLASSES_SHOWN = 20


def model_card(config: Mapping[str, Any], report: ParityReport) -> str:
    """Returns the model card.

    Args:
        config: content of config.json; see `ExportedConfig`.
        report: parity on the machine that writes the folder.
    """
    parity, versions = report.parity, config["versions"]
    package = "onnxruntime" if config["engine"] == "onnx" else "openvino"
    installed = ", ".join(f"{name} {number}" for name, number in versions.items())
    return markup_text(
        f"""# {config["architecture"]}, exported for {config["engine"]} in {config["precision"]}

{config["source"]["origin"]}. Written by resnetkit {versions.get("resnetkit", "")}.

## Use

With resnetkit, like any trained network:

    resnet export check FOLDER
    resnet predict FOLDER photos/

Without resnetkit and without torch:

    pip install numpy pillow {package}=={versions.get(package, "")}
    python predict.py photo.jpg

## Input and output

{describe_input(config)}

The graph maps `pixels`, uint8 (B, {config["channels"]}, {config["image_size"][0]}, {
            config["image_size"][1]
        }), to `logits`, float32 (B, {config["num_classes"]}), and `features`, float32 (B, {
            config["num_features"]
        }), the input of
the last layer. It subtracts the mean and divides by the standard deviation itself.

Classes: {describe_classes(config)}

## Answers compared with torch in float32

`golden.safetensors` holds {report.golden} with the answers of torch in float32: whoever has this
folder can see these images. On the machine that wrote it ({report.processor}; {
            " ".join(report.processor_features) or "instructions unknown"
        }):

| | |
|---|---|
| same top-1 class | {parity.same_top1} of {parity.images} |
| largest difference of a logit, of the largest logit | {parity.logits_error:.2g} |
| largest difference of a pooled feature, of the largest | {parity.features_error:.2g} |
| largest difference of a probability | {parity.probability_error:.2g} |

Every machine repeats this before its first answer.

## Versions

{installed}. SHA-256 of the exported network: {config["source"]["network_sha256"]}.
"""
    )


def describe_input(config: Mapping[str, Any]) -> str:
    """Returns how an image becomes the input, as sentences."""
    resize, (height, width) = config["resize"], config["image_size"]
    color = "RGB" if config["channels"] == 3 else "gray"
    sides = "both sides are" if resize["mode"] == "squash" else "the shorter side is"
    return (
        f"An image is turned upright by its EXIF orientation and converted to {color};\n{sides}"
        f" resized ({resize['interpolation']}) so that the center crop of {height}x{width} pixels"
        f" keeps\n{config['crop_pct']:g} of it. config.json has every detail, and predict.py does"
        " exactly that."
    )


def describe_classes(config: Mapping[str, Any]) -> str:
    """Returns the first class names."""
    names = config["class_names"]
    if not names:
        return f"{config['num_classes']:,}, without names."
    more = ", ..." if len(names) > CLASSES_SHOWN else "."
    return f"{len(names):,}: {', '.join(names[:CLASSES_SHOWN])}{more}"
