"""Runs the tests of JavaScript modules, `*.test.mjs` in this folder, which use node:test."""

import subprocess
from pathlib import Path

import pytest

from helpers.browser import node

pytestmark = pytest.mark.browser

FILES = sorted(Path(__file__).parent.glob("*.test.mjs"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_modules(path: Path) -> None:
    command = [node(), "--test-reporter=tap", str(path)]  # --test would start a second one
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "# pass 0" not in outcome.stdout, "the file holds no test"
