"""A machine remembers which exported networks were right, and nothing that may have changed."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resnetkit import storage
from resnetkit.errors import WeightsError
from resnetkit.inference import parity, passed_checks
from resnetkit.inference.export import export_network
from resnetkit.inference.exported import ExportedNetwork, read_exported
from resnetkit.inference.parity import check_first, check_here
from resnetkit.inference.passed_checks import MOST_ENTRIES, facts_of, has_passed, remember
from resnetkit.weights.network import TrainedNetwork

MakeNetwork = Callable[..., TrainedNetwork]
ALL = 16


@pytest.fixture(scope="module")
def folder(make_network: MakeNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    export_network(make_network(name="resnet8"), folder, engine="onnx")
    return folder


@pytest.fixture
def network(folder: Path) -> ExportedNetwork:
    return read_exported(folder)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(passed_checks, "cache_folder", storage.cache_folder)
    monkeypatch.setenv("RESNETKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "passed_checks"


def images_of_starts(network: ExportedNetwork, starts: int = 2) -> list[int]:
    """Returns how many golden images each start computes."""
    return [check_first(network).parity.images for _ in range(starts)]


def test_the_second_start_computes_one_golden_image(network: ExportedNetwork) -> None:
    assert images_of_starts(network, 3) == [ALL, 1, 1]
    assert check_first(network).holds
    assert check_here(network).parity.images == ALL  # as 'resnet export check' does


def test_the_machine_that_exported_has_checked(make_network: MakeNetwork, tmp_path: Path) -> None:
    exported, _ = export_network(make_network(name="resnet8"), tmp_path / "onnx", engine="onnx")
    assert images_of_starts(exported) == [1, 1]


CHANGES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "processor": lambda patch: patch.setattr(passed_checks, "processor_identity", lambda: ("x",)),
    "threads": lambda patch: patch.setattr(passed_checks, "usable_processors", lambda: 77),
    "versions": lambda patch: patch.setattr(passed_checks, "version", lambda package: "9.9"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_is_checked_again(
    network: ExportedNetwork, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_first(network)
    CHANGES[change](monkeypatch)
    assert images_of_starts(network) == [ALL, 1]


def test_another_file_of_the_folder_is_checked_again(
    network: ExportedNetwork, folder: Path, tmp_path: Path
) -> None:
    check_first(network)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert images_of_starts(read_exported(copy)) == [1, 1]  # it is the same network
    config = json.loads((copy / "config.json").read_text())
    config["sha256"]["model.onnx"] = "0" * 64
    (copy / "config.json").write_text(json.dumps(config))
    other = read_exported(copy)
    object.__setattr__(other, "engine", network.engine)
    assert images_of_starts(other) == [ALL, 1]


def test_remembered_folders_are_verified(
    network: ExportedNetwork, folder: Path, tmp_path: Path
) -> None:
    check_first(network)
    for name in ("model.onnx", "golden.safetensors", "parity.json"):
        copy = Path(shutil.copytree(folder, tmp_path / name))
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(WeightsError, match="not what was written"):
            check_first(read_exported(copy))


def test_a_wrong_answer_leads_to_the_whole_check(
    network: ExportedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_first(network)
    outputs = network.engine.outputs

    def wrong(pixels: Any) -> Any:
        computed = outputs(pixels)
        return type(computed)(computed.logits[:, ::-1], computed.features)

    monkeypatch.setattr(network.engine, "outputs", wrong)
    check = check_first(network)
    assert (check.parity.images, check.holds) == (ALL, False)


def test_what_failed_is_not_remembered(
    network: ExportedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "LARGEST_ERROR", 0.0)
    assert images_of_starts(network) == [ALL, ALL]


def altered(content: bytes) -> Iterator[bytes]:
    """Yields contents that differ a little, and much."""
    for position in range(0, len(content), 17):
        yield content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
    yield from (b"", content[:-1], content + b" ", b"{}", b"\xff" * len(content))


def test_an_altered_entry_is_none(network: ExportedNetwork, cache: Path) -> None:
    facts = facts_of(network, network.engine.precision)
    remember(facts)
    (entry,) = cache.iterdir()
    intact = entry.read_bytes()
    for content in altered(intact):
        entry.write_bytes(content)
        assert not has_passed(facts)
    assert images_of_starts(network) == [ALL, 1]
    assert entry.read_bytes() == intact


def test_an_entry_that_is_no_file_is_none(network: ExportedNetwork, cache: Path) -> None:
    facts = facts_of(network, network.engine.precision)
    remember(facts)
    (entry,) = cache.iterdir()
    entry.unlink()
    os.mkfifo(entry)  # must not be waited for
    assert not has_passed(facts)
    entry.unlink()
    entry.mkdir()
    assert images_of_starts(network) == [ALL, ALL]


def test_a_cache_that_cannot_be_written_changes_nothing(
    network: ExportedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESNETKIT_CACHE", str(tmp_path / "file"))
    assert images_of_starts(network) == [ALL, ALL]
    monkeypatch.setenv("RESNETKIT_CACHE", "~nobody-of-this-name/cache")
    assert images_of_starts(network) == [ALL, ALL]


def test_entries_are_few_and_the_oldest_goes_first(cache: Path) -> None:
    for number in range(MOST_ENTRIES + 3):
        facts = {"number": number}
        remember(facts)
        (newest,) = (path for path in cache.iterdir() if has_content(path, number))
        os.utime(newest, (number, number))
    assert len([*cache.iterdir()]) == MOST_ENTRIES
    remembered = [has_passed({"number": number}) for number in range(MOST_ENTRIES + 3)]
    assert remembered == [False] * 3 + [True] * MOST_ENTRIES


def has_content(path: Path, number: int) -> bool:
    return json.loads(path.read_bytes()) == {"number": number}
