"""Phrases of an early private dialect do not come back in documents, help, messages, docstrings.

Readers know the field's terms; these phrases replaced them, or were English that nobody writes.
"""

import ast
import re
from collections.abc import Iterator

import pytest

from documents.blocks import DOCUMENTS, ROOT

SOURCES = sorted((ROOT / "src" / "resnetkit").rglob("*.py"))
TEXTS = [
    *DOCUMENTS.values(),
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "src" / "resnetkit").rglob("*.j2")),
    *sorted((ROOT / "src" / "resnetkit" / "training" / "recipes").glob("*.yaml")),
]

INSTEAD_OF = {
    r"\b(?:go|goes|going|gone|went) on with\b": "resume, continue",
    r"\b(?:is|are) there twice\b": "is a duplicate",
    r"\bwhat (?:a|the|each|every) (?:layer|block|network|unit)s? says?\b": "activations, output",
    r"\bspeaks? for (?:the|its|an) answer\b": "contributes to the prediction",
    r"\bmisfits?\b": "what does not match",
    r"\bthe feed\b(?!-)": "the data loader",
    r"\bown (?:images|photos)\b(?<!your own images)(?<!your own photos)": "your images",
    r"\b(?:test|training|validation) parts?\b": "split",
    r"\b(?:images|steps|samples|requests) a second\b": "per second",
    r"\b(?:a|one) (?:line|row|table|catalog|file|page|module) an? \w+": "a line for each",
    r"\brehearsals?\b": "dry run",
    r"\balong (?:the )?training\b": "during training",
    r"\bpassed over\b": "ignored",
    r"\bsteers? (?:a|the) terminal\b": "control",
    r"\b(?:is|are|becomes?) (?:a )?sentences?\b(?! )": "is an error message",
    r"\bpeers?\b(?=' weights| do differently)": "other libraries",
    r"\bit is said\b": "is reported, a warning says so",
    r"\btold in a sentence\b": "is reported",
}


def texts() -> Iterator[tuple[str, str]]:
    """Yields the place and the text of each paragraph and string."""
    for path in TEXTS:
        text = path.read_text()
        for paragraph in re.finditer(r"(?:.*\S.*\n?)+", text):
            number = text.count("\n", 0, paragraph.start()) + 1
            yield f"{path.relative_to(ROOT)}:{number}", paragraph[0]
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value


def dialect_in(text: str) -> list[str]:
    """Returns the phrases of a text, with what to write instead."""
    text = " ".join(text.split())
    return [
        f"'{match[0]}': write {instead}"
        for pattern, instead in INSTEAD_OF.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]


def test_texts_use_the_terms_of_the_field() -> None:
    assert not [f"{place}: {problem}" for place, text in texts() for problem in dialect_in(text)]


@pytest.mark.parametrize(
    "text",
    [
        "an interrupted run is gone on with",
        "images that are there twice",
        "what a layer says",
        "draws what speaks for the answer",
        "misfits are refused",
        "the feed decodes",
        "own images may be cut",
        "errors on the test part",
        "812 images a second",
        "one line a network",
        "one\npage a task",
        "a rehearsal takes one step",
        "snapshots along training",
        "files are passed over",
        "names cannot steer a terminal",
        "a lost process is a sentence.",
        "which is another training: it is said",
    ],
)
def test_the_dialect_is_recognized(text: str) -> None:
    assert dialect_in(text)


@pytest.mark.parametrize(
    "text",
    [
        "your own images",
        "a feed-forward network",
        "it goes on",
        "the first part of training",
        "a file that a run wrote",
        "a second run",
        "the message is a sentence that says what to do",
    ],
)
def test_plain_english_is_left_alone(text: str) -> None:
    assert not dialect_in(text)
