"""What can be executed in a document: its blocks of shell and Python, and how they are run.

The lines of a `console` block that begin with `$ ` are commands (`> ` continues one); the others
are the output that the reader is shown. All `python` blocks of a document share one interpreter; a
`text` block directly behind one is what it prints. Comments before a block say more:

    <!-- run: no: REASON -->          cannot be executed here
    <!-- run: exit 3 -->              the exit code of its last command
    <!-- run: timeout 300 -->         seconds, instead of 60
    <!-- run: slow -->                minutes of work: only with RESNETKIT_DOCS=all
    <!-- run: studies -->             the folder studies/ of a finished study is there
    <!-- run: background -->          a server, which runs until the document ends
    <!-- file: my.yaml -->            the block is the content of this file
    <!-- setup: COMMAND -->           a command that the reader does not see
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path
    for path in sorted(
        [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    )
}
"""The documents of the repository, by path."""

SHELLS = ["bash", "sh", "zsh", "fish", "shell", "shell-session", "sh-session", "bat", "powershell"]
PYTHONS = ["py", "python3", "pycon", "ipython"]
PROMPT = "$ "
CONTINUED = "> "
COMMENT = re.compile(r"<!--\s*(run|file|setup):\s*(.*?)\s*-->\s*", re.DOTALL)
A_COMMAND = re.compile(r"\s*(\$ |(resnet|pip3?|python3?|curl|torchrun|pytest) [\w./'-])")

Kind = Literal["console", "python", "file", "setup"]


class DocumentError(Exception):
    """A document that cannot be executed as it is written."""


@dataclass(frozen=True)
class Rules:
    """How a block is run.

    Attributes:
        timeout_s: for the whole block.
        not_run: the reason why it cannot be executed here; None if it is.
        file: the name of the file whose content the block is; None if it is none.
    """

    exit_code: int = 0
    timeout_s: int = 60
    is_slow: bool = False
    is_background: bool = False
    needs_studies: bool = False
    not_run: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class Shown:
    """Output in a document.

    Attributes:
        line: of the document, from 1, of the first of the lines.
        prefix: what stands before each of them: in a list, spaces.
    """

    line: int
    lines: tuple[str, ...]
    prefix: str = ""


@dataclass(frozen=True)
class Command:
    """A command, and the output that the document shows for it, if any."""

    line: int
    text: str
    shown: Shown | None = None


@dataclass(frozen=True)
class Block:
    """A block of a document that is executed, written to a file, or left out for a reason.

    Attributes:
        line: of the document, from 1, of the first line of the content.
        output: of a Python block, as shown.
    """

    kind: Kind
    line: int
    content: str
    rules: Rules = field(default_factory=Rules)
    prefix: str = ""
    output: Shown | None = None


def read_blocks(text: str) -> list[Block]:
    """Returns the blocks of a document in order.

    Raises:
        DocumentError: for the first block or comment that is not understood.
    """
    blocks: list[Block] = []
    for item in items_of(text):
        if isinstance(item, DocumentError):
            raise item
        blocks.append(item)
    return blocks


def problems_in(text: str) -> list[str]:
    """Returns what is wrong with the blocks of a document: one line each, with its number."""
    return [str(item) for item in items_of(text) if isinstance(item, DocumentError)]


def items_of(text: str) -> list[Block | DocumentError]:
    """Returns the blocks of a document, and what is wrong, in order."""
    reader = Reader()
    reader.read(text)
    return reader.items


def commands_of(block: Block) -> list[Command]:
    """Returns the commands of a `console` block with their outputs."""
    commands: list[Command] = []
    outputs: list[list[tuple[int, str]]] = []
    for number, line in enumerate(block.content.splitlines(), start=block.line):
        if line.startswith(PROMPT):
            commands.append(Command(number, line.removeprefix(PROMPT)))
            outputs.append([])
        elif line.startswith(CONTINUED) and commands and not outputs[-1]:
            text = f"{commands[-1].text}\n{line.removeprefix(CONTINUED)}"
            commands[-1] = replace(commands[-1], text=text)
        elif commands:
            outputs[-1].append((number, line))
        elif line.strip():
            raise DocumentError(
                f"{number}: output before the first command: commands begin with '{PROMPT}'"
            )
    if not commands:
        raise DocumentError(f"{block.line}: a console block without a line that begins with '$ '")
    return [
        replace(command, shown=shown_in(lines, block.prefix))
        for command, lines in zip(commands, outputs, strict=True)
    ]


def shown_in(numbered: list[tuple[int, str]], prefix: str) -> Shown | None:
    """Returns numbered lines as output, without the blank lines around it; None for no output."""
    with_text = [index for index, (_, line) in enumerate(numbered) if line.strip()]
    if not with_text:
        return None
    kept = numbered[with_text[0] : with_text[-1] + 1]
    return Shown(kept[0][0], tuple(line for _, line in kept), prefix)


class Reader:
    """Reads one document.

    Attributes:
        items: the blocks and errors so far.
        rules: what comments say of the next block.
        pending_line: the line of the last such comment; None without one.
    """

    def __init__(self) -> None:
        self.markdown = MarkdownIt("commonmark")
        self.items: list[Block | DocumentError] = []
        self.rules = Rules()
        self.pending_line: int | None = None

    def read(self, text: str, *, offset: int = 0, prefix: str = "") -> None:
        """Adds the blocks and errors of a text to the items.

        Args:
            text: Markdown.
            offset: how many lines of the document precede it.
            prefix: what precedes each of its lines in the document.
        """
        python: Block | None = None  # directly before the token
        for token in self.markdown.parse(text):
            line = offset + (token.map[0] if token.map else 0) + 1
            info = token.info.strip()
            if token.type == "fence" and info == "text" and python is not None:
                numbered = list(enumerate(token.content.splitlines(), start=line + 1))
                shown = shown_in(numbered, prefix + prefix_of(token, text))
                self.items[-1], python = replace(python, output=shown), None
                continue
            python = None
            if token.type == "fence" and info.startswith("{"):
                self.read(token.content, offset=line, prefix=prefix + prefix_of(token, text))
                continue
            try:
                block = self.block_of(token, text, line, prefix)
            except DocumentError as error:
                self.rules, self.pending_line = Rules(), None
                self.items.append(error)
                continue
            if block is not None:
                self.items.append(block)
                python = block if block.kind == "python" else None
        if self.pending_line is not None:
            self.items.append(DocumentError(f"{self.pending_line}: no block follows this comment"))
            self.pending_line = None

    def block_of(self, token: Token, text: str, line: int, prefix: str) -> Block | None:
        """Returns what a token contributes: a block, or None."""
        if token.type == "html_block" and (match := COMMENT.fullmatch(token.content)):
            return self.comment(match[1], match[2], line)
        if token.type == "fence":
            rules, self.rules, self.pending_line = self.rules, Rules(), None
            prefix = prefix + prefix_of(token, text)
            return fence(token.info.strip(), Block("file", line + 1, token.content, rules, prefix))
        if token.type == "code_block":
            raise DocumentError(f"{line}: an indented block: write a fence with a language")
        if token.type == "inline" and any(
            child.type == "html_inline" and COMMENT.match(child.content)
            for child in token.children or ()
        ):
            raise DocumentError(f"{line}: a comment inside a paragraph: give it a line of its own")
        if self.pending_line is not None and not token.type.endswith("_close"):
            raise DocumentError(f"{self.pending_line}: no block follows this comment")
        return None

    def comment(self, word: str, value: str, line: int) -> Block | None:
        """Takes a comment into the rules of the next block, or returns the block that it is."""
        if word == "setup":
            rules, self.rules, self.pending_line = self.rules, Rules(), None
            if not value:
                raise DocumentError(f"{line}: setup without a command")
            return Block("setup", line, value, rules)
        self.pending_line = line
        if word == "file":
            self.rules = replace(self.rules, file=name_of_file(value, line))
        else:
            self.rules = with_rule(self.rules, value, line)
        return None


def prefix_of(token: Token, text: str) -> str:
    """Returns what stands before a fence on its line."""
    assert token.map is not None
    line = text.splitlines()[token.map[0]]
    return line[: line.index(token.markup)]


def name_of_file(value: str, line: int) -> str:
    """Returns the name of a file in the document's folder."""
    path = PurePosixPath(value)
    if not value or path.is_absolute() or ".." in path.parts:
        raise DocumentError(f"{line}: 'file: {value}' is not a file in the document's folder")
    return value


