"""Networks of resnetkit to the Hugging Face Hub and from it."""

import re
from pathlib import Path
from typing import Any

from resnetkit.download import MOST_BYTES
from resnetkit.errors import StorageError, TransferError, UsageError, WeightsError
from resnetkit.storage import new_folder, storage_errors, write_synced
from resnetkit.untrusted import read_bounded
from resnetkit.weights.hub_client import check_size, digest_named, hub_client
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork

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
        UsageError: if the name of the repository is impossible.
        WeightsError: when the folder holds no network of resnetkit that can be read again.
        TransferError: when the Hub refuses.
    """
    check_repository(repository)
    contents = folder_contents(folder)
    with hub_client(repository) as client:
        client.api.create_repo(repository, private=not public, exist_ok=True)
        operations = [
            client.library.CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
            for name, content in contents.items()
        ]
        commit = client.api.create_commit(
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
        UsageError: if the name of the repository is impossible.
        TransferError: when the Hub refuses, or has no such network.
        WeightsError: when the files cannot be trusted.
        StorageError: when the folder cannot be written, or something is there already.
    """
    check_repository(repository)
    if out.exists() or out.is_symlink():
        raise StorageError(f"{out} already exists: choose another path with --out.")
    with hub_client(repository) as client:
        about = client.api.model_info(repository, files_metadata=True)
        listed = {sibling.rfilename: sibling for sibling in about.siblings or []}
        check_listed(repository, listed)
        paths = {
            name: client.download(
                name, revision=about.sha, digest=digest_named(listed_digest(listed[name]))
            )
            for name in (*NEEDED, CARD)
            if name in listed
        }
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
        check_size(repository, name, listed[name].size)


def listed_digest(listed: Any) -> str:
    """Returns the digest that the Hub lists for a file: of the content, or of Git for small ones.

    Raises:
        TransferError: if it lists none.
    """
    digest = listed.lfs.sha256 if listed.lfs else listed.blob_id
    if not digest:
        raise TransferError(f"the Hub lists no digest of {listed.rfilename}.")
    return str(digest)
