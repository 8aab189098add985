"""Executes the blocks of one document in order, in a folder of its own."""

import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import BaseFileLock

from documents.blocks import Block, Command, Shown, commands_of, read_blocks
from documents.comparison import difference, matches, printed_lines, updated

PASSED_ON = (
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "PYTHONPATH",
    "RESNETKIT_AXE",
)
TERMINAL = {"COLUMNS": "90", "LINES": "40", "TERM": "dumb", "NO_COLOR": "1"}
HOME_OF_DOCUMENTS = "/home/you"
ADDRESS = re.compile(r"http://(127\.0\.0\.1|localhost):(\d+)")
SECONDS_TO_STOP = 10

# A command changes the folder and the variables of those after it, as in a terminal. Its processes
# end with this one, which holds the other end of the pipe, however this one ends.
SHELL = """
( (read -r <&"$2"; kill -KILL 0) > /dev/null 2>&1 & )
eval "exec $2<&-"
trap '{ export -p; printf "cd %q\\n" "$PWD"; } > "$STATE"' EXIT
[ ! -f "$STATE" ] || . "$STATE"
eval "$1"
"""

INTERPRETER = """
import json, os, sys, traceback

def work(requests, answers):
    names = {"__name__": "__main__"}
    for line in os.fdopen(requests):
        request = json.loads(line)
        try:
            source = "\\n" * (request["line"] - 1) + request["code"]
            exec(compile(source, request["file"], "exec"), names)
            done = True
        except BaseException as error:
            traceback.print_exception(type(error), error, error.__traceback__.tb_next)
            done = False
        sys.stdout.flush()
        os.write(answers, b"+" if done else b"-")

work(int(sys.argv[1]), int(sys.argv[2]))
"""


class Failed(Exception):
    """A block did not do what the document says; what follows is not executed."""


class Program:
    """A process on a terminal without colors, and everything that it has printed."""

    def __init__(
        self,
        words: list[str],
        *,
        folder: Path,
        environment: dict[str, str],
        descriptors: tuple[int, ...] = (),
    ) -> None:
        self.terminal, end = pty.openpty()
        self.printed = b""
        try:
            self.process = subprocess.Popen(
                words,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=end,
                stderr=end,
                start_new_session=True,
                pass_fds=descriptors,
            )
        finally:
            os.close(end)

    @property
    def output(self) -> str:
        return self.printed.decode(errors="replace")

    def read(self, seconds: float = 0.0) -> bool:
        """Takes what has been printed, and returns whether it was something."""
        if not select.select([self.terminal], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.terminal, 65536)
        except OSError:  # nobody can write to the terminal any more
            time.sleep(min(seconds, 0.01))
            return False
        self.printed += data
        return bool(data)

    def wait(self, until: Callable[[], bool], deadline: float) -> bool:
        """Reads until something is so, and returns whether it is before the deadline."""
        while not until():
            if time.monotonic() > deadline:
                return False
            self.read(0.05)
        while self.read():
            pass
        return True

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def end(self, *, kindly: bool = False) -> None:
        """Ends the process and those that it started."""
        if kindly and not self.has_ended():
            self.signal_group(signal.SIGTERM)
            self.wait(self.has_ended, time.monotonic() + SECONDS_TO_STOP)
        self.signal_group(signal.SIGKILL)
        self.process.wait()
        with suppress(OSError):
            os.close(self.terminal)

    def signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


class Interpreter:
    """The Python that executes the blocks of a document, one after the other."""

    def __init__(self, *, folder: Path, environment: dict[str, str]) -> None:
        requests, self.requests = os.pipe()
        self.answers, answers = os.pipe()
        words = [sys.executable, "-c", INTERPRETER, str(requests), str(answers)]
        self.program = Program(
            words, folder=folder, environment=environment, descriptors=(requests, answers)
        )
        os.close(requests)
        os.close(answers)

    def execute(self, code: str, *, file: Path, line: int, deadline: float) -> bool | None:
        """Returns whether the code ended without an exception; None after the deadline."""
        self.program.printed = b""
        request = json.dumps({"code": code, "file": str(file), "line": line})
        os.write(self.requests, request.encode() + b"\n")
        if not self.program.wait(self.has_answered, deadline):
            return None
        return os.read(self.answers, 1) == b"+"

    def has_answered(self) -> bool:
        return bool(select.select([self.answers], [], [], 0)[0])

    def end(self) -> None:
        self.program.end()
        os.close(self.requests)
        os.close(self.answers)


