"""A study on two Dask nodes of one core each, against the same study on this machine alone.

The nodes are network namespaces with their own addresses; this needs root.

    python benchmarks/two_nodes.py                  # three minutes on two idle cores
"""

import argparse
import hashlib
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from many_files import circumstances, resnet
from side_by_side import file_name

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from helpers.nodes import Nodes, environment, results, two_nodes

STUDY = ["study", "degradation", "--scale", "quick", "--device", "cpu"]
LIMIT = 3600  # seconds of a study
ENDINGS = {0, 4}  # exit codes: all claims are confirmed, or not


@dataclass(frozen=True)
class Outcome:
    """How a study went.

    Attributes:
        where: it was trained.
        seconds: of the whole command.
        digests: of each run.
        busy: fraction of the workers' time, from the first training to the last, in which one runs.
    """

    where: str
    seconds: float
    digests: dict[str, str]
    busy: float


def busy_fraction(root: Path, workers: int) -> float:
    """Returns the fraction of the workers' time in which they train and measure.

    A run begins when its recipe is written, and ends with its last file.
    """
    spans = []
    for run in (root / "runs").iterdir():
        written = [path.stat().st_mtime for path in run.rglob("*") if path.is_file()]
        spans.append(((run / "recipe.yaml").stat().st_mtime, max(written)))
    whole = max(end for _, end in spans) - min(start for start, _ in spans)
    return sum(end - start for start, end in spans) / (workers * whole)


def outcome_of(where: str, process: "subprocess.Popen[bytes]", root: Path, log: Path) -> Outcome:
    """Waits for a study, and returns how it went."""
    began = time.monotonic()
    if process.wait(LIMIT) not in ENDINGS:
        raise SystemExit(f"the study ended with {process.returncode}:\n{log.read_text()}")
    seconds = time.monotonic() - began
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in results(root).items()}
    return Outcome(where, seconds, digests, busy_fraction(root, 2))


def here(folder: Path, study: Sequence[str]) -> Outcome:
    """Runs the study on this machine."""
    log = folder / "here.log"
    with log.open("wb") as output:
        words = [*resnet(*study), "--out", str(folder / "here"), "--jobs", "2"]
        process = subprocess.Popen(words, env=environment(), stdout=output, stderr=output)
    return outcome_of("one machine, `--jobs 2`", process, folder / "here", log)


def there(folder: Path, study: Sequence[str], nodes: Nodes) -> Outcome:
    """Runs the study on two nodes."""
    address = nodes.start_dask(folder)
    time.sleep(8)  # both workers register
    words = ("-m", "resnetkit", *study, "--out", str(folder / "there"))
    process = nodes.start(0, *words, "--backend", "dask", "--scheduler", address)
    return outcome_of("two Dask nodes of one worker", process, folder / "there", nodes.log)


def report(outcomes: Sequence[Outcome], study: Sequence[str], note: str) -> str:
    """Returns both studies as Markdown."""
    first, second = outcomes
    names = set(first.digests) | set(second.digests)
    equal = sum(first.digests.get(name) == second.digests.get(name) for name in names)
    lines = [
        "# A study on two Dask nodes",
        "",
        f"{circumstances(note)}.",
        "",
        f"`resnet {shlex.join(study)}`, {len(first.digests) // 2} trainings, n = 1; the nodes are"
        " network namespaces on this machine; measured by `benchmarks/two_nodes.py`.",
        "",
        f"**{equal} of {len(names)}** files of weights and metrics are equal to the byte.",
        "",
        "| where | whole command, s | share of time that workers are busy |",
        "|---|---|---|",
    ]
    lines += [
        f"| {outcome.where} | {outcome.seconds:.1f} | {100 * outcome.busy:.1f} % |"
        for outcome in outcomes
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--note", default="nothing else running", help="what else ran")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--length", help="of each training, such as '3 epochs', for busy machines")
    options = parser.parse_args()
    study = [*STUDY, "--set", f"length={options.length}"] if options.length else STUDY
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outcomes = [here(folder, study)]
        with two_nodes(folder) as nodes:
            outcomes.append(there(folder, study, nodes))
    text = report(outcomes, study, options.note)
    path = options.out / f"two_nodes_{file_name()}"
    path.write_text(text, encoding="utf-8")
    print(text + f"\nwritten: {path}")


if __name__ == "__main__":
    main()
