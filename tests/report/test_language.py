"""Korean: the catalog has every message of reports, studies and the page of the server."""

import gettext
import re
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po
from markupsafe import Markup

import resnetkit
from resnetkit.errors import UsageError
from resnetkit.report.language import ENGLISH, Language, find_language, languages
from resnetkit.report.overview import overview_page
from resnetkit.report.page import render
from resnetkit.report.particles import particle
from resnetkit.report.run_report import run_page
from resnetkit.report.study_report import study_page
from resnetkit.studies.phrase import phrase, plural_phrase
from resnetkit.studies.study import Outcome

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
METHODS = [("**.py", "python"), ("**.j2", "jinja2"), ("**.js", "javascript")]
KEYWORDS: dict[str, Any] = {
    **dict.fromkeys(("phrase", "t", "_")),
    **dict.fromkeys(("plural_phrase", "plural", "ngettext"), (1, 2)),
}


def messages_of_the_source() -> set[str]:
    """Returns what Babel extracts from templates and code."""
    messages = set()
    for folder in (SOURCE / "report", SOURCE / "studies", SOURCE / "serving"):
        for _, _, message, _, _ in extract_from_dir(folder, METHODS, keywords=KEYWORDS):
            messages |= set(message) if isinstance(message, tuple) else {message}
    return messages


def test_the_catalog_has_the_messages_of_the_source() -> None:
    assert sorted(messages_of_the_source() ^ set(TRANSLATIONS)) == []


@pytest.mark.parametrize("english", TRANSLATIONS)
def test_names_in_braces_are_kept(english: str) -> None:
    names = re.compile(r"\{(\w*)[:}]")
    assert set(names.findall(english)) == set(names.findall(TRANSLATIONS[english]))
    assert TRANSLATIONS[english] == TRANSLATIONS[english].strip() != ""


def visible(page: str) -> str:
    """Returns what a person reads of a page, without code, sources and facts of the machine."""
    hidden = r"<(style|pre|code|dl|svg|title|small)\b.*?</\1>"
    return unescape(re.sub(r"<[^>]+>", "\n", re.sub(hidden, "\n", page, flags=re.S)))


@pytest.mark.usefixtures("_undrawn")
def test_a_study_is_told_in_korean(outcome: Outcome) -> None:
    page = render("study.html.j2", study_page(outcome, KOREAN), KOREAN)
    assert '<html lang="ko">' in page
    assert KOREAN(outcome.study.title) in page
    assert "주장 4개 중 4개 확인" in page
    for finding in outcome.findings:
        assert KOREAN(finding.claim) != finding.claim
    told = visible(page).replace(outcome.study.source, "")
    assert re.findall(r"[A-Za-z]{3,} [a-z]{2,} [a-z]{2,}", told) == []
    assert "<mi>F</mi>" in page  # formulas are recognized next to letters of another script
    assert '<span class="name">plain-56</span>' in page


@pytest.mark.usefixtures("_undrawn")
def test_descriptions_for_those_who_do_not_see_are_korean(outcome: Outcome) -> None:
    page = render("study.html.j2", study_page(outcome, KOREAN), KOREAN)
    descriptions = re.findall(r'role="img" aria-label="([^"]+)"', page)
    assert len(descriptions) == 6
    for description in descriptions:
        assert re.search("[가-힣]", description)
        assert not re.search(r"[A-Za-z]{3,} [a-z]{2,} [a-z]{2,}", description)


@pytest.mark.usefixtures("_undrawn")
def test_an_overview_and_a_run_are_told_in_korean(outcome: Outcome) -> None:
    overview = render("overview.html.j2", overview_page([outcome], KOREAN), KOREAN)
    assert "잔차 네트워크(residual network)는 왜 잘 작동하는가" in overview
    told = visible(overview).replace(outcome.study.source, "")
    assert re.findall(r"[A-Za-z]{3,} [a-z]{2,} [a-z]{2,}", told) == []
    run = next(iter(outcome.runs.values()))[0]
    told = visible(render("run.html.j2", run_page(run, KOREAN), KOREAN))
    assert re.findall(r"[A-Za-z]{3,} [a-z]{2,} [a-z]{2,}", told) == []
    assert "훈련 곡선" in told


def test_english_is_what_is_written() -> None:
    assert ENGLISH("a {b}", b="c") == "a c"
    assert ENGLISH(phrase("a {b}", b="c")) == "a c"
    assert ENGLISH("50 % of {that") == "50 % of {that"


class Table(gettext.NullTranslations):
    def gettext(self, message: str) -> str:
        return {"the {color} house": "la casa {color}", "red": "rossa"}.get(message, message)


def test_values_that_are_phrases_are_translated_and_markup_stays_markup() -> None:
    other = Language("xx", Table())
    assert other("the {color} house", color=phrase("red")) == "la casa rossa"
    assert other(phrase("the {color} house", color=phrase("red"))) == "la casa rossa"
    assert other("the {color} house", color="red") == "la casa red"  # a name, not a message
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
    one = plural_phrase("{number} seed each", "{number} seeds each", 1)
    three = plural_phrase("{number} seed each", "{number} seeds each", 3)
    assert (ENGLISH(one), ENGLISH(three)) == ("1 seed each", "3 seeds each")
    assert (KOREAN(one), KOREAN(three)) == (
        "네트워크마다 시드 1개",
        "네트워크마다 시드 3개",
    )


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
        ("test", "test를"),
        ("truck", "truck을"),
        ("ship", "ship을"),
        ("model", "model을"),
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
