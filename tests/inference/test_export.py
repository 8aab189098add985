"""Exported networks against torch, in folders that are believed in nothing."""

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
import torch
from PIL import Image

from helpers.tiff import GRAY, WHITE_IS_ZERO, in_12_bits, in_16_bits, tiff
from helpers.weights import narrow
from resnetkit.data.normalization import Normalization
from resnetkit.errors import DataError, OutOfMemory, StorageError, UsageError, WeightsError
from resnetkit.inference import export
from resnetkit.inference.engines import openvino as openvino_engine
from resnetkit.inference.engines.graph import BATCH_SIZES, Compiled, GraphEngine, pieces
from resnetkit.inference.engines.onnx import check_self_contained
from resnetkit.inference.export import check_target, export_network
from resnetkit.inference.exported import ExportedNetwork, read_exported
from resnetkit.inference.parity import (
    LARGEST_ROUNDING,
    Golden,
    ParityReport,
    check_here,
    golden_bytes,
    load_exported,
    read_golden,
)
from resnetkit.inference.predictor import Answer, Predictor, load_predictor
from resnetkit.models.zoo import ARCHITECTURES, cifar
from resnetkit.runtime.precision import cpu_capabilities
from resnetkit.weights.exported import config_digest
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork

Draw = Callable[..., Image.Image]
MakeNetwork = Callable[..., TrainedNetwork]
ENGINES = ("openvino", "onnx")


