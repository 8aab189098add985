"""Several processes, as torchrun starts them: every sample once, the same bytes after a signal."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.distributed import TCPStore

from helpers.forks import Fork, stop_server
from resnetkit.data.batches import TrainingBatches
from resnetkit.data.datasets import open_dataset
from resnetkit.errors import WeightsError
from resnetkit.models.zoo import create_model
from resnetkit.training.checkpoint import checkpoint_steps
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe, load_recipe
from resnetkit.training.run_folder import Run, read_run

Results = Callable[[Path], dict[str, bytes]]
Start = Callable[..., "subprocess.Popen[str]"]

CHANGES: dict[str, Any] = {"length": "2 epochs", "batch_size": 64, "log_every": 1, "ema_decay": 0.5}
STEPS, RANKS = 38, 2

# The command itself on a slow disk, with a note of every sample that this rank was shown, and of
# what the main rank had written when this rank left.
RECORDER = """
import json, os, sys, time
from pathlib import Path
from resnetkit.cli.app import run
from resnetkit.data.loader import DeviceLoader
from resnetkit.training import finish, resume

notes, seconds, *words = sys.argv[1:]
shown, real = [], DeviceLoader.training

def training(self, batch, **options):
    shown.append(batch.local_ids.tolist())
    return real(self, batch, **options)

def slow(write):
    def slowly(*args):
        time.sleep(float(seconds))
        return write(*args)
    return slowly

DeviceLoader.training = training
finish.export_model = slow(finish.export_model)
resume.save_checkpoint = slow(resume.save_checkpoint)
code = run(words)
folder = Path(notes, "run")
note = {
    "shown": shown,
    "code": code,
    "saved": bool(list(folder.glob("checkpoints/step-*"))),
    "finished": (folder / "model").exists(),
}
Path(notes, os.environ["RANK"] + ".json").write_text(json.dumps(note))
sys.exit(code)
"""

# Both ranks wait for longer than any of them would for an answer, or for the start of the other.
WAITING = """
import time
from datetime import timedelta
from resnetkit.errors import DataError
from resnetkit.runtime import process_group

def work():
    time.sleep(25)
    if FAILS:
        raise DataError("an image is missing.")
    print("worked")

process_group.PATIENCE, process_group.SIGN_OF_LIFE = timedelta(seconds=20), 1
try:
    with process_group.open_world("cpu") as world:
        world.main_first(work)
        print("together")
except Exception as error:
    print(type(error).__name__)
"""

# The same training twice, of which one is interrupted; no other process is started in between.
THREE = """
import sys
from pathlib import Path
from resnetkit.errors import Interrupted
from resnetkit.runtime.process_group import open_world
from resnetkit.training.loop import train
from resnetkit.training.recipe import load_recipe
from resnetkit.training.signals import StopRequest

folder, recipe, stop = Path(sys.argv[1]), load_recipe("digits", CHANGES), StopRequest()

def observe(event):
    if getattr(event, "step", 0) == 3:
        stop.signal_number = 15

with open_world("cpu"):
    train(recipe, folder / "whole", device="cpu")
    try:
        train(recipe, folder / "run", device="cpu", stop=stop, observe=observe)
    except Interrupted as error:
        print(error)
    train(recipe, folder / "run", device="cpu")
"""

# The command, on a rank that comes late to look whether the images were moved.
LATE = """
import os, sys, time
from resnetkit.cli.app import run
from resnetkit.training import loop

def late(*args, look=loop.run_elsewhere):
    time.sleep(2 * int(os.environ["RANK"]))
    return look(*args)

