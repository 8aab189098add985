"""The finished network as a folder to exchange: weights, configuration, preprocessing, card."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from resnetkit.data.splits import Split
from resnetkit.models.complexity import trace
from resnetkit.storage import replaced_folder, write_synced
from resnetkit.training.bench import Bench
from resnetkit.training.checkpoint import tensors_to_bytes
from resnetkit.training.tally import Score

__all__ = ["export_model"]


def export_model(bench: Bench, folder: Path, scores: dict[Split, Score]) -> None:
    """Writes weights, preprocessing, configuration and card; the folder is there whole or not."""
    normalization = bench.feed.normalization
    contents = {
        "model.safetensors": tensors_to_bytes(bench.result.state_dict()),
        "preprocessing.safetensors": tensors_to_bytes(
            {"mean": normalization.mean.cpu(), "std": normalization.std.cpu()}
        ),
        "config.json": json.dumps(configuration(bench), indent=1).encode(),
        "README.md": card(bench, scores).encode(),
    }
    with replaced_folder(folder) as temporary:
        for name, content in contents.items():
            write_synced(temporary / name, content)


def configuration(bench: Bench) -> dict[str, Any]:
    """Returns what is needed, besides the tensors, to build the network and read its answers.

    Where own images lie is nobody's business who is given the network: they are not named.
    """
    data = bench.dataset
    return {
        "architecture": bench.recipe.model.name,
        "layers": asdict(bench.architecture),
        "class_names": list(bench.dataset.class_names),
        "image_size": list(bench.dataset.image_size),
        "shown": bench.dataset.shown,
        "recipe_sha256": bench.recipe.digest,
        "origin": f"{bench.recipe.model.name} trained by resnetkit on {data.title}",
        "data": {"name": "" if data.own else data.name, "sha256": data.sha256},
    }


def card(bench: Bench, scores: dict[Split, Score]) -> str:
    """Returns the model card."""
    height, width = bench.dataset.image_size
    complexity = trace(bench.architecture, height)
    rows = "\n".join(
        f"| {split} | {score.error:.2f} | {score.loss:.4f} | {score.count:,} |"
        for split, score in scores.items()
    )
    name, data = bench.recipe.model.name, bench.dataset.title
    return f"""# {name} trained on {data}

{complexity.depth} layers, {complexity.parameters:,} parameters, {
        complexity.multiply_adds / 1e6:.1f} million multiply-adds for an image of {height}x{
        width
    } pixels with
{bench.dataset.channels} channel(s). Trained by resnetkit from seed {bench.recipe.seed}; the
recipe's SHA-256 is {bench.recipe.digest}.

| part | top-1 error (%) | loss (nats) | images |
|---|---|---|---|
{rows}

Input: (pixels from 0 to 255 - mean) / std with the tensors of `preprocessing.safetensors`. Classes:
{", ".join(bench.dataset.class_names)}.
"""
