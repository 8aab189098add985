"""resnet runs and resnet report: the runs in a folder, and the reports of runs and studies."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from resnetkit.cli.options import Json, Lang
from resnetkit.cli.output import print_json, print_table, remark, say

if TYPE_CHECKING:
    from resnetkit.training.run_folder import Run

__all__ = ["report", "runs"]

T = TypeVar("T")


def runs(folder: Path = Path("runs"), /, *, json: Json = False) -> int:
    """List the runs below a folder.

    Args:
        folder: 'runs' by default; the runs of studies are in 'studies'.
    """
    from resnetkit.errors import DataError, UsageError
    from resnetkit.training.run_folder import find_runs

    if not folder.is_dir():
        raise UsageError(
            f"the folder {folder} does not exist: 'resnet train' creates the first run."
        )
    rows = [listed(run) for run in find_runs(folder)]
    is_corrupt = any(None in (row.fraction_done, row.seconds) for row in rows)
    code = DataError.exit_code if is_corrupt else 0
    if json:
        print_json(rows)
        return code
    print_table(
        ["folder", "network", "data", "seed", "done", "test error", "training time"],
        [
            [
                row.folder,
                row.network,
                row.data,
                row.seed,
                f"{row.fraction_done:.0%}" if row.fraction_done is not None else "",
                f"{row.test_error:.2f} %" if row.test_error is not None else "",
                f"{row.seconds:,.0f} s" if row.seconds is not None else "",
            ]
            for row in rows
        ],
        numbers="lllrrrr",
    )
    return code


@dataclass(frozen=True)
class ListedRun:
    """One row of the list of runs; None for what cannot be read.

    Attributes:
        folder: of the run.
        network: name of the architecture.
        data: name of the data set.
        seed: of the recipe.
        fraction_done: of the steps, from 0 to 1.
        test_error: in percent; None for a run that is not finished.
        seconds: of training.
        recipe_sha256: digest of the recipe.
    """

    folder: str
    network: str
    data: str
    seed: int
    fraction_done: float | None
    test_error: float | None
    seconds: float | None
    recipe_sha256: str


def listed(run: "Run") -> ListedRun:
    """Returns the row of a run."""
    results = readable(lambda: (run.final, run.fraction_done))
    final, fraction_done = results or (None, None)
    return ListedRun(
        folder=str(run.folder),
        network=run.recipe.model.name,
        data=run.recipe.data.name,
        seed=run.recipe.seed,
        fraction_done=fraction_done,
        test_error=final.test.error if final else None,
        seconds=readable(lambda: run.seconds),
        recipe_sha256=run.recipe.digest,
    )


def readable(read: Callable[[], T]) -> T | None:
    """Returns what is read of a run; None, with a remark, if it is corrupt."""
    from resnetkit.errors import DataError

    try:
        return read()
    except DataError as error:
        remark(str(error))
        return None


def report(folder: Path, /, *, lang: Lang = "en", json: Json = False) -> None:
    """Write the report of a run or of a study again.

    Args:
        folder: Of a run, such as runs/NAME, or of a study, such as studies/degradation-quick.
    """
    path = write_report(folder, lang)
    if json:
        print_json({"report": str(path.resolve())})
    else:
        say(path)


def write_report(folder: Path, lang: str) -> Path:
    """Writes the report of the run or study in a folder.

    Raises:
        UsageError: when it holds neither a run nor a study, or for an unknown language.
    """
    from resnetkit.errors import UsageError
    from resnetkit.report.language import find_language
    from resnetkit.report.overview import write_overview
    from resnetkit.report.run_report import write_run_report
    from resnetkit.report.study_report import write_study_report
    from resnetkit.studies.runner import read_outcomes_again
    from resnetkit.training.run_folder import read_run

    language = find_language(lang)
    if (folder / "recipe.yaml").is_file():
        return write_run_report(read_run(folder), language)
    if (folder / "findings.json").is_file():
        outcomes = read_outcomes_again(folder)
        if len(outcomes) == 1:
            return write_study_report(outcomes[0], language)
        return write_overview(outcomes, language)
    raise UsageError(
        f"{folder} holds neither a run (recipe.yaml) nor a study (findings.json)."
        " 'resnet runs' lists the runs here."
    )