loop.run_elsewhere = late
sys.exit(run(sys.argv[1:]))
"""


def torchrun(*words: str) -> list[str]:
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}", *words]


def train_words(folder: Path) -> list[str]:
    changes = [word for key, value in CHANGES.items() for word in ("--set", f"{key}={value}")]
    return ["train", "digits", *changes, "--device", "cpu", "--out", str(folder)]


def recorder_words(folder: Path, seconds: float = 0.3) -> list[str]:
    """Returns the words that train below a folder and leave a note there for each rank.

    Every checkpoint and the model take so many seconds more than they would.
    """
    path = folder / "recorder.py"
    path.write_text(RECORDER)
    return torchrun(str(path), str(folder), str(seconds), *train_words(folder / "run"))


def notes_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]


@dataclass(frozen=True)
class Trained:
    """A run of two ranks that nothing interrupted.

    Attributes:
        run: its folder.
        notes: of each rank, when it left.
        returncodes: of torchrun, or of the ranks.
        output: of all processes.
    """

    run: Run
    notes: list[dict[str, Any]]
    returncodes: list[int | None]
    output: str


def by_torchrun(folder: Path, start: Start) -> tuple[list[int | None], str]:
    """Trains as users do: three processes, each of which imports torch."""
    with start(*recorder_words(folder)) as process:
        output, _ = process.communicate(timeout=120)
    return [process.returncode], output


def by_forks(folder: Path, start: Start) -> tuple[list[int | None], str]:
    """Trains in two processes with the environment and the store that torchrun gives to ranks."""
    ranks = forked_ranks(folder, *recorder_words(folder)[len(torchrun()) :])
    return [rank.returncode for rank in ranks], "".join(rank.log.read_text() for rank in ranks)


def forked_ranks(folder: Path, *words: str, count: int = RANKS) -> list[Fork]:
    """Runs a program on every rank, to its end."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ranks = [
        Fork(
            *words, log=folder / f"{rank}.log", environment=environment_of(rank, count, store.port)
        )
        for rank in range(count)
    ]
    for rank in ranks:
        rank.communicate(timeout=120)
    stop_server()
    return ranks


def environment_of(rank: int, ranks: int, port: int) -> dict[str, str]:
    """Returns what torchrun tells a rank."""
    values = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": ranks,
        "LOCAL_WORLD_SIZE": ranks,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "TORCHELASTIC_USE_AGENT_STORE": True,
        "TORCHELASTIC_RESTART_COUNT": 0,
        "OMP_NUM_THREADS": 1,
    }
    return {name: str(value) for name, value in values.items()}


@pytest.fixture(
    scope="module", params=[by_forks, pytest.param(by_torchrun, marks=pytest.mark.slow)]
)
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, start: Start
) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    returncodes, output = request.param(folder, start)
    return Trained(read_run(folder / "run"), notes_of(folder), returncodes, output)


def test_no_rank_leaves_before_the_run_is_finished(trained: Trained) -> None:
    assert [note["finished"] for note in trained.notes] == [True, True]


def test_every_process_ends_well(trained: Trained) -> None:
    assert set(trained.returncodes) == {0}, trained.output


def test_no_process_complains(trained: Trained) -> None:
    assert "Traceback" not in trained.output.partition("torch/distributed/elastic")[0]
    assert "Warning" not in trained.output


def test_one_rank_alone_speaks(trained: Trained) -> None:
    assert trained.output.count("test error") == 1
    assert trained.output.count("epoch 1 ") == 1
    assert "finished before" not in trained.output


def test_a_finished_run_is_there(trained: Trained) -> None:
    final = trained.run.final
    assert final is not None
    assert final.step == STEPS
    (session,) = trained.run.sessions
    assert session.hardware["ranks"] == RANKS


def test_two_ranks_are_shown_the_samples_of_one_in_the_same_steps(trained: Trained) -> None:
    alone = TrainingBatches(open_dataset("digits").splits["train"], 64, seed=0)
    expected = [sorted(batch.sample_ids.tolist()) for batch in alone.between(0, STEPS)]
    shown = [note["shown"] for note in trained.notes]
    assert [len(share) for share in shown[0] + shown[1]] == [32] * 2 * STEPS
    together = [sorted(one + two) for one, two in zip(*shown, strict=True)]
    assert together == expected


