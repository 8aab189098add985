"""The script that writes the tables of docs/studies.md."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "benchmarks" / "studies_tables.py"
MODULE = runpy.run_path(str(SCRIPT))

CLAIMS = """\
<!-- begin claims few-quick -->
| claim | first | second | difference | bound at 95 % | verdict |
|---|---|---|---|---|---|
| Deeper is worse. | 75.64 +- 13.21 % | 1.93 +- 0.60 % | +73.71 | +51.47 | confirmed |
| Ratios have three decimals. | 1.009 +- 0.004 | 0.089 | +0.920 | no value | not enough data |
<!-- end claims few-quick -->
"""

RESULTS = """\
<!-- begin results few-quick -->
| network | training error | test error | seconds per training |
|---|---|---|---|
| plain20 | 2.00 +- 1.00 | 4.00 +- 1.00 | 3.0 |
<!-- end results few-quick -->
"""


def sample(unit: str, mean: float, spread: float | None) -> dict[str, Any]:
    return {"label": "", "unit": unit, "values": [], "mean": mean, "spread": spread, "n": 3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A report folder with two findings, next to the two runs they rest on."""
    findings = [
        {
            "claim": "Deeper is worse.",
            "verdict": "confirmed",
            "difference": 73.7093,
            "bound": 51.4744,
            "first": sample("%", 75.642, 13.2122),
            "second": sample("%", 1.93275, 0.59615),
        },
        {
            "claim": "Ratios have three decimals.",
            "verdict": "not enough data",
            "difference": 0.92,
            "bound": None,
            "first": sample("", 1.009, 0.004),
            "second": sample("", 0.089, None),
        },
    ]
    trainings = []
    for seed, error in enumerate((1.0, 2.0, 3.0)):
        run = tmp_path / "runs" / f"plain20-seed{seed}"
        run.mkdir(parents=True)
        final = {"event": "final", "train": {"error": error}, "test": {"error": error + 2}}
        lines = [{"event": "epoch", "epoch": 1}, final]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (run / "timing.jsonl").write_text('{"seconds": 1.0}\n{"step": 2}\n{"seconds": 2.0}\n')
        trainings.append({"group": "plain20", "seed": seed, "folder": f"../runs/{run.name}"})
    study = {"study": "few", "scale": "quick", "findings": findings, "trainings": trainings}
    folder = tmp_path / "few-quick"
    folder.mkdir()
    (folder / "findings.json").write_text(json.dumps(study))
    return folder


def emptied(table: str) -> str:
    """Returns a table with its header row only."""
    lines = table.splitlines(keepends=True)
    return "".join([*lines[:2], lines[-1]])


def test_tables_are_rewritten_from_the_findings(folder: Path) -> None:
    other = CLAIMS.replace("few-quick", "other-quick")
    text = f"# Title\n\n{emptied(CLAIMS)}\nProse.\n\n{emptied(RESULTS)}\n{other}"
    expected = f"# Title\n\n{CLAIMS}\nProse.\n\n{RESULTS}\n{other}"
    assert MODULE["rewrite"](text, [folder]) == (
        expected,
        ["claims few-quick", "results few-quick"],
    )
    assert MODULE["rewrite"](expected, [folder])[0] == expected


def test_the_header_selects_the_columns(folder: Path) -> None:
    header = "| network | test error |"
    text = f"<!-- begin results few-quick -->\n{header}\n<!-- end results few-quick -->\n"
    rewritten, _ = MODULE["rewrite"](text, [folder])
    assert f"{header}\n|---|---|\n| plain20 | 4.00 +- 1.00 |\n" in rewritten
    with pytest.raises(ValueError, match="unknown column 'top-5 error': expected one of network"):
        MODULE["rewrite"](text.replace("test error", "top-5 error"), [folder])


def test_the_report_of_all_studies_holds_each(folder: Path) -> None:
    study = json.loads((folder / "findings.json").read_text())
    everything = folder.parent / "all-quick"
    everything.mkdir()
    (everything / "findings.json").write_text(
        json.dumps({"study": "all", "scale": "quick", "studies": [study]})
    )
    shutil.rmtree(folder)
    text = emptied(CLAIMS) + emptied(RESULTS)
    assert MODULE["rewrite"](text, [everything])[0] == CLAIMS + RESULTS


def test_the_command_rewrites_a_document_and_says_so_when_there_is_nothing(folder: Path) -> None:
    document = folder.parent / "studies.md"
    document.write_text(emptied(CLAIMS))
    command = [sys.executable, str(SCRIPT), str(folder), "--document", str(document)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "claims few-quick\n"
    assert document.read_text() == CLAIMS
    document.write_text("No tables.\n")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "has no table of these studies" in done.stderr


def test_every_table_of_the_document_is_known_to_the_script() -> None:
    text = (ROOT / "docs" / "studies.md").read_text()
    begins = text.count("<!-- begin ")
    assert begins == text.count("<!-- end ") == len(MODULE["TABLE"].findall(text)) > 0
