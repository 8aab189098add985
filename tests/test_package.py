"""The package as a whole: what the README, the hub and the metadata say is so."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest
import torch

import resnetkit
from resnetkit.cli.app import app
from resnetkit.models.zoo import ARCHITECTURES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_public_name_is_there() -> None:
    for name in resnetkit.__all__:
        assert getattr(resnetkit, name) is not None
    assert set(resnetkit.__all__) <= set(dir(resnetkit))
    with pytest.raises(AttributeError, match="has no attribute 'resnet51'"):
        resnetkit.resnet51  # noqa: B018


def test_the_version_is_the_same_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert resnetkit.__version__ == PROJECT["version"]
    assert f"\nversion: {PROJECT['version']}\n" in citation


def test_the_hub_builds_every_architecture() -> None:
    names = runpy.run_path(str(ROOT / "hubconf.py"))
    assert all(callable(names[name]) for name in ARCHITECTURES)
    model = torch.hub.load(str(ROOT), "resnet20", source="local", shortcut="B")
    assert sum(parameter.numel() for parameter in model.parameters()) == 272_474


def test_the_package_is_typed() -> None:
    assert (Path(resnetkit.__file__).parent / "py.typed").exists()


def test_every_command_of_the_readme_exists() -> None:
    commands = set(re.findall(r"^(?:.*&& )?resnet ([\w-]+)", README, re.MULTILINE))
    assert len(commands) >= 6
    assert commands <= set(app)


def test_the_tree_of_the_readme_is_the_tree() -> None:
    tree = README.partition("## What is where\n\n```\n")[2].partition("```")[0]
    folder = Path()
    for line in tree.splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = Path(name) if name.startswith("src") else Path()
        path = ROOT / (folder / name if line.startswith(" ") else name)
        assert path.exists(), line
    rooms = {p.name for p in (ROOT / "src/resnetkit").iterdir() if p.is_dir()} - {"__pycache__"}
    assert all(f"  {room}/" in tree for room in rooms)


def test_the_named_recipes_say_what_they_reproduce() -> None:
    from resnetkit.training.recipe import named_recipes

    for path in named_recipes().values():
        header = path.read_text().partition("\nmodel:")[0]
        for word in ("# Reproduces: ", "# Cost: ", "# Expected: "):
            assert word in header, path.name
