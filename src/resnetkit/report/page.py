"""A page from a template: one file that contains its style, and loads nothing."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from resnetkit.report import filters
from resnetkit.report.colors import color_variables
from resnetkit.report.language import ENGLISH, Language
from resnetkit.studies.phrase import Phrase, phrase
from resnetkit.training.run_folder import Run
from resnetkit.untrusted import markup_text
from resnetkit.weights.configuration import read_configuration

__all__ = [
    "NetworkFacts",
    "SharedEnvironment",
    "link",
    "network_facts",
    "processors_of",
    "render",
    "shared_environments",
]


def render(
    template: str, page: object, t: Language = ENGLISH, *, style_file: str = "templates/style.css"
) -> str:
    """Returns the page that a template makes of a dataclass, in a language.

    Templates translate with `_` and `ngettext`, the names that Babel extracts.

    Args:
        template: name of its file.
        page: what it shows.
        t: the language.
        style_file: the style sheet, below this package.
    """
    made = datetime.now(UTC)
    style = Markup(color_variables() + style_sheet(style_file))
    compiled = templates(t).get_template(template)
    return markup_text(compiled.render(style=style, made=made, page=page))


@cache
def templates(t: Language) -> Environment:
    """Returns the templates in a language, each of which is compiled once."""
    environment = Environment(
        loader=PackageLoader("resnetkit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in filters.__all__:
        environment.filters[name] = getattr(filters, name)
    environment.globals.update(_=t, ngettext=t.plural, language=t.code)
    return environment


def style_sheet(name: str) -> str:
    return (files("resnetkit.report") / name).read_text(encoding="utf-8")


def link(target: Path, folder: Path) -> str:
    """Returns the relative URL of a file for a page in a folder."""
    return quote(Path(os.path.relpath(target, folder)).as_posix())


@dataclass(frozen=True)
class SharedEnvironment:
    """Versions, hardware, precision and data that runs have in common.

    Attributes:
        facts: by subject, of the last session of each of these runs; empty without a record.
        runs: that share them.
    """

    facts: Mapping[str, Mapping[str, object]]
    runs: tuple[Run, ...]

    @property
    def sections(self) -> dict[Phrase, Mapping[str, object]]:
        """Returns the facts by heading."""
        return {FACT_HEADINGS[subject]: values for subject, values in self.facts.items()}


FACT_HEADINGS = {
    "versions": phrase("Versions"),
    "hardware": phrase("Hardware"),
    "precision": phrase("Precision"),
    "kernels": phrase("Kernels"),
    "data": phrase("Data"),
}


def shared_environments(runs: Sequence[Run]) -> list[SharedEnvironment]:
    """Returns the environments of runs: one entry when it was the same for all."""
    shared: dict[str, list[Run]] = {}
    for run in runs:
        sessions = run.sessions
        facts = sessions[-1].facts if sessions else {}
        shared.setdefault(json.dumps(facts, sort_keys=True), []).append(run)
    return [SharedEnvironment(json.loads(facts), tuple(runs)) for facts, runs in shared.items()]


def processors_of(runs: Sequence[Run]) -> list[str]:
    """Returns the processors that runs were trained on, also before they were resumed."""
    sessions = (session for run in runs for session in run.sessions)
    return list(dict.fromkeys(str(session.hardware.get("processor", "?")) for session in sessions))


@dataclass(frozen=True)
class NetworkFacts:
    """Facts about a network from the model folder of its run.

    Attributes:
        class_names: one per label.
        image_side: the shorter side of its images, in pixels.
        in_channels: of its images.
    """

    class_names: tuple[str, ...]
    image_side: int
    in_channels: int


def network_facts(run: Run) -> NetworkFacts | None:
    """Returns the facts about a finished network; None when any is missing."""
    path = run.model / "config.json"
    facts = read_configuration(path) if path.is_file() else {}
    if not {"class_names", "image_size", "layers"} <= set(facts):
        return None
    return NetworkFacts(
        tuple(map(str, facts["class_names"])),
        min(facts["image_size"]),
        int(facts["layers"]["in_channels"]),
    )
