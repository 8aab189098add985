"""Networks of torch and exported ones, served: the answers are those of the predictor."""

import base64
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resnetkit.data.normalization import Normalization
from resnetkit.errors import OutOfMemory, WeightsError
from resnetkit.inference import parity
from resnetkit.inference.export import export_network
from resnetkit.inference.predictor import Predictor, load_predictor
from resnetkit.models.zoo import cifar
from resnetkit.serving.model import ServedModel, load_checked, prepare
from resnetkit.serving.saliency import Explainer
from resnetkit.weights.load import load_network
from resnetkit.weights.native import model_folder_files
from resnetkit.weights.network import TrainedNetwork


@pytest.fixture(scope="module")
def network_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network of 8 layers that has learned nothing."""
    architecture = cifar(8).with_options(num_classes=5, in_channels=3)
    model = architecture.build(torch.Generator().manual_seed(1)).eval()
    model.fc.weight.data *= 20
    network = TrainedNetwork(
        model=model,
        architecture=architecture,
        normalization=Normalization(torch.full((3, 1, 1), 110.0), torch.full((3, 1, 1), 60.0)),
        class_names=("a", "b", "c", "d", "e"),
        image_size=(24, 24),
        crop_pct=0.875,
        data="photos",
        origin="a drawn resnet8",
    )
    folder = tmp_path_factory.mktemp("network") / "model"
    folder.mkdir()
    for name, content in model_folder_files(network).items():
        (folder / name).write_bytes(content)
    return folder


def served(folder: Path) -> ServedModel:
    predictor = load_checked(folder, device="cpu", batch_size=4)
    return prepare("network", predictor, longest_batch_seconds=9)


def test_answers_are_bit_identical_in_batches_of_one(
    network_folder: Path,
    serving_model: Callable[..., AbstractContextManager[Any]],
    image: Callable[..., bytes],
) -> None:
    predictor = load_predictor(network_folder, device="cpu", batch_size=1)
    contents = [image(number, kind) for number, kind in enumerate(("JPEG", "PNG", "WEBP"))]
    rotated = Image.open(io.BytesIO(contents[0]))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    rotated.save(buffer, "JPEG", exif=exif)
    with serving_model(served(network_folder)) as client:
        for content in (*contents, buffer.getvalue()):
            (expected,) = predictor.predict(content, top=5)
            reply = client.post("/predict", content)
            assert reply.headers["resnet-batch"] == "1"
            assert [tuple(guess.values()) for guess in reply.json[0]["predictions"]] == [
                (guess.label, guess.name, guess.probability) for guess in expected.ranked
            ]
            (pool,) = predictor.features(content, layer="stage2")
            features = client.post("/features?layer=stage2", content).json
            assert features["features"] == pool.values.tolist()


def test_saliency_maps_are_those_of_the_probe(
    network_folder: Path,
    serving_model: Callable[..., AbstractContextManager[Any]],
    image: Callable[..., bytes],
) -> None:
    pytest.importorskip("captum")
    from resnetkit.inference.engines.torch import TorchEngine
    from resnetkit.probes.saliency import grad_cam

    content = image(1)
    predictor = load_predictor(network_folder, device="cpu", batch_size=1)
    assert isinstance(predictor.engine, TorchEngine)
    network, pixels = predictor.engine.network, predictor.transform.pixels(content)
    expected = grad_cam(network.model, network.normalization(torch.from_numpy(pixels[None]))[0], 2)
    with serving_model(served(network_folder)) as client:
        reply = client.post("/saliency?label=2", content).json
        best = client.post("/predict?top=1", content).json[0]["predictions"][0]
        assert client.post("/saliency", content).json["label"] == best["label"]
        assert client.post("/saliency?label=5", content).status == 400
        assert client.post("/saliency?method=magic", content).status == 400
        assert client.post("/saliency", b"\x01\x02").status == 422
    assert (reply["label"], reply["class"], reply["method"]) == (2, "c", "grad-cam")
    for name, values in (("image", pixels.transpose(1, 2, 0)), ("map", expected.numpy() * 255)):
        kind, _, encoded = reply[name].partition(",")
        assert kind == "data:image/png;base64"
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
        np.testing.assert_allclose(drawn, values.round(), atol=1)


def test_weights_that_are_damaged_while_serving_harm_nothing_and_are_not_reloaded(
    network_folder: Path,
    tmp_path: Path,
    serving_model: Callable[..., AbstractContextManager[Any]],
    image: Callable[..., bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in network_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    with serving_model(served(folder)) as client:
        client.server._load = lambda: served(folder)
        before = client.post("/predict", image(0)).json
        with (folder / "model.safetensors").open("r+b") as file:  # the same file, if it is mapped
            file.truncate(100)
        assert client.post("/predict", image(0)).json == before
        assert not client.server.reload()
        assert client.post("/predict", image(0)).json == before
    assert "the model was not reloaded, the old one still answers: " in caplog.text
    assert "model.safetensors" in caplog.text


@pytest.fixture(scope="module")
def exported_folder(network_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network, exported for OpenVINO."""
    folder = tmp_path_factory.mktemp("exported") / "openvino"
    export_network(load_network(network_folder), folder, engine="openvino")
    return folder