def test_every_sample_is_counted_once(trained: Trained) -> None:
    final = trained.run.final
    assert final is not None
    assert [final.scores[split].count for split in ("train", "validation", "test")] == [
        1259,
        179,
        359,
    ]
    rows = np.array(final.confusion).sum(1)
    test_ids = open_dataset("digits").splits["test"].numpy()
    assert rows.tolist() == np.bincount(load_digits().target[test_ids]).tolist()
    for event in trained.run.epochs:
        wrong = event.train_error / 100 * 19 * 64
        assert wrong == pytest.approx(round(wrong), abs=1e-6)


def test_one_process_measures_the_same_errors_of_the_exported_network(trained: Trained) -> None:
    final = trained.run.final
    assert final is not None
    model = create_model("resnet20", num_classes=10, in_channels=1).eval()
    model.load_state_dict(safetensors.torch.load_file(trained.run.model / "model.safetensors"))
    scale = safetensors.torch.load_file(trained.run.model / "preprocessing.safetensors")
    digits = load_digits()
    pixels = torch.from_numpy(np.rint(digits.images * 255 / 16)).float()[:, None]
    with torch.no_grad():
        guessed = model((pixels - scale["mean"]) / scale["std"]).argmax(1).numpy()
    for split, ids in open_dataset("digits").splits.items():
        wrong = (guessed[ids] != digits.target[ids]).sum()
        assert final.scores[split].error == pytest.approx(100 * wrong / len(ids), abs=1e-9)


def test_two_ranks_learn_as_one_does(trained: Trained, tmp_path: Path) -> None:
    """Batch normalization sees 32 images a rank and not 64, so the losses are only close."""
    alone = train(load_recipe("digits", CHANGES), tmp_path)
    two, one = trained.run.intervals, alone.intervals
    assert two[0].loss == pytest.approx(one[0].loss, rel=0.1)
    assert two[0].lr == one[0].lr
    for a, b in zip(trained.run.epochs, alone.epochs, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=0.15)
    assert trained.run.final is not None
    assert trained.run.final.test.error < 60  # 90 by chance


def wait_for_lines(process: "subprocess.Popen[str]", path: Path, count: int) -> None:
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@contextmanager
def interrupted(
    start: Start, folder: Path, seconds: float = 0.3
) -> Iterator["subprocess.Popen[str]"]:
    """Starts two ranks, hands them over in the first epoch and waits for their end."""
    with start(*recorder_words(folder, seconds)) as process:
        wait_for_lines(process, folder / "run" / "metrics.jsonl", 4)
        yield process
        output, _ = process.communicate(timeout=60)
    (step,) = checkpoint_steps(folder / "run" / "checkpoints")
    assert 4 <= step < STEPS // 2
    assert f"stopped after step {step} of {STEPS}; everything is saved" in output


@pytest.mark.slow
def test_two_ranks_go_on_after_sigterm_to_the_same_bytes(
    trained: Trained, start: Start, tmp_path: Path, results: Results
) -> None:
    folder = tmp_path / "run"
    with interrupted(start, tmp_path) as process:
        process.send_signal(signal.SIGTERM)
    notes = notes_of(tmp_path)
    with start(*torchrun("-m", "resnetkit", *train_words(folder))) as process:
        process.communicate(timeout=60)
    assert len(read_run(folder).sessions) == 2
    assert results(folder) == results(trained.run.folder)
    assert [note["code"] for note in notes] == [143, 143]
    assert [note["saved"] for note in notes] == [True, True]


@pytest.mark.slow
def test_three_ranks_go_on_to_the_same_bytes(tmp_path: Path, results: Results) -> None:
    """Sums of three numbers depend on their order, unlike those of two."""
    changes = {**CHANGES, "length": "6 steps", "batch_size": 96}
    program = tmp_path / "three.py"
    program.write_text(THREE.replace("CHANGES", repr(changes)))
    ranks = forked_ranks(tmp_path, str(program), str(tmp_path), count=3)
    output = "".join(rank.log.read_text() for rank in ranks)
    assert [rank.returncode for rank in ranks] == [0, 0, 0], output
    assert output.count(" of 6; everything is saved in ") == 3
    assert "Warning" not in output
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    one, three = (
        train(load_recipe("digits", changes), tmp_path / name).intervals
        for name in ("one", "whole")
    )
    assert three[0].gradient_norm == pytest.approx(one[0].gradient_norm, rel=0.2)


