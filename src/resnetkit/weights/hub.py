"""Networks of resnetkit to the Hugging Face Hub and from it; needs the extra `hub`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resnetkit.download import MOST_BYTES, check_online
from resnetkit.errors import ResnetkitError, StorageError, TransferError, UsageError, WeightsError
from resnetkit.storage import new_folder, storage_errors, write_synced
from resnetkit.untrusted import printable, read_bounded
from resnetkit.weights.fetch import digest_named
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork
from resnetkit.weights.published import hub_address, hub_cache

__all__ = ["pull", "push"]

NEEDED = ("config.json", "model.safetensors", "preprocessing.safetensors")
CARD = "README.md"
MAX_CARD_BYTES = 10 << 20
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)

CARD_HEADER = """---
library_name: resnetkit
pipeline_tag: image-classification
tags:
- resnet
---
"""


def push(folder: Path, repository: str, *, public: bool = False) -> str:
    """Puts a finished run on the Hub, in one commit, and returns the address of that commit.

    Args:
        folder: of a run, or one that `save_pretrained` or `export_weights` has written.
        repository: OWNER/NAME; made when there is none.
        public: whether everybody may see a repository that is made.

    Raises:
        UsageError: when the repository's name is impossible, or the extra is missing.
        WeightsError: when the folder holds no network of resnetkit that can be read again.
        TransferError: when the Hub refuses.
    """
    check_repository(repository)
    contents = folder_contents(folder)
    with hub(repository) as (library, api):
        api.create_repo(repository, private=not public, exist_ok=True)
        operations = [
            library.CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
            for name, content in contents.items()
        ]
        commit = api.create_commit(
            repository, operations, commit_message="A network trained by resnetkit"
        )
        return str(commit.commit_url)


def folder_contents(folder: Path) -> dict[str, bytes]:
    """Returns the files that are put on the Hub, with a card that the Hub understands.

    Raises:
        WeightsError: when they cannot be read as a network.
    """
    network = check_ours(folder)
    model = folder / "model" if (folder / "recipe.yaml").is_file() else folder
    contents = {name: read_bounded(model / name, MOST_BYTES) for name in NEEDED}
    text = f"# {network.origin}\n"
    if (model / CARD).exists():
        text = card_text(model / CARD)
    header = "" if text.startswith("---\n") else CARD_HEADER
    return {**contents, CARD: f"{header}{text}".encode()}


def card_text(path: Path) -> str:
    """Returns the model card of a network.

    Raises:
        WeightsError: when it is no text.
    """
    try:
        return read_bounded(path, MAX_CARD_BYTES).decode()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise WeightsError(f"{path} is not text in UTF-8: {error}.") from error


def check_ours(folder: Path) -> TrainedNetwork:
    """Checks that a folder holds a network in our own format, and returns it.

    Raises:
        WeightsError: when it does not.
    """
    network = load_network(folder)
    if network.format != "resnetkit" or not folder.is_dir():
        raise WeightsError(
            f"{folder} is no folder of resnetkit, but of the format {network.format}. 'resnet"
            f" weights convert {folder} --to resnetkit --out FOLDER' makes one."
        )
    return network


def pull(repository: str, out: Path) -> Path:
    """Brings a network of resnetkit from the Hub into a folder, whole or not at all.

    Every file has the digest that the Hub names, and the network is built once before it is kept.
    Nothing in the files is executed.

    Args:
        repository: OWNER/NAME.
        out: where nothing lies yet.

    Raises:
        UsageError: when the repository's name is impossible, or the extra is missing.
        TransferError: when the Hub refuses, or has no such network.
        WeightsError: when the files cannot be trusted.
        StorageError: when the folder cannot be written, or something is there already.
    """
    check_repository(repository)
    if out.exists() or out.is_symlink():
        raise StorageError(f"{out} already exists: choose another path with --out.")
    cache = hub_cache()
    with hub(repository) as (library, api):
        about = api.model_info(repository, files_metadata=True)
        listed = {sibling.rfilename: sibling for sibling in about.siblings or []}
        check_listed(repository, listed)
        paths = {
            name: Path(
                library.hf_hub_download(
                    repository,
                    name,
                    revision=about.sha,
                    cache_dir=cache,
                    endpoint=hub_address(),
                )
            )
            for name in (*NEEDED, CARD)
            if name in listed
        }
    for name, path in paths.items():
        check_digest(repository, path, listed[name])
    check_ours(paths["config.json"].parent)
    with storage_errors(out, "Choose another place with --out."), new_folder(out) as temporary:
        for name, path in paths.items():
            write_synced(temporary / name, read_bounded(path, MOST_BYTES))
    return out


def check_repository(repository: str) -> None:
    """Checks that a name is one of a repository, and nothing else.

    Raises:
        UsageError: when it is not.
    """
    if not REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository:
        raise UsageError(
            f"'{repository}' is no repository of the Hugging Face Hub: expected OWNER/NAME."
        )


def check_listed(repository: str, listed: dict[str, Any]) -> None:
    """Checks that a repository lists a network of resnetkit, of a possible size.

    Raises:
        TransferError: when it does not.
    """
    missing = [name for name in NEEDED if name not in listed]
    if missing:
        raise TransferError(
            f"{repository} holds no network of resnetkit: it lacks {', '.join(missing)}. Networks"
            " of timm come with 'resnet weights fetch'."
        )
    for name in NEEDED:
        if (listed[name].size or 0) > MOST_BYTES:
            raise TransferError(
                f"{repository} lists {listed[name].size:,} bytes of {name}, which no network has."
            )


def check_digest(repository: str, path: Path, listed: Any) -> None:
    """Checks that a file is the one that the Hub lists.

    Raises:
        TransferError: when it is not; it is removed then.
    """
    name = listed.lfs.sha256 if listed.lfs else listed.blob_id
    digest = digest_named(name or "nothing")
    if not digest.matches(path):
        found = digest.of(path)
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise TransferError(
            f"{repository} sent another file as {listed.rfilename}: its {digest} is {found},"
            f" expected {name}. It was removed."
        )


@contextmanager
def hub(repository: str) -> Iterator[tuple[Any, Any]]:
    """Yields the library huggingface_hub and its client; what they raise becomes sentences.

    Raises:
        UsageError: when the library is not installed.
        TransferError: when it fails.
    """
    try:
        import huggingface_hub as library
    except ImportError as error:
        raise UsageError(
            "the Hugging Face Hub needs an extra: pip install 'resnetkit[hub]'."
        ) from error
    check_online()
    try:
        yield library, library.HfApi(endpoint=hub_address(), library_name="resnetkit")
    except ResnetkitError:
        raise
    except Exception as error:  # its HTTP client and its uploader raise what has no common root
        raise TransferError(
            f"{repository} at {hub_address()}: {said(error)}. For a private repository, and to"
            " push, log in with 'hf auth login' or set HF_TOKEN."
        ) from error


def said(error: Exception) -> str:
    """Returns what the Hub or the network said, in one line."""
    response = getattr(error, "response", None)
    status = f"the Hub answers {response.status_code}: " if response is not None else ""
    words = getattr(error, "server_message", None) or " ".join(str(error).split())
    return printable(status + (words or type(error).__name__)[:300]).rstrip(". ")
