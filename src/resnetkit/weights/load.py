"""From a path to a trained network, whatever the format."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from resnetkit.data.splits import Split
from resnetkit.errors import UsageError, WeightsError
from resnetkit.strict_yaml import YAML_ERRORS, read_yaml
from resnetkit.untrusted import printable
from resnetkit.weights.akamaster import is_akamaster, load_akamaster
from resnetkit.weights.caffe import is_caffe, load_caffe
from resnetkit.weights.checkpoints import read_state, split_entry
from resnetkit.weights.configuration import WEIGHT_FILES, read_configuration
from resnetkit.weights.conventions import VARIANTS, check_variant
from resnetkit.weights.heads import with_known_head
from resnetkit.weights.keras import is_keras, load_keras
from resnetkit.weights.native import load_model_folder
from resnetkit.weights.network import RunImages, TrainedNetwork, with_remarks
from resnetkit.weights.published import find_published, similar
from resnetkit.weights.state_dicts import is_timm, is_torchvision, load_timm, load_torchvision
from resnetkit.weights.tensors import read_beginning
from resnetkit.weights.transformers import is_transformers, is_transformers_state, load_transformers

__all__ = ["is_trained", "load_network"]


def is_trained(name: str) -> bool:
    """Returns whether a word means a trained network: there is such a path, or published weights.

    The latter need not be on this machine.
    """
    return Path(name).exists() or find_published(name) is not None


def load_network(path: Path | str, *, variant: str | None = None) -> TrainedNetwork:
    """Loads a trained network; the format is recognized by what is there, not by the name.

    Args:
        path: of a run folder, of its `model` folder, of a folder of timm or transformers, or of a
            file of weights. A file that belongs to the config.json beside it is read with it. Of
            a file with several entries, FILE#ENTRY names one.
            Where nothing lies there, the name of published weights, such as resnet50.a1_in1k,
            which 'resnet weights fetch' has brought.
        variant: where bottlenecks stride, v1 or v1.5, which some files do not say.

    Raises:
        WeightsError: when there is nothing, or not exactly the weights of a known network; when the
            variant is neither in the file nor named, or both and not the same.
        UsageError: when there is no such variant, or the format needs an extra.
    """
    if variant and variant not in VARIANTS:
        raise UsageError(f"unknown variant '{variant}': expected {' or '.join(VARIANTS)}.")
    path, part = split_entry(Path(path))
    published = None
    if not path.exists():
        published = find_published(str(path))
        if published is None:
            raise WeightsError(
                f"there is no {path}: expected a run folder or a file of weights."
                + similar(str(path))
            )
        path = published.located()
    if not path.is_file() and not path.is_dir():
        raise WeightsError(f"{path} is neither a file nor a folder.")
    known = published.variant if published else variant
    network = load_file(path, known, part) if path.is_file() else load_folder(path)
    check_variant(path, network.architecture, variant)
    if published is None:
        return network
    origin, crop_pct = f"{published.name}: {network.origin}", published.crop_pct or network.crop_pct
    return replace(network, origin=origin, crop_pct=crop_pct)


def load_folder(path: Path) -> TrainedNetwork:
    """Loads what a folder holds."""
    folder = path / "model" if (path / "recipe.yaml").is_file() else path
    if (folder / "config.json").is_file():
        network = load_configured(folder / "config.json")
        return replace(network, images=images_of_run(folder.parent))
    if folder != path:
        raise WeightsError(
            f"the run in {path} is not finished: it has no model yet. 'resnet train' with its"
            " recipe goes on with it."
        )
    raise WeightsError(f"{path} holds no network: it has neither recipe.yaml nor config.json.")


def images_of_run(folder: Path) -> RunImages | None:
    """Returns the user's images that a run has listed; None where there is no run, or no list.

    Raises:
        WeightsError: when its recipe cannot be read.
    """
    recipe, listed = folder / "recipe.yaml", folder / "images.csv"
    if not recipe.is_file() or not listed.is_file():
        return None
    try:
        data = dict(read_yaml(recipe)["data"])
        learned: frozenset[Split] = (
            frozenset(("train", "validation"))
            if data.get("train_on") == "train+validation"
            else frozenset(("train",))
        )
        return RunImages(listed, Path(data["name"]), learned)
    except (OSError, TypeError, *YAML_ERRORS) as error:
        raise WeightsError(
            f"{recipe} is not the recipe of a run ({error}). Put the file back, or name the folder"
            " 'model' in it."
        ) from error


def load_configured(configuration: Path) -> TrainedNetwork:
    """Loads the network that a config.json describes."""
    facts = read_configuration(configuration)
    if is_timm(facts):
        return load_timm(configuration, facts)
    if is_transformers(facts):
        return load_transformers(configuration, facts)
    return load_model_folder(configuration.parent)


def load_file(path: Path, variant: str | None, entry: str = "") -> TrainedNetwork:
    """Loads a single file of weights."""
    if is_configured(path) and not entry:
        return load_configured(path.with_name("config.json"))
    beginning = read_beginning(path, 16)
    if is_keras(beginning):
        return load_keras(path)
    if is_caffe(beginning):
        return load_caffe(path)
    state = read_state(path, entry)
    if is_akamaster(state.tensors):
        return with_remarks(load_akamaster(path, state.tensors), state)
    if is_torchvision(state.tensors):
        state = with_known_head(path, state)
        return with_remarks(load_torchvision(path, state.tensors, variant), state)
    if is_transformers_state(state.tensors):
        raise WeightsError(
            f"{path} has the names of Hugging Face transformers, but no config.json of theirs lies"
            " beside it: put the whole folder together, and name the folder."
        )
    names = ", ".join(printable(name)[:60] for name in list(state.tensors)[:3])
    raise WeightsError(
        f"{path} holds weights of no format that resnetkit knows: its tensors are named {names},"
        " ... resnetkit reads its own model folders, torchvision, timm, transformers,"
        " keras.applications, the authors' Caffe files and the .th files of"
        " akamaster/pytorch_resnet_cifar10. Name one of these, or rename the tensors as"
        " torchvision names them: conv1.weight, layer1.0.conv1.weight, ..., fc.bias."
    )


def is_configured(path: Path) -> bool:
    """Returns whether a file belongs to a config.json beside it that describes a network."""
    configuration = path.with_name("config.json")
    if path.name not in WEIGHT_FILES or not os.path.lexists(configuration):  # a broken link is one
        return False
    facts: dict[str, Any] = read_configuration(configuration)
    own = {"layers", "class_names", "image_size"} <= set(facts)
    return own or is_timm(facts) or is_transformers(facts)
