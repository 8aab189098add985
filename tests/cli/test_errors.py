"""Errors: what the exceptions mean, and one line with the right code for whatever goes wrong."""

import os
import pickle
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resnetkit import errors
from resnetkit.errors import Interrupted, ResnetkitError, did_you_mean

Resnet = Callable[..., Any]
# The promise of the design: 1 failure, 2 usage or recipe, 3 data or weights.
CODES = {
    "ResnetkitError": 1,
    "UsageError": 2,
    "ArchitectureError": 2,
    "RecipeError": 2,
    "DataError": 3,
    "WeightsError": 3,
    "TransferError": 3,
    "StorageError": 1,
    "RunInUse": 1,
    "OutOfMemory": 1,
    "TrainingDiverged": 1,
}


def tree(error: type[ResnetkitError] = ResnetkitError) -> Iterator[type[ResnetkitError]]:
    """Yields an error and all that are kinds of it."""
    yield error
    for kind in error.__subclasses__():
        yield from tree(kind)


ERRORS = {error.__name__: error for error in tree() if error is not Interrupted}


def test_every_error_has_its_promised_code() -> None:
    assert {name: error.exit_code for name, error in ERRORS.items()} == CODES


def test_the_tree_is_drawn_in_the_docstring() -> None:
    assert errors.__doc__
    functions = {"did_you_mean", "headless", "is_out_of_memory"}
    assert set(ERRORS) | {"Interrupted"} | functions == set(errors.__all__)
    for name, error in ERRORS.items():
        assert name in errors.__doc__
        assert error.__doc__


