"""Published weights: the table against its libraries, and fetching from a server on this machine.

The server answers as torchvision's does and as the Hugging Face Hub does: small files by a relative
redirect, large ones by one to another host, with commit and digest in the headers. What
huggingface_hub and torch.hub make of our caches, and we of theirs, is tried with themselves.
"""

import hashlib
import json
import os
import pickle
import pwd
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import pytest
import safetensors.torch
import torch

import resnetkit
from resnetkit import download
from resnetkit.errors import (
    ArchitectureError,
    StorageError,
    TransferError,
    UsageError,
    WeightsError,
)
from resnetkit.models.zoo import ARCHITECTURES, Architecture
from resnetkit.training.recipe import load_recipe
from resnetkit.weights import published as module
from resnetkit.weights.fetch import fetch_weights
from resnetkit.weights.load import load_network
from resnetkit.weights.published import TIMM_TAGS, PublishedWeights, find_published, published

COMMIT = "0123456789" * 4
CONFIG = {
    "architecture": "resnet50",
    "num_classes": 7,
    "num_features": 80,
    "pretrained_cfg": {
        "tag": "tiny_in1k",
        "input_size": [3, 160, 160],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "num_classes": 7,
        "first_conv": "conv1",
        "classifier": "fc",
    },
}
TORCHVISION, TIMM = "resnet50.TINY_V1", "resnet50.tiny_in1k"


