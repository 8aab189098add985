"""The table of options of networks has all of them, and no others."""

import re
from dataclasses import MISSING, fields
from pathlib import Path

from resnetkit.models.zoo import Architecture

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "architectures.md"


def test_every_option_of_create_model_is_in_the_table() -> None:
    text = PAGE.read_text().partition("## Options")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    listed = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    options = [field.name for field in fields(Architecture) if field.default is not MISSING]
    assert sorted(listed) == sorted(options)
