"""Small networks of torchvision, and a folder that transformers reads."""

from pathlib import Path

import pytest
from torch import nn
from torchvision.models.resnet import BasicBlock

from helpers.weights import HELD, narrow, torchvision_twin
from resnetkit.weights.export import export_weights


@pytest.fixture(scope="session")
def bottleneck() -> nn.Module:
    return torchvision_twin()


@pytest.fixture(scope="session")
def basic() -> nn.Module:
    return torchvision_twin(BasicBlock)


@pytest.fixture(scope="session")
def folder_of_transformers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("theirs") / "net"
    export_weights(narrow(**HELD["transformers, basic"][1]), path, "transformers")
    return path