def test_another_number_of_ranks_does_not_go_on(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.run.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    with pytest.raises(WeightsError, match="it was saved by 2 ranks, this training has 1"):
        train(load_recipe("digits", CHANGES), tmp_path / "run")


def test_the_finished_run_of_two_ranks_is_returned_to_one(trained: Trained) -> None:
    recipe: Recipe = load_recipe("digits", CHANGES)
    assert train(recipe, trained.run.folder).final == trained.run.final


@pytest.mark.slow
@pytest.mark.parametrize("rank", range(RANKS))
def test_a_signal_to_one_rank_alone_saves_everything(
    trained: Trained, start: Start, tmp_path: Path, results: Results, rank: int
) -> None:
    folder = tmp_path / "run"
    with interrupted(start, tmp_path, seconds=4) as process:
        os.kill(children_of(process.pid)[rank], signal.SIGTERM)
    with start(*torchrun("-m", "resnetkit", *train_words(folder))) as process:
        process.communicate(timeout=60)
    assert results(folder) == results(trained.run.folder)


def children_of(pid: int) -> list[int]:
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sorted(map(int, words))


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.2, 2, 5, 8])
def test_a_killed_rank_starts_again_by_itself(
    trained: Trained, start: Start, tmp_path: Path, results: Results, seconds: float
) -> None:
    folder = tmp_path / "run"
    words = ["--max-restarts", "3", "-m", "resnetkit", *train_words(folder)]
    with start(*torchrun(*words)) as process:
        deadline = time.monotonic() + 60
        while len(children_of(process.pid)) < RANKS:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(seconds)
        for child in children_of(process.pid)[:1]:  # none, if the training was faster
            os.kill(child, signal.SIGKILL)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert results(folder) == results(trained.run.folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fails", "said"),
    [
        (False, [["worked", "together"], ["together"]]),
        (True, [["DataError"], ["ResnetkitError"]]),
    ],
)
def test_ranks_wait_for_the_first_as_long_as_it_works(
    tmp_path: Path, fails: bool, said: list[list[str]]
) -> None:
    program = tmp_path / "waiting.py"
    program.write_text(WAITING.replace("FAILS", str(fails)))
    ranks = forked_ranks(tmp_path, str(program))
    lines = [rank.log.read_text().splitlines() for rank in ranks]
    assert [[line for line in those if " " not in line] for those in lines] == said


@pytest.mark.slow
def test_a_refusal_of_the_first_rank_ends_all_of_them(
    trained: Trained, start: Start, tmp_path: Path, contents: Results
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained.run.folder, folder)
    before = contents(folder)
    words = [*train_words(folder), "--set", "seed=1"]
    with start(*torchrun("-m", "resnetkit", *words)) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "holds a run of another recipe: there seed is 0, here 1." in output
    assert contents(folder) == before


@pytest.mark.slow
def test_two_ranks_find_images_that_were_moved(start: Start, tmp_path: Path) -> None:
    for number in range(80):
        folder = tmp_path / "photos" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    options = ["--set", "length=4 epochs", "--set", "batch_size=32", "--set", "log_every=1"]
    words = ["-m", "resnetkit", "train", *options, "--device", "cpu"]
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    with start(*torchrun(*words, "--data", str(tmp_path / "photos"), "--out", str(whole))) as one:
        output, _ = one.communicate(timeout=120)
    assert one.returncode == 0, output
    shutil.copytree(whole, stopped)
    shutil.rmtree(stopped / "model")  # as if it had been killed before it was finished
    moved = (tmp_path / "photos").rename(tmp_path / "moved")
    late = tmp_path / "late.py"
    late.write_text(LATE)
    words = [str(late), *words[2:]]
    with start(*torchrun(*words, "--data", str(moved), "--out", str(stopped))) as two:
        output, _ = two.communicate(timeout=120)
    assert two.returncode == 0, output
    assert {file.path.parents[1] for file in read_run(stopped).images.files} == {moved}
    assert read_run(stopped).final == read_run(whole).final
