"""Runs of the study of degradation that were never trained, for the interactive page."""

import json
import random
from pathlib import Path
from typing import Any

import torch

from resnetkit.data.normalization import Normalization
from resnetkit.report.play.selection import select_runs
from resnetkit.studies.runner import Task
from resnetkit.training.run_folder import MODEL_FILES
from resnetkit.weights.native import model_folder_files
from resnetkit.weights.network import TrainedNetwork

EPOCHS, STEPS = 13, 19
SNAPSHOTS = (0, 61, 123, 185, 247)
FINAL_ERRORS = {"plain20": 1.5, "plain32": 11.0, "plain56": 72.0}


def write_studies(root: Path) -> Path:
    """Writes finished runs of degradation with made-up measurements; returns `root`.

    The four networks that answer in the page have random weights.
    """
    for task in select_runs(root).tasks:
        write_run(task)
    return root


def write_run(task: Task) -> None:
    """Writes a finished run with all measurements of its task."""
    name, dice = task.recipe.model.name, random.Random(task.folder.name)
    files = {"recipe.yaml": task.recipe.to_yaml(), "environment.json": json.dumps([session()])}
    events = [*epochs(name, dice), final(name, dice)]
    files["metrics.jsonl"] = "".join(json.dumps(event) + "\n" for event in events)
    is_live = "lesions" in task.measurements
    model = network_files(task) if is_live else dict.fromkeys(MODEL_FILES, b"{}")
    for probe in task.measurements:
        files[f"probes/{probe}.json"] = json.dumps(PROBES[probe](name, dice))
    for path, content in files.items():
        target = task.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    (task.folder / "model").mkdir()
    for path, data in model.items():
        (task.folder / "model" / path).write_bytes(data)


def epochs(name: str, dice: random.Random) -> list[dict[str, Any]]:
    ending = FINAL_ERRORS.get(name, 0.7)
    errors = [ending + (89 - ending) * 0.7**epoch + dice.random() for epoch in range(EPOCHS)]
    return [
        {"event": "epoch", "epoch": epoch, "step": epoch * STEPS, "train_loss": error / 40,
         "train_error": error, "test_loss": error / 35, "test_error": error + dice.random()}
        for epoch, error in enumerate(errors, 1)
    ]  # fmt: skip


def final(name: str, dice: random.Random) -> dict[str, Any]:
    error = FINAL_ERRORS.get(name, 0.7) + dice.random() / 3
    score = {"loss": 0.1, "error": error, "top5_error": 0.1, "count": 359}
    confusion = [[36 * (i == j) for j in range(10)] for i in range(10)]
    test = {**score, "error": error + 1, "confusion": confusion}
    return {
        "event": "final",
        "step": EPOCHS * STEPS,
        "reached": False,
        "train": score,
        "test": test,
    }


def session() -> dict[str, Any]:
    return {
        "started": "2026-11-20T05:00:00+00:00", "from_step": 0, "total_steps": EPOCHS * STEPS,
        "versions": {"torch": "2.15.0"}, "hardware": {"processor": "a processor", "cores": 2},
        "precision": {"name": "float32", "reason": "the recipe asks for it"},
        "kernels": {"name": "modules", "reason": "the recipe asks for them"},
        "data": {"name": "digits", "classes": "10 classes", "sha256": "0" * 64},
    }  # fmt: skip


def network_files(task: Task) -> dict[str, bytes]:
    """Returns the files of `model/` for a network with random weights."""
    architecture = task.recipe.architecture(num_classes=10, in_channels=1)
    return model_folder_files(
        TrainedNetwork(
            model=architecture.build(torch.Generator().manual_seed(0)).eval(),
            architecture=architecture,
            normalization=Normalization(torch.full((1, 1, 1), 76.0), torch.full((1, 1, 1), 95.0)),
            class_names=tuple("0123456789"),
            image_size=(8, 8),
            data="digits",
            origin="a network that was never trained",
        )
    )


def depth_of(name: str) -> int:
    return int("".join(filter(str.isdigit, name)))


def layers(name: str, dice: random.Random) -> dict[str, list[float]]:
    depth = depth_of(name)
    values: dict[str, list[float]] = {"steps": [float(step) for step in SNAPSHOTS]}
    for step in SNAPSHOTS:
        values[f"gradients {step}"] = [10 ** (dice.random() - 2) for _ in range(depth - 1)]
        values[f"responses {step}"] = [1 + dice.random() for _ in range(depth - 1)]
        blocks = 0 if name.startswith("plain") else (depth - 2) // 2
        values[f"residuals {step}"] = [dice.random() for _ in range(blocks)]
    return values


def lesions(name: str, dice: random.Random) -> dict[str, list[float]]:
    removable = (depth_of(name) - 2) // 2 - 2
    return {
        "whole": [2.0],
        "one": [2 + 30 * dice.random() for _ in range(removable)],
        "swapped": [2 + 30 * dice.random() for _ in range(removable - 3)],
    }


def paths(name: str, dice: random.Random) -> dict[str, list[float]]:
    blocks = range((depth_of(name) - 2) // 2 + 1)
    single = [10.0 ** -(2 + block / 2) for block in blocks]
    total = [1 + dice.random() for _ in blocks]
    return {"blocks": [float(block) for block in blocks], "gradient": single, "total": total}


PROBES = {"layers": layers, "lesions": lesions, "paths": paths}
