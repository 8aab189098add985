"""The README.md of an exported network."""

from collections.abc import Mapping
from typing import Any

from resnetkit.inference.int8_report import Int8Report
from resnetkit.inference.parity import ParityReport
from resnetkit.untrusted import markup_text

__all__ = ["model_card"]

CLASSES_SHOWN = 20


def model_card(
    config: Mapping[str, Any], report: ParityReport, int8: Int8Report | None = None
) -> str:
    """Returns the model card.

    Args:
        config: content of config.json; see `ExportedConfig`.
        report: parity on the machine that writes the folder.
        int8: how an int8 graph was chosen.
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
{describe_int8(int8) if int8 else ""}
## Versions

{installed}. SHA-256 of the exported network: {config["source"]["network_sha256"]}.
"""
    )


def describe_int8(report: Int8Report) -> str:
    """Returns how an int8 graph was chosen and what it costs, as a section."""
    tried = "\n".join(
        f"- {attempt.candidate}: {attempt.accuracy or attempt.problem}"
        for attempt in report.attempts
    )
    gain, test = report.speedup, report.test or "there is no test split"
    doubts = "".join(f" {doubt}" for doubt in report.doubts)
    return f"""
## What int8 costs

Calibrated on {report.calibration_images} training images of {report.data}. Tried in this order on
the validation images, until the budget held ({report.budget}):

{tried}

Of the last one, once, on the test images: {test}.{doubts}

The accuracy is that of these files on this processor; `resnet evaluate` measures it on another.
There, int8 computed {gain.best:.2f} times the images per second of float32 ({gain.low:.2f} to
{gain.high:.2f}), and {gain.single:.2f} times with one image at a time.
"""


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
