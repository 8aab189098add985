"""resnet play: a page on which a reader tries measured residual networks by hand."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from resnetkit.cli.options import Json, Lang
from resnetkit.cli.output import bar, print_json, remark, say

if TYPE_CHECKING:
    from resnetkit.report.play.selection import Selection

__all__ = ["play"]

Runs = Annotated[Path, Parameter(help="Folder of all studies; 'studies' by default.")]
Out = Annotated[Path, Parameter(help="File of the page; 'play.html' by default.")]
Open = Annotated[bool, Parameter(negative=(), help="Open the page in a browser.")]


def play(
    *,
    runs: Runs = Path("studies"),
    out: Out = Path("play.html"),
    lang: Lang = "en",
    open: Open = False,  # noqa: A002  # the name of the option
    json: Json = False,
) -> int:
    """Write a page for trying residual networks by hand: one file that works offline.

    The runs of the study of degradation are needed; missing ones are trained first. Those of the
    studies shortcuts, depth and gradients are shown where they exist.
    """
    from resnetkit.report.language import find_language
    from resnetkit.report.play.page import write_play_page
    from resnetkit.report.play.selection import select_runs

    language = find_language(lang)
    check_file(out)
    selection = select_runs(runs)
    remark_on_runs(selection)
    train_missing(selection)
    write_play_page(select_runs(runs), out, language)
    if json:
        print_json({"file": str(out.resolve())})
    else:
        say(out.resolve())
    if open:
        open_page(out)
    return 0


def check_file(out: Path) -> None:
    """Raises an error before any training when the page cannot be written."""
    import os

    from resnetkit.errors import StorageError, UsageError

    if out.is_dir():
        raise UsageError(f"--out {out} is a folder: expected a file, such as {out / 'play.html'}.")
    folder = out.resolve().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise StorageError(
            f"cannot write {out}: {folder} cannot be written. Choose another file with --out."
        )


def remark_on_runs(selection: "Selection") -> None:
    """Reports runs that are left out, and what the missing ones cost."""
    for folder in selection.unfinished:
        remark(f"{folder} is not finished and is left out.")
    missing = selection.missing
    if not missing:
        return
    trainings = selection.trainings_missing
    if trainings and selection.unused:
        remark(
            f"{selection.root} holds {len(selection.unused)} runs of other recipes, which the page"
            " does not show."
        )
    what = f"{trainings} of the trainings of the study of degradation are missing"
    if not trainings:
        what = f"measurements of {len(missing)} runs are missing"
    remark(
        f"{what} in {selection.root / 'runs'}: they take about"
        f" {max(1, round(selection.seconds_missing))} s on 2 cores (AMD EPYC)."
    )


def train_missing(selection: "Selection") -> None:
    """Trains and measures what is missing."""
    from resnetkit.studies.runner import run_tasks

    if selection.missing:
        with bar("runs of the page") as progress:
            run_tasks(selection.tasks, "degradation", selection.root, observe=progress.update)


def open_page(out: Path) -> None:
    """Opens the page in the browser of this machine."""
    import webbrowser

    if not webbrowser.open(out.resolve().as_uri()):
        remark(f"no browser could be started: open {out.resolve()} yourself.")
