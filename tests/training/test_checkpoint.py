"""Checkpoints: the same bits back, whatever is corrupt refused, and nothing run while loading."""

import errno
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from resnetkit.errors import StorageError, WeightsError
from resnetkit.storage import write_synced
from resnetkit.training import checkpoint
from resnetkit.training.checkpoint import (
    checkpoint_steps,
    load_checkpoint,
    remove_old_checkpoints,
    save_checkpoint,
)
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe
from resnetkit.training.run_folder import Run

TENSORS = {
    "model": {
        "weight": torch.randn(16, 8, 3, 3).contiguous(memory_format=torch.channels_last),
        "not a number": torch.tensor([float("nan"), float("inf"), -0.0, 1e-42]),
        "half": torch.randn(5).bfloat16(),
        "count": torch.tensor(2**53 + 1),
    },
    "momentum": {},
}
STATE = {"step": 4, "sums": [[0.1, 1e300]], "name": "caf\u00e9"}
FILES = ("model.safetensors", "momentum.safetensors", "state.json", "manifest.json")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Saves a checkpoint of step 4 and returns its folder."""
    return save_checkpoint(tmp_path, 4, TENSORS, STATE)


def bits(value: Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    content = value.contiguous().flatten().view(torch.uint8) if value.dim() else value
    return value.dtype, tuple(value.shape), content.numpy().tobytes()


def refusal(folder: Path) -> str:
    """Returns the words with which the checkpoint of step 4 is refused."""
    with pytest.raises(WeightsError) as caught:
        load_checkpoint(folder, 4)
    assert str(folder / "step-4") in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_checkpoint_gives_back_every_bit(saved: Path) -> None:
    tensors, state = load_checkpoint(saved.parent, 4)
    assert state == STATE
    assert tensors.keys() == TENSORS.keys()
    for group, values in TENSORS.items():
        assert tensors[group].keys() == values.keys()
        for name, value in values.items():
            assert bits(tensors[group][name]) == bits(value)


def test_a_checkpoint_is_safetensors_and_json_alone(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == sorted(FILES)
    manifest = json.loads((saved / "manifest.json").read_text())
    for name, digest in manifest.items():
        assert hashlib.sha256((saved / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_is_found(saved: Path, name: str) -> None:
    path = saved / name
    content = path.read_bytes()
    for place in {*range(0, len(content), 7), len(content) - 1}:
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        message = refusal(saved.parent)
        assert name in message or name == "manifest.json"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused_by_name(saved: Path, name: str, kept: float) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(kept * len(content))])
    assert f"is corrupt: {name} " in refusal(saved.parent)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_by_name(saved: Path, name: str) -> None:
    (saved / name).unlink()
    assert f"is corrupt: {name} cannot be read (" in refusal(saved.parent)


@pytest.mark.parametrize("content", ["[]", "5", "{", '"step"', "null", ""])
def test_a_manifest_that_is_none_is_refused(saved: Path, content: str) -> None:
    (saved / "manifest.json").write_text(content)
    assert "manifest.json cannot be read (" in refusal(saved.parent)


def test_a_manifest_without_the_state_is_refused(saved: Path) -> None:
    (saved / "manifest.json").write_text("{}")
    assert "state.json is not in its manifest" in refusal(saved.parent)


def test_a_foreign_folder_or_file_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "step-4").mkdir()
    (tmp_path / "step-4" / "holiday.jpg").write_bytes(b"\xff\xd8")
    assert "manifest.json cannot be read (" in refusal(tmp_path)
    shutil.rmtree(tmp_path / "step-4")
    (tmp_path / "step-4").write_text("a file")
    assert "manifest.json cannot be read (" in refusal(tmp_path)


def test_the_refusal_says_how_to_resume(saved: Path) -> None:
    (saved / "state.json").unlink()
    assert refusal(saved.parent).endswith(
        "Nothing was changed. Move that folder away to resume from an earlier checkpoint, or from"
        " the start if there is none; the result is the same."
    )


def test_steps_are_in_order_and_foreign_names_are_passed_over(tmp_path: Path) -> None:
    for name in ("step-10", "step-9", "step-100", "step-", "step-x", "other", ".writing-step-11"):
        (tmp_path / name).mkdir()
    assert checkpoint_steps(tmp_path) == [9, 10, 100]
    assert checkpoint_steps(tmp_path / "none") == []


@pytest.mark.parametrize(("keep", "left"), [(1, [10]), (2, [9, 10]), (9, [2, 9, 10])])
def test_the_newest_are_kept_and_leftovers_removed(
    tmp_path: Path, keep: int, left: list[int]
) -> None:
    for step in (2, 9, 10):
        save_checkpoint(tmp_path, step, TENSORS, STATE)
    leftover = tmp_path / ".writing-step-11"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    remove_old_checkpoints(tmp_path, keep)
    assert checkpoint_steps(tmp_path) == left
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"step-{s}" for s in left)


def test_spared_checkpoints_stay(tmp_path: Path) -> None:
    for step in (0, 2, 9, 10):
        save_checkpoint(tmp_path, step, TENSORS, STATE)
    remove_old_checkpoints(tmp_path, 1, spare={0, 9, 20})
    assert checkpoint_steps(tmp_path) == [0, 9, 10]


@pytest.mark.parametrize("failing", range(4))
def test_a_full_disk_leaves_the_earlier_checkpoint_and_no_half_one(
    saved: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    written: list[Path] = []

    def write(path: Path, content: bytes) -> None:
        if len(written) == failing:
            write_synced(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_synced(path, content)
        written.append(path)

    monkeypatch.setattr(checkpoint, "write_synced", write)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(saved.parent, 5, TENSORS, {})
    assert [path.name for path in saved.parent.iterdir()] == ["step-4"]
    assert load_checkpoint(saved.parent, 4)[1] == STATE


# In a run folder


class Touch:
    """Unpickled, it makes a file: what a malicious checkpoint would do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def unfinished(whole: Run, tmp_path: Path) -> Path:
    """Copies a run, makes it look unfinished, and returns its last checkpoint."""
    folder = shutil.copytree(whole.folder, tmp_path / "run")
    shutil.rmtree(folder / "model")
    return folder / "checkpoints" / "step-6"


