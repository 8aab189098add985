"""Exported networks against what a practitioner would run otherwise, side by side in one run.

- ResNet-50 at 224x224, images per second in batches of 16: the exported network in float32, int8
  and bfloat16, with what `resnet predict` does for a batch, against torchvision's network in eager
  float32.
- The same folders against the loop that one writes by hand for the same engine, with the settings
  that the engine's own guide recommends: batches of 1 and of 16.
- JPEG files of 500x375 and of 1600x1200 pixels to answers: `Predictor.predict` against Pillow and
  the engine one after the other.

The folders are exported once, from a network whose statistics fit its weights: rates do not depend
on what it has learned. int8 is quantized with the first candidate of `resnet export`, whatever it
costs, because drawn weights have no accuracy to lose; its accuracy is a matter of `resnet export`.

    python benchmarks/deploy.py --folder exported
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from folder_pipeline import SIZES, draw
from side_by_side import (
    Comparison,
    Measurement,
    Plan,
    measured,
    print_measurement,
    results,
    script,
)

NETWORK = "resnet50"
SIZE = 224
BATCH = 16
FOLDERS = {
    "openvino-float32": ("openvino", "float32"),
    "openvino-int8": ("openvino", "int8"),
    "onnx-float32": ("onnx", "float32"),
    "onnx-int8": ("onnx", "int8"),
    "openvino-bfloat16": ("openvino", "bfloat16"),
}
CALIBRATION_IMAGES = 32
FILES = {"large": 96, "photos": 48}  # kinds and numbers of JPEGs; a step predicts all of a kind

Measure = Callable[[Path, int, float], Measurement]
"""Maps an exported folder, the size of batches and seconds to a measurement."""


def comparisons(folder: Path, *, quick: bool = False) -> list[Comparison]:
    """Returns the comparisons on exported folders, or one of each kind.

    Nothing is imported or measured yet.
    """
    command = (script("deploy.py"), "--folder", str(folder), "--measure")

    def pair(title: str, ours: str, peer: str, name: str, batch: int = BATCH) -> Comparison:
        options = ("--exported", name, "--batch", str(batch))
        return Comparison(title, (*command, ours, *options), (*command, peer, *options))

    eager = [
        pair(
            f"{NETWORK}, {name}, batch {BATCH} (peer: torchvision, eager float32)",
            "engine",
            "torchvision",
            name,
        )
        for name in FOLDERS
    ]
    by_hand = [
        pair(
            f"{NETWORK}, {name}, batch {batch} (peer: loop by hand, same engine)",
            "engine",
            "by-hand",
            name,
            batch,
        )
        for name in ("openvino-float32", "openvino-int8", "onnx-float32")
        for batch in (1, BATCH)
    ]
    files = [
        pair(
            f"JPEG {width}x{height} to answers, {NETWORK}, openvino-int8"
            " (peer: Pillow, then the engine)",
            f"files-{kind}",
            f"files-in-turn-{kind}",
            "openvino-int8",
        )
        for kind, (width, height) in SIZES.items()
        if kind in FILES
    ]
    return [eager[1], by_hand[0], files[-1]] if quick else eager + by_hand + files


def prepare(folder: Path, wanted: Sequence[Comparison]) -> None:
    """Exports the networks that comparisons need and draws the files, unless they are there."""
    draw(folder, small=0, **FILES)
    needed = {comparison.ours[comparison.ours.index("--exported") + 1] for comparison in wanted}
    missing = [name for name in FOLDERS if name in needed and not (folder / name).exists()]
    if not missing:
        return
    from resnetkit.inference.export import write_exported
    from resnetkit.inference.golden import choose_golden, with_answers
    from resnetkit.inference.graphs import graph_files, trace

    network = drawn_network()
    program, images = trace(network), choose_golden(network)
    golden = with_answers(images, network)
    for name in missing:
        engine, precision = FOLDERS[name]
        if precision == "int8":
            graph = quantized(program, engine)
        else:
            graph = graph_files(program, engine, precision, network.origin)
        write_exported(folder / name, network, graph, golden, images.source)


def drawn_network():
    """Returns a ResNet-50 with drawn weights and the statistics of drawn images."""
    import torch

    from resnetkit.data.normalization import Normalization
    from resnetkit.models.zoo import find_architecture
    from resnetkit.weights.network import TrainedNetwork

    architecture = find_architecture(NETWORK)
    model = architecture.build(torch.Generator().manual_seed(0))
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = None  # the mean of all batches
    normalization = Normalization(
        torch.tensor([123.7, 116.3, 103.5])[:, None, None],
        torch.tensor([58.4, 57.1, 57.4])[:, None, None],
    )
    with torch.no_grad():
        model.train()(normalization(torch.from_numpy(smooth(BATCH))))
    return TrainedNetwork(
        model=model.eval(),
        architecture=architecture,
        normalization=normalization,
        class_names=(),
        image_size=(SIZE, SIZE),
        crop_pct=0.875,
        data="",
        origin=f"a drawn {NETWORK}",
    )


def smooth(count: int) -> np.ndarray:
    """Returns images of smooth colors: uint8 (N, 3, 224, 224)."""
    import torch

    generator = torch.Generator().manual_seed(1)
    coarse = 255 * torch.rand(count, 3, 14, 14, generator=generator)
    return torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear").to(torch.uint8).numpy()


def quantized(program, engine: str):
    """Returns the graph of the first candidate of int8."""
    from resnetkit.inference.graphs import onnx_model, openvino_model
    from resnetkit.inference.nncf_models import quantized_model
    from resnetkit.inference.quantize import candidates, graph_of
    from resnetkit.runtime.processor import processor_features

    model = openvino_model(program) if engine == "openvino" else onnx_model(program)
    images = list(smooth(CALIBRATION_IMAGES)[:, None])
    first = candidates(processor_features())[0]
    return graph_of(quantized_model(model, engine, images, first, None), engine, "int8")


def random_pixels(batch: int) -> np.ndarray:
    """Returns random pixels: uint8 (B, 3, 224, 224)."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (batch, 3, SIZE, SIZE), dtype=np.uint8)


