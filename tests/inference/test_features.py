"""Features against hooks by hand; their files against safetensors read plainly."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from resnetkit.errors import DataError, StorageError, UsageError
from resnetkit.inference.features import (
    Features,
    encoder_for,
    network_sha256,
    read_features,
    write_features,
)
from resnetkit.inference.predictor import Predictor
from resnetkit.weights.network import TrainedNetwork

Draw = Callable[..., Image.Image]
MakeNetwork = Callable[..., TrainedNetwork]
PATHS = ["a.jpg", "odd\n,\"name'.jpg", "\u00e9\u4e2d.png", os.fsdecode(b"\xff\xfe.jpg"), "a.jpg"]
FACTS = {"layer": "pool", "origin": "a network", "network_sha256": "0" * 64}

HOOKS = {
    "stem": "relu",
    "stage2": "layer1.2",
    "stage3": "layer2.2",
    "stage4": "layer3.2",
    "pool": "avgpool",
    "fc": "fc",
}


@pytest.mark.parametrize("layer", HOOKS)
def test_features_are_what_hooks_see(make_network: MakeNetwork, draw: Draw, layer: str) -> None:
    network = make_network()
    images = [draw(number) for number in range(5)]
    predictor = Predictor.of(network, batch_size=2)
    values = np.stack([item.values for item in predictor.features(images, layer=layer)])
    seen: list[Tensor] = []
    module = network.model.get_submodule(HOOKS[layer])
    handle = module.register_forward_hook(lambda *call: seen.append(call[2]))
    for image in images:
        pixels = torch.from_numpy(predictor.transform.pixels(image)).float()
        with torch.no_grad():
            network.model(((pixels - network.normalization.mean) / network.normalization.std)[None])
    handle.remove()
    maps = torch.cat(seen)
    expected = maps.mean((2, 3)) if maps.dim() == 4 else maps
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    assert set(HOOKS) == set(predictor.engine.layers)


def some_features(count: int = 5) -> Features:
    values = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    return Features(values, PATHS[:count], **FACTS)


def test_a_file_of_features_is_plain_safetensors_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "features.safetensors"
    write_features(path, some_features())
    content = safetensors.torch.load_file(path)
    assert np.array_equal(content["features"], some_features().values)
    assert content["paths"].numpy().tobytes().split(b"\0") == [os.fsencode(p) for p in PATHS]
    header = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
    assert json.loads(header)["__metadata__"] == FACTS
    again = read_features(path)
    assert again.paths == PATHS
    assert again.metadata == FACTS
    assert np.array_equal(again.values, some_features().values)
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_equal_features_are_equal_files(tmp_path: Path) -> None:
    contents = set()
    for number in range(20):  # each call of safetensors draws another order of the metadata
        path = tmp_path / f"{number}.safetensors"
        write_features(path, replace(some_features(), origin='"\u4e2d" of {a: 1}'))
        contents.add(path.read_bytes())
        assert read_features(path).origin == '"\u4e2d" of {a: 1}'
    assert len(contents) == 1


def test_one_image_without_a_name_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    write_features(path, Features(np.ones((1, 2), np.float32), [""], **FACTS))
    assert read_features(path).paths == [""]


def test_parquet_holds_the_same(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'resnetkit[parquet]'")
    path = tmp_path / "features.parquet"
    write_features(path, some_features())
    table = parquet.read_table(path)
    assert table.column_names == ["path", "features"]
    np.testing.assert_array_equal(table["features"].to_pylist(), some_features().values)
    assert table["path"].to_pylist() == [*PATHS[:3], "\\xff\\xfe.jpg", PATHS[4]]
    assert {k.decode(): v.decode() for k, v in table.schema.metadata.items()} == FACTS


def test_parquet_without_its_extra_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"parquet needs pyarrow: pip install 'resnetkit\[parque"):
        encoder_for(Path("features.parquet"))


@pytest.mark.parametrize("name", ["features", "features.csv", "photo.jpg", "features.SAFETENSORS"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"ends in \.safetensors or \.parquet"):
        encoder_for(Path(name))


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Choose another path with --out"):
        write_features(tmp_path / "file" / "features.safetensors", some_features())


GOOD = {
    "features": torch.ones(2, 3),
    "paths": torch.tensor(list(b"a\0b"), dtype=torch.uint8),
}
DAMAGED: dict[str, tuple[dict[str, Tensor], dict[str, str], str]] = {
    "no features": ({"paths": GOOD["paths"]}, FACTS, "KeyError: 'features'"),
    "weights": ({"fc.weight": torch.ones(2)}, {}, "KeyError: 'features'"),
    "no paths": ({"features": torch.ones(2, 3)}, FACTS, "KeyError: 'paths'"),
    "no metadata": (GOOD, {}, "KeyError: 'layer'"),
    "too few paths": ({**GOOD, "features": torch.ones(3, 3)}, FACTS, "3 features for 2 paths"),
    "half": ({**GOOD, "features": torch.ones(2, 3).half()}, FACTS, "float16 (2, 3)"),
    "flat": ({**GOOD, "features": torch.ones(2)}, FACTS, "float32 (2,)"),
    "none": ({**GOOD, "features": torch.ones(0, 3)}, FACTS, "float32 (0, 3)"),
    "not finite": ({**GOOD, "features": torch.full((2, 3), torch.inf)}, FACTS, "not finite"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_file_of_something_else_is_refused(case: str, tmp_path: Path) -> None:
    tensors, facts, message = DAMAGED[case]
    path = tmp_path / "features.safetensors"
    safetensors.torch.save_file(tensors, path, facts)
    with pytest.raises(DataError) as caught:
        read_features(path)
    assert f"{path} is not a file of features, or it is corrupt" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no tensors at all", None])
def test_a_corrupt_file_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    write_features(path, some_features())
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    with pytest.raises(DataError, match="is not a file of features, or it is corrupt"):
        read_features(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read: (there is no such|No such) file"):
        read_features(tmp_path / "none.safetensors")
    with pytest.raises(DataError, match="cannot be read: it is a folder"):
        read_features(tmp_path)
    with pytest.raises(DataError, match=r"expected features in a \.safetensors file"):
        read_features(tmp_path / "features.parquet")


def test_the_digest_knows_everything_that_decides_an_answer(make_network: MakeNetwork) -> None:
    network = make_network()
    digest = network_sha256(network)
    assert network_sha256(make_network()) == digest
    others = [
        replace(
            network,
            normalization=replace(network.normalization, mean=network.normalization.mean + 1),
        ),
        replace(
            network, normalization=replace(network.normalization, std=network.normalization.std + 1)
        ),
        replace(network, image_size=(32, 32)),
        replace(network, crop_pct=1.0),
        make_network(shortcut="B"),
        make_network(padding="split"),
    ]
    changed = make_network()
    changed.model.layer1[0].conv1.weight.data[0, 0, 0, 0] += 1e-3
    counted = make_network()
    counted.model.bn1.running_mean[0] += 1e-3
    digests = {network_sha256(item) for item in (*others, changed, counted)}
    assert len(digests | {digest}) == 9


def test_the_digest_does_not_know_what_decides_nothing(make_network: MakeNetwork) -> None:
    network = make_network()
    digest = network_sha256(network)
    assert network_sha256(replace(network, class_names=(), origin="elsewhere")) == digest
    network.model.bn1.num_batches_tracked += 5
    network.model.to(memory_format=torch.channels_last)
    assert network_sha256(network) == digest
