"""The package as a whole: what the README, the hub and the metadata say is so."""

import inspect
import re
import runpy
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest
import torch

import resnetkit
from resnetkit.errors import RecipeError, UsageError
from resnetkit.models.zoo import ARCHITECTURES

if TYPE_CHECKING:
    from resnetkit.training.run_folder import Run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_public_name_is_there() -> None:
    for name in resnetkit.__all__:
        assert getattr(resnetkit, name) is not None
    assert set(resnetkit.__all__) <= set(dir(resnetkit))
    with pytest.raises(AttributeError, match="has no attribute 'resnet51'"):
        resnetkit.resnet51  # noqa: B018


def test_paths_may_be_texts_everywhere() -> None:
    seen = 0
    names = [getattr(resnetkit, name) for name in resnetkit.__all__]
    for function in filter(inspect.isfunction, names):
        for parameter in inspect.signature(function).parameters.values():
            kinds = (parameter.annotation, *get_args(parameter.annotation))
            assert (Path in kinds) <= (str in kinds), f"{function.__name__}: {parameter}"
            seen += Path in kinds
    assert seen > 10


def test_texts_and_paths_mean_the_same(whole: "Run", tmp_path: Path) -> None:
    network = resnetkit.load_network(whole.folder / "model")
    for kind in (str, Path):
        run = resnetkit.read_run(kind(whole.folder))
        assert run == whole
        recipe = resnetkit.load_recipe(kind(whole.folder / "recipe.yaml"))
        assert resnetkit.train(recipe, kind(whole.folder)) == whole  # it is finished
        resnetkit.export_weights(network, kind(tmp_path / kind.__name__), "resnetkit")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Path", "str"]


def test_a_path_is_never_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(resnetkit.open_dataset("digits").class_names) == 10
    with pytest.raises(UsageError, match=r"\./digits: custom images need an image size"):
        resnetkit.open_dataset(Path("digits"))
    with pytest.raises(RecipeError, match="unknown recipe"):
        resnetkit.load_recipe(Path("digits"))


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


def test_the_readme_is_short_and_names_the_tests() -> None:
    assert len(README.splitlines()) < 90
    assert re.search(r"^pip install .*&& pytest$", README, re.MULTILINE)  # CI runs this line


def test_the_tree_of_the_design_is_the_tree() -> None:
    design = (ROOT / "docs" / "design.md").read_text()
    tree = design.partition("## The house\n")[2].partition("```text\n")[2].partition("```")[0]
    name = r"\w+(?:\.py|\.cpp|/)"
    folders, named = [ROOT / "src" / "resnetkit"], set[Path]()
    for line in tree.splitlines():
        match = re.match(rf"((?:  ){{0,2}})({name}(?:, {name})*)", line)
        if match is None:
            assert line.startswith(" " * 20), line  # a description that goes on
            continue
        depth = len(match[1]) // 2
        paths = [folders[depth] / entry for entry in match[2].split(", ")]
        assert all(path.exists() for path in paths), line
        folders[depth + 1 :] = paths[:1]
        named.update(paths)
    rooms = {p for p in folders[0].iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert rooms <= named
    assert len(named) > 100


def test_the_named_recipes_say_what_they_reproduce() -> None:
    from resnetkit.training.recipe import named_recipes

    for path in named_recipes().values():
        header = path.read_text().partition("\nmodel:")[0]
        for word in ("# Reproduces: ", "# Cost: ", "# Expected: "):
            assert word in header, path.name
