"""Every command and option that a document mentions exists, whether it is executed or not."""

import shlex
from collections.abc import Iterator

import pytest
from cyclopts import App
from markdown_it import MarkdownIt

from documents.blocks import DOCUMENTS
from resnetkit.cli.app import app

SHELLS = {"console", "bash", "ini", "yaml", "dockerfile"}


def commands_in(text: str) -> Iterator[tuple[int, str]]:
    """Yields the lines of blocks and the pieces of code that may be commands, with their lines."""
    for token in MarkdownIt("commonmark").parse(text):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "fence" and token.info.partition(" ")[0].casefold() in SHELLS:
            content = token.content.replace("\\\n> ", " ").replace("\\\n", " ")
            yield from enumerate(content.splitlines(), start=line + 1)
        for child in token.children or ():
            if child.type == "code_inline":
                yield line, child.content


def problems_of(command: str) -> list[str]:
    """Returns what is wrong with each `resnet ...` in a line of shell."""
    try:
        lexer = shlex.shlex(command.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
    except ValueError:  # a quotation that goes on in the next line
        return []
    problems: list[str] = []
    for index, word in enumerate(words):
        starts = index == 0 or words[index - 1] in ("&&", "|", ";", "||", "do", "nohup", "exec")
        is_module = word == "resnetkit" and index > 0 and words[index - 1] == "-m"
        if (word == "resnet" and (starts or "=" in words[index - 1])) or is_module:
            problems += problems_of_words(words[index + 1 :])
    return problems


def problems_of_words(words: list[str]) -> list[str]:
    """Returns what is wrong with the words after `resnet`, up to the end of the command."""
    node: App = app
    path = ["resnet"]
    for word in words:
        if word.startswith("-") or word not in set(node):
            break
        node = node[word]
        path.append(word)
    if node is app and words and is_name(words[0]):
        return [f"there is no command '{words[0]}'"]
    options = options_of(node)
    problems = []
    for word in words:
        if not word.strip("&|;<>()"):  # an operator ends the command
            break
        option = word.partition("=")[0]
        if option.startswith("--") and len(option) > 2 and option not in options:
            problems.append(f"'{' '.join(path)}' has no option {option}")
    return problems


def options_of(command: App) -> set[str]:
    """Returns the names of the options of a command, or of a group of commands."""
    always = {"--help", "--version"}
    if command.default_command is None:
        return always
    arguments = command.assemble_argument_collection()
    return always.union(*(argument.names for argument in arguments))


def is_name(word: str) -> bool:
    """Returns whether a word is the name of a command, not an option or a placeholder."""
    return word.replace("-", "").isalpha() and word.islower() and not word.startswith("-")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_and_option_exists(name: str) -> None:
    commands = commands_in(DOCUMENTS[name].read_text())
    assert not [
        f"{name}:{line}: {problem}" for line, text in commands for problem in problems_of(text)
    ]


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("resnet trian --data photos", "there is no command 'trian'"),
        ("resnet train --epochs 3", "'resnet train' has no option --epochs"),
        (
            "$ cd x && resnet data export digits --into=y",
            "'resnet data export' has no option --into",
        ),
        ("torchrun -m resnetkit train --gpus 2", "'resnet train' has no option --gpus"),
        ("CUDA_VISIBLE_DEVICES=0 resnet evaluate x --part test", "'resnet evaluate' has no option"),
        ("resnet models | resnet mdoels", "there is no command 'mdoels'"),
    ],
)
def test_what_does_not_exist_is_named(command: str, problem: str) -> None:
    (found,) = problems_of(command)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "command",
    [
        "resnet",
        "resnet COMMAND --help",
        "resnet export runs/mine --to openvino --out exported && curl --fail x",
        "resnet export check exported --json",
        "resnet train > log 2>&1 & tail --follow log",
        "pip install resnet --upgrade",
        "resnet train --data 'photos",
    ],
)
def test_what_exists_is_accepted(command: str) -> None:
    assert not problems_of(command)


def test_commands_are_found_in_blocks_and_sentences() -> None:
    console = "```console\n$ resnet b \\\n>   --c\nout\n```\n"
    text = f"Call `resnet a`:\n\n{console}\n```text\nresnet d\n```\n"
    assert list(commands_in(text)) == [(1, "resnet a"), (4, "$ resnet b    --c"), (5, "out")]
