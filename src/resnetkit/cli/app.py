"""The command `resnet`: its table of commands, and how errors end it."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from io import TextIOWrapper

from cyclopts import App, CycloptsError, Parameter

from resnetkit.cli.data import data
from resnetkit.cli.evaluate import evaluate
from resnetkit.cli.inspect import inspect
from resnetkit.cli.models import models
from resnetkit.cli.predict import features, nearest, predict
from resnetkit.cli.runs import report, runs
from resnetkit.cli.study import study
from resnetkit.cli.train import lr_find, recipes, train
from resnetkit.cli.weights import weights
from resnetkit.errors import ResnetkitError, UsageError

__all__ = ["app", "main"]

EXAMPLES: dict[Callable[..., object], str] = {
    models: "resnet models resnet56 --set shortcut=C",
    inspect: "resnet inspect plain56 --compare resnet56 --out networks.svg",
    train: "resnet train digits --set model.name=plain56 --set optimizer.lr=0.02",
    lr_find: "resnet lr-find --data photos/",
    evaluate: "resnet evaluate runs/NAME --flip",
    predict: "resnet predict runs/NAME photos/ --top 3",
    features: "resnet features runs/NAME photos/ --out features.safetensors",
    nearest: "resnet nearest features.safetensors query.jpg --model runs/NAME",
    study: "resnet study degradation",
    runs: "resnet runs studies",
    report: "resnet report studies/degradation-quick",
    recipes: "resnet recipes digits",
}

app = App(
    name="resnet",
    help=(
        "Train, measure and explain residual networks, and see why they work where plain ones fail."
    ),
    help_epilogue="Begin with: resnet study degradation",
    version=lambda: version("resnetkit"),
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(show_default=False),  # the words of an option say its default
)
for command, example in EXAMPLES.items():
    app.command(command, help_epilogue=f"Example: {example}")
app.command(data)
app.command(weights)


def main(words: list[str] | None = None) -> None:
    """Runs a command and ends the process with its exit code."""
    # Threads that wait spin for some microseconds before they sleep: waking up costs more than
    # most waits, and spinning for long takes the core from others (figures in docs/log.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    sys.exit(run(sys.argv[1:] if words is None else words))


def run(words: list[str]) -> int:
    """Runs a command and returns its exit code; errors go to stderr as sentences."""
    with open_streams():
        try:
            code = app(words)
            sys.stdout.flush()
        except CycloptsError as error:
            return complain(f"{error} 'resnet --help' shows what there is.", UsageError.exit_code)
        except ResnetkitError as error:
            return complain(str(error), error.exit_code)
        except KeyboardInterrupt:
            return complain("interrupted.", 130)
        except BrokenPipeError:  # the reader of our output has left, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except OSError as error:
            return complain(f"the system refuses: {error}.", ResnetkitError.exit_code)
        except SystemExit as ended:  # how rich ends when the reader has left
            return 0 if ended.code == 1 else int(ended.code or 0)
        return code if isinstance(code, int) else 0


@contextmanager
def open_streams() -> Iterator[None]:
    """Gives a process whose stdout or stderr was closed before it started a place to write to."""
    with ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        for name, redirect in (("stdout", redirect_stdout), ("stderr", redirect_stderr)):
            stream = getattr(sys, name)
            if stream is None:
                stack.enter_context(redirect(nowhere))
            elif isinstance(stream, TextIOWrapper):  # a file's name may be no text at all
                stream.reconfigure(errors="backslashreplace")
        yield


def complain(message: str, code: int) -> int:
    """Tells a person what went wrong and returns the exit code."""
    print(f"resnet: {message}", file=sys.stderr)
    return code