def tiny_state() -> dict[str, torch.Tensor]:
    tiny = Architecture("bottleneck", (1, 1, 1, 1), (4, 8, 12, 20), "7x7", 224, False)
    return tiny.with_options(num_classes=7).build(torch.Generator().manual_seed(0)).state_dict()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """Serves `files` by path; those of repositories as the Hub does."""

    protocol_version = "HTTP/1.1"
    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []
    tokens: ClassVar[list[str | None]] = []
    spoiled: ClassVar[dict[str, bytes]] = {}
    headers_of_repositories: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        self.tokens.append(self.headers.get("Authorization"))
        path = self.path.partition("?")[0]
        _, _, revision_and_name = path.partition("/resolve/")
        if path.startswith("/cdn/"):
            self.give(next(c for c in self.files.values() if path == f"/cdn/{sha256(c)}"))
        elif path.startswith("/api/resolve-cache/"):
            content = self.files[path.removeprefix("/api/resolve-cache")]
            self.give(content, **{"X-Repo-Commit": COMMIT, "ETag": f'"{git_sha(content)}"'})
        elif revision_and_name.partition("/")[0] in ("main", COMMIT):
            name = path.partition("/resolve/")[0] + "/" + revision_and_name.partition("/")[2]
            self.give_of_repository(name)
        elif path in self.files:
            self.give(self.files[path])
        else:
            self.send_error(404)

    do_HEAD = do_GET  # noqa: N815  # the name that http.server calls

    def give_of_repository(self, name: str) -> None:
        if name not in self.files:
            self.send_error(404)
        elif name.endswith(".json"):
            self.lead(f"/api/resolve-cache{name}", {"X-Repo-Commit": COMMIT})
        else:
            content = self.files[name]
            headers = {
                "X-Repo-Commit": COMMIT,
                "X-Linked-ETag": f'"{sha256(content)}"',
                "X-Linked-Size": str(len(content)),
                **self.headers_of_repositories,
            }
            port = self.server.server_address[1]
            self.lead(f"http://localhost:{port}/cdn/{sha256(content)}?Signature=secret", headers)

    def lead(self, address: str, headers: dict[str, str]) -> None:
        self.send_response(302)
        for name, value in {**headers, "Location": address, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def give(self, content: bytes, **headers: str) -> None:
        content = self.spoiled.get(sha256(content), content)
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """Starts a server with the tiny weights that the table is made to hold, and empty caches."""
    state = tiny_state()
    torch.save(state, tmp_path / "tiny.pth")
    pth = (tmp_path / "tiny.pth").read_bytes()
    file = f"tiny-{sha256(pth)[:8]}.pth"
    Hub.asked, Hub.tokens, Hub.spoiled, Hub.headers_of_repositories = [], [], {}, {}
    Hub.files = {
        f"/models/{file}": pth,
        "/timm/resnet50.tiny_in1k/model.safetensors": safetensors.torch.save(state),
        "/timm/resnet50.tiny_in1k/config.json": json.dumps(CONFIG).encode(),
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True  # huggingface_hub keeps its connections open
    address = f"http://127.0.0.1:{server.server_port}"
    source = f"{address}/models/{file}"
    files = ("model.safetensors", "config.json")
    entries = [
        PublishedWeights(
            TORCHVISION, "torchvision", (file,), source, 1, 76.1, sha256(pth)[:8], 0.9
        ),
        PublishedWeights(TIMM, "timm", files, f"timm/{TIMM}", 1, None, "", 0),
    ]
    table = {**published(), **{entry.name: entry for entry in entries}}
    monkeypatch.setattr(module, "published", lambda: table)
    monkeypatch.setattr(download, "PAUSES", (0.0,))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in (*download.OFFLINE, "HF_HUB_CACHE", "RESNETKIT_WEIGHTS_URL"):
        monkeypatch.delenv(name, raising=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Hub
    server.shutdown()
    thread.join()
    server.server_close()


# The table.


def test_the_table_is_torchvisions() -> None:
    from torchvision import models

    found = {name: entry for name, entry in published().items() if entry.library == "torchvision"}
    assert len(found) == 12
    for name, entry in found.items():
        architecture, _, weights = name.partition(".")
        official = models.get_model_weights(architecture)[weights]
        assert entry.source == official.url
        assert entry.source.endswith(f"/{architecture}-{entry.sha256}.pth")
        assert entry.files == (official.url.rpartition("/")[2],)
        assert len(entry.sha256) == 8
        assert int(entry.sha256, 16) >= 0
        assert entry.megabytes == pytest.approx(official.meta["_file_size"] * 1.048576)
    shown = {name: entry.crop_pct for name, entry in found.items()}
    assert shown["resnet50.IMAGENET1K_V1"] == 224 / 256
    assert shown["resnet50.IMAGENET1K_V2"] == 224 / 232
    assert {name.partition(".")[0] for name in found} == {
        name
        for name in ARCHITECTURES
        if name in models.list_models(module=models) and name.startswith(("resne", "wide_resne"))
    }


def test_the_table_is_timms() -> None:
    timm_models = pytest.importorskip("timm.models")
    theirs = {}
    for name in timm_models.list_pretrained():
        config = timm_models.get_pretrained_cfg(name)
        if name.partition(".")[0] in TIMM_TAGS and config.hf_hub_id:
            theirs[name] = (config.hf_hub_id, config.license)
    free = {name for name, (_, kind) in theirs.items() if kind in ("apache-2.0", "bsd-3-clause")}
    ours = {name: entry for name, entry in published().items() if entry.library == "timm"}
    assert set(ours) == free
    assert all(entry.source == theirs[name][0] for name, entry in ours.items())


def test_bottlenecks_are_v15_and_nothing_is_here() -> None:
    variants = {name: entry.variant for name, entry in published().items()}
    assert variants["resnet18.a1_in1k"] == variants["resnet34.IMAGENET1K_V1"] == ""
    assert variants["resnet50.a1_in1k"] == variants["wide_resnet50_2.IMAGENET1K_V2"] == "v1.5"
    assert find_published("resnet50") is None
    assert find_published("runs/resnet50.a1_in1k") is None


# Fetching.


@pytest.mark.parametrize("name", [TORCHVISION, TIMM])
def test_what_was_fetched_is_loaded_by_its_name(
    hub: type[Hub], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError, match=f"'resnet weights fetch {name}' downloads them .1 MB"):
        load_network(name)
    assert hub.asked == []
    told: list[tuple[int, int]] = []
    place = fetch_weights(name, observe=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] > 0
    asked = len(hub.asked)
    monkeypatch.setenv("RESNETKIT_OFFLINE", "1")  # the cache is enough from here on
    assert fetch_weights(name) == place
    network = load_network(name)
    assert len(hub.asked) == asked
    assert network.origin.startswith(f"{name}: ")
    assert network.architecture.stride_in == "3x3"
    assert network.crop_pct == {TORCHVISION: 0.9, TIMM: 0.95}[name]
    for key, tensor in tiny_state().items():
        assert torch.equal(network.model.state_dict()[key], tensor), key
    with pytest.raises(WeightsError, match=r"is of the variant v1\.5, not v1"):
        load_network(name, variant="v1")
    assert resnetkit.backbone(weights=name, out=["stage3"]).channels == {"stage3": 32}
    with pytest.raises(ArchitectureError, match="is not a resnet50"):
        resnetkit.backbone("resnet50", weights=name)


def test_timms_images_are_those_of_its_configuration(hub: type[Hub]) -> None:
    fetch_weights(TIMM)
    network = load_network(TIMM)
    assert network.image_size == (160, 160)
    assert network.normalization.mean.flatten().tolist() == pytest.approx([127.5, 102, 76.5])
    assert f"HEAD /timm/{TIMM}/resolve/{COMMIT}/config.json" in hub.asked  # of the same commit


def test_the_caches_are_those_of_the_libraries(hub: type[Hub], tmp_path: Path) -> None:
    folder = fetch_weights(TIMM)
    for file in ("model.safetensors", "config.json"):
        found = huggingface_hub.try_to_load_from_cache(
            f"timm/{TIMM}", file, cache_dir=tmp_path / "hf" / "hub"
        )
        assert found == str(folder / file)
    place = fetch_weights(TORCHVISION)
    asked = len(hub.asked)
    source = module.published()[TORCHVISION].source
    state = torch.hub.load_state_dict_from_url(source, check_hash=True)
    assert set(state) == set(tiny_state())
    assert len(hub.asked) == asked
    assert place == tmp_path / "torch" / "hub" / "checkpoints" / place.name


def test_what_the_libraries_have_fetched_is_here(
    hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, endpoint = module.published()[TORCHVISION].source, module.hub_address()
    torch.hub.load_state_dict_from_url(source, progress=False)
    for file in ("model.safetensors", "config.json"):
        huggingface_hub.hf_hub_download(
            f"timm/{TIMM}", file, cache_dir=tmp_path / "hf" / "hub", endpoint=endpoint
        )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in (TORCHVISION, TIMM):
        assert load_network(fetch_weights(name), variant="v1.5").class_names == ()


def test_weights_without_their_configuration_are_not_all(
    hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fetch_weights(TIMM) / "config.json").unlink()
    assert module.published()[TIMM].path is None
    hub.asked.clear()
    fetch_weights(TIMM)
    assert not [path for path in hub.asked if path.startswith("GET /cdn")]  # the blobs were there
    load_network(TIMM)


@pytest.mark.parametrize("name", [TORCHVISION, TIMM])
def test_a_damaged_cache_is_mended(hub: type[Hub], name: str) -> None:
    place = fetch_weights(name)
    file = place if place.is_file() else (place / "model.safetensors").resolve()
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert fetch_weights(name) == place
    assert file.read_bytes() == whole


@pytest.mark.parametrize("name", [TORCHVISION, TIMM])
def test_another_file_is_refused_and_removed(hub: type[Hub], tmp_path: Path, name: str) -> None:
    for content in list(hub.files.values()):
        hub.spoiled[sha256(content)] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(TransferError, match=r"another file.*: its SHA-256 is") as caught:
        fetch_weights(name)
    assert "secret" not in str(caught.value)
    for cache in ("hf", "torch"):
        left = [path.read_bytes() for path in (tmp_path / cache).rglob("*") if path.is_file()]
        assert not set(left) & set(hub.spoiled.values())
    with pytest.raises(WeightsError, match="are not on this machine"):
        load_network(name)


def test_a_spoiled_configuration_is_refused_by_gits_digest(hub: type[Hub]) -> None:
    config = hub.files[f"/timm/{TIMM}/config.json"]
    hub.spoiled[sha256(config)] = config.replace(b"0.95", b"0.75")
    with pytest.raises(
        TransferError, match=r"sent another file as config\.json: its SHA-1 by Git is"
    ):
        fetch_weights(TIMM)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Repo-Commit": "../../../../../tmp/evil"},
        {"X-Repo-Commit": ""},
        {"X-Linked-ETag": '"../../../evil"'},
        {"X-Linked-ETag": '"abc"'},
        {"X-Linked-ETag": f'"{"A" * 64}"'},
    ],
    ids=str,
)
def test_names_that_a_server_sends_lead_nowhere(
    hub: type[Hub], tmp_path: Path, headers: dict[str, str]
) -> None:
    hub.headers_of_repositories.update(headers)
    with pytest.raises(TransferError, match="does not answer as the Hugging Face Hub does"):
        fetch_weights(TIMM)
    assert not (tmp_path / "hf").exists()


def test_no_token_is_sent_for_what_is_public(
    hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_ours")
    fetch_weights(TIMM)
    fetch_weights(TORCHVISION)
    assert set(hub.tokens) == {None}


def test_a_size_that_no_weights_have_is_refused_before_the_download(hub: type[Hub]) -> None:
    hub.headers_of_repositories["X-Linked-Size"] = str(2**40)
    with pytest.raises(TransferError, match=r"lists 1,099,511,627,776 bytes of model\.safetensors"):
        fetch_weights(TIMM)
    assert [path for path in hub.asked if path.startswith("GET")] == []


def test_a_mirror_is_asked_instead(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNETKIT_WEIGHTS_URL", f"{module.hub_address()}/mirror/")
    file = module.published()["resnet18.IMAGENET1K_V1"].files[0]
    hub.files[f"/mirror/{file}"] = b"not those of torchvision"
    with pytest.raises(
        TransferError, match=r"its SHA-256 is [0-9a-f]{64}, expected one that begins with f37072fd"
    ):
        fetch_weights("resnet18.IMAGENET1K_V1")
    assert hub.asked == [f"GET /mirror/{file}"]


def test_a_repository_that_is_gone_is_a_sentence(hub: type[Hub]) -> None:
    with pytest.raises(TransferError, match=r"timm/resnet18\.a1_in1k at .*the Hub answers 404: "):
        fetch_weights("resnet18.a1_in1k")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("../../etc/passwd", "expected a name of 'resnet weights list'."),
        ("timm/resnet50.a1_in1k", "Did you mean 'resnet50.a1_in1k'?"),
        ("resnet50.a1_in1", "Did you mean 'resnet50.a1_in1k'?"),
        ("resnet50", "Weights of resnet50: resnet50.IMAGENET1K_V1, resnet50.IMAGENET1K_V2, "),
        ("", "expected a name of 'resnet weights list'."),
    ],
)
def test_an_unknown_name_is_refused(hub: type[Hub], name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"there are no published weights '{name}'") as caught:
        fetch_weights(name)
    assert hint in str(caught.value)
    assert hub.asked == []


@pytest.mark.parametrize(
    ("name", "folder", "variable"), [(TORCHVISION, "torch", "TORCH_HOME"), (TIMM, "hf", "HF_HOME")]
)
def test_a_cache_that_cannot_be_written_is_named(
    hub: type[Hub], tmp_path: Path, name: str, folder: str, variable: str
) -> None:
    (tmp_path / folder).write_text("in the way")
    with pytest.raises(StorageError, match=f"cannot write .*Set {variable}"):
        fetch_weights(name)


@pytest.mark.parametrize(("name", "variable"), [(TORCHVISION, "TORCH_HOME"), (TIMM, "HF_HOME")])
def test_without_a_home_nothing_is_here_and_the_variable_is_named(
    hub: type[Hub], monkeypatch: pytest.MonkeyPatch, name: str, variable: str
) -> None:
    for unset in ("TORCH_HOME", "HF_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(unset, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert module.published()[name].path is None
    with pytest.raises(
        WeightsError, match=rf"not on this machine: .* no home folder\. Set {variable} to"
    ):
        load_network(name)
    with pytest.raises(StorageError, match=rf"no home folder\. Set {variable} to"):
        fetch_weights(name)
    assert hub.asked == []


def test_a_pipe_in_the_cache_is_not_waited_for(hub: type[Hub]) -> None:
    references = fetch_weights(TIMM).parent.parent / "refs"
    (references / "main").unlink()
    os.mkfifo(references / "main")
    assert module.published()[TIMM].path is None


@pytest.mark.parametrize("name", [TORCHVISION, TIMM])
def test_several_fetches_of_one_name_at_once_all_end_well(hub: type[Hub], name: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(fetch_weights, name) for _ in range(4)]
    assert {call.result() for call in calls} == {module.published()[name].path}
    asked = [path for path in hub.asked if path.startswith(("GET /cdn", "GET /models"))]
    assert len(asked) == 1
    assert load_network(name).model is not None


def test_code_that_is_published_never_runs(
    hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return (Path.touch, (tmp_path / "trap",))

    path = tmp_path / "evil.pth"
    torch.save({**tiny_state(), "x": Malicious()}, path)
    evil = path.read_bytes()
    entry = PublishedWeights(
        TORCHVISION, "torchvision", ("evil.pth",), "", 1, None, sha256(evil)[:8], 0
    )
    monkeypatch.setattr(module, "published", lambda: {TORCHVISION: entry})
    monkeypatch.setenv("RESNETKIT_WEIGHTS_URL", module.hub_address())
    hub.files["/evil.pth"] = evil
    fetch_weights(TORCHVISION)
    with pytest.raises(WeightsError, match="Nothing in it was executed"):
        load_network(TORCHVISION)
    assert not (tmp_path / "trap").exists()
    with pytest.raises((pickle.UnpicklingError, RuntimeError)):
        torch.load(path, weights_only=True)
    torch.load(path, weights_only=False)
    assert (tmp_path / "trap").exists()  # the file is a trap indeed


@pytest.mark.slow
def test_two_processes_download_a_file_once(
    hub: type[Hub], tmp_path: Path, start: Callable[..., Any]
) -> None:
    content = bytes(range(256)) * 20_000
    hub.files["/large"] = content
    script = f"""
from pathlib import Path
from resnetkit.download import Digest
from resnetkit.weights.fetch import fetch_file
folder = Path({str(tmp_path)!r})
digest = Digest("sha256", {sha256(content)!r})
fetch_file({module.hub_address() + "/large"!r}, folder / "file", folder, digest, lambda *_: None)
print((folder / "file").stat().st_size)
"""
    processes = [start("-c", script) for _ in range(2)]
    said = [process.communicate(timeout=100)[0].strip() for process in processes]
    assert said == [str(len(content))] * 2
    assert hub.asked == ["GET /large"]


def test_a_waiting_process_gets_what_another_has_fetched(
    hub: type[Hub], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import filelock

    entry = module.published()[TORCHVISION]
    entry.cache.mkdir(parents=True)
    held = filelock.FileLock(entry.cache / f"{entry.files[0]}.lock")
    held.acquire()
    waiting = threading.Thread(target=fetch_weights, args=(TORCHVISION,))
    waiting.start()
    waiting.join(1.3)
    assert waiting.is_alive()
    (content,) = [each for path, each in hub.files.items() if path.endswith(".pth")]
    (entry.cache / entry.files[0]).write_bytes(content)
    held.release()
    waiting.join(60)
    assert not waiting.is_alive()
    assert "another process is fetching this file" in caplog.text
    assert hub.asked == []


# Where names are taken.


def test_a_path_of_that_name_comes_first(
    hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_weights(TORCHVISION)
    assert load_network(TORCHVISION).format == "torchvision"
    monkeypatch.chdir(tmp_path)
    resnetkit.export_weights(load_network(TORCHVISION), Path(TORCHVISION), "resnetkit")
    assert load_network(TORCHVISION).format == "resnetkit"


def test_a_recipe_keeps_the_name_and_resolves_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def weights(word: str) -> str:
        return load_recipe("digits", {"model.weights": word}).model.weights

    assert weights("resnet50.a1_in1k") == "resnet50.a1_in1k"
    assert weights("mine.pth") == str(tmp_path / "mine.pth")
    (tmp_path / "resnet50.a1_in1k").mkdir()
    assert weights("resnet50.a1_in1k") == str(tmp_path / "resnet50.a1_in1k")
