"""The pages on formats, options and reproduction say what the code says."""

import re
import shlex
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module

import pytest

from documents.site import DOCS
from resnetkit.evaluation.metric_sums import Score
from resnetkit.inference.exported import ExportedConfig, SourceFacts
from resnetkit.inference.feature_shards import FeatureIndex
from resnetkit.inference.int8_report import Int8Report
from resnetkit.inference.parity import Parity, ParityReport
from resnetkit.inference.shards import Manifest, Question
from resnetkit.models.zoo import Architecture
from resnetkit.schema import Section
from resnetkit.training.events import (
    EpochEvent,
    FinalEvent,
    IntervalEvent,
    Session,
    SessionData,
    Timing,
)
from resnetkit.training.recipe import load_recipe
from resnetkit.training.resume import StoredState
from resnetkit.weights.formats import FORMATS

STORED = (
    *(Session, SessionData, Timing, IntervalEvent, EpochEvent, FinalEvent, Score, StoredState),
    *(Manifest, Question, FeatureIndex),
    *(ExportedConfig, SourceFacts, ParityReport, Parity, Int8Report),
)
"""What the files of docs/reference/formats.md hold."""

MARKED = re.compile(r"<!-- fields: (\S+)((?: [+-]\w+)*) -->\n((?:\|.*\n)+)")
"""The class whose fields a table lists, the fields that are stored besides them or elsewhere, and
the table."""


def field_names(path: str) -> set[str]:
    """Returns the names of the fields of a class, by its full name."""
    module, _, name = path.rpartition(".")
    kind = getattr(import_module(module), name)
    if is_dataclass(kind):
        return {field.name for field in fields(kind)}
    assert issubclass(kind, Section)
    return set(kind.model_fields)


def first_cells(table: str) -> list[str]:
    """Returns the names in code in the first column of a Markdown table, without its heading."""
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_the_page_on_formats_lists_every_field_of_every_record() -> None:
    tables = MARKED.findall((DOCS / "reference" / "formats.md").read_text())
    for path, changes, table in tables:
        expected = field_names(path)
        for change in changes.split():
            (expected.add if change[0] == "+" else expected.remove)(change[1:])
        listed = first_cells(table)
        assert sorted(listed) == sorted(expected), path
    assert {path for path, _, _ in tables} == {
        f"{kind.__module__}.{kind.__qualname__}" for kind in STORED
    }


def test_the_page_on_weights_lists_every_format() -> None:
    text = (DOCS / "reference" / "weights.md").read_text()
    read, written = re.findall(r"\n\| format \|.*\n((?:\|.*\n)+)", text)
    for table in (read, written):
        assert sorted(first_cells("|\n" + table)) == sorted(FORMATS)


def test_every_option_of_create_model_is_in_the_table_of_options() -> None:
    text = (DOCS / "reference" / "architectures.md").read_text()
    (table,) = re.findall(r"\n(\| option \|.*\n(?:\|.*\n)+)", text)
    options = [field.name for field in fields(Architecture) if field.default is not MISSING]
    assert sorted(first_cells(table)) == sorted(options)


COMMAND_AND_DIGEST = re.compile(r"\| `resnet train ([^`]+)` \| `([0-9a-f]{8})` \|")


def recipe_digest(words: list[str]) -> str:
    """Returns the first digits of the digest of the recipe that `resnet train WORDS` trains."""
    name, *options = words
    assert set(options[::2]) <= {"--set"}
    return load_recipe(name, dict(value.split("=", 1) for value in options[1::2])).digest[:8]


@pytest.mark.parametrize(
    ("command", "digest"), COMMAND_AND_DIGEST.findall((DOCS / "reproduce.md").read_text())
)
def test_digests_of_reproduced_results_are_those_of_their_commands(
    command: str, digest: str
) -> None:
    assert recipe_digest(shlex.split(command)) == digest


def test_results_of_trainings_have_commands_and_digests() -> None:
    assert len(COMMAND_AND_DIGEST.findall((DOCS / "reproduce.md").read_text())) >= 10
