"""Uploads runs to the Hugging Face Hub, and downloads them."""

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
    """Uploads a finished run to the Hub in one commit, and returns the address of the commit.

    Args:
        folder: a run folder, or a folder of `save_pretrained` or `export_weights`.
        repository: OWNER/NAME; created if it does not exist.
        public: whether a repository that is created is public.

    Raises:
        UsageError: if the name of the repository is impossible.
        WeightsError: if the folder does not hold a network of resnetkit.
        TransferError: if the Hub refuses.
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
    """Returns the files to upload, with a model card that the Hub understands.

    Raises:
        WeightsError: if they cannot be read as a network.
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
        WeightsError: if it is not text in UTF-8.
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
        WeightsError: if it does not.
    """
    network = load_network(folder)
    if network.format != "resnetkit" or not folder.is_dir():
        raise WeightsError(
            f"{folder} is not a folder of resnetkit, but of the format {network.format}. Create"
            f" one with 'resnet weights convert {folder} --to resnetkit --out FOLDER'."
        )
    return network


def pull(repository: str, out: Path) -> Path:
    """Downloads a network of resnetkit from the Hub to a folder, which is created atomically.

    Every file must have the digest that the Hub lists, and the network is built once before the
    folder is created. Nothing in the files is executed.

    Args:
        repository: OWNER/NAME.
        out: folder to create.

    Raises:
        UsageError: if the name of the repository is impossible.
        TransferError: if the Hub refuses, or has no such network.
        WeightsError: if the files cannot be trusted.
        StorageError: if the folder cannot be written, or exists already.
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
    with storage_errors(out, "Choose another path with --out."), new_folder(out) as temporary:
        for name, path in paths.items():
            write_synced(temporary / name, read_bounded(path, MOST_BYTES))
    return out


def check_repository(repository: str) -> None:
    """Checks that a name is a valid name of a repository.

    Raises:
        UsageError: if it is not.
    """
    if not REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository:
        raise UsageError(
            f"'{repository}' is not a repository of the Hugging Face Hub: expected OWNER/NAME."
        )


def check_listed(repository: str, listed: dict[str, Any]) -> None:
    """Checks that a repository lists a network of resnetkit, of a possible size.

    Raises:
        TransferError: if it does not.
    """
    missing = [name for name in NEEDED if name not in listed]
    if missing:
        raise TransferError(
            f"{repository} does not hold a network of resnetkit: it lacks {', '.join(missing)}."
            " Download networks of timm with 'resnet weights fetch'."
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
