"""Python programs in processes of their own that need not import torch again.

A server, which starts with the first of them, has imported it, and each program is its fork.
Everything else is as for `python WORDS`: own arguments, environment, streams, signals, exit code.
Tests of what is imported, or of how an interpreter starts and ends, need a fresh one instead.
"""

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["resnetkit.training.loop", "torch._dynamo"])


def stop_server() -> None:
    """Ends the server, as the end of this process does; the next program starts another one."""
    forkserver._forkserver._stop()


class Fork:
    """A program that runs; the main methods of `subprocess.Popen`."""

    def __init__(self, *words: str, log: Path, environment: Mapping[str, str] | None = None):
        self.log = log
        self.process = CONTEXT.Process(target=run_python, args=(words, log, environment or {}))
        self.process.start()

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()

    def communicate(self, timeout: float) -> tuple[str, None]:
        """Waits for the end; returns what was written to both streams."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(self.log.read_text())
        return self.log.read_text(), None


def run_python(words: tuple[str, ...], log: Path, environment: Mapping[str, str]) -> None:
    """Does in this process what `python WORDS` does: a path, or -m and a module, and arguments."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if words[0] == "-m":
        sys.argv = list(words[1:])
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(words)
        runpy.run_path(words[0], run_name="__main__")