@pytest.mark.parametrize("name", list(ERRORS))
def test_every_error_ends_the_command_in_one_line(
    resnet: Resnet, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(_: Path, lang: str) -> Path:
        raise ERRORS[name]("it cannot be. Try this.")

    monkeypatch.setattr("resnetkit.cli.runs.write_report", refuse)
    answer = resnet("report", "anything")
    assert (answer.code, answer.out) == (CODES[name], "")
    assert answer.err == "resnet: it cannot be. Try this.\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_ends_with_128_and_the_signal(
    resnet: Resnet, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    def stop(_: Path, lang: str) -> Path:
        raise Interrupted("all is saved.", number)

    monkeypatch.setattr("resnetkit.cli.runs.write_report", stop)
    answer = resnet("report", "anything")
    assert (answer.code, answer.out, answer.err) == (code, "", "resnet: all is saved.\n")


def test_an_impatient_person_ends_with_130(resnet: Resnet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C before a training catches the signal, or where there is nothing to save."""

    def interrupt(_: Path, lang: str) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr("resnetkit.cli.runs.write_report", interrupt)
    answer = resnet("report", "anything")
    assert (answer.code, answer.out, answer.err) == (130, "", "resnet: interrupted.\n")


def test_an_interruption_travels_between_processes() -> None:
    """joblib pickles what a training raises."""
    traveled = pickle.loads(pickle.dumps(Interrupted("all is saved.", 15)))
    assert (str(traveled), traveled.exit_code) == ("all is saved.", 143)


def test_a_fault_of_ours_is_not_dressed_up(resnet: Resnet, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path, lang: str) -> Path:
        raise ZeroDivisionError

    monkeypatch.setattr("resnetkit.cli.runs.write_report", fail)
    with pytest.raises(ZeroDivisionError):
        resnet("report", "anything")


def test_the_nearest_word_is_offered_and_only_if_it_is_near() -> None:
    assert did_you_mean("resnet65", ["resnet56", "plain56"]) == " Did you mean 'resnet56'?"
    assert did_you_mean("photograph", ["resnet56", "plain56"]) == ""
    assert did_you_mean("anything", []) == ""


def dry(*changes: str) -> list[str]:
    return ["train", "--dry-run", *(word for change in changes for word in ("--set", change))]


MISTAKES: dict[str, tuple[list[str], str]] = {
    "an option that does not exist": (["runs", "--foo"], "See 'resnet runs --help'."),
    "an argument too many": (["recipes", "digits", "foo"], "unexpected argument(s): foo. See"),
    # networks
    "no such network": (["models", "resnet57"], "any 6n+2. Did you mean 'resnet56'?"),
    "a slip in a name": (["models", "resnt56"], "Did you mean 'resnet56'?"),
    "a depth that Python can build": (["models", "resnet26"], "cifar_resnet(26) builds one"),
    "no such option": (["models", "resnet20", "--set", "shrtcut=C"], "Did you mean 'shortcut'?"),
    "no such shortcut": (["models", "resnet20", "--set", "shortcut=Q"], "one of none, A, B, C"),
    "a negative number": (["models", "resnet20", "--set", "num_classes=-5"], "number from 1 to"),
    "no whole number": (["models", "resnet20", "--set", "num_classes=2.5"], "a whole number"),
    "a mapping for a word": (["models", "resnet20", "--set", "norm={a: 1}"], "one of batch"),
    "a change without =": (["models", "resnet20", "--set", "shortcut"], "expected KEY=VALUE"),
    "a change without key": (["models", "resnet20", "--set", "=A"], "expected KEY=VALUE"),
    "no YAML": (["models", "resnet20", "--set", "shortcut={"], "expected the node content"),
    "a change of nothing": (["models", "--set", "shortcut=C"], "name it, such as"),
    # recipes
    "no such recipe": (["train", "digits_study"], "Did you mean 'digits-study'?"),
    "a network in a recipe": (dry("model.name=resnet57"), "model: unknown architecture"),
    "a depth in a recipe": (dry("model.name=plain57"), "Did you mean 'plain56'?"),
    "an option in a recipe": (dry("model.options.shortcut=Q"), "model: shortcut is 'Q'"),
    "classes against the data": (dry("model.options.num_classes=7"), "'digits' has 10"),
    "no such key": (dry("optimzer.lr=1"), "Did you mean 'optimizer'?"),
    "no such key inside": (dry("optimizer.lrr=1"), "Did you mean 'optimizer.lr'?"),
    "a key below a value": (dry("optimizer.lr.x=1"), "'lr' is a value, not a group"),
    "a value for a group": (dry("optimizer=3"), "'optimizer' is a group of keys"),
    "a negative learning rate": (dry("optimizer.lr=-1"), "optimizer.lr is -1: "),
    "a learning rate in words": (dry("optimizer.lr=fast"), "optimizer.lr is 'fast': "),
    "an infinite learning rate": (dry("optimizer.lr=.inf"), "finite"),
    "a length without unit": (dry("length=5"), "such as '12 epochs'"),
    "no length": (dry("length=0 steps"), "such as '12 epochs'"),
    "an empty batch": (dry("batch_size=0"), "batch_size is 0: "),
    "a batch of one": (dry("batch_size=1"), "batch normalization needs at least 2"),
    "a negative seed": (dry("seed=-1"), "seed is -1: "),
    "an absurd seed": (dry("seed=99999999999999999999"), "seed is 99999999999999999999: "),
    "no such data": (dry("data.name=digit"), "Did you mean 'digits'?"),
    "mirrored digits": (dry("data.augment.flip=random"), "Set data.augment.flip=none."),
    "more padding than image": (dry("data.augment.crop_padding=8"), "Use at most 4."),
    "a network for large images": (dry("model.name=resnet50"), "only 8x8 pixels"),
    "no such schedule": (dry("schedule.kind=circle"), "'one-cycle'"),
    "a schedule that lacks a key": (dry("schedule.kind=step"), "lacks 'schedule.milestones'"),
    "no such precision": (dry("precision=float16"), "'bfloat16'"),
    "choosing on the test part": (
        dry("target_error=5", "evaluation.split=test"),
        "evaluation.split=validation",
    ),
    # machines
    "no such device": (["train", "--dry-run", "--device", "tpu"], "auto, cpu, cuda or cuda:N"),
    "a device that is not here": (
        ["train", "--dry-run", "--device", "cuda:99"],
        "Use --device cpu",
    ),
    "negative threads": (
        ["train", "--threads", "-1"],
        "--threads -1: expected a number from 0 to 1024.",
    ),
    # studies
    "no such study": (["study", "degredation"], "Did you mean 'degradation'?"),
    "negative jobs": (["study", "degradation", "--jobs", "-1"], "--jobs -1: expected 0 or more."),
}
LATE_MISTAKES: dict[str, tuple[list[str], str]] = {
    "no such scale": (["--scale", "huge"], "has no scale 'huge': expected quick"),
    "no such backend": (["--backend", "lokky"], "unknown backend 'lokky': expected loky"),
    "a key of no recipe": (["--set", "optimizer.rl=1"], "Did you mean 'optimizer.lr'?"),
    "a study's change without =": (["--set", "seed"], "expected KEY=VALUE"),
    "a study on no GPU": (["--device", "cuda:99", "--backend", "sequential"], "Use --device cpu"),
}


@pytest.mark.parametrize(("words", "said"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_is_explained_in_one_line(
    resnet: Resnet, tmp_path: Path, words: list[str], said: str
) -> None:
    answer = resnet(*words)
    assert (answer.code, answer.out) == (2, "")
    assert re.fullmatch(r"resnet: [^\n]+[.?]\n", answer.err)
    assert said in answer.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("words", "said"), LATE_MISTAKES.values(), ids=list(LATE_MISTAKES))
def test_a_mistake_in_a_study_is_explained(
    resnet: Resnet, tmp_path: Path, words: list[str], said: str
) -> None:
    """A remark on where the runs are may come first."""
    answer = resnet("study", "degradation", *words)
    assert (answer.code, answer.out) == (2, "")
    assert [line.startswith("resnet: ") for line in answer.err.splitlines()][-1:] == [True]
    assert answer.err.count("resnet: ") == 1
    assert said in answer.err
    assert not list(tmp_path.rglob("recipe.yaml"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("length: [", "is not YAML: "),
        ("", "holds no keys"),
        ("- 1", "holds no keys"),
        ("length: 2 steps", "the recipe lacks 'schedule'."),
        ("length: 2 steps\nschedule: {}", "lacks 'schedule.kind'"),
        ("length: 2 steps\nschedule: {kind: linear}\ncolor: blue", "unknown key 'color'"),
        ("!!python/object/apply:os.system [ls]", "is not YAML: "),
    ],
)
def test_a_recipe_file_that_is_none_is_explained(
    resnet: Resnet, tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    answer = resnet("train", "mine.yaml")
    assert (answer.code, answer.out) == (2, "")
    assert re.fullmatch(r"resnet: [^\n]+\n", answer.err)
    assert said in answer.err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("folder", "is a folder, expected a YAML file. Did you mean '--data folder'?"),
        ("binary", "is not text in UTF-8"),
        ("pipe", "cannot be read: it is not a regular file."),
    ],
)
def test_what_is_no_text_is_no_recipe(
    resnet: Resnet, tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    os.mkfifo(tmp_path / "pipe")
    answer = resnet("train", name)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"resnet: the recipe '{name}' {words}")


def test_a_data_set_in_place_of_a_recipe_is_understood(resnet: Resnet) -> None:
    answer = resnet("train", "mnist")
    assert answer.code == 2
    assert "Did you mean '--data mnist'?" in answer.err


@pytest.mark.parametrize("command", [["train"], ["study", "degradation", "--jobs", "1"]])
def test_a_path_below_a_file_cannot_be_written(
    resnet: Resnet, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    answer = resnet(*command, "--out", "file/below")
    assert (answer.code, answer.out) == (1, "")
    *_, last = answer.err.splitlines()
    assert last.startswith("resnet: cannot write file/below")
    assert "a parent of this path is a file, not a folder." in last
    assert "--out" in last
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_in_the_way_is_not_replaced(
    resnet: Resnet, tmp_path: Path, few_steps: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("mine")
    answer = resnet("train", *few_steps, "--out", "file")
    assert answer.code == 1
    assert "cannot write file: a file with this name already exists" in answer.err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_of_something_else_is_not_touched(
    resnet: Resnet, tmp_path: Path, few_steps: tuple[str, ...]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    answer = resnet("train", *few_steps, "--out", "photos")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("resnet: photos is not empty and holds no run; nothing in it was")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_a_run_of_another_recipe_is_not_touched(
    resnet: Resnet,
    finished_run: Callable[..., Path],
    contents: Callable[[Path], dict[str, bytes]],
) -> None:
    folder = finished_run()
    (folder / ".lock").touch()
    before = contents(folder)
    answer = resnet("train", "--out", "runs/one", "--set", "optimizer.momentum=0.5")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        "resnet: runs/one holds a run of another recipe: there optimizer.momentum is 0.9, here 0.5."
        " Nothing in it was touched. Choose another folder with --out.\n"
    )
    assert contents(folder) == before


def test_a_corrupt_checkpoint_is_not_resumed(
    resnet: Resnet,
    tmp_path: Path,
    few_steps: tuple[str, ...],
    contents: Callable[[Path], dict[str, bytes]],
) -> None:
    words = ["train", *few_steps, "--set", "checkpoint.every=1 steps", "--out", "run"]
    assert resnet(*words).code == 0
    (tmp_path / "run" / "model").rename(tmp_path / "gone")  # as if it had not been finished
    path = tmp_path / "run" / "checkpoints" / "step-6" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    before = contents(tmp_path / "run")
    answer = resnet(*words)
    assert (answer.code, answer.out) == (3, "")
    assert re.fullmatch(r"resnet: [^\n]+\n", answer.err)
    assert "step-6 is corrupt: model.safetensors does not have the digest in" in answer.err
    assert contents(tmp_path / "run") == before


def test_a_training_that_diverges_is_a_failure(
    resnet: Resnet, few_steps: tuple[str, ...], tmp_path: Path
) -> None:
    wild = ["--set", "optimizer.lr=100", "--set", "optimizer.momentum=0.999"]
    wild += ["--set", "model.options.norm=none", "--set", "warmup={kind: none}"]
    answer = resnet("train", *few_steps, *wild, "--out", "run")
    assert (answer.code, answer.out) == (1, "")
    *_, last = answer.err.splitlines()
    assert last.startswith("resnet: training diverged: at step ")
    assert "Try a lower optimizer.lr" in last
    assert (tmp_path / "run" / "failure.json").is_file()


@pytest.mark.parametrize(
    "change",
    [
        "num_classes=2020-13-45",
        pytest.param(f"num_classes={'1' * 5000}", id="a number of 5000 digits"),
        "num_classes=1000000000000000000000",
        "in_channels=99999999999999999",
        pytest.param("num_classes=!!bool q"),
        pytest.param("num_classes=!!timestamp q"),
        pytest.param(f"shortcut={'[' * 5000}", id="a list 5000 deep"),
    ],
)
def test_absurd_values_are_refused_too(resnet: Resnet, change: str) -> None:
    answer = resnet("models", "resnet20", "--set", change)
    assert (answer.code, answer.out) == (2, "")
    assert re.fullmatch(r"resnet: [^\n]+\n", answer.err)


def test_a_scale_that_is_none_is_not_begun(resnet: Resnet) -> None:
    answer = resnet("study", "degradation", "--scale", "huge")
    assert re.fullmatch(r"resnet: [^\n]+\n", answer.err)


def test_one_kind_of_warmup_can_take_the_place_of_another(resnet: Resnet) -> None:
    """The recipe 'digits' warms up over an epoch; leaving that out must be possible."""
    assert resnet(*dry("warmup.kind=none", "length=1 steps")).code == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", "{\n"),
        ("metrics.jsonl", "[1]\n"),
        ("metrics.jsonl", '{"event": "final"}\n'),
        ("timing.jsonl", "{\n"),
    ],
)
def test_damaged_metrics_are_a_fault_of_the_data(
    resnet: Resnet, finished_run: Callable[..., Path], name: str, content: str
) -> None:
    (finished_run() / name).write_text(content)
    for command in (["runs"], ["report", "runs/one"]):
        answer = resnet(*command)
        assert answer.code == 3
        assert name in answer.err


def test_a_damaged_environment_is_a_fault_of_the_data(
    resnet: Resnet, finished_run: Callable[..., Path]
) -> None:
    (finished_run() / "environment.json").write_text("{")
    answer = resnet("report", "runs/one")
    assert (answer.code, answer.out) == (3, "")
    assert "environment.json is corrupt" in answer.err


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_closed_stream_is_no_fault_of_ours(
    resnet: Resnet, finished_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    """Python has None for a stream that was closed before it started, as services do."""
    finished_run()
    monkeypatch.setattr(f"sys.{stream}", None)
    assert resnet("train", "--out", "runs/one").code == 0
