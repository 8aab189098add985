"""Predicts the classes of photos with the network in this folder: python predict.py photo.jpg ...

It needs numpy, Pillow, and openvino or onnxruntime. Copy it, read it, change it.
"""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

FOLDER = Path(__file__).parent


def pixels_of(path: str, config: dict[str, Any]) -> Any:
    """Returns the center crop of an image, upright and resized: uint8 (C, H, W)."""
    resize, (height, width) = config["resize"], config["image_size"]
    rounded: Callable[[float], int] = math.floor if resize["rounding"] == "floor" else round
    short, *sides = [rounded(n / config["crop_pct"]) for n in (max(height, width), width, height)]
    with Image.open(path) as file:
        if resize["draft"]:  # decodes a large JPEG at a half, a quarter or an eighth of its size
            scale = short / min(file.size)
            file.draft(None, (math.ceil(file.width * scale), math.ceil(file.height * scale)))
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I"):  # gray with 16 bits, or 12 in some TIFFs
            tags = getattr(file, "tag_v2", {})
            values = np.asarray(image) >> (4 if tags.get(258) == (12,) else 8)
            values = ~values if tags.get(262) == 0 else values  # white is zero
            image = Image.fromarray(values.astype(np.uint8))
        if image.has_transparency_data:
            layers = image.convert("RGBA")
            image = Image.new("RGB", image.size, "white")
            image.paste(layers, mask=layers)
        image = image.convert("RGB").convert("RGB" if config["channels"] == 3 else "L")
    if resize["mode"] == "center" and height == width:
        sides = [int(short * side / min(image.size)) for side in image.size]
    elif resize["mode"] == "center":
        ratio = min(side / least for side, least in zip(image.size, sides, strict=True))
        sides = [round(side / ratio) for side in image.size]
    if tuple(sides) != image.size:
        resampling = Image.Resampling[resize["interpolation"].upper()]
        image = image.resize((sides[0], sides[1]), resampling)
    offset: Callable[[float], int] = math.floor if resize["offset"] == "floor" else round
    left, upper = offset((sides[0] - width) / 2), offset((sides[1] - height) / 2)
    crop = np.array(image.crop((left, upper, left + width, upper + height)))
    return crop.reshape(height, width, -1).transpose(2, 0, 1)


def compiled(config: dict[str, Any]) -> Callable[[Any], Any]:
    """Returns the function from pixels, uint8 (B, C, H, W), to logits, float32 (B, K)."""
    if config["engine"] == "onnx":
        import onnxruntime

        path, providers = str(FOLDER / "model.onnx"), ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(path, providers=providers)
        return lambda pixels: session.run(["logits"], {"pixels": pixels})[0]
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # sends no statistics
    import openvino

    hint = "bf16" if config["precision"] == "bfloat16" else "f32"
    options = {"INFERENCE_PRECISION_HINT": hint}
    model = openvino.Core().compile_model(FOLDER / "model.xml", "CPU", options)
    return lambda pixels: model([pixels])["logits"]


def main() -> None:
    """Prints the five most probable classes of each image."""
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    network, names = compiled(config), config["class_names"]
    for path in sys.argv[1:]:
        pixels = np.ascontiguousarray(pixels_of(path, config)[None])
        logits = network(pixels)[0].astype(np.float64)
        probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        for label in np.argsort(-probabilities, kind="stable")[:5]:
            name = names[label] if names else f"class {label}"
            print(path, name, f"{probabilities[label]:.6f}", sep="\t")


if __name__ == "__main__":
    main()