def test_an_exported_network_gives_the_answers_of_its_predictor(
    exported_folder: Path,
    serving_model: Callable[..., AbstractContextManager[Any]],
    image: Callable[..., bytes],
) -> None:
    predictor = load_predictor(exported_folder, batch_size=1)
    with serving_model(served(exported_folder)) as client:
        assert client.get("/model").json["engine"] == "openvino"
        for number in range(3):
            content = image(number)
            (expected,) = predictor.predict(content, top=5)
            assert [
                tuple(guess.values())
                for guess in client.post("/predict", content).json[0]["predictions"]
            ] == [(guess.label, guess.name, guess.probability) for guess in expected.ranked]


def test_a_real_exported_network_that_answers_differently_is_not_served(
    exported_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "LARGEST_ERROR", 0.0)
    with pytest.raises(WeightsError, match=r"differently than on export.* It is not served"):
        served(exported_folder)


def test_an_exported_network_must_answer_as_on_export(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from resnetkit.serving import model as module

    class Differs:
        holds = False
        sentence = "this processor answers differently than on export."

    monkeypatch.setattr(module, "is_exported", lambda path: True)
    monkeypatch.setattr(module, "read_exported", lambda path: None)
    monkeypatch.setattr(module, "check_choices", lambda network, **options: None)
    monkeypatch.setattr(module, "check_first", lambda network: Differs())
    with pytest.raises(WeightsError, match="differently than on export"):
        load_checked(tmp_path, batch_size=1)


def test_a_network_that_gives_no_numbers_is_not_served() -> None:
    from resnetkit.errors import DataError
    from resnetkit.inference.transform import EvalTransform

    class Broken:
        name, precision, origin, layers = "broken", "float32", "a broken network", ("fc",)
        network_sha256 = "0" * 64

        def features(self, pixels: np.ndarray, layer: str) -> np.ndarray:
            return np.full((len(pixels), 3), np.nan, dtype=np.float32)

        probabilities = features

    broken = Broken()
    broken.probabilities = lambda pixels: broken.features(pixels, "fc")  # type: ignore[method-assign]
    with pytest.raises(DataError, match="not finite: it is corrupt"):
        prepare("broken", Predictor(broken, EvalTransform(3, (8, 8), 1.0)), longest_batch_seconds=1)


class TooLarge:
    """A network of which there is no room for a copy."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __deepcopy__(self, memory: dict[int, object]) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), OutOfMemory),
        (MemoryError(), OutOfMemory),
        (RuntimeError("shapes differ"), RuntimeError),
    ],
)
def test_a_map_without_memory_is_no_bug(error: Exception, expected: type[Exception]) -> None:
    engine: Any = SimpleNamespace(network=SimpleNamespace(model=TooLarge(error)))
    with pytest.raises(expected) as caught:
        Explainer(engine).explain(np.zeros((3, 8, 8), np.uint8), "grad-cam", 0)
    assert type(caught.value) is expected