@pytest.fixture(scope="module")
def network(make_network: MakeNetwork) -> TrainedNetwork:
    """A network with option A, odd image size, and a mean of each pixel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "resnet8", cifar(8))
        small = make_network(name="resnet8", size=(23, 23), names=True)
    object.__setattr__(small, "normalization", pixel_means(3, (23, 23)))
    return small


def pixel_means(channels: int, size: tuple[int, int]) -> Normalization:
    generator = torch.Generator().manual_seed(1)
    mean = 255 * torch.rand(channels, *size, generator=generator)
    return Normalization(mean, torch.tensor([60.0, 61, 62])[:channels, None, None])


@pytest.fixture(scope="module", params=ENGINES)
def exported(
    request: pytest.FixtureRequest,
    network: TrainedNetwork,
    tmp_path_factory: pytest.TempPathFactory,
) -> ExportedNetwork:
    folder = tmp_path_factory.mktemp("exported") / request.param
    return export_network(network, folder, engine=request.param)[0]


@pytest.fixture
def copy(exported: ExportedNetwork, tmp_path: Path) -> Path:
    """A copy of an exported folder, to be damaged."""
    return Path(shutil.copytree(exported.folder, tmp_path / "copy"))


def pixels(count: int, shape: tuple[int, ...] = (3, 23, 23)) -> Any:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)


def logits_by_hand(network: TrainedNetwork, batch: Any) -> Any:
    """Returns the logits of torch, float32 (B, K)."""
    images = torch.from_numpy(batch).float()
    with torch.no_grad():
        normalized = (images - network.normalization.mean) / network.normalization.std
        return network.model(normalized).numpy()


@pytest.mark.parametrize("count", [1, 2, 7, 32, 33])
def test_logits_and_features_are_those_of_torch(
    network: TrainedNetwork, exported: ExportedNetwork, count: int
) -> None:
    batch = pixels(count)
    expected = logits_by_hand(network, batch)
    engine = exported.engine
    assert np.abs(engine.features(batch, "fc") - expected).max() <= 1e-4 * np.abs(expected).max()
    predictor = Predictor.of(network, device="cpu")
    pooled = predictor.engine.features(batch, "pool")
    np.testing.assert_allclose(engine.features(batch, "pool"), pooled, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(
        engine.probabilities(batch), predictor.engine.probabilities(batch), atol=1e-4
    )


def test_photos_get_the_answers_of_torch(
    network: TrainedNetwork, exported: ExportedNetwork, good_and_bad: list[Path]
) -> None:
    expected = list(Predictor.of(network, device="cpu").predict(good_and_bad))
    answers = list(load_predictor(exported.folder).predict(good_and_bad))
    assert [type(answer) for answer in answers] == [type(answer) for answer in expected]
    for answer, other in zip(answers, expected, strict=True):
        if isinstance(answer, Answer) and isinstance(other, Answer):
            assert [g.name for g in answer.ranked] == [g.name for g in other.ranked]
            for guess, of_torch in zip(answer.ranked, other.ranked, strict=True):
                assert guess.probability == pytest.approx(of_torch.probability, abs=1e-4)


def test_an_onnx_graph_is_one_file_with_a_free_batch_that_names_no_path(
    exported: ExportedNetwork,
) -> None:
    if exported.config.engine != "onnx":
        text = (exported.folder / "model.xml").read_text()
        assert "/" + str(Path(__file__).parent.parent.parent).strip("/") not in text
        assert "site-packages" not in text
        return
    content = (exported.folder / "model.onnx").read_bytes()
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    for port in (*model.graph.input, *model.graph.output):
        assert port.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    for parts in (model.functions, model.training_info, model.graph.sparse_initializer):
        assert not parts
    held = {
        field.name
        for node in model.graph.node
        for a in node.attribute
        for field, _ in a.ListFields()
    }
    assert not held & {"g", "graphs", "tensors", "sparse_tensor", "sparse_tensors"}
    assert b"site-packages" not in content
    assert b".py" not in content
    assert exported.config.opset == model.opset_import[0].version


def test_pieces_are_of_few_sizes_and_hold_every_image_once() -> None:
    for count in range(1, 200):
        parts = list(pieces(count))
        assert sum(images for images, _ in parts) == count
        assert all(images <= size and size in BATCH_SIZES for images, size in parts)
        assert all(size - images <= size / 4 for images, size in parts)
    assert list(pieces(7)) == [(7, 8)]
    assert list(pieces(17)) == [(16, 16), (1, 1)]


def test_threads_share_an_engine(exported: ExportedNetwork) -> None:
    batches = [pixels(count) for count in (1, 2, 3, 5, 7, 9)] * 3
    expected = [exported.engine.features(batch, "fc") for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda batch: exported.engine.features(batch, "fc"), batches))
    for values, alone in zip(results, expected, strict=True):
        np.testing.assert_array_equal(values, alone)


def test_pixels_of_another_shape_or_type_are_refused(exported: ExportedNetwork) -> None:
    for wrong in (pixels(1, (3, 24, 23)), pixels(1).astype(np.float32), pixels(1)[:0]):
        with pytest.raises(UsageError, match=r"expected uint8 \(B, 3, 23, 23\)"):
            exported.engine.outputs(wrong)
    with pytest.raises(UsageError, match="unknown layer 'stage2'"):
        exported.engine.features(pixels(1), "stage2")


def test_a_library_without_memory_says_so() -> None:
    def run(batch: Any) -> Any:
        raise RuntimeError("std::bad_alloc")

    engine = GraphEngine(
        "openvino", Compiled(run, "float32", (3, 4, 4)), origin="drawn", network_sha256=""
    )
    with pytest.raises(OutOfMemory, match="smaller --batch-size"):
        engine.outputs(pixels(1, (3, 4, 4)))


def test_golden_images_hold_here(exported: ExportedNetwork) -> None:
    check = check_here(exported)
    assert check.holds
    assert check.parity.same_top1 == check.parity.images == 16
    assert "answers as on export" in check.sentence


def test_other_answers_are_reported_with_their_size(
    exported: ExportedNetwork, copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    golden = read_golden(exported)
    changed = golden.logits.copy()
    changed[3] = changed[3][::-1] + 0.1 * np.abs(changed).max()
    forge(
        copy,
        {"golden.safetensors": golden_bytes(type(golden)(golden.pixels, changed, golden.features))},
    )
    predictor = load_predictor(copy)
    assert "answers differently than on export" in caplog.text
    assert "logits differ by up to" in caplog.text
    assert list(predictor.predict(Image.new("RGB", (30, 30))))


def forge(folder: Path, files: dict[str, bytes], **changes: Any) -> None:
    """Replaces files and entries of config.json, and makes the digests fit."""
    config = json.loads((folder / "config.json").read_text())
    for name, content in files.items():
        (folder / name).write_bytes(content)
        config["sha256"][name] = hashlib.sha256(content).hexdigest()
    config.update(changes)
    config["sha256"]["config.json"] = config_digest(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_every_changed_byte_is_noticed(copy: Path) -> None:
    for path in sorted(copy.iterdir()):
        content = path.read_bytes()
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        with pytest.raises(WeightsError, match=r"not what was written|corrupt"):
            read_exported(copy).verify_all()
        path.write_bytes(content)
    read_exported(copy).verify_all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 2}, "version 2 of the folder's format"),
        ({"version": None}, "this version of resnetkit reads version 1"),
        ({"format": "other"}, "holds no exported network"),
        ({"engine": "tensorrt"}, "engine: Input should be"),
        ({"image_size": [10**6, 23]}, "image_size"),
        ({"crop_pct": 0.0}, "crop_pct"),
        ({"class_names": ["a"]}, "1 names for 7 classes"),
        ({"num_features": 63}, "golden images of this network"),
        ({"channels": 1, "std": [1.0]}, "golden images of this network"),
        ({"extra": 1}, "extra: Extra inputs"),
    ],
)
def test_an_impossible_description_is_refused(
    copy: Path, changes: dict[str, Any], reason: str
) -> None:
    forge(copy, {}, **changes)
    with pytest.raises(WeightsError, match=reason):
        load_exported(copy)


def test_a_graph_that_is_none_is_refused(copy: Path) -> None:
    name = "model.onnx" if (copy / "model.onnx").exists() else "model.xml"
    for content in (b"", b"nothing", (copy / name).read_bytes()[:1000]):
        forge(copy, {name: content})
        with pytest.raises(WeightsError, match=r"the graph of the network \(.*cannot be computed"):
            load_exported(copy)


def test_an_onnx_graph_cannot_read_other_files(
    exported: ExportedNetwork, copy: Path, tmp_path: Path
) -> None:
    if exported.config.engine != "onnx":
        return
    model = onnx.load(copy / "model.onnx")
    onnx.save(
        model, tmp_path / "split.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    forge(copy, {"model.onnx": (tmp_path / "split.onnx").read_bytes()})
    with pytest.raises(WeightsError, match="its weights lie in another file"):
        load_exported(copy)


PARTS: dict[str, Callable[[onnx.ModelProto], Any]] = {
    "functions": lambda model: model.functions.add(),
    "graphs for training": lambda model: model.training_info.add(),
    "sparse weights": lambda model: model.graph.sparse_initializer.add(),
    "a graph": lambda model: attribute_of(model).g.SetInParent(),
    "graphs": lambda model: attribute_of(model).graphs.add(),
    "tensors": lambda model: attribute_of(model).tensors.add(),
    "a sparse tensor": lambda model: attribute_of(model).sparse_tensor.SetInParent(),
    "sparse tensors": lambda model: attribute_of(model).sparse_tensors.add(),
}
"""Parts of an ONNX file, empty: each could name another file in its tensors."""


def attribute_of(model: onnx.ModelProto) -> onnx.AttributeProto:
    return model.graph.node.add().attribute.add()


@pytest.mark.parametrize("part", PARTS)
def test_parts_that_no_exported_network_has_are_refused(part: str) -> None:
    model = onnx.ModelProto()
    model.graph.node.add().attribute.add().t.float_data.append(1)
    check_self_contained(model.SerializeToString())
    PARTS[part](model)
    with pytest.raises(ValueError, match=f"it holds {part}, as no exported network does"):
        check_self_contained(model.SerializeToString())


def test_missing_files_and_folders_are_named(copy: Path, tmp_path: Path) -> None:
    (copy / "golden.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"golden\.safetensors cannot be read: No such file"):
        load_exported(copy)
    os.mkfifo(copy / "golden.safetensors")  # must not be waited for
    with pytest.raises(WeightsError, match="not a regular file"):
        load_exported(copy)
    with pytest.raises(WeightsError, match="Expected the folder of an exported network"):
        read_exported(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"device": "cuda"}, "computes on the processor"),
        ({"precision": "bfloat16"}, "is exported in float32"),
    ],
)
def test_options_that_contradict_the_folder_are_refused(
    exported: ExportedNetwork, options: dict[str, str], reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        load_predictor(exported.folder, **options)  # type: ignore[arg-type]


def test_a_missing_library_is_named(
    exported: ExportedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = {"onnx": "onnxruntime", "openvino": "openvino"}[exported.config.engine]
    monkeypatch.delitem(
        sys.modules, f"resnetkit.inference.engines.{exported.config.engine}", raising=False
    )
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=rf"needs {library}.*pip install 'resnetkit\[export\]'"):
        load_predictor(exported.folder)


def test_training_code_says_what_an_exported_folder_is(exported: ExportedNetwork) -> None:
    with pytest.raises(WeightsError, match="is an exported network, whose graph is for an engine"):
        load_network(exported.folder)


def test_a_folder_in_use_is_not_touched(network: TrainedNetwork, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used/mine.txt").write_text("mine")
    with pytest.raises(StorageError, match="exists and is not empty"):
        export_network(network, tmp_path / "used", engine="openvino")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="expected a new folder"):
        export_network(network, tmp_path / "file", engine="openvino")
    with pytest.raises(StorageError, match="cannot write"):  # before the network is traced
        check_target(tmp_path / "file" / "new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "mine.txt", "used"]


def test_onnx_has_no_bfloat16(network: TrainedNetwork, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ONNX Runtime does not compute bfloat16"):
        export_network(network, tmp_path / "out", engine="onnx", precision="bfloat16")
    assert not (tmp_path / "out").exists()


def pretend_bfloat16(
    monkeypatch: pytest.MonkeyPatch, logits_in_bfloat16: Callable[[Any], Any], used: str
) -> None:
    """Lets OpenVINO compute float32, and change its logits where bfloat16 is asked for."""
    compile_graph = openvino_engine.compile_graph

    def compiled(files: Mapping[str, bytes], precision: str) -> Compiled:
        exact = compile_graph(files, "float32")
        if precision == "float32":
            return exact

        def run(batch: Any) -> tuple[Any, Any]:
            logits, features = exact.run(batch)
            return logits_in_bfloat16(logits), features

        return Compiled(run, used, exact.input_shape)

    monkeypatch.setattr(openvino_engine, "compile_graph", compiled)


def rounded(values: Any) -> Any:
    """Returns float32 values rounded to bfloat16."""
    return torch.from_numpy(values).bfloat16().float().numpy()


def export_in_bfloat16(network: TrainedNetwork, out: Path) -> tuple[ExportedNetwork, ParityReport]:
    return export_network(network, out, engine="openvino", precision="bfloat16")


def test_bfloat16_that_only_rounds_is_written(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_bfloat16(monkeypatch, rounded, "bfloat16")
    exported, report = export_in_bfloat16(network, tmp_path / "out")
    assert report.precision == exported.precision == "bfloat16"
    assert 1e-4 < report.parity.logits_error < 2**-8
    assert check_here(exported).holds


def test_bfloat16_that_is_wrong_is_not_written(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_bfloat16(monkeypatch, lambda logits: logits * 1.2, "bfloat16")
    with pytest.raises(WeightsError, match=r"in bfloat16 logits differ by up to 0\.2 of"):
        export_in_bfloat16(network, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_is_refused_where_the_engine_computes_float32(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_bfloat16(monkeypatch, rounded, "float32")
    with pytest.raises(UsageError, match="openvino does not compute bfloat16 on this machine"):
        export_in_bfloat16(network, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_is_refused_where_openvino_finds_no_kernel_for_it(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(core: openvino.Core, model: Any, device: str, config: dict[str, Any]) -> Any:
        if config["INFERENCE_PRECISION_HINT"] == "bf16":
            raise RuntimeError("Supported primitive descriptors list is empty for node: MaxPool")
        return compile_model(core, model, device, config)

    compile_model = openvino.Core.compile_model
    monkeypatch.setattr(openvino.Core, "compile_model", compiled)
    with pytest.raises(UsageError, match="openvino does not compute bfloat16 on this machine"):
        export_in_bfloat16(network, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


SIGNALED = """
import signal, sys
from pathlib import Path
from resnetkit.inference.engines.openvino import compile_graph
files = {name: (Path(sys.argv[1]) / name).read_bytes() for name in ("model.xml", "model.bin")}
first, second = compile_graph(files, "float32"), compile_graph(files, "float32")
del first
del second
signal.signal(signal.SIGTERM, lambda number, frame: print("handled", number))
signal.raise_signal(signal.SIGTERM)
"""


def test_a_process_handles_signals_after_networks_have_been_released(
    network: TrainedNetwork, tmp_path: Path
) -> None:
    folder = export_network(network, tmp_path / "out", engine="openvino")[0].folder
    process = subprocess.run(
        [sys.executable, "-c", SIGNALED, str(folder)], capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stdout) == (0, f"handled {signal.SIGTERM.value}\n")


def computes_bfloat16() -> bool:
    capabilities = cpu_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@pytest.mark.skipif(not computes_bfloat16(), reason="this processor does not compute bfloat16")
def test_bfloat16_is_what_the_processor_computes(network: TrainedNetwork, tmp_path: Path) -> None:
    exported, report = export_in_bfloat16(network, tmp_path / "out")
    assert report.precision == exported.precision == "bfloat16"
    assert 1e-4 < report.parity.logits_error < LARGEST_ROUNDING
    check = check_here(exported)
    assert check.holds
    process = subprocess.run(
        [sys.executable, "-m", "resnetkit", "export", "check", str(exported.folder), "--json"],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["precision"] == "float32"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_graph_that_computes_something_else_is_not_written(
    precision: Any, network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trace_of_another(trained: TrainedNetwork) -> Any:
        other = deepcopy(trained)
        torch.nn.init.ones_(other.model.fc.bias)
        return original(other)

    original = export.trace
    monkeypatch.setattr(export, "trace", trace_of_another)
    with pytest.raises(WeightsError, match="does not compute what the network computes"):
        export_network(network, tmp_path / "out", engine="openvino", precision=precision)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.bin", "golden.safetensors", "predict.py"])
def test_a_folder_that_is_not_read_as_it_was_written_is_removed(
    name: str, network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_damaged(path: Path, content: bytes) -> None:
        path.write_bytes(content[:-1] if path.name == name else content)

    monkeypatch.setattr(export, "write_synced", write_damaged)
    with pytest.raises(WeightsError, match=f"{name} is not what was written"):
        export_network(network, tmp_path / "out", engine="openvino")
    assert list(tmp_path.iterdir()) == []


def test_the_graph_that_is_checked_is_the_one_that_was_written(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_of_another(trained: TrainedNetwork, graph: Any, golden: Any, report: Any) -> Any:
        other = Golden(golden.pixels[::-1], golden.logits, golden.features)
        return folder_files(trained, graph, other, report)

    folder_files = export.folder_files
    monkeypatch.setattr(export, "folder_files", write_of_another)
    with pytest.raises(WeightsError, match="answers differently than on export"):
        export_network(network, tmp_path / "out", engine="openvino")
    assert list(tmp_path.iterdir()) == []


NO_SOCKETS = """
import socket, sys
def refuse(*arguments, **options):
    print("a socket was opened", file=sys.stderr)
    raise SystemExit(7)
