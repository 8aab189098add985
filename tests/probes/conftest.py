"""Small networks and images to look into."""

import copy
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from resnetkit.models.resnet import ResNet
from resnetkit.models.zoo import cifar_resnet


def small_network(depth: int = 14, **options: object) -> ResNet:
    """Returns a copy of a CIFAR network whose running statistics have seen some images."""
    return copy.deepcopy(network_once(depth, **options))


@cache
def network_once(depth: int, **options: object) -> ResNet:
    generator = torch.Generator().manual_seed(depth)
    model = cifar_resnet(depth, generator=generator, **options).double()
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(6, 3, 16, 16, generator=generator, dtype=torch.float64))
    return model


@pytest.fixture
def network() -> Callable[..., ResNet]:
    return small_network


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(6, 3, 16, 16, generator=generator, dtype=torch.float64)


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([0, 1, 2, 3, 4, 5])