@dataclass(frozen=True)
class Change:
    """Lines of a document that are replaced: those from `line` on, `count` of them."""

    line: int
    count: int
    lines: tuple[str, ...]


class Execution:
    """Executes a document: `with Execution(...) as execution: execution.run()`.

    Args:
        document: the file.
        name: of the document, in messages.
        home: becomes the home folder of its reader.
        studies: returns the folder of a finished study.
        port: is held from the first server to the end of the document.
        slow: whether slow blocks are executed.

    Attributes:
        failures: what is wrong, each with file and line; filled by `run`.
        changes: what would make the document right.
    """

    def __init__(
        self,
        document: Path,
        *,
        name: str,
        home: Path,
        studies: Callable[[], Path],
        port: BaseFileLock,
        slow: bool = False,
    ) -> None:
        self.document, self.name, self.home, self.slow = document, name, home, slow
        self.studies, self.port = studies, port
        self.folder = home / "work"
        self.folder.mkdir(parents=True)
        self.environment = environment_in(home)
        self.pipe = os.pipe()
        self.interpreter: Interpreter | None = None
        self.servers: list[Program] = []
        self.failures: list[str] = []
        self.changes: list[Change] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for server in self.servers:
            server.end(kindly=True)
        self.port.release(force=True)
        for end in self.pipe:
            os.close(end)
        if self.interpreter is not None:
            self.interpreter.end()
        shutil.rmtree(self.folder / "studies", ignore_errors=True)  # hundreds of MB

    def run(self) -> None:
        """Executes the blocks until one fails in a way that the others depend on."""
        try:
            for block in read_blocks(self.document.read_text()):
                self.run_block(block)
        except Failed as error:
            self.failures.append(str(error))

    def run_block(self, block: Block) -> None:
        """Executes one block."""
        rules = block.rules
        if rules.file is not None:
            path = self.folder / rules.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.content)
            return
        if rules.not_run is not None or (rules.is_slow and not self.slow):
            return
        if rules.needs_studies and not (self.folder / "studies").exists():
            shutil.copytree(self.studies(), self.folder / "studies")
        if rules.is_background:
            self.port.acquire()  # servers of all documents use the same one
        began = time.monotonic()
        deadline = began + rules.timeout_s * patience()
        if block.kind == "python":
            self.run_python(block, deadline)
        elif block.kind == "setup":
            self.run_command(Command(block.line, block.content), 0, deadline)
        elif rules.is_background:
            self.start_server(commands_of(block)[0], deadline)
        else:
            commands = commands_of(block)
            for command in commands:
                code = rules.exit_code if command is commands[-1] else 0
                self.run_command(command, code, deadline)
        print(f"{self.name}:{block.line}: {time.monotonic() - began:.1f} s")

    def run_command(self, command: Command, exit_code: int, deadline: float) -> None:
        """Runs a command to its end and compares what it prints."""
        program = self.start(command)
        try:
            in_time = program.wait(program.has_ended, deadline)
        finally:
            program.end()
        if not in_time:
            raise self.failed(command, "did not end within the block's time", program.output)
        if program.process.returncode != exit_code:
            ended = f"ended with exit code {program.process.returncode}, expected {exit_code}"
            raise self.failed(command, ended, program.output)
        self.compare(command.shown, command, program.output)

    def start_server(self, command: Command, deadline: float) -> None:
        """Starts a command that stays, and waits until it prints and answers as shown."""
        program = self.start(command)
        self.servers.append(program)
        shown = command.shown.lines if command.shown else ()

        def is_ready() -> bool:
            lines = printed_lines(self.as_shown(program.output))
            address = ADDRESS.search(program.output)
            return matches(shown, lines, beginning=True) and (
                is_answering(*address.groups()) if address else bool(shown)
            )

        program.wait(lambda: program.has_ended() or is_ready(), deadline)
        if program.has_ended():
            raise self.failed(command, "ended, but should run in the background", program.output)
        if not is_ready():
            self.compare(command.shown, command, program.output)
            raise self.failed(command, "was not ready within the block's time", program.output)

    def start(self, command: Command) -> Program:
        reading, _ = self.pipe
        return Program(
            ["bash", "-c", SHELL, "bash", command.text, str(reading)],
            folder=self.folder,
            environment=self.environment,
            descriptors=(reading,),
        )

    def run_python(self, block: Block, deadline: float) -> None:
        """Executes a Python block and compares what it prints."""
        if self.interpreter is None:
            self.interpreter = Interpreter(folder=self.folder, environment=self.environment)
        command = Command(block.line, block.content)
        done = self.interpreter.execute(
            block.content, file=self.document, line=block.line, deadline=deadline
        )
        output = self.interpreter.program.output
        if not done:
            problem = "did not end within its time" if done is None else "raised an exception"
            raise self.failed(command, problem, output)
        self.compare(block.output, command, output)

    def compare(self, shown: Shown | None, command: Command, output: str) -> None:
        """Notes a failure, and what would mend it, if output is not what is shown."""
        printed = printed_lines(self.as_shown(output))
        if shown is None or matches(shown.lines, printed):
            return
        text = f"printed something else:\n{difference(shown.lines, printed)}"
        self.failures.append(str(self.failed(command, text)))
        lines = updated(shown.lines, printed)
        if lines is not None:
            prefixed = tuple((shown.prefix + line).rstrip() for line in lines)
            self.changes.append(Change(shown.line, len(shown.lines), prefixed))

    def as_shown(self, output: str) -> str:
        """Returns output with the home folder that a reader has."""
        return output.replace(str(self.home), HOME_OF_DOCUMENTS)

    def failed(self, command: Command, problem: str, output: str | None = None) -> Failed:
        """Returns the failure of a command, with the end of its output."""
        first, *more = command.text.splitlines() or [""]
        text = f"{self.name}:{command.line}: {first}{' ...' if more else ''}\n    {problem}"
        if output is not None:
            text += "\n" + "\n".join(printed_lines(self.as_shown(output))[-30:])
        return Failed(text)

    def rewrite(self) -> None:
        """Replaces the output in the document that was not as printed."""
        lines = self.document.read_text().split("\n")
        for change in sorted(self.changes, key=lambda change: -change.line):
            lines[change.line - 1 : change.line - 1 + change.count] = change.lines
        self.document.write_text("\n".join(lines))


def environment_in(home: Path) -> dict[str, str]:
    """Returns the variables of a reader's terminal: a home folder of its own, and `resnet`."""
    programs = str(Path(sys.executable).parent)
    if shutil.which("resnet", path=programs) is None:
        shim = home / "bin" / "resnet"
        shim.parent.mkdir()
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m resnetkit "$@"\n')
        shim.chmod(0o755)
        programs = f"{shim.parent}:{programs}"
    return {
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        **TERMINAL,
        "PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}",
        "HOME": str(home),
        "RESNETKIT_CACHE": str(home / ".cache" / "resnetkit"),
        "HF_HUB_OFFLINE": "1",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "STATE": str(home / ".state"),
    }


def patience() -> float:
    """Returns the factor of time limits: RESNETKIT_DOCS_PATIENCE, or what a busy machine needs."""
    given = os.environ.get("RESNETKIT_DOCS_PATIENCE")
    return float(given or max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


def is_answering(host: str, port: str) -> bool:
    """Returns whether something accepts connections there."""
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True