def with_rule(rules: Rules, value: str, line: int) -> Rules:
    """Returns rules with the one that a comment `run:` gives."""
    word, _, rest = value.partition(" ")
    match word, rest.strip():
        case "no:", reason if reason:
            return replace(rules, not_run=" ".join(reason.split()))
        case "exit", code if code.isdigit():
            return replace(rules, exit_code=int(code))
        case "timeout", seconds if seconds.isdigit():
            return replace(rules, timeout_s=int(seconds))
        case "slow", "":
            return replace(rules, is_slow=True)
        case "studies", "":
            return replace(rules, needs_studies=True)
        case "background", "":
            return replace(rules, is_background=True)
    raise DocumentError(
        f"{line}: 'run: {value}': expected no: REASON, exit CODE, timeout SECONDS, slow, studies or"
        " background"
    )


def fence(info: str, block: Block) -> Block | None:
    """Returns the block of a fence, by its language; None for one that is only read."""
    language = info.partition(" ")[0].casefold()
    if block.rules.file is not None or block.rules.not_run is not None:
        return block
    if not language:
        raise DocumentError(
            f"{block.line - 1}: a block without a language: console, python, text or another one"
        )
    if language == "console":
        console = replace(block, kind="console")
        commands = commands_of(console)
        if block.rules.is_background and len(commands) != 1:
            raise DocumentError(f"{block.line}: a block in the background holds one command")
        return console
    if language == "python":
        if block.rules.exit_code or block.rules.is_background:
            raise DocumentError(f"{block.line}: exit and background are for console blocks")
        return replace(block, kind="python")
    if language in SHELLS + PYTHONS:
        expected = "console" if language in SHELLS else "python"
        raise DocumentError(
            f"{block.line - 1}: a block of {language} is not executed: write ```{expected}, or"
            " <!-- run: no: REASON --> before it"
        )
    for number, line in enumerate(block.content.splitlines(), start=block.line):
        if language == "text" and A_COMMAND.match(line):
            raise DocumentError(f"{number}: a command in a block of text: write ```console")
    if block.rules != Rules():
        raise DocumentError(f"{block.line - 1}: a block of {language} is not run: remove 'run:'")
    return None
