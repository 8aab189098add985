"""What all tests share: one thread, small data, small recipes, and what a run folder holds.

The process that hands out the tests reads this file and needs no torch: what imports it waits for
the first test.
"""

import os

# Before torch is imported: two threads that share a busy core are a hundred times slower.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import gc
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from resnetkit.data.dataset import Dataset
    from resnetkit.training.recipe import Recipe
    from resnetkit.training.run_folder import Run


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Takes what is imported for the tests from the garbage collector, which looked at it often.

    Torch alone makes a million objects, of which none is ever freed.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def checks_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps exported networks of tests out of the user's cache."""
    from resnetkit.inference import passed_checks

    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr(passed_checks, "cache_folder", lambda: folder)
        yield


ENGINES = (
    "tests/inference/test_bench",
    "tests/inference/test_eval",
    "tests/inference/test_export",
    "tests/inference/test_passed",
    "tests/inference/test_quantize",
    "tests/cli/test_app",
    "tests/cli/test_export",
)
"""Modules that export networks: the libraries of the engines take seconds to import."""
BROWSER = "tests/browser/"
"""Modules that open pages: a browser takes seconds to launch."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """Hands out whole modules, and all of `ENGINES` and of `BROWSER` to one process each."""
    if config.getoption("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByImports(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            scope: str = super()._split_scope(nodeid)
            if scope.startswith(ENGINES):
                return "engines"
            return BROWSER if scope.startswith(BROWSER) else scope

    return ByImports(config, log)


TINY = {
    "length": "6 steps",
    "batch_size": 32,
    "log_every": 2,
    "checkpoint.every": "2 steps",
}
DIFFERS_BY_NATURE = {"environment.json", "timing.jsonl", ".lock"}


def small_recipe(changes: dict[str, Any] | None = None) -> "Recipe":
    from resnetkit.training.recipe import load_recipe

    return load_recipe("digits", {**TINY, **(changes or {})})


def smallest_recipe(changes: dict[str, Any] | None = None) -> "Recipe":
    return small_recipe({"data.name": "few", "model.name": "resnet8", **(changes or {})})


@cache
def digits_once() -> "Dataset":
    """Opens the digits, which takes 0.02 s, once for all tests of this process."""
    from resnetkit.data.datasets import open_digits

    return open_digits()


@cache
def few_digits() -> "Dataset":
    """Returns 150 digits: 100 to train on, which are 3 batches of 32 an epoch."""
    from resnetkit.data.dataset import Dataset
    from resnetkit.data.stratified import stratified_split

    digits = digits_once()
    labels = digits.labels[:150]
    splits = stratified_split(labels, test_fraction=0.2, validation_fraction=0.1)
    return Dataset(
        "few", digits.images[:150], labels, digits.class_names, splits, mirrored=False, sha256=""
    )


def result_of(folder: Path) -> dict[str, bytes]:
    """Returns the files of a run that are the same for the same recipe, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in DIFFERS_BY_NATURE
    }


def everything_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"a folder"
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="session")
def tiny() -> Callable[..., "Recipe"]:
    """Makes recipes of six steps of ResNet-8 on 150 digits; this process alone knows both.

    Values by dotted key replace those of the recipe.
    """
    return smallest_recipe


@pytest.fixture(scope="session")
def on_digits() -> Callable[..., "Recipe"]:
    """Makes recipes of six steps on all digits, of which other processes know as well."""
    return small_recipe


@pytest.fixture(autouse=True, scope="session")
def _small_things() -> Iterator[None]:
    """Lets this process, and no other one, know 150 digits and a network of 8 layers by name."""
    import torch

    from resnetkit.data.datasets import DATASETS
    from resnetkit.models.zoo import ARCHITECTURES, cifar

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "few", few_digits)
        patch.setitem(DATASETS, "digits", digits_once)
        patch.setitem(ARCHITECTURES, "resnet8", cifar(8))
        yield


def redigest(folder: Path) -> None:
    """Makes the digests of a `model/` folder fit its files, as a forger would."""
    config = json.loads((folder / "config.json").read_text())
    config.pop("sha256", None)
    content = json.dumps(config, sort_keys=True).encode()
    digests = {"config.json": hashlib.sha256(content).hexdigest()}
    for name in ("model.safetensors", "preprocessing.safetensors"):
        digests[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps({**config, "sha256": digests}))


@pytest.fixture(scope="session")
def forge() -> Callable[[Path], None]:
    """Makes the digests of a changed `model/` folder fit its files."""
    return redigest


@pytest.fixture(scope="session")
def few() -> Callable[..., "Recipe"]:
    """Makes the recipes of `tiny`, which are of two epochs."""
    return smallest_recipe


@pytest.fixture(scope="session")
def whole(few: Callable[..., "Recipe"], tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """A run of `few()` from beginning to end, to be read or copied and never changed."""
    from resnetkit.training.loop import train

    return train(few(), tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the charts of reports empty: each takes a tenth of a second."""
    monkeypatch.setattr("resnetkit.report.drawing.raw_svg", lambda paint, size, name: "<svg></svg>")


@pytest.fixture
def _uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs fused kernels as the functions they stand for, without a compiler."""
    from resnetkit.models import fused

    functions = SimpleNamespace(forward=fused.forward, backward=fused.backward)
    monkeypatch.setattr(fused, "kernels", lambda: functions)


@pytest.fixture(scope="session")
def results() -> Callable[[Path], dict[str, bytes]]:
    """Reads the files of a run that do not depend on time and machine."""
    return result_of


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Reads everything in a folder, and what folders there are."""
    return everything_in


@pytest.fixture(scope="session")
def start() -> Callable[..., "subprocess.Popen[str]"]:
    """Starts `python` with some words, in a process of its own, which it may outlive."""

    def start_python(*words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start_python
