"""Reports in Korean: every sentence that a report can say is in the table, and nothing else is."""

import ast
import gettext
import re
from collections.abc import Callable, Iterator
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from babel.messages.pofile import read_po
from jinja2.ext import babel_extract
from markupsafe import Markup

import resnetkit
from resnetkit.errors import UsageError
from resnetkit.report.diagram import SHORTCUT_WORDS
from resnetkit.report.evaluation_report import PROTOCOL_WORDS
from resnetkit.report.language import ENGLISH, Language, find_language, languages, particle
from resnetkit.report.overview import write_overview
from resnetkit.report.run_report import write_run_report
from resnetkit.report.study_report import CHANGED, write_study_report
from resnetkit.studies.phrase import phrase, plural_phrase
from resnetkit.studies.study import RULES, UNSURE, Outcome
from resnetkit.studies.table import STUDIES

NewOutcome = Callable[..., Outcome]
SOURCE = Path(resnetkit.__file__).parent
KOREAN = find_language("ko")
CATALOG = read_po(
    BytesIO((SOURCE / "report/locale/ko/LC_MESSAGES/resnetkit.po").read_bytes()), locale="ko"
)
TRANSLATIONS = {
    english: message.string[0] if message.pluralizable else message.string
    for message in CATALOG
    if message.id
    for english in (message.id if message.pluralizable else (message.id,))
}

# Words that are put together or come from files: verdicts, parts, groups of facts, families.
MADE = {
    *("Confirmed", "Not confirmed", "Not enough data", "training", "validation", "test", "train"),
    *("Versions", "Hardware", "Precision", "Kernels", "Data", "percentage points"),
    *("Plain networks", "Residual networks", "All networks", "error", "epoch"),
    *(f"with {{confidence}} confidence {side}" for side in ("at least", "at most", "exactly")),
    *(
        f"{family}-{{deep}} {norm} BN"
        for family in ("plain", "resnet")
        for norm in ("with", "without")
    ),
    *("deviation 0.01", "Xavier", "He", "{split} error of {group}"),
    *(
        "{number} seed each",
        "{number} seeds each",
        "{number} training",
        "{number} trainings",
        "Error",
        "Loss (nats)",
        "Learning rate",
    ),
    *("Gradient norm", "step", "Final training error", "Final test error", "at least", "at most"),
    *("Difference in percentage points:", "Difference:", "test error"),
    *("{done} of {total} epochs done", "{done} of {total} steps done"),
    *("what was trained", "every measured number, one event a line", "how fast it went"),
    "The spread between trainings is not known yet: run more seeds.",
    UNSURE,
    CHANGED,
    "Train twice as long: does the outcome stay the same?",
    "See the layers of that network, and what each costs.",
    *("what it ran on", "before", "after", "all of that length"),
    *PROTOCOL_WORDS.values(),
}


def words(text: str) -> str:
    return " ".join(text.split())


def said_by_templates() -> Iterator[str]:
    """Yields what templates say by t("...")."""
    for path in (SOURCE / "report/templates").glob("*.j2"):
        with path.open("rb") as file:
            for _, _, messages, _ in babel_extract(file, ["t", "plural"], [], {}):
                texts = messages if isinstance(messages, tuple) else (messages,)
                yield from (text for text in texts if text)


