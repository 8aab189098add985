"""resnet weights list, fetch, push and pull, and names of published weights in other commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from resnetkit.models.zoo import ARCHITECTURES
from resnetkit.weights.published import published

Resnet = Callable[..., Any]


@pytest.fixture(autouse=True)
def _empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is here, and nobody answers."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("RESNETKIT_OFFLINE", "1")


@pytest.fixture
def cached(tmp_path: Path) -> str:
    """Puts a file of the official name into the cache of torch.hub, and returns the weights'."""
    entry = published()["resnet18.IMAGENET1K_V1"]
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    model = ARCHITECTURES["resnet18"].build(torch.Generator().manual_seed(0))
    torch.save(model.state_dict(), folder / entry.files[0])
    return entry.name


def test_the_list_says_what_there_is(resnet: Resnet, cached: str) -> None:
    answer = resnet("weights", "list")
    headings, *rows = answer.rows
    assert headings == ["name", "variant", "top-1 (%)", "download", "here", "from", "SHA-256"]
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name[cached] == ["", "69.76", "47 MB", "yes", "torchvision", "f37072fd..."]
    expected = ["v1.5", "80.86", "103 MB", "no", "torchvision", "11ad3fa6..."]
    assert by_name["resnet50.IMAGENET1K_V2"] == expected
    assert by_name["resnet50.a1_in1k"] == ["v1.5", "", "102 MB", "no", "timm", "stated by the Hub"]


def test_the_list_says_it_to_machines(resnet: Resnet, cached: str, tmp_path: Path) -> None:
    values = {each["name"]: each for each in resnet("weights", "list", "--json").values}
    assert values[cached]["path"].startswith(str(tmp_path / "torch"))
    assert values["resnet50.a1_in1k"] == {
        "name": "resnet50.a1_in1k",
        "library": "timm",
        "source": "timm/resnet50.a1_in1k",
        "variant": "v1.5",
        "accuracy": None,
        "megabytes": 102.23,
        "sha256": None,
        "path": None,
    }


def test_a_name_is_a_network_for_every_command(resnet: Resnet, cached: str) -> None:
    assert dict(resnet("weights", "show", cached).rows)["format"] == "torchvision"
    assert resnet("inspect", cached, "--json").code == 0
    answer = resnet("predict", cached, "none.jpg")
    assert cached in answer.err


def test_what_is_not_here_says_how_it_comes(resnet: Resnet) -> None:
    name = "resnet50.a1_in1k"
    for words in (
        ("weights", "show", name),
        ("predict", name, "none.jpg"),
        ("inspect", name),
        ("evaluate", name),
    ):
        answer = resnet(*words)
        assert (answer.code, answer.out) == (3, ""), words
        assert f"'resnet weights fetch {name}' downloads them (102 MB)." in answer.err
        assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("fetch", "resnet50"), 2, "Weights of resnet50: resnet50.IMAGENET1K_V1, "),
        (("fetch", "../x"), 2, "there are no published weights '../x'"),
        (("fetch", "resnet50.a1_in1k"), 3, "RESNETKIT_OFFLINE is set, so nothing is downloaded"),
        (("pull", "me/few"), 3, "RESNETKIT_OFFLINE is set, so nothing is downloaded"),
        (("pull", "few"), 2, "expected OWNER/NAME"),
        (("push", "none", "me/few"), 3, "there is no none: expected a run folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_one_line(
    resnet: Resnet, words: tuple[str, ...], code: int, reason: str
) -> None:
    answer = resnet("weights", *words)
    assert (answer.code, answer.out) == (code, "")
    assert reason in answer.err
    assert answer.err.count("\n") == 1


def test_a_fetched_name_is_where_it_lies(
    resnet: Resnet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fetch_weights(name: str, observe: Callable[[int, int], None]) -> Path:
        observe(500_000, 0)
        observe(1_000_000, 1_000_000)
        return tmp_path / name

    monkeypatch.setattr("resnetkit.weights.fetch.fetch_weights", fetch_weights)
    name = "resnet50.a1_in1k"
    assert resnet("weights", "fetch", name).out == f"{tmp_path / name}\n"
    values = resnet("weights", "fetch", name, "--json").values
    assert values == {"name": name, "path": str(tmp_path / name)}


def test_push_and_pull_say_where_it_is(
    resnet: Resnet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[object] = []

    def push(run: Path, repository: str, *, public: bool) -> str:
        asked.append((run, repository, public))
        return "https://host/commit"

    def pull(repository: str, out: Path) -> Path:
        asked.append((repository, out))
        return out

    monkeypatch.setattr("resnetkit.weights.hub.push", push)
    monkeypatch.setattr("resnetkit.weights.hub.pull", pull)
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    assert resnet("weights", "push", "runs/a", "me/few").out == "https://host/commit\n"
    values = resnet("weights", "push", "runs/a", "me/few", "--public", "--json").values
    assert values == {"repository": "me/few", "commit": "https://host/commit"}
    assert resnet("weights", "pull", "me/few").out == "few\n"
    assert resnet("weights", "pull", "me/few", "--out", "x", "--json").values["folder"] == "x"
    run = Path("runs/a")
    assert asked[:2] == [(run, "me/few", False), (run, "me/few", True)]
    assert asked[2:] == [("me/few", Path("few")), ("me/few", Path("x"))]