def put(saved: Path, name: str, content: bytes) -> None:
    """Replaces a file of a checkpoint and makes its manifest agree, as a forger would."""
    (saved / name).write_bytes(content)
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest[name] = hashlib.sha256(content).hexdigest()
    (saved / "manifest.json").write_text(json.dumps(manifest))


def test_a_pickle_in_place_of_weights_is_refused_and_not_run(
    tmp_path: Path, few: Callable[..., Recipe], unfinished: Path
) -> None:
    trap = tmp_path / "trap"
    (unfinished / "model.safetensors").write_bytes(pickle.dumps(Touch(trap)))
    with pytest.raises(WeightsError, match=r"model\.safetensors does not have the digest in"):
        train(few(), tmp_path / "run")
    assert not trap.exists()


def test_a_pickle_whose_digest_was_forged_is_refused_and_not_run(
    tmp_path: Path, few: Callable[..., Recipe], unfinished: Path
) -> None:
    trap = tmp_path / "trap"
    put(unfinished, "model.safetensors", pickle.dumps(Touch(trap)))
    try:
        with pytest.raises(WeightsError, match=r"model\.safetensors"):
            train(few(), tmp_path / "run")
    finally:
        assert not trap.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe_sha256": "0" * 64}, "it belongs to another recipe."),
        ({"epoch_sums": [[0.0] * 4] * 2}, "it was saved by 2 ranks, this training has 1."),
        ({"surprise": 1}, "surprise"),
        ({"interval_sums": [[0.0] * 3]}, ""),
    ],
)
def test_a_state_of_something_else_is_refused(
    tmp_path: Path,
    few: Callable[..., Recipe],
    unfinished: Path,
    changes: dict[str, Any],
    words: str,
) -> None:
    state = json.loads((unfinished / "state.json").read_text())
    put(unfinished, "state.json", json.dumps({**state, **changes}).encode())
    with pytest.raises(WeightsError, match="was not made for this training: ") as caught:
        train(few(), tmp_path / "run")
    assert words in str(caught.value)


def test_weights_of_another_network_are_refused(
    tmp_path: Path, few: Callable[..., Recipe], unfinished: Path
) -> None:
    other = train(few({"model.options.shortcut": "B"}), tmp_path / "other").checkpoints / "step-6"
    put(unfinished, "model.safetensors", (other / "model.safetensors").read_bytes())
    with pytest.raises(WeightsError, match="was not made for this training: "):
        train(few(), tmp_path / "run")


