"""Rewrites the tables of docs/studies.md from the findings of finished studies.

A table stands between two markers that name its kind and its study:

    <!-- begin claims degradation-quick -->
    | claim | first | second | difference | bound at 95 % | verdict |
    |---|---|---|---|---|---|
    ...
    <!-- end claims degradation-quick -->

`claims` tables come from `findings.json`. `results` tables have one row per network and come from
the metrics of the runs that `findings.json` lists. The header row is kept: it selects the columns.
Tables of studies that are not given on the command line stay as they are.

    python benchmarks/studies_tables.py studies/degradation-quick studies/all-quick
"""

import argparse
import json
import os
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).parent.parent / "docs" / "studies.md"
TABLE = re.compile(
    r"(?P<begin><!-- begin (?P<name>(?:claims|results) \S+) -->\n)"
    r"(?P<header>\|[^\n]*\|)\n.*?"
    r"(?P<end><!-- end (?P=name) -->)",
    re.DOTALL,
)

Row = Mapping[str, str]
"""The cells of one row, by column."""


def read_studies(folder: Path) -> dict[str, Any]:
    """Returns the findings in a report folder, keyed by the folder name of each study.

    The report of `resnet study all` holds every study; any other holds one.
    """
    findings = json.loads((folder / "findings.json").read_text(encoding="utf-8"))
    studies = findings.get("studies", [findings])
    return {f"{study['study']}-{study['scale']}": study for study in studies}


def claim_rows(study: Mapping[str, Any]) -> list[Row]:
    """Returns one row per claim."""
    return [
        {
            "claim": finding["claim"],
            "first": sample_cell(finding["first"]),
            "second": sample_cell(finding["second"]),
            "difference": difference_cell(finding["difference"], finding["first"]["unit"]),
            "bound at 95 %": difference_cell(finding["bound"], finding["first"]["unit"]),
            "verdict": finding["verdict"],
        }
        for finding in study["findings"]
    ]


def sample_cell(sample: Mapping[str, Any]) -> str:
    """Returns mean and standard deviation with their unit, such as 1.93 +- 0.60 %."""
    if sample["mean"] is None:
        return "no value"
    digits = decimals(sample["unit"])
    spread = "" if sample["spread"] is None else f" +- {sample['spread']:.{digits}f}"
    return f"{sample['mean']:.{digits}f}{spread} {sample['unit']}".rstrip()


def difference_cell(value: float | None, unit: str) -> str:
    """Returns a signed number, or `no value` where JSON holds null."""
    return "no value" if value is None else f"{value:+.{decimals(unit)}f}"


def decimals(unit: str) -> int:
    """Returns how many decimals a quantity has: errors in percent two, plain ratios three."""
    return 2 if unit else 3


def result_rows(study: Mapping[str, Any], folder: Path) -> list[Row]:
    """Returns one row per network, read from the run folders next to the study's folder."""
    runs: dict[str, list[Path]] = {}
    for training in study["trainings"]:
        runs.setdefault(training["group"], []).append(
            Path(os.path.normpath(folder / training["folder"]))
        )
    return [{"network": network, **result_cells(paths)} for network, paths in runs.items()]


def result_cells(runs: Sequence[Path]) -> Row:
    """Returns the final errors in percent and the mean duration of a network's trainings."""
    finals = [
        event
        for run in runs
        for event in json_lines(run / "metrics.jsonl")
        if event["event"] == "final"
    ]
    seconds = [
        sum(line.get("seconds", 0) for line in json_lines(run / "timing.jsonl")) for run in runs
    ]
    return {
        "training error": mean_and_spread([final["train"]["error"] for final in finals]),
        "test error": mean_and_spread([final["test"]["error"] for final in finals]),
        "seconds per training": f"{statistics.mean(seconds):.1f}",
    }


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the objects of a JSON lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def mean_and_spread(values: Sequence[float]) -> str:
    """Returns mean and standard deviation of a sample; a single value has no deviation."""
    if not values:
        return "no value"
    mean = f"{statistics.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} +- {statistics.stdev(values):.2f}"


def markdown_table(header: str, rows: Sequence[Row]) -> str:
    """Returns a Markdown table with the columns that the header names.

    Raises:
        ValueError: when the header names an unknown column.
    """
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    unknown = [column for row in rows for column in columns if column not in row]
    if unknown:
        raise ValueError(f"unknown column '{unknown[0]}': expected one of {', '.join(rows[0])}")
    lines = [header, "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(row[column] for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def rewrite(text: str, folders: Sequence[Path]) -> tuple[str, list[str]]:
    """Rewrites the tables of the given studies in a document.

    Args:
        text: of the document.
        folders: report folders of studies, each with a `findings.json`.

    Returns:
        The new text, and the names of the tables that were rewritten.

    Raises:
        OSError: when a file cannot be read.
        ValueError: when a table has an unknown column.
    """
    tables: dict[str, Callable[[], list[Row]]] = {}
    for folder in folders:
        for name, study in read_studies(folder).items():
            tables[f"claims {name}"] = lambda study=study: claim_rows(study)
            tables[f"results {name}"] = lambda study=study, location=folder.parent / name: (
                result_rows(study, location)
            )
    rewritten: list[str] = []

    def table(match: re.Match[str]) -> str:
        if match["name"] not in tables:
            return match[0]
        rewritten.append(match["name"])
        body = markdown_table(match["header"], tables[match["name"]]())
        return match["begin"] + body + match["end"]

    return TABLE.sub(table, text), rewritten


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="such as studies/degradation-quick")
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    options = parser.parse_args()
    try:
        text, rewritten = rewrite(options.document.read_text(encoding="utf-8"), options.folders)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    if not rewritten:
        sys.exit(f"{options.document} has no table of these studies")
    options.document.write_text(text, encoding="utf-8")
    print("\n".join(rewritten))


if __name__ == "__main__":
    main()