def constants(node: ast.AST) -> Iterator[str]:
    """Yields the texts of a node that is a text or a tuple of them."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Tuple):
        for element in node.elts:
            yield from constants(element)


def said_by_code() -> Iterator[str]:
    """Yields what the reports' and the studies' code says: by t, phrase, and named arguments."""
    named = {"confirmed", "not_confirmed", "title", "x", "y", "question", "theory", "theory_title"}
    for path in [*(SOURCE / "report").glob("*.py"), *(SOURCE / "studies").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            first = {"t", "phrase", "judge_higher", "judge_not_higher", "limit"}
            if called in first and node.args:
                yield from constants(node.args[0])
            if called == "measured_sample":
                yield from constants(node.args[4])
            if "studies" in path.parts:
                for keyword in node.keywords:
                    if keyword.arg in named:
                        yield from constants(keyword.value)


def said_by_studies() -> Iterator[str]:
    """Yields what the table of studies says."""
    for study in STUDIES.values():
        yield from (study.title, study.question, study.theory_title, *study.theory)
        yield from (scale.beside_paper for scale in study.scales.values())
        yield from (study.paper_data, *(figure.source for figure in study.paper_figures))
        yield from (f.test_error for f in study.paper_figures if f.test_error.startswith("about"))
    for module in ("residuals", "lesion"):
        tree = ast.parse((SOURCE / f"studies/questions/{module}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                for value in node.values:
                    yield from (text for text in constants(value) if "{" in text)


def everything_said() -> set[str]:
    said = {
        *said_by_templates(),
        *said_by_code(),
        *said_by_studies(),
        *RULES.values(),
        *SHORTCUT_WORDS.values(),
        *MADE,
    }
    return {words(text) for text in said} - {""}


def test_every_sentence_is_in_the_table() -> None:
    assert sorted(everything_said() - set(TRANSLATIONS)) == []


def test_the_table_has_no_sentence_that_is_never_said() -> None:
    assert sorted(set(TRANSLATIONS) - everything_said()) == []


@pytest.mark.parametrize("english", TRANSLATIONS)
def test_names_in_braces_are_kept(english: str) -> None:
    names = re.compile(r"\{(\w*)[:}]")
    assert set(names.findall(english)) == set(names.findall(TRANSLATIONS[english]))
    assert TRANSLATIONS[english] == TRANSLATIONS[english].strip() != ""


def visible(page: str) -> str:
    """Returns what a person reads of a page, without code, sources and facts of the machine."""
    hidden = r"<(style|pre|code|dl|svg|title|small)\b.*?</\1>"
    return unescape(re.sub(r"<[^>]+>", "\n", re.sub(hidden, "\n", page, flags=re.S)))


def test_a_study_is_told_in_korean(new_outcome: NewOutcome) -> None:
    outcome = new_outcome()
    page = write_study_report(outcome, KOREAN).read_text()
    assert '<html lang="ko">' in page
    assert KOREAN(outcome.study.title) in page
    assert "주장 4개 중 4개가 여기서 확인됨" in page
    for finding in outcome.findings:
        assert KOREAN(finding.claim) != finding.claim
    told = visible(page).replace(outcome.study.source, "")
    assert re.findall(r"[A-Za-z]{3,} [a-z]{2,} [a-z]{2,}", told) == []
    assert "<mi>F</mi>" in page  # formulas are found beside letters of another script
    assert '<span class="name">plain-56</span>' in page


def test_descriptions_for_those_who_do_not_see_are_korean(new_outcome: NewOutcome) -> None:
    page = write_study_report(new_outcome(), KOREAN).read_text()
    descriptions = re.findall(r'role="img" aria-label="([^"]+)"', page)
    assert len(descriptions) == 6
    for description in descriptions:
        assert re.search("[가-힣]", description)
        assert not re.search(r"[A-Za-z]{3,} [a-z]{2,} [a-z]{2,}", description)


def test_an_overview_and_a_run_are_told_in_korean(new_outcome: NewOutcome) -> None:
    outcome = new_outcome()
    overview = write_overview([outcome], KOREAN).read_text()
    assert "잔차 신경망은 왜 잘 되는가" in overview
    told = visible(overview).replace(outcome.study.source, "")
    assert re.findall(r"[A-Za-z]{3,} [a-z]{2,} [a-z]{2,}", told) == []
    run = next(iter(outcome.runs.values()))[0]
    told = visible(write_run_report(run, KOREAN).read_text())
    assert re.findall(r"[A-Za-z]{3,} [a-z]{2,} [a-z]{2,}", told) == []
    assert "어떻게 배웠는가" in told


def test_english_is_what_is_written() -> None:
    assert ENGLISH("a {b}", b="c") == "a c"
    assert ENGLISH(phrase("a {b}", b="c")) == "a c"
    assert ENGLISH("50 % of {that") == "50 % of {that"


class Table(gettext.NullTranslations):
    def gettext(self, message: str) -> str:
        return {"the {color} house": "la casa {color}", "red": "rossa"}.get(message, message)


def test_values_are_said_too_and_markup_stays_markup() -> None:
    other = Language("xx", Table())
    assert other("the {color} house", color="red") == "la casa rossa"
    assert other(phrase("the {color} house", color="red")) == "la casa rossa"
    marked = other("the {color} house", color=Markup("<b>red</b>"))
    assert marked == Markup("la casa <b>red</b>")
    assert isinstance(marked, Markup)
    escaped: Any = other("{a} and {b}", a=Markup("<i>"), b="<script>")
    assert escaped == "<i> and &lt;script&gt;"


def test_languages_are_found_by_their_code() -> None:
    assert languages() == ["en", "ko"]
    assert find_language("en") is ENGLISH
    with pytest.raises(UsageError) as caught:
        find_language("kr")
    assert str(caught.value) == "unknown language 'kr': expected one of en, ko."


def test_no_message_is_fuzzy_or_empty() -> None:
    assert not CATALOG.fuzzy
    assert [message.id for message in CATALOG if message.id and message.fuzzy] == []
    assert all(TRANSLATIONS.values())
    assert not CATALOG.obsolete


def test_plural_forms() -> None:
    one = plural_phrase("{number} seed each", "{number} seeds each", 1, number=1)
    three = plural_phrase("{number} seed each", "{number} seeds each", 3, number=3)
    assert (ENGLISH(one), ENGLISH(three)) == ("1 seed each", "3 seeds each")
    assert (KOREAN(one), KOREAN(three)) == ("각 시드 1개", "각 시드 3개")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("검증", "검증을"),
        ("테스트", "테스트를"),
        ("resnet-20", "resnet-20을"),
        ("resnet-32", "resnet-32를"),
        ("plain-56", "plain-56을"),
        ("plain-44", "plain-44를"),
        ("resnet32-B", "resnet32-B를"),
        ("digits", "digits를"),
        ("resnet", "resnet을"),
        ("90 %", "90 %를"),
    ],
)
def test_particles_fit_the_word_before_them(word: str, expected: str) -> None:
    assert word + particle(word, "을", "를") == expected


@pytest.mark.parametrize(("word", "expected"), [("풀", "로"), ("검증", "으로"), ("8", "로")])
def test_the_particle_of_direction_after_rieul(word: str, expected: str) -> None:
    assert particle(word, "으로", "로") == expected


def test_no_translation_spells_two_particles() -> None:
    double = re.compile(r"이\(가\)|을\(를\)|은\(는\)|\(으\)로|와\(과\)")
    assert [text for text in TRANSLATIONS.values() if double.search(text)] == []
