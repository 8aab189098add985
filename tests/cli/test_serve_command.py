"""The command 'resnet serve': what it refuses before it serves."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Resnet = Callable[..., Any]


def test_a_port_in_use_is_noticed_before_the_model_is_loaded(resnet: Resnet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        answer = resnet("serve", "no-such-model", "--port", str(port))
    assert answer.code == 2
    assert f"port {port} of 127.0.0.1 is in use by another program" in answer.err


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--host", "0.0.0.0"], 2, "others could use the server. Set a token"),
        (["--host", "no.such.host.invalid", "--open"], 2, "there is no such host"),
        (["--port", "70000"], 2, "expected from 0 to 65535"),
        (["--max-body", "0"], 2, "--max-body 0: expected a positive number"),
        (["--timeout", "nan"], 2, "--timeout nan: expected a positive number"),
        (["--allow-origin", "*"], 2, "--allow-origin *: expected scheme and host"),
        (["--allow-host", "*"], 2, "--allow-host *: expected a name or an address"),
        (["--name", "a/b"], 2, "--name a/b: expected letters, digits"),
        (["--name", ".."], 2, "--name ..: expected letters, digits"),
        (["--name", "resnet50.v2"], 3, "no-such-model"),
        (["--max-megapixels", "135"], 2, "--max-megapixels 135: expected at most 134"),
        (["--token-file", "missing"], 2, "--token-file missing: No such file"),
        (["--port", "0"], 3, "no-such-model"),
    ],
)
def test_what_cannot_be_served_is_a_sentence(
    resnet: Resnet, words: list[str], code: int, sentence: str
) -> None:
    answer = resnet("serve", "no-such-model", *words)
    assert (answer.code, answer.out) == (code, "")
    assert sentence in answer.err
    assert answer.err.count("\n") == 1


def test_tokens_are_read_from_a_file_or_the_environment(
    resnet: Resnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("short\n")
    answer = resnet("serve", "no-such-model", "--token-file", "token")
    assert "the token has 5 characters: expected 16 or more" in answer.err
    (tmp_path / "token").write_text("\n")
    assert "it is empty" in resnet("serve", "no-such-model", "--token-file", "token").err
    monkeypatch.setenv("RESNET_SERVE_TOKEN", "tiny")
    assert "the token has 4 characters" in resnet("serve", "no-such-model").err


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "prometheus_client"])
def test_a_missing_extra_is_named(
    resnet: Resnet, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    import importlib

    package = importlib.import_module("resnetkit.serving")
    monkeypatch.delattr(package, "server", raising=False)
    for name in list(sys.modules):
        if name.split(".")[0] == missing or name.startswith("resnetkit.serving."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    answer = resnet("serve", "no-such-model")
    assert answer.code == 2
    assert f"'resnet serve' needs {missing}" in answer.err
    assert "pip install 'resnetkit[serve]'" in answer.err
