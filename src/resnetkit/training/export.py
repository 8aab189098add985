"""The model folder of a finished run: weights, configuration, preprocessing and model card."""

from pathlib import Path

import torch
from torch import nn

from resnetkit.data.splits import Split
from resnetkit.evaluation.metric_sums import Score
from resnetkit.models.resnet import ResNet
from resnetkit.models.summary import count
from resnetkit.storage import replaced_folder, write_synced
from resnetkit.training.setup import TrainingSetup
from resnetkit.weights.native import model_folder_files
from resnetkit.weights.network import TrainedNetwork

__all__ = ["export_model"]


def export_model(
    setup: TrainingSetup, network: nn.Module, folder: Path, scores: dict[Split, Score]
) -> None:
    """Writes weights, preprocessing, configuration and card; the folder is created atomically."""
    data = setup.dataset
    facts = {
        "architecture": setup.recipe.model.name,
        "recipe_sha256": setup.recipe.digest,
        "data": {"name": "" if data.custom else data.name, "sha256": data.sha256},
    }
    contents = model_folder_files(finished_network(setup, network), **facts)
    contents["README.md"] = card(setup, scores).encode(errors="backslashreplace")
    with replaced_folder(folder) as temporary:
        for name, content in contents.items():
            write_synced(temporary / name, content)


def finished_network(setup: TrainingSetup, network: nn.Module) -> TrainedNetwork:
    """Returns the network with the preprocessing and class names that its use needs."""
    data = setup.dataset
    assert isinstance(network, ResNet)
    title = data.title.encode(errors="backslashreplace").decode()  # of a path, not always UTF-8
    return TrainedNetwork(
        model=network,
        architecture=setup.architecture,
        normalization=setup.loader.normalization.to(torch.device("cpu")),
        class_names=data.class_names,
        image_size=data.image_size,
        data="" if data.custom else data.name,
        origin=f"{setup.recipe.model.name} trained by resnetkit on {title}",
        crop_pct=data.crop_pct,
    )


def card(setup: TrainingSetup, scores: dict[Split, Score]) -> str:
    """Returns the model card."""
    height, width = setup.dataset.image_size
    totals = count(setup.architecture, height)
    rows = "\n".join(
        f"| {split} | {score.error:.2f} | {score.loss:.4f} | {score.count:,} |"
        for split, score in scores.items()
    )
    name, data = setup.recipe.model.name, setup.dataset.title
    return f"""# {name} trained on {data}

{totals.depth} layers, {totals.parameters:,} parameters, {
        totals.multiply_adds / 1e6:.1f} million multiply-adds for an image of {height}x{
        width
    } pixels with
{setup.dataset.channels} channel(s). Trained by resnetkit from seed {setup.recipe.seed}; the
recipe's SHA-256 is {setup.recipe.digest}.

| split | top-1 error (%) | loss (nats) | images |
|---|---|---|---|
{rows}

Input: (pixels from 0 to 255 - mean) / std with the tensors of `preprocessing.safetensors`. Classes:
{", ".join(setup.dataset.class_names)}.
"""