def test_a_group_of_tensors_too_few_is_refused(
    tmp_path: Path, few: Callable[..., Recipe], unfinished: Path
) -> None:
    manifest = json.loads((unfinished / "manifest.json").read_text())
    del manifest["momentum.safetensors"]
    (unfinished / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match=r"it holds \['model'\], expected \['model', 'momentum"):
        train(few(), tmp_path / "run")


def test_a_damaged_checkpoint_moved_away_gives_the_same_result_from_the_start(
    tmp_path: Path,
    few: Callable[..., Recipe],
    whole: Run,
    unfinished: Path,
    results: Callable[[Path], dict[str, bytes]],
) -> None:
    expected = results(whole.folder)
    (unfinished / "state.json").write_text("{")
    with pytest.raises(WeightsError, match=r"state\.json"):
        train(few(), tmp_path / "run")
    shutil.rmtree(unfinished)
    assert results(train(few(), tmp_path / "run").folder) == expected


def test_a_full_disk_names_the_checkpoint_that_is_kept(
    tmp_path: Path, few: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, content: bytes) -> None:
        if "step-6" in path.parent.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_synced(path, content)

    monkeypatch.setattr(checkpoint, "write_synced", write)
    with pytest.raises(StorageError, match="the disk is full") as caught:
        train(few(), tmp_path / "run")
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == [4]
    assert "The checkpoint of step 4 is kept." in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        *({"step": -1}, {"step": 4}, {"step": "6"}, {"metrics_bytes": -5}, {"best_epoch": 99}),
        *({"lowest_error": -3.0}, {"epoch_sums": [[-1.0] * 4]}, {"reached": 1}, {"below": None}),
    ],
    ids=str,
)
def test_a_state_that_cannot_be_is_refused(
    tmp_path: Path, few: Callable[..., Recipe], unfinished: Path, changes: dict[str, Any]
) -> None:
    state = json.loads((unfinished / "state.json").read_text())
    put(unfinished, "state.json", json.dumps({**state, **changes}).encode())
    with pytest.raises(WeightsError, match="was not made for this training: ") as caught:
        train(few(), tmp_path / "run")
    assert next(iter(changes)) in str(caught.value)


@pytest.mark.parametrize("file", ["model", "momentum"])
def test_tensors_that_are_no_numbers_are_refused(
    tmp_path: Path, few: Callable[..., Recipe], unfinished: Path, file: str
) -> None:
    tensors = safetensors.torch.load((unfinished / f"{file}.safetensors").read_bytes())
    tensors["conv1.weight"].view(-1)[3] = float("nan")
    put(unfinished, f"{file}.safetensors", safetensors.torch.save(tensors))
    with pytest.raises(WeightsError, match=r"'conv1\.weight' of .* not finite"):
        train(few(), tmp_path / "run")


def test_a_momentum_too_few_is_refused(
    tmp_path: Path, few: Callable[..., Recipe], unfinished: Path
) -> None:
    tensors = safetensors.torch.load((unfinished / "momentum.safetensors").read_bytes())
    del tensors["conv1.weight"]
    put(unfinished, "momentum.safetensors", safetensors.torch.save(tensors))
    with pytest.raises(WeightsError, match=r"momentum does not fit the parameters: conv1\.weight"):
        train(few(), tmp_path / "run")


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "model.safetensors"])
def test_a_pipe_in_place_of_a_file_is_refused_at_once(
    tmp_path: Path, few: Callable[..., Recipe], unfinished: Path, name: str
) -> None:
    (unfinished / name).unlink()
    os.mkfifo(unfinished / name)
    with pytest.raises(WeightsError, match="not a regular file"):
        train(few(), tmp_path / "run")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"../x": "0"}', '{"a": "0", "a": "1"}', "[]"])
def test_a_manifest_of_something_else_is_refused(
    tmp_path: Path, few: Callable[..., Recipe], unfinished: Path, content: str
) -> None:
    (unfinished / "manifest.json").write_text(content)
    with pytest.raises(WeightsError, match=r"manifest\.json cannot be read"):
        train(few(), tmp_path / "run")
