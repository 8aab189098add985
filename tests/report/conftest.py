"""Run folders with made-up but plausible metrics: no training is needed to write a report."""

import json
import random
import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from resnetkit.report.study_report import write_study_report
from resnetkit.studies.questions.degradation import DEGRADATION
from resnetkit.studies.study import Outcome
from resnetkit.training.recipe import load_recipe
from resnetkit.training.run_folder import MODEL_FILES, Run

EPOCHS, STEPS_PER_EPOCH, CLASSES = 12, 19, 10
GROUPS = ("plain20", "plain32", "plain56", "resnet20", "resnet32", "resnet56")
# Where the training error of each network ends, and how many epochs it takes to fall by a factor e.
ENDINGS = {
    "plain20": (0.9, 1.6),
    "plain32": (6.0, 2.6),
    "plain56": (58.0, 4.0),
    "resnet20": (0.25, 1.1),
    "resnet32": (0.2, 1.0),
    "resnet56": (0.15, 1.2),
}
SESSION = {
    "started": "2026-11-20T05:00:00+00:00",
    "from_step": 0,
    "total_steps": EPOCHS * STEPS_PER_EPOCH,
    "versions": {"resnetkit": "0.1.0", "python": "3.11.7", "torch": "2.15.0", "numpy": "2.3.1"},
    "hardware": {
        "processor": "AMD EPYC 9654 96-Core Processor",
        "cores": 2,
        "memory_gib": 24,
        "device": "cpu",
        "threads": 1,
        "ranks": 1,
    },
    "precision": {"name": "float32", "reason": "the recipe asks for it"},
    "kernels": {"name": "modules", "reason": "the recipe asks for them"},
    "data": {
        "name": "digits",
        "classes": "10 classes: 0, 1, 2, 3, 4, 5, 6, 7, ...",
        "sha256": "0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382",
    },
}
CONFIG = {
    "class_names": [str(digit) for digit in range(CLASSES)],
    "image_size": [8, 8],
    "layers": {"in_channels": 1},
}


def write_lines(path: Path, events: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(event) + "\n" for event in events))


def confusion_matrix(error: float, dice: random.Random) -> list[list[int]]:
    """Returns 36 images a class, a share of them mistaken, 8 for 1 more often than others."""
    matrix = [[0] * CLASSES for _ in range(CLASSES)]
    for true in range(CLASSES):
        for _ in range(36):
            wrong = dice.random() * 100 < error
            others = [digit for digit in range(CLASSES) if digit != true]
            guess = 1 if true == 8 and dice.random() < 0.6 else dice.choice(others)
            matrix[true][guess if wrong else true] += 1
    return matrix


def score(error: float, count: int) -> dict[str, Any]:
    return {"loss": error / 30 + 0.01, "error": error, "top5_error": error / 8, "count": count}


def make_run(
    folder: Path, group: str, seed: int, *, epochs: int = EPOCHS, finished: bool = True
) -> Run:
    """Writes the folder of a run that was trained for some epochs."""
    changes = {
        "model.name": group,
        "seed": seed,
        "length": f"{EPOCHS} epochs",
        "evaluation.split": "test",
        "data.train_on": "train+validation",
    }
    recipe = load_recipe("digits", changes)
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    (folder / "environment.json").write_text(json.dumps([SESSION]))
    dice = random.Random(f"{group} {seed}")
    ending, pace = ENDINGS[group]
    ending = max(0.0, ending * (1 + dice.gauss(0, 0.08)))
    events, timing, test_error = [], [], 90.0
    for epoch in range(1, epochs + 1):
        step = epoch * STEPS_PER_EPOCH
        fallen = 2.718 ** (-(epoch - 0.4) / pace)
        train_error = ending + (88 - ending) * fallen * (1 + dice.gauss(0, 0.06))
        test_error = min(
            92, max(0.0, train_error * 0.9 + 0.8 + dice.gauss(0, 0.25 + 0.04 * train_error))
        )
        lr = 0.05 * min(epoch / 2, (EPOCHS - epoch) / EPOCHS)
        norm = 0.4 + 1.8 * fallen + dice.random() / 5
        events += [
            {"event": "interval", "step": step, "epoch": epoch, "lr": lr, "loss": train_error / 40,
             "error": train_error, "gradient_norm": norm},
            {"event": "epoch", "epoch": epoch, "step": step, "train_loss": train_error / 40,
             "train_error": train_error, "test_loss": test_error / 35, "test_error": test_error},
        ]  # fmt: skip
        timing.append(
            {"step": step, "seconds": 0.4 + dice.random() / 10, "images_per_second": 3000.0}
        )
    if finished:
        (folder / "model").mkdir()
        for name in MODEL_FILES:
            (folder / "model" / name).write_text("{}")
        (folder / "model" / "config.json").write_text(json.dumps(CONFIG))
        matrix = confusion_matrix(test_error, dice)
        wrong = sum(matrix[i][j] for i in range(CLASSES) for j in range(CLASSES) if i != j)
        test = {**score(100 * wrong / 360, 360), "confusion": matrix}
        final = {"reached": False, "train": score(ending, 1437), "test": test}
        events.append({"event": "final", "step": epochs * STEPS_PER_EPOCH, **final})
    if events:
        write_lines(folder / "metrics.jsonl", events)
        write_lines(folder / "timing.jsonl", timing)
    return Run(folder, recipe)


