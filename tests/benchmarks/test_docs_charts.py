"""The script that draws the charts of docs/learn."""

import re
import runpy
from pathlib import Path
from xml.etree import ElementTree

import pytest

from resnetkit.report.charts import line_chart
from resnetkit.report.language import Language
from resnetkit.studies.chart import Chart, line
from resnetkit.studies.phrase import phrase

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "benchmarks" / "docs_charts.py"
IMAGES = ROOT / "docs" / "images"
MODULE = runpy.run_path(str(SCRIPT))
DRAWINGS = [drawing.name for drawing in MODULE["DRAWINGS"]]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def korean() -> Language:
    language: Language = MODULE["korean"]()
    return language


def file_of(t: Language) -> ElementTree.Element:
    chart = Chart(
        phrase("Final training error"), phrase("epoch"), phrase("error"), (line("a<b", [[1, 2]]),)
    )
    drawn = line_chart(chart, name="inside", t=t)
    return ElementTree.fromstring(MODULE["as_file"](drawn, name="errors", language=t.code))


def test_a_chart_becomes_a_file_of_its_own(korean: Language) -> None:
    root = file_of(korean)
    title, description, card = root[:3]
    assert (title.tag, title.text) == (f"{SVG}title", "최종 훈련 오차")
    assert description.tag == f"{SVG}desc"
    assert "a<b" in (description.text or "")
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert root.get("lang") == "ko"
    assert (card.tag, card.get("fill")) == (f"{SVG}rect", "#ffffff")
    assert (root.get("width"), root.get("height")) == ("360", "275")  # 380 x 290, made narrower
    assert "var(" not in ElementTree.tostring(root, encoding="unicode")


def test_every_word_of_the_script_is_translated(korean: Language) -> None:
    words = set(re.findall(r'phrase\(\s*"([^"]+)"', SCRIPT.read_text()))
    assert len(words) > 3
    assert not {word for word in words if korean(word) == word}


@pytest.mark.parametrize("ending", [".svg", ".ko.svg"])
@pytest.mark.parametrize("name", DRAWINGS)
def test_every_chart_is_there_and_small(name: str, ending: str) -> None:
    text = (IMAGES / f"{name}{ending}").read_text()
    assert len(text.encode()) < 60_000
    assert not re.search(r"\b(?:href|src)=\"(?!#)", text)  # nothing is loaded
    assert ElementTree.fromstring(text).get("lang") == ("ko" if ending == ".ko.svg" else "en")


def test_every_chart_is_shown_in_a_chapter() -> None:
    pages = "".join(path.read_text() for path in (ROOT / "docs" / "learn").glob("*.md"))
    assert {name for name in DRAWINGS if f"(../images/{name}.svg)" in pages} == set(DRAWINGS)
