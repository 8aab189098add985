"""Loads a trained network from a path, whatever its format."""

import os
from dataclasses import replace
from pathlib import Path

from resnetkit.data.splits import Split
from resnetkit.errors import UsageError, WeightsError
from resnetkit.strict_yaml import YAML_ERRORS, read_yaml
from resnetkit.untrusted import printable
from resnetkit.weights.checkpoints import split_entry
from resnetkit.weights.configuration import described_files, read_configuration
from resnetkit.weights.exported import is_exported
from resnetkit.weights.format import WeightsSource
from resnetkit.weights.formats import FORMATS, recognized_format
from resnetkit.weights.network import RunImages, TrainedNetwork
from resnetkit.weights.published import find_published, similar
from resnetkit.weights.variants import VARIANTS, check_variant

__all__ = ["is_trained", "load_network"]


def is_trained(name: str) -> bool:
    """Returns whether a name is that of an existing path, FILE#ENTRY, or of published weights.

    Published weights need not be on this machine.
    """
    path, _ = split_entry(Path(name))
    return path.exists() or find_published(name) is not None


def load_network(path: Path | str, *, variant: str | None = None) -> TrainedNetwork:
    """Loads a trained network; the format is recognized by the content, not by the name.

    Args:
        path: a run folder, its folder `model`, a folder of timm or transformers, or a file of
            weights. If a config.json next to the file describes it, both are read together.
            FILE#ENTRY selects an entry of a file with several networks.
            If the path does not exist, the name of published weights that
            'resnet weights fetch' has downloaded, such as resnet50.a1_in1k.
        variant: v1 or v1.5, for a file that does not state where its bottlenecks stride.

    Raises:
        WeightsError: if there are no weights, or not exactly those of a known network; or if the
            variant is neither stated by the file nor given, or both contradict each other.
        UsageError: if the variant does not exist, or the format requires an extra.
    """
    if variant and variant not in VARIANTS:
        raise UsageError(f"unknown variant '{variant}': expected {' or '.join(VARIANTS)}.")
    path, entry = split_entry(Path(path))
    published = None
    if not path.exists():
        published = find_published(str(path))
        if published is None:
            raise WeightsError(
                f"there is no {path}: expected a run folder or a file of weights."
                + similar(str(path))
            )
        path = published.required_path()
    if not path.is_file() and not path.is_dir():
        raise WeightsError(f"{path} is neither a file nor a folder.")
    stated = published.variant if published else variant
    network = load_file(path, stated, entry) if path.is_file() else load_folder(path)
    check_variant(path, network.architecture, variant)
    if published is None:
        return network
    origin, crop_pct = f"{published.name}: {network.origin}", published.crop_pct or network.crop_pct
    return replace(network, origin=origin, crop_pct=crop_pct)


def load_folder(path: Path) -> TrainedNetwork:
    """Loads the network of a run folder, or of a folder with a config.json."""
    folder = path / "model" if (path / "recipe.yaml").is_file() else path
    if is_exported(folder):
        raise WeightsError(
            f"{path} is an exported network, whose graph is for an engine: 'resnet predict',"
            " 'evaluate', 'features' and 'nearest' take it. For anything else, use the network that"
            " it was exported from."
        )
    if (folder / "config.json").is_file():
        network = load_configured(folder / "config.json")
        return replace(network, images=images_of_run(folder.parent))
    if folder != path:
        raise WeightsError(
            f"the run in {path} is not finished: it has no model yet. Resume it with"
            " 'resnet train' and its recipe."
        )
    raise WeightsError(f"{path} holds no network: it has neither recipe.yaml nor config.json.")


def images_of_run(folder: Path) -> RunImages | None:
    """Returns the user's images that a run has listed; None without a run or a list.

    Raises:
        WeightsError: if its recipe cannot be read.
    """
    recipe, image_list = folder / "recipe.yaml", folder / "images.csv"
    if not recipe.is_file() or not image_list.is_file():
        return None
    try:
        data = dict(read_yaml(recipe)["data"])
        learned: frozenset[Split] = (
            frozenset(("train", "validation"))
            if data.get("train_on") == "train+validation"
            else frozenset(("train",))
        )
        return RunImages(image_list, Path(data["name"]), learned)
    except (OSError, TypeError, *YAML_ERRORS) as error:
        raise WeightsError(
            f"{recipe} is not the recipe of a run ({error}). Restore the file, or give the path of"
            " the folder 'model' in it."
        ) from error


def load_configured(configuration: Path) -> TrainedNetwork:
    """Loads the network that a config.json describes.

    Raises:
        WeightsError: if it is of another program.
    """
    source = WeightsSource(configuration, read_configuration(configuration))
    format = recognized_format(source)  # noqa: A001
    if format is None:
        raise WeightsError(
            f"{configuration} is of no format that resnetkit reads: expected timm (pretrained_cfg),"
            " transformers (model_type) or resnetkit (layers, class_names, image_size). If it does"
            " not belong to the weights next to it, give the path of their file."
        )
    return format.load(source)


def load_file(path: Path, variant: str | None, entry: str | None) -> TrainedNetwork:
    """Loads a single file of weights."""
    source = configured(path, entry) or WeightsSource(path, variant=variant, entry=entry)
    format = recognized_format(source)  # noqa: A001
    if format is not None:
        return format.load(source)
    names = ", ".join(printable(name)[:60] for name in list(source.state.tensors)[:3])
    raise WeightsError(
        f"{path} is in no format that resnetkit reads: its tensors are named {names}, ..."
        f" Expected a file of {', '.join(FORMATS)}. Convert it to one of these, or rename the"
        " tensors as torchvision does: conv1.weight, layer1.0.conv1.weight, ..., fc.bias."
    )


def configured(path: Path, entry: str | None) -> WeightsSource | None:
    """Returns a file with the config.json next to it; None if there is none that describes it.

    Raises:
        WeightsError: if the config.json cannot be read.
    """
    configuration = path.with_name("config.json")
    if not os.path.lexists(configuration) or path not in described_files(configuration):
        return None  # a broken link exists, and cannot be read
    try:
        config = read_configuration(configuration)
    except WeightsError as error:
        raise WeightsError(
            f"{error} If it does not belong to {path.name}, move one of them to another folder."
        ) from error
    source = WeightsSource(configuration, config, entry=entry, named=path)
    return source if recognized_format(source) else None
