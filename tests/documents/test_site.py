"""The documentation site as files: it builds strictly, its links hold, and nothing is missing."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po
from cyclopts import App

import resnetkit
from documents.site import DOCS, Build, broken, build, pages, read_page
from resnetkit import errors
from resnetkit.cli.app import app
from resnetkit.models.zoo import ARCHITECTURES
from resnetkit.studies.table import STUDIES
from resnetkit.training.recipe import known_keys, named_recipes, section_types

pytestmark = pytest.mark.docs

MOST_SECONDS = 60  # of the processor, for a language
LANGUAGES = ["en", "ko"]

# Pages that must be complete in Korean, as patterns of document names. What is missing elsewhere is
# listed by `pytest -m docs -rP -k korean`.
COMPLETE_IN_KOREAN = ("start", "play", "learn/.*")


def folder_of(site: Path, language: str) -> Path:
    return site if language == "en" else site / language


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_site_builds_without_a_warning(builds: dict[str, Build], language: str) -> None:
    assert builds[language].output == ""
    assert builds[language].returncode == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_site_builds_quickly(builds: dict[str, Build], language: str) -> None:
    assert builds[language].processor_seconds < MOST_SECONDS


def test_a_broken_link_is_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    (tmp_path / "index.md").write_text("# A page\n\n[nowhere](missing.md#anchor)\n")
    run = build(tmp_path / "out", source=tmp_path)
    assert "missing" in run.output


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_link_leads_somewhere(site: Path, language: str) -> None:
    folder = folder_of(site, language)
    found = [
        f"{page.relative_to(folder)}: {address}"
        for page in pages(folder)
        for address in read_page(page).links | read_page(page).loaded
        if broken(page, address)
    ]
    assert found == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_load_nothing_foreign(site: Path, language: str) -> None:
    for page in pages(folder_of(site, language)):
        for address in read_page(page).loaded:
            assert not re.match(r"(https?:)?//", address), f"{page.name}: {address}"
    for sheet in folder_of(site, language).rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", sheet.read_text()), sheet


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_document_is_a_page_and_switches_the_language(site: Path, language: str) -> None:
    other = "ko" if language == "en" else "en"
    for document in DOCS.rglob("*.md"):
        name = document.relative_to(DOCS).with_suffix(".html")
        page = folder_of(site, language) / name
        counterpart = (folder_of(site, other) / name).resolve()
        targets = {(page.parent / link).resolve() for link in read_page(page).links}
        assert counterpart in targets, name


def inventory(site: Path) -> set[str]:
    """Returns the names of Python objects that have an entry in the site."""
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        entries = InventoryFile.load(file, "", lambda _, target: target)
    return {name for kind, names in entries.items() if kind.startswith("py:") for name in names}


def test_every_public_name_is_documented(site: Path) -> None:
    public = {f"resnetkit.{name}" for name in resnetkit.__all__}
    assert public - inventory(site) == set()


def test_every_exception_is_documented_with_its_exit_code(site: Path) -> None:
    public = [getattr(errors, name) for name in errors.__all__]
    exceptions = [each for each in public if isinstance(each, type)]
    assert {f"resnetkit.errors.{each.__name__}" for each in exceptions} <= inventory(site)
    text = plain_text(site / "reference/errors.html")
    for each in exceptions:
        code = each.exit_code if isinstance(each.exit_code, int) else "130 or 143"
        assert re.search(rf"\b{code}\s+{each.__name__}\s", text), each


def plain_text(page: Path) -> str:
    """Returns the words of a page."""
    return " ".join(re.sub(r"<[^>]+>", " ", page.read_text()).split())


def options_of(app: App, name: str = "resnet") -> Iterator[tuple[str, str]]:
    """Yields each option of each command: the name of the command, and the spelling."""
    for word in set(app) - {*app.help_flags, *app.version_flags}:
        command, full_name = app[word], f"{name} {word}"
        if command.default_command is not None:
            for argument in command.assemble_argument_collection():
                for spelling in argument.names:
                    yield full_name, spelling
        yield from options_of(command, full_name)


def test_every_option_is_documented(site: Path) -> None:
    options = set(options_of(app))
    assert len(options) > 150
    ids = read_page(site / "reference/commands.html").ids
    missing = [pair for pair in options if " ".join(pair).replace(" ", "-").lower() not in ids]
    assert missing == []


def test_every_key_of_a_recipe_is_documented(site: Path) -> None:
    ids = read_page(site / "reference/recipe.html").ids
    values = {key for key in known_keys([]) if not section_types(key.split("."))}
    kinds = {"schedule", "warmup"}
    plain = {key for key in values if key.split(".")[0] not in kinds or key.endswith(".kind")}
    assert plain - ids == set()
    for key in values - plain:
        section, name = key.split(".")
        assert any(re.fullmatch(rf"{section}\.[\w-]+\.{name}", identifier) for identifier in ids), (
            key
        )


def test_every_name_of_the_tables_is_listed(site: Path) -> None:
    tables = plain_text(site / "reference/architectures.html")
    names = {*ARCHITECTURES, *STUDIES} - {"resnet8"}  # which tests/conftest.py adds
    assert {name for name in names if f" {name} " not in tables} == set()
    assert set(named_recipes()) <= read_page(site / "reference/recipe.html").ids


def read_catalog(path: Path) -> Catalog:
    """Reads a catalog; an empty one if there is none."""
    if not path.exists():
        return Catalog(locale="ko")
    with path.open("rb") as file:
        return read_po(file, locale="ko")


def untranslated(template: Path, catalog: Path) -> list[str]:
    """Returns the texts of a page that its Korean catalog lacks."""
    known = read_catalog(catalog)
    return [
        str(text.id)
        for text in read_catalog(template)
        if text.id and not ((found := known.get(text.id)) and found.string and not found.fuzzy)
    ]


def test_the_pages_for_learners_are_complete_in_korean(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    assert build(tmp_path, "-b", "gettext").returncode == 0
    missing = {}
    for template in sorted(tmp_path.rglob("*.pot")):
        name = template.relative_to(tmp_path).with_suffix("").as_posix()
        texts = untranslated(template, DOCS / "locale/ko/LC_MESSAGES" / f"{name}.po")
        if texts:
            missing[name] = texts
        print(f"{name}: {len(texts)} texts without Korean")
    required = "|".join(COMPLETE_IN_KOREAN)
    incomplete = {name: texts for name, texts in missing.items() if re.fullmatch(required, name)}
    assert incomplete == {}


def test_figures_in_korean_belong_to_figures() -> None:
    for figure in DOCS.rglob("*.ko.*"):
        assert figure.with_name(figure.name.replace(".ko.", ".")).exists(), figure