socket.getaddrinfo = socket.create_connection = refuse
socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = refuse
"""

WITHOUT_TORCH = (
    NO_SOCKETS
    + """
sys.modules["torch"] = None  # an import of it fails
from resnetkit.cli.app import run
sys.exit(run(["predict", *sys.argv[1:], "--json"]))
"""
)


def test_predicting_needs_neither_torch_nor_a_network(
    exported: ExportedNetwork, good_and_bad: list[Path]
) -> None:
    photos = [str(path) for path in good_and_bad if path.name in ("0.png", "3.png")]
    command = [sys.executable, "-c", WITHOUT_TORCH, str(exported.folder), *photos]
    process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "socket" not in process.stderr
    expected = load_predictor(exported.folder).predict(photos)
    for answer, other in zip(json.loads(process.stdout), expected, strict=True):
        assert isinstance(other, Answer)
        names = [guess["class"] for guess in answer["predictions"]]
        assert names == [guess.name for guess in other.ranked]


STANDALONE = """
import runpy, sys
for name in ("torch", "resnetkit"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def oriented(path: Path, image: Image.Image, orientation: int) -> Path:
    exif = Image.Exif()
    exif[274] = orientation
    image.save(path, exif=exif, quality=90)
    return path


def test_predict_py_gives_the_same_answers_alone(
    exported: ExportedNetwork, draw: Draw, tmp_path: Path
) -> None:
    photos = [oriented(tmp_path / f"{n}.jpg", draw(n, (301, 200)), n) for n in range(1, 9)]
    sixteen = np.asarray(draw(9).convert("L")).astype(np.uint16) * 257
    Image.fromarray(sixteen).save(tmp_path / "deep.png")
    clear = draw(10, (50, 50)).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize((50, 50)))
    clear.save(tmp_path / "clear.png")
    draw(11, (24, 60)).quantize(8).save(tmp_path / "palette.png")
    (tmp_path / "12.tif").write_bytes(tiff(in_12_bits(GRAY), bits=12))
    (tmp_path / "white.tif").write_bytes(tiff(in_16_bits(GRAY), WHITE_IS_ZERO, bits=16))
    others = sorted([*tmp_path.glob("*.png"), *tmp_path.glob("*.tif")])
    paths = [str(path) for path in (*photos, *others)]
    command = [sys.executable, "-c", STANDALONE, str(exported.folder / "predict.py"), *paths]
    process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    rows = [line.split("\t") for line in process.stdout.splitlines()]
    answers = [a for a in load_predictor(exported.folder).predict(paths) if isinstance(a, Answer)]
    expected = [
        [answer.name, guess.name, f"{guess.probability:.6f}"]
        for answer in answers
        for guess in answer.ranked
    ]
    assert len(answers) == len(paths)
    assert [row[:2] for row in rows] == [row[:2] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert float(row[2]) == pytest.approx(float(other[2] or 0), abs=2e-5)


OFFLINE = (
    NO_SOCKETS
    + """
from resnetkit.cli.app import run
code = run(["export", "check", sys.argv[1]])
import nncf  # it sends on import where nothing forbids it
assert sys.modules["openvino_telemetry"] is None
sys.exit(code)
"""
)


@pytest.mark.slow
def test_nothing_is_sent(exported: ExportedNetwork) -> None:
    if exported.config.engine == "openvino":
        command = [sys.executable, "-c", OFFLINE, str(exported.folder)]
        process = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert process.returncode == 0, process.stderr
        assert "socket" not in process.stderr


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "v1": {"stride_in": "1x1"},
    "v1.5": {"stride_in": "3x3"},
    "option A": {"block": "basic", "shortcut": "A"},
    "option A, split": {"block": "basic", "shortcut": "A", "padding": "split"},
    "option C": {"shortcut": "C"},
    "plain": {"shortcut": "none"},
    "CIFAR stem": {"stem": "3x3"},
    "gray": {"in_channels": 1, "mean": (40,), "std": (9,)},
    "pre-activated": {"preactivation": True},
    "grouped": {"groups": 2, "base_width": 32},
    "no normalization": {"norm": "none"},
    "pooling of Caffe": {"pooling": "ceil"},
    "dilated": {"replace_stride_with_dilation": (False, True, True)},
    "recomputed": {"recompute": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_every_kind_of_network_is_exported(case: str, engine: Any, tmp_path: Path) -> None:
    network = replace(narrow(**CONFIGURATIONS[case]), image_size=(37, 37))
    _, report = export_network(network, tmp_path / "out", engine=engine)
    assert report.parity.logits_error < 1e-5
    assert report.parity.same_top1 == 16


# A drawn network of 1,001 pre-activated layers is left out: both engines round its logits by more
# than 1e-4 of the largest, so that it is refused.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet1202", "preresnet164", "resnet152"])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_deepest_networks_are_exported(
    engine: Any, name: str, make_network: MakeNetwork, tmp_path: Path
) -> None:
    size = (32, 32) if name != "resnet152" else (224, 224)
    network = make_network(name=name, size=size)
    measure_statistics(network.model, size)
    _, report = export_network(network, tmp_path / "out", engine=engine)
    assert report.parity.same_top1 == 16


def measure_statistics(model: torch.nn.Module, size: tuple[int, int]) -> None:
    """Gives a drawn network the statistics of noise: others overflow behind a thousand layers."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean of all batches
    with torch.no_grad():
        model.train()(torch.randn(8, 3, *size, generator=torch.Generator().manual_seed(0)))
    model.eval()


def test_answers_that_are_not_finite_are_not_exported(
    make_network: MakeNetwork, tmp_path: Path
) -> None:
    network = make_network(name="resnet8")
    network.model.fc.bias.data[0] = math.nan
    with pytest.raises(WeightsError, match="answers for the golden images are not finite"):
        export_network(network, tmp_path / "out", engine="onnx")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_sizes_of_batches(exported: ExportedNetwork) -> None:
    batch = pixels(32)
    sizes = np.random.default_rng(0).integers(1, 33, 20_000)
    for size in range(1, 33):
        exported.engine.outputs(batch[:size])
    before = resident()
    for size in sizes.tolist():
        exported.engine.outputs(batch[:size])
    assert resident() <= 1.02 * before


def resident() -> int:
    """Returns the pages of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1])


def test_a_network_that_an_engine_cannot_hold_is_named(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(program: Any) -> Any:
        raise NotImplementedError("no translation of aten.something\n\n")

    monkeypatch.setattr("resnetkit.inference.graphs.openvino_model", fail)
    with pytest.raises(WeightsError, match=r"openvino cannot hold .*a drawn resnet8"):
        export_network(network, tmp_path / "out", engine="openvino")
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_a_head_or_for_no_images_is_refused(
    network: TrainedNetwork, make_network: MakeNetwork, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="has no head"):
        export_network(replace(network, has_head=False), tmp_path / "out", engine="openvino")
    architecture = network.architecture.with_options(in_channels=4)
    with pytest.raises(DataError, match="images with 4 channels"):
        export_network(
            replace(network, architecture=architecture), tmp_path / "out", engine="openvino"
        )
    assert list(tmp_path.iterdir()) == []
