"""Pushing to the Hugging Face Hub and pulling from it: huggingface_hub against a server here."""

import ast
import base64
import hashlib
import io
import json
import os
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import safetensors.torch
import torch
import yaml
from PIL import Image

import resnetkit
from resnetkit.data.normalization import Normalization
from resnetkit.errors import StorageError, TransferError, UsageError, WeightsError
from resnetkit.models.zoo import ARCHITECTURES
from resnetkit.weights.export import export_weights
from resnetkit.weights.hub import pull, push
from resnetkit.weights.hub_client import HubClient
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork

# Of the HTTP client of huggingface_hub, on how huggingface_hub calls it.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

COMMIT = "89abcdef01" * 4
FILES = {"config.json", "model.safetensors", "preprocessing.safetensors", "README.md"}


class Hub(BaseHTTPRequestHandler):
    """A Hub of one commit a repository, which keeps what is pushed, large files by their digest."""

    protocol_version = "HTTP/1.1"
    repositories: ClassVar[dict[str, dict[str, bytes]]] = {}
    private: ClassVar[dict[str, bool]] = {}
    large: ClassVar[dict[str, bytes]] = {}
    spoiled: ClassVar[set[str]] = set()
    refusal: ClassVar[int] = 0
    listed_size: ClassVar[int | None] = None
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def say(self, value: Any) -> None:
        self.give(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def give(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self) -> None:
        body = self.body()
        self.asked.append((f"POST {self.path}", self.headers.get("Authorization")))
        if self.refusal:
            self.send_error(self.refusal)
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.repositories.setdefault(name, {})
            # One or the other, as the version of huggingface_hub has it.
            private = asked.get("private") or asked.get("visibility") == "private"
            self.private.setdefault(name, private)
            self.say({"url": f"http://{self.headers['Host']}/{name}"})
        elif self.path == "/api/validate-yaml":
            self.say({"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            self.say({"files": [self.upload(each) for each in json.loads(body)["files"]]})
        elif self.path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            self.say({"transfer": "basic", "objects": [self.action(each) for each in objects]})
        elif self.path.endswith("/commit/main"):
            self.commit(self.path.split("/")[3:5], body)
        else:
            self.send_error(404)

    def upload(self, file: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def action(self, wanted: dict[str, Any]) -> dict[str, Any]:
        href = f"http://{self.headers['Host']}/lfs/{wanted['oid']}"
        return {**wanted, "actions": {"upload": {"href": href}}}

    def commit(self, repository: list[str], body: bytes) -> None:
        name = "/".join(repository)
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                content = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.large[value["oid"]]
            else:
                continue
            self.repositories[name][value["path"]] = content
        self.say(
            {
                "success": True,
                "commitOid": COMMIT,
                "commitUrl": f"http://{self.headers['Host']}/{name}/commit/{COMMIT}",
                "hookOutput": "",
            }
        )

    def do_PUT(self) -> None:
        content = self.body()
        self.large[self.path.rpartition("/")[2]] = content
        self.give(b"", {})

    def do_GET(self) -> None:
        self.asked.append((f"{self.command} {self.path}", self.headers.get("Authorization")))
        words = self.path.partition("?")[0].strip("/").split("/")
        if self.refusal:
            self.send_error(self.refusal)
        elif words[:2] == ["api", "models"] and "/".join(words[2:4]) in self.repositories:
            self.say(self.listing("/".join(words[2:4])))
        elif words[2:3] == ["resolve"] and "/".join(words[:2]) in self.repositories:
            content = self.repositories["/".join(words[:2])][words[4]]
            if words[4] in self.spoiled:
                content = content[:-1] + bytes([content[-1] ^ 1])
            digest = hashlib.sha256(content).hexdigest()
            self.give(content, {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"'})
        else:
            self.send_error(404)

    do_HEAD = do_GET  # noqa: N815  # the name that http.server calls

    def listing(self, name: str) -> dict[str, Any]:
        siblings = []
        for path, content in self.repositories[name].items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            sibling: dict[str, Any] = {
                "rfilename": path,
                "size": self.listed_size or len(content),
                "blobId": blob,
            }
            if path.endswith(".safetensors"):
                digest = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 130}
            siblings.append(sibling)
        return {"id": name, "sha": COMMIT, "siblings": siblings, "private": False}

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    Hub.repositories, Hub.private, Hub.large, Hub.asked = {}, {}, {}, []
    Hub.spoiled, Hub.refusal = set(), 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True  # huggingface_hub keeps its connections open
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_ours")
    # Large files go by Git LFS, which the server speaks; it was read when the library was imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("RESNETKIT_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Hub
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def network() -> TrainedNetwork:
    cifar = replace(ARCHITECTURES["resnet20"], depths=(1, 1, 1), widths=(4, 8, 16))
    architecture = cifar.with_options(num_classes=3)
    return TrainedNetwork(
        model=architecture.build(torch.Generator().manual_seed(0)).eval(),
        architecture=architecture,
        normalization=Normalization(torch.full((3, 1, 1), 100.0), torch.full((3, 1, 1), 50.0)),
        class_names=("a", "b", "c"),
        image_size=(32, 32),
        data="few",
        origin="resnet20 trained by resnetkit on few",
    )


@pytest.fixture
def run(tmp_path: Path, network: TrainedNetwork) -> Path:
    """Writes what a finished run consists of."""
    export_weights(network, tmp_path / "run" / "model", "resnetkit")
    (tmp_path / "run" / "recipe.yaml").write_text("model: {}\n")
    (tmp_path / "run" / "model" / "README.md").write_text("# A card\n\nIts text.\n")
    (tmp_path / "run" / "secret.txt").write_text("not to be published")
    return tmp_path / "run"


def test_what_is_pushed_is_pulled_to_the_bit(hub: type[Hub], run: Path, tmp_path: Path) -> None:
    address = push(run, "me/few")
    assert address.endswith(f"/me/few/commit/{COMMIT}")
    assert set(hub.repositories["me/few"]) == FILES
    assert hub.private == {"me/few": True}
    assert {token for _, token in hub.asked} - {None} == {"Bearer hf_ours"}
    assert pull("me/few", tmp_path / "pulled") == tmp_path / "pulled"
    assert {path.name for path in (tmp_path / "pulled").iterdir()} == FILES
    for name in FILES - {"README.md"}:
        assert (tmp_path / "pulled" / name).read_bytes() == (run / "model" / name).read_bytes()
    assert load_network(tmp_path / "pulled").class_names == ("a", "b", "c")


def test_several_pulls_at_once_bring_whole_networks(
    hub: type[Hub], run: Path, tmp_path: Path
) -> None:
    push(run, "me/few")

    def pulled(out: Path) -> bool:
        try:
            pull("me/few", out)
        except StorageError:  # another one was there first
            return False
        return True

    places = [tmp_path / name for name in ("one", "one", "one", "two")]
    with ThreadPoolExecutor(len(places)) as pool:
        done = list(pool.map(pulled, places))
    assert any(done[:3])
    assert done[3]
    for place in places:
        assert {path.name for path in place.iterdir()} == FILES
        assert load_network(place).class_names == ("a", "b", "c")


def test_the_card_is_one_that_the_hub_understands(
    hub: type[Hub], run: Path, tmp_path: Path
) -> None:
    push(run, "me/few", public=True)
    assert hub.private == {"me/few": False}
    card = hub.repositories["me/few"]["README.md"].decode()
    _, header, text = card.split("---\n", 2)
    assert yaml.safe_load(header)["library_name"] == "resnetkit"
    assert text == "# A card\n\nIts text.\n"
    pull("me/few", tmp_path / "pulled")
    push(tmp_path / "pulled", "me/again")
    assert hub.repositories["me/again"] == hub.repositories["me/few"]  # no second header


def test_a_card_that_is_none_is_refused(hub: type[Hub], run: Path) -> None:
    card = run / "model" / "README.md"
    card.write_bytes(b"\xff\xfe")
    with pytest.raises(WeightsError, match=r"README\.md is not text in UTF-8"):
        push(run, "me/few")
    card.unlink()
    os.mkfifo(card)
    with pytest.raises(WeightsError, match=r"README\.md cannot be read: it is not a regular file"):
        push(run, "me/few")
    assert hub.asked == []


def test_a_folder_without_card_gets_one(
    hub: type[Hub], network: TrainedNetwork, tmp_path: Path
) -> None:
    export_weights(network, tmp_path / "own", "resnetkit")
    push(tmp_path / "own", "me/own")
    assert b"# resnet20 trained by resnetkit on few\n" in hub.repositories["me/own"]["README.md"]


def test_what_is_no_run_is_not_pushed(
    hub: type[Hub], network: TrainedNetwork, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="there is no"):
        push(tmp_path / "none", "me/few")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "recipe.yaml").touch()
    with pytest.raises(WeightsError, match="is not finished"):
        push(tmp_path / "unfinished", "me/few")
    torch.save(ARCHITECTURES["resnet18"].build().state_dict(), tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="is not a folder of resnetkit, but of the format"):
        push(tmp_path / "net.pth", "me/few")
    assert hub.asked == []


@pytest.mark.parametrize("name", sorted(FILES))
def test_another_file_than_listed_is_refused_and_removed(
    hub: type[Hub], run: Path, tmp_path: Path, name: str
) -> None:
    push(run, "me/few")
    hub.spoiled.add(name)
    with pytest.raises(TransferError, match=f"me/few sent another file as {name}: its SHA"):
        pull("me/few", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    hub.spoiled.clear()
    pull("me/few", tmp_path / "pulled")  # nothing spoiled stayed in the cache


def test_code_in_a_repository_never_runs(hub: type[Hub], run: Path, tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return (Path.touch, (tmp_path / "trap",))

    push(run, "me/evil")
    stream = io.BytesIO()
    torch.save({"x": Malicious()}, stream)
    hub.repositories["me/evil"]["model.safetensors"] = stream.getvalue()
    hub.repositories["me/evil"]["hubconf.py"] = b"raise SystemExit"
    with pytest.raises(WeightsError, match="is not what was written"):
        pull("me/evil", tmp_path / "pulled")
    assert not (tmp_path / "trap").exists()
    assert not (tmp_path / "pulled").exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(io.BytesIO(stream.getvalue()), weights_only=True)


def test_weights_of_another_network_are_refused(hub: type[Hub], run: Path, tmp_path: Path) -> None:
    push(run, "me/few")
    hub.repositories["me/few"]["model.safetensors"] = safetensors.torch.save(
        {"conv1.weight": torch.zeros(1)}
    )
    with pytest.raises(WeightsError, match="is not what was written"):
        pull("me/few", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_a_repository_of_something_else_is_named(hub: type[Hub], tmp_path: Path) -> None:
    hub.repositories["me/bert"] = {"config.json": b"{}", "../../evil": b"", "tf_model.h5": b""}
    with pytest.raises(
        TransferError, match=r"does not hold a network of resnetkit: it lacks model.safe"
    ):
        pull("me/bert", tmp_path / "pulled")


@pytest.mark.parametrize(
    "name",
    ["few", "me/", "/few", "me/few/more", "../few", "me/..", "me/a..b", "me/a b", "", "-m/x"],
)
def test_names_that_are_no_repository_are_refused(
    hub: type[Hub], run: Path, tmp_path: Path, name: str
) -> None:
    for action in (lambda: push(run, name), lambda: pull(name, tmp_path / "pulled")):
        with pytest.raises(UsageError, match="expected OWNER/NAME"):
            action()
    assert hub.asked == []


@pytest.mark.parametrize("code", [401, 403, 404])
def test_what_the_hub_refuses_is_a_sentence(
    hub: type[Hub], run: Path, tmp_path: Path, code: int
) -> None:
    hub.refusal = code
    for action in (lambda: push(run, "me/few"), lambda: pull("me/few", tmp_path / "pulled")):
        with pytest.raises(TransferError, match=f"the Hub answers {code}: .*log in with") as caught:
            action()
        assert "\n" not in str(caught.value)
        assert "hf_ours" not in str(caught.value)


def test_a_hub_that_is_not_there_is_a_sentence(
    hub: type[Hub], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for action in (lambda: push(run, "me/few"), lambda: pull("me/few", tmp_path / "pulled")):
        with pytest.raises(TransferError, match=r"me/few at http://127.0.0.1:9: .*refused"):
            action()


def test_nothing_is_asked_offline(
    hub: type[Hub], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for action in (lambda: push(run, "me/few"), lambda: pull("me/few", tmp_path / "pulled")):
        with pytest.raises(TransferError, match="HF_HUB_OFFLINE is set"):
            action()
    assert hub.asked == []


def test_nothing_is_replaced(hub: type[Hub], tmp_path: Path) -> None:
    (tmp_path / "pulled").mkdir()
    with pytest.raises(StorageError, match="already exists: choose another path"):
        pull("me/few", tmp_path / "pulled")
    assert hub.asked == []


def test_a_size_that_no_network_has_is_refused_before_the_download(
    hub: type[Hub], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(run, "me/few")
    hub.asked.clear()
    monkeypatch.setattr(Hub, "listed_size", 2**40)
    with pytest.raises(TransferError, match=r"lists 1,099,511,627,776 bytes of config\.json: exp"):
        pull("me/few", tmp_path / "pulled")
    assert [words.split("?")[0] for words, _ in hub.asked] == ["GET /api/models/me/few"]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://elsewhere/blob", "redirects from https to http, where the file could be changed"),
        ("https://elsewhere/blob", "was asked"),
    ],
)
def test_https_never_becomes_http(location: str, message: str) -> None:
    """The library is told about the addresses, so that no server with a certificate is needed."""

    def asked(*_: object, **__: object) -> None:
        raise RuntimeError("was asked")

    facts = SimpleNamespace(etag="0" * 64, commit_hash=COMMIT, size=5, location=location)
    library = SimpleNamespace(
        hf_hub_url=lambda *_, **__: "https://hub/me/few/resolve/main/x",
        get_hf_file_metadata=lambda *_, **__: facts,
        hf_hub_download=asked,
    )
    with pytest.raises((TransferError, RuntimeError), match=message):
        HubClient("me/few", library, None).download("x")


IMPORTED = """
import shlex, sys
from resnetkit.cli.app import run

for words in sys.argv[1:]:
    assert run(shlex.split(words)) == 0, words
    print(words.split()[0], [name for name in sys.modules if name.startswith("huggingface_hub")])
"""


@pytest.mark.slow
def test_the_library_of_the_hub_is_imported_when_it_is_needed(
    network: TrainedNetwork, tmp_path: Path, start: Callable[..., Any]
) -> None:
    export_weights(network, tmp_path / "model", "resnetkit")
    Image.new("RGB", (40, 40)).save(tmp_path / "photo.png")
    commands = [
        "--help",
        f"predict {tmp_path / 'model'} {tmp_path / 'photo.png'}",
        f"train digits --out {tmp_path / 'run'} --set batch_size=360 --set 'length=1 epochs'",
        "weights list",
    ]
    output = start("-c", IMPORTED, *commands).communicate(timeout=100)[0]
    for command in ("--help", "predict", "train"):
        assert f"\n{command} []\n" in output, output
    assert "\nweights ['huggingface_hub" in output  # the test can fail


def imports_of_the_hub(nodes: Iterable[ast.AST]) -> bool:
    return any(
        "huggingface_hub" in (getattr(node, "module", None), *(name.name for name in node.names))
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
    )


def test_no_module_imports_the_library_of_the_hub_when_it_is_imported() -> None:
    """The quick part of the test above, which runs the commands."""
    paths = list(Path(resnetkit.__file__).parent.rglob("*.py"))
    texts = {path.name: path.read_text() for path in paths}
    trees = {name: ast.parse(text) for name, text in texts.items() if "huggingface_hub" in text}
    importers = {name for name, tree in trees.items() if imports_of_the_hub(ast.walk(tree))}
    assert importers == {"hub_client.py", "published.py"}
    assert not [name for name in importers if imports_of_the_hub(trees[name].body)]
