"""Runs every comparison and writes one Markdown table for this machine into benchmarks/results/.

Nothing else may run: a row whose calibration drifted is marked, and says nothing.

    python benchmarks/all.py --quick             # 20 minutes at most on two cores
    python benchmarks/all.py --quick --avx2      # as a processor without AVX-512
    python benchmarks/all.py --quick --dry-run   # lists what would run
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import deploy
import folder_pipeline
import train_throughput
from side_by_side import AVX2_ONLY, Comparison, Plan, file_name, results

NETWORKS = ("resnet20", "resnet18", "resnet50")
QUICK, THOROUGH = Plan(rounds=3, seconds=10), Plan(rounds=5, seconds=30)
SECONDS_TO_START = 13  # imports, data and warm-up of a process, on two cores with AVX2


def listing(comparisons: Sequence[Comparison], plan: Plan) -> str:
    """Returns what would run, and about how long it takes."""
    seconds = len(comparisons) * plan.rounds * 2 * (plan.seconds + SECONDS_TO_START)
    lines = [f"{comparison.title}\n" for comparison in comparisons]
    return "".join(lines) + (
        f"{plan.rounds} pairs of processes each, {plan.seconds:g} s a measurement:"
        f" about {seconds / 60:.0f} minutes\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 minutes at most")
    parser.add_argument("--avx2", action="store_true", help="use no instructions beyond AVX2")
    parser.add_argument("--dry-run", action="store_true", help="list what would run")
    parser.add_argument("--rounds", type=int, help="pairs of processes")
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--folder", type=Path, help="for the JPEGs; default: a temporary one")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    default = QUICK if options.quick else THOROUGH
    plan = Plan(options.rounds or default.rounds, options.seconds or default.seconds)
    if options.avx2:
        os.environ.update(AVX2_ONLY)  # before torch is imported
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        comparisons = [train_throughput.comparison(network) for network in NETWORKS]
        comparisons += folder_pipeline.comparisons(folder)
        exported = deploy.comparisons(folder, quick=options.quick)
        comparisons += exported
        if options.dry_run:
            print(listing(comparisons, plan), end="")
            return
        folder_pipeline.draw(folder, small=1_000 if options.quick else 20_000)
        deploy.prepare(folder, exported)
        text = "# Side by side\n\n" + results(comparisons, plan)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"side_by_side_{file_name()}"
    path.write_text(text, encoding="utf-8")
    print(text + f"\nwritten: {path}")


if __name__ == "__main__":
    main()
