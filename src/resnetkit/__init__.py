"""resnetkit trains, measures and explains residual networks.

The names below are imported when they are first used, so that `import resnetkit` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resnetkit.data.datasets import open_dataset
    from resnetkit.data.images.check import BadImage
    from resnetkit.evaluation.evaluate import evaluate
    from resnetkit.inference.export import export_network
    from resnetkit.inference.parity import load_exported
    from resnetkit.inference.predictor import Answer, Predictor, load_predictor
    from resnetkit.models.backbone import Backbone
    from resnetkit.models.summary import trace
    from resnetkit.models.zoo import ARCHITECTURES, cifar_resnet, create_model
    from resnetkit.studies.runner import run_study
    from resnetkit.studies.table import STUDIES
    from resnetkit.training.loop import train
    from resnetkit.training.recipe import Recipe, load_recipe
    from resnetkit.training.run_folder import Run, read_run
    from resnetkit.weights.export import export_weights
    from resnetkit.weights.load import load_network
    from resnetkit.weights.pretrained import backbone, from_pretrained, save_pretrained

__all__ = [
    "ARCHITECTURES",
    "STUDIES",
    "Answer",
    "Backbone",
    "BadImage",
    "Predictor",
    "Recipe",
    "Run",
    "backbone",
    "cifar_resnet",
    "create_model",
    "evaluate",
    "export_network",
    "export_weights",
    "from_pretrained",
    "load_exported",
    "load_network",
    "load_predictor",
    "load_recipe",
    "open_dataset",
    "read_run",
    "run_study",
    "save_pretrained",
    "trace",
    "train",
]

HOMES = {
    "ARCHITECTURES": "models.zoo",
    "STUDIES": "studies.table",
    "Answer": "inference.predictor",
    "Backbone": "models.backbone",
    "BadImage": "data.images.check",
    "Predictor": "inference.predictor",
    "Recipe": "training.recipe",
    "Run": "training.run_folder",
    "backbone": "weights.pretrained",
    "cifar_resnet": "models.zoo",
    "create_model": "models.zoo",
    "evaluate": "evaluation.evaluate",
    "export_network": "inference.export",
    "export_weights": "weights.export",
    "from_pretrained": "weights.pretrained",
    "load_exported": "inference.parity",
    "load_network": "weights.load",
    "load_predictor": "inference.predictor",
    "load_recipe": "training.recipe",
    "open_dataset": "data.datasets",
    "read_run": "training.run_folder",
    "run_study": "studies.runner",
    "save_pretrained": "weights.pretrained",
    "trace": "models.summary",
    "train": "training.loop",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("importlib.metadata").version("resnetkit")
    if name not in HOMES:
        raise AttributeError(f"module 'resnetkit' has no attribute '{name}'")
    return getattr(import_module(f"resnetkit.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
