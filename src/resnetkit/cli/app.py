"""The command `resnet`: its subcommands, and how errors end it."""

import sys
from collections.abc import Callable

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from resnetkit.cli.data import data
from resnetkit.cli.evaluate import evaluate
from resnetkit.cli.export import export
from resnetkit.cli.features import features, nearest
from resnetkit.cli.inspect import inspect
from resnetkit.cli.lr_find import lr_find
from resnetkit.cli.models import models
from resnetkit.cli.output import StdoutConsole
from resnetkit.cli.play import play
from resnetkit.cli.predict import predict
from resnetkit.cli.runs import report, runs
from resnetkit.cli.serve import serve
from resnetkit.cli.streams import drop_stdout, interruptions, open_streams
from resnetkit.cli.study import study
from resnetkit.cli.track import track
from resnetkit.cli.train import recipes, train
from resnetkit.cli.weights import weights
from resnetkit.errors import ResnetkitError, UsageError, is_out_of_memory
from resnetkit.untrusted import printable

__all__ = ["app", "run"]

EXAMPLES: dict[Callable[..., object], str] = {
    models: "resnet models resnet56 --set shortcut=C",
    inspect: "resnet inspect plain56 --compare resnet56 --out networks.svg",
    train: "resnet train digits --set model.name=plain56 --set optimizer.lr=0.02",
    lr_find: "resnet lr-find --data photos/",
    evaluate: "resnet evaluate runs/NAME --flip",
    predict: "resnet predict runs/NAME photos/ --top 3",
    features: "resnet features runs/NAME photos/ --out features.safetensors",
    nearest: "resnet nearest features.safetensors query.jpg --model runs/NAME",
    serve: "resnet serve runs/NAME --port 8000",
    study: "resnet study degradation",
    play: "resnet play --open",
    runs: "resnet runs studies",
    track: "resnet track runs/NAME --to tensorboard --follow",
    report: "resnet report studies/degradation-quick",
    recipes: "resnet recipes digits",
}


def installed_version() -> str:
    """Returns the version of the installed package."""
    from importlib.metadata import version

    return version("resnetkit")


app = App(
    name="resnet",
    help=(
        "Train, measure and explain residual networks, and see why they work where plain ones fail."
    ),
    help_epilogue="Start with: resnet study degradation",
    help_format="plaintext",  # the list of commands needs no parser of Markdown
    console=StdoutConsole(),
    version=installed_version,
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(
        show_default=False
    ),  # the help text of an option states its default
)
for command, example in EXAMPLES.items():
    app.command(command, help_epilogue=f"Example: {example}", help_format="markdown")
app.command(data)
app.command(export)
app.command(weights)


OUT_OF_MEMORY = (
    "there is not enough memory. Use a smaller batch (--batch-size where a command has it, or"
    " --micro-batch and --set batch_size=N in training), smaller images in training (--set"
    " data.image_size=N), fewer processes (--jobs) or networks at a time, or a smaller network."
)


def run(arguments: list[str]) -> int:
    """Runs a command and returns its exit code; errors are printed to stderr as sentences."""
    with open_streams(), interruptions() as interrupted:
        try:
            code = app(arguments)
            sys.stdout.flush()
        except BaseException as error:
            if interrupted and not isinstance(error, ResnetkitError):
                return complain("interrupted.", 130)  # a library may have raised another error
            return ending(error)
        return code if isinstance(code, int) else 0


def usage_text(error: CycloptsError) -> str:
    """Returns what is wrong with a command line, and which help to read."""
    text = str(error)
    if isinstance(error, UnusedCliTokensError):
        text = f"unexpected argument(s): {' '.join(error.unused_tokens or ())}."
    command = " ".join(["resnet", *(error.command_chain or ())])
    return f"{text} See '{command} --help'."


def ending(error: BaseException) -> int:
    """Prints why a command ended, and returns its exit code.

    Raises:
        BaseException: the error itself, when it is a bug.
    """
    match error:
        case CycloptsError():
            return complain(usage_text(error), UsageError.exit_code)
        case ResnetkitError():
            return complain(str(error), error.exit_code)
        case KeyboardInterrupt():
            return complain("interrupted.", 130)
        case BrokenPipeError():  # the reader of stdout has left, as `head` does
            drop_stdout()
            return 0
        case SystemExit():
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        case _ if is_out_of_memory(error):
            return complain(OUT_OF_MEMORY, ResnetkitError.exit_code)
        case OSError():
            return complain(f"the operating system reports: {error}.", ResnetkitError.exit_code)
        case _:
            raise error


def complain(message: str, code: int) -> int:
    """Prints what went wrong, and returns the exit code."""
    print(printable(f"resnet: {message}", keep="\n"), file=sys.stderr)
    return code
