"""The house has floors: a module imports from its own package or from lower floors, never up."""

import ast
from pathlib import Path

import pytest

import resnetkit

SOURCE = Path(resnetkit.__file__).parent
FLOORS = {
    "errors": 0,
    "storage": 1,
    "untrusted": 1,
    "resizing": 1,
    "schema": 1,
    "runtime": 1,
    "strict_yaml": 2,
    "download": 2,
    "models": 3,
    "data": 3,
    "weights": 4,
    "evaluation": 5,
    "training": 6,
    "inference": 6,
    "probes": 7,
    "tracking": 7,
    "studies": 8,
    "report": 9,
    "serving": 10,
    "cli": 11,
    "__main__": 12,
    "__init__": 12,
}
MODULES = sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    """Returns the package or top module a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(source: str) -> set[str]:
    """Returns the rooms of resnetkit that a module imports from, anywhere in it."""
    rooms = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction"
            names = [node.module or ""]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "resnetkit":
                rooms.add(rest.partition(".")[0] or "__init__")
    return rooms


def upward(here: str, source: str) -> set[str]:
    """Returns the rooms a module imports although they lie higher, or beside it on its floor."""
    return {
        there for there in imported_rooms(source) if there != here and FLOORS[there] >= FLOORS[here]
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_module_imports_upwards(path: Path) -> None:
    assert upward(room(path), path.read_text()) == set()


def test_an_upward_import_would_be_found() -> None:
    assert upward("models", "from resnetkit.training.loop import train") == {"training"}
    assert upward("models", "def f():\n    import resnetkit.data.loader") == {"data"}
    assert upward("training", "from resnetkit.errors import DataError") == set()


def test_every_room_has_a_floor() -> None:
    assert {room(path) for path in MODULES} <= set(FLOORS)


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("models", {"models", "errors"}),
        ("inference", set(FLOORS) - {"training", "probes", "studies", "report", "cli"}),
    ],
)
def test_what_can_be_lifted_out_imports_little(package: str, allowed: set[str]) -> None:
    paths = [path for path in MODULES if room(path) == package]
    assert paths
    assert set().union(*(imported_rooms(path.read_text()) for path in paths)) <= allowed
