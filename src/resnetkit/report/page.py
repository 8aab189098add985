"""One page from a template: style, colors and everything else inside it, nothing to load."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from resnetkit.report import filters
from resnetkit.report.drawing import COLORS
from resnetkit.report.language import ENGLISH, Language
from resnetkit.training.run_folder import Run
from resnetkit.untrusted import markup_text
from resnetkit.weights.configuration import read_configuration

__all__ = ["Surroundings", "link", "model_facts", "render", "surroundings"]


def render(template: str, t: Language = ENGLISH, /, **values: Any) -> str:
    """Returns the page that a template makes of some values, in a language."""
    environment = Environment(
        loader=PackageLoader("resnetkit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in filters.__all__:
        environment.filters[name] = getattr(filters, name)
    environment.globals["t"] = t
    made = datetime.now(UTC)
    style = Markup(color_variables() + style_sheet())
    page = environment.get_template(template).render(style=style, made=made, **values)
    return markup_text(page)


def style_sheet() -> str:
    return (files("resnetkit.report") / "templates" / "style.css").read_text(encoding="utf-8")


def color_variables() -> str:
    """Returns the colors of light and dark as CSS variables."""
    light, dark = (
        "".join(f"--{role}:{shades[place]};" for role, shades in COLORS.items()) for place in (0, 1)
    )
    return f":root{{{light}}}\n@media(prefers-color-scheme:dark){{:root{{{dark}}}}}\n"


def link(target: Path, folder: Path) -> str:
    """Returns the address of a file in a page that lies in a folder."""
    return quote(Path(os.path.relpath(target, folder)).as_posix())


@dataclass(frozen=True)
class Surroundings:
    """What some runs ran on.

    Attributes:
        facts: versions, hardware, precision and data of the last start of each of these runs.
        runs: that have these facts in common.
    """

    facts: dict[str, dict[str, Any]]
    runs: tuple[Run, ...]


def surroundings(runs: Sequence[Run]) -> list[Surroundings]:
    """Returns what the runs ran on: one entry when it was the same for all."""
    shared: dict[str, list[Run]] = {}
    for run in runs:
        sessions = run.sessions
        facts = sessions[-1].facts if sessions else {}
        shared.setdefault(json.dumps(facts, sort_keys=True), []).append(run)
    return [Surroundings(json.loads(facts), tuple(found)) for facts, found in shared.items()]


def model_facts(run: Run) -> dict[str, Any]:
    """Returns the configuration of a finished network; an empty mapping when there is none."""
    path = run.model / "config.json"
    return read_configuration(path) if path.is_file() else {}