def rate(compute: Callable[[np.ndarray], object], batch: int, seconds: float) -> Measurement:
    """Measures batches that are in memory."""
    pixels = random_pixels(batch)
    return measured(lambda: pixels, compute, batch, seconds=seconds, warm_up=3)


def measure_engine(folder: Path, batch: int, seconds: float) -> Measurement:
    """Measures what `resnet predict` does for a batch of pixels."""
    from resnetkit.inference.predictor import load_predictor

    return rate(load_predictor(folder).engine.probabilities, batch, seconds)


def measure_torchvision(_: Path, batch: int, seconds: float) -> Measurement:
    """Measures torchvision's network as its documentation runs it: eager, float32, NCHW."""
    import torch
    import torchvision

    model = getattr(torchvision.models, NETWORK)().eval()
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229] * 3))

    def compute(pixels: np.ndarray) -> object:
        with torch.inference_mode():
            images = (torch.from_numpy(pixels).float() / 255 - mean) / std
            return model(images).softmax(1).numpy()

    return rate(compute, batch, seconds)


def by_hand(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the loop of the engine's own guide: from pixels to probabilities."""
    if (folder / "model.onnx").exists():
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / "model.onnx")

        def logits(pixels: np.ndarray) -> np.ndarray:
            return session.run(["logits"], {"pixels": pixels})[0]
    else:
        import sys

        sys.modules["openvino_telemetry"] = None  # nothing phones home, not even from here
        import openvino

        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.compile_model(folder / "model.xml", "CPU", options)

        def logits(pixels: np.ndarray) -> np.ndarray:
            return compiled([pixels])["logits"]

    def probabilities(pixels: np.ndarray) -> np.ndarray:
        values = logits(pixels)
        exponentials = np.exp(values - values.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    return probabilities


def measure_by_hand(folder: Path, batch: int, seconds: float) -> Measurement:
    """Measures that loop."""
    return rate(by_hand(folder), batch, seconds)


def jpegs(folder: Path, kind: str) -> list[Path]:
    """Returns the files that are predicted."""
    return sorted((folder.parent / kind).rglob("*.jpg"))[: FILES[kind]]


def measure_files(kind: str) -> Measure:
    """Measures `Predictor.predict` on files: threads decode while the engine computes."""

    def measure(folder: Path, batch: int, seconds: float) -> Measurement:
        from resnetkit.inference.predictor import load_predictor

        predictor, paths = load_predictor(folder, batch_size=batch), jpegs(folder, kind)

        def predict(_: object) -> list[object]:
            return list(predictor.predict(paths))

        return measured(lambda: None, predict, len(paths), seconds=seconds, warm_up=1)

    return measure


def measure_files_in_turn(kind: str) -> Measure:
    """Measures Pillow on a batch of files, then the engine on the batch, and so on."""

    def measure(folder: Path, batch: int, seconds: float) -> Measurement:
        compute, paths = by_hand(folder), jpegs(folder, kind)

        def predict(_: object) -> list[np.ndarray]:
            starts = range(0, len(paths), batch)
            return [
                compute(np.stack([pixels_of(path) for path in paths[start : start + batch]]))
                for start in starts
            ]

        return measured(lambda: None, predict, len(paths), seconds=seconds, warm_up=1)

    return measure


def pixels_of(path: Path) -> np.ndarray:
    """Returns the center crop of a file, uint8 (3, 224, 224), as Pillow's users write it."""
    from PIL import Image

    with Image.open(path) as file:
        image = file.convert("RGB")
    ratio = 256 / min(image.size)
    size = (round(image.width * ratio), round(image.height * ratio))
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, upper = (size[0] - SIZE) // 2, (size[1] - SIZE) // 2
    return np.asarray(image.crop((left, upper, left + SIZE, upper + SIZE))).transpose(2, 0, 1)


MEASURES: dict[str, Measure] = {
    "engine": measure_engine,
    "torchvision": measure_torchvision,
    "by-hand": measure_by_hand,
    **{f"files-{kind}": measure_files(kind) for kind in FILES},
    **{f"files-in-turn-{kind}": measure_files_in_turn(kind) for kind in FILES},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="of exported networks and files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--only", default="", help="measure what has this text in its title")
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--exported", choices=FOLDERS, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=BATCH, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        folder = options.folder / options.exported
        print_measurement(MEASURES[options.measure](folder, options.batch, options.seconds))
        return
    chosen = [one for one in comparisons(options.folder) if options.only in one.title]
    prepare(options.folder, chosen)
    print(results(chosen, Plan(options.rounds, options.seconds)), end="")


if __name__ == "__main__":
    main()