def make_outcome(folder: Path, *, seeds: int = 3, groups: tuple[str, ...] = GROUPS) -> Outcome:
    """Writes the runs of a study and judges them."""
    runs = {
        group: [
            make_run(folder / "runs" / f"{group}-seed{seed}", group, seed) for seed in range(seeds)
        ]
        for group in groups
    }
    return Outcome(DEGRADATION, "quick", {}, folder, runs, tuple(DEGRADATION.findings(runs)))


VOID = {"meta", "link", "br", "hr", "img", "input", "col", "wbr"}


class Page(HTMLParser):
    """A page taken apart: fails on tags that do not nest."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.cells: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data.replace("\xa0", " ")
            if {"td", "th"} & set(self.open):
                self.cells[-1] += data.replace("\xa0", " ")

    @property
    def words(self) -> str:
        """Returns the visible text, with single spaces."""
        return " ".join(self.text.split())

    def values(self, attribute: str) -> list[str]:
        """Returns the values of an attribute all over the page."""
        return [attrs[attribute] or "" for _, attrs in self.tags if attribute in attrs]

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture(scope="session")
def open_page() -> Callable[[Path], Page]:
    """Returns a function that reads a page, with the checks that hold for all of them."""

    def read(path: Path) -> Page:
        page = Page(path.read_text(encoding="utf-8"))
        check_page(page)
        return page

    return read


@pytest.fixture(scope="session")
def whole_page(outcome: Outcome, open_page: Callable[[Path], Page]) -> Page:
    """Returns the report of the shared study."""
    return open_page(write_study_report(outcome))


def check_page(page: Page) -> None:
    """Checks that the page is whole, loads nothing, and can be read aloud."""
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    inner = [
        target[1:]
        for name in ("href", "xlink:href")
        for target in page.values(name)
        if target[:1] == "#"
    ]
    named = [name for value in page.values("aria-labelledby") for name in value.split()]
    clips = re.findall(r"url\(#([^)]+)\)", page.source)
    assert set(inner + named + clips) <= set(ids)
    assert "http:" not in page.source
    assert "https:" not in page.source
    assert not {"script", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert "@import" not in page.source
    assert page.tags[0] == ("html", {"lang": "en"})
    assert page.count("h1") == page.count("main") == 1
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.count("table") == page.count("caption")
    assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")
    for tag, attrs in page.tags:
        if tag == "svg":
            assert attrs.get("aria-hidden") == "true" or (
                attrs["role"] == "img" and attrs["aria-label"]
            )


@pytest.fixture(scope="session")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Returns a whole study with three seeds, which tests share: they must not change it."""
    return make_outcome(tmp_path_factory.mktemp("outcome") / "study")


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., Run]:
    """Returns `make_run`, in a fresh folder."""

    def build(group: str = "resnet20", seed: int = 0, **options: Any) -> Run:
        return make_run(tmp_path / f"{group}-seed{seed}", group, seed, **options)

    return build


@pytest.fixture
def new_outcome(tmp_path: Path) -> Callable[..., Outcome]:
    """Returns `make_outcome`, in a fresh folder."""

    def build(**options: Any) -> Outcome:
        return make_outcome(tmp_path / "study", **options)

    return build
