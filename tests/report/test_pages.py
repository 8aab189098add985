"""Templates: every page is rendered from its dataclass, and asks it for nothing that it lacks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from jinja2 import UndefinedError

import resnetkit.report
from resnetkit.data.dataset import Dataset
from resnetkit.evaluation.evaluate import Evaluation, WorstError
from resnetkit.evaluation.metrics import measure
from resnetkit.report.evaluation_report import evaluation_page
from resnetkit.report.language import Language, find_language
from resnetkit.report.overview import overview_page
from resnetkit.report.page import render
from resnetkit.report.run_report import run_page
from resnetkit.report.study_report import study_page
from resnetkit.studies.study import Outcome

TEMPLATES = Path(resnetkit.report.__file__).parent / "templates"
SHARED = {"base.html.j2", "parts.html.j2", "study_section.html.j2"}  # used by the others


def an_evaluation() -> tuple[Evaluation, Dataset]:
    """Returns an evaluation of three images of two classes, one of them wrong."""
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    metrics = measure(probabilities, np.array([0, 1, 1]), ("cat", "test"))
    worst = (WorstError(2, "2.png", "test", "cat", 0.7),)
    evaluation = Evaluation(
        "run", "pets", "test", "center", False, "float32", metrics, worst, learned=1
    )
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    splits = {"test": torch.arange(3)}
    labels = torch.tensor([0, 1, 1])
    dataset = Dataset("pets", images, labels, ("cat", "test"), splits, True, "0" * 64)
    return evaluation, dataset


Make = Callable[[Outcome, Language], object]
PAGES: dict[str, Make] = {
    "run.html.j2": lambda outcome, t: run_page(outcome.runs["plain56"][0], t),
    "study.html.j2": study_page,
    "overview.html.j2": lambda outcome, t: overview_page([outcome], t),
    "evaluation.html.j2": lambda outcome, t: evaluation_page(
        [an_evaluation()[0]], an_evaluation()[1], t
    ),
}


def test_every_page_has_its_case() -> None:
    elsewhere = {"play.html.j2"}  # test_play.py: it is made of scripts too
    assert {path.name for path in TEMPLATES.glob("*.j2")} == SHARED | elsewhere | set(PAGES)


@pytest.mark.parametrize("code", ["en", "ko"])
@pytest.mark.parametrize("template", PAGES)
def test_every_page_is_rendered(template: str, code: str, outcome: Outcome) -> None:
    t = find_language(code)
    page = render(template, PAGES[template](outcome, t), t)
    assert page.startswith(f'<!doctype html>\n<html lang="{code}">')
    assert page.endswith("</html>")


@dataclass(frozen=True)
class EmptyPage:
    """A page without any field."""


@pytest.mark.parametrize("template", PAGES)
def test_a_field_that_a_page_lacks_is_an_error(template: str) -> None:
    with pytest.raises(UndefinedError, match="EmptyPage object' has no attribute"):
        render(template, EmptyPage())


def test_a_class_with_the_name_of_a_split_is_not_translated(outcome: Outcome) -> None:
    evaluation, dataset = an_evaluation()
    korean = find_language("ko")
    page = render("evaluation.html.j2", evaluation_page([evaluation], dataset, korean), korean)
    assert "<b>test</b>를 <b>cat</b>으로 분류" in page
    assert "테스트 분할" in page
