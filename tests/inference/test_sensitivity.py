"""Which layer int8 harms, on networks in which the guilty one is known."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch

from resnetkit.inference.sensitivity import harm_by_layer, rounded
from resnetkit.models.zoo import ARCHITECTURES, cifar
from resnetkit.weights.network import TrainedNetwork

MakeNetwork = Callable[..., TrainedNetwork]


@pytest.fixture(scope="module")
def network(make_network: MakeNetwork) -> TrainedNetwork:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "resnet8", cifar(8))
        return make_network(name="resnet8", size=(16, 16))


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 3, 16, 16), dtype=np.uint8)


def scaled(network: TrainedNetwork, block: str, factor: float) -> TrainedNetwork:
    """Returns the same function, with one channel inside a block `factor` times as large."""
    damaged = deepcopy(network)
    with torch.no_grad():
        norm = damaged.model.get_submodule(f"{block}.bn1")
        norm.weight[0] *= factor
        norm.bias[0] *= factor
        damaged.model.get_submodule(f"{block}.conv2").weight[:, 0] /= factor
    return damaged


def test_the_layer_that_reads_an_outlier_channel_is_to_blame(
    network: TrainedNetwork, pixels: np.ndarray
) -> None:
    damaged = scaled(network, "layer2.0", 3e4)
    harms = harm_by_layer(damaged, pixels)
    assert harms[0].layer == "layer2.0.conv2"
    assert harms[0].changed > 20
    assert harms[1].logits_error < harms[0].logits_error / 5


def test_every_layer_is_measured_and_the_network_is_as_before(
    network: TrainedNetwork, pixels: np.ndarray
) -> None:
    weights = deepcopy(network.model.state_dict())
    fractions: list[float] = []
    harms = harm_by_layer(network, pixels, fractions.append)
    layers = {
        name
        for name, module in network.model.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
    }
    assert {harm.layer for harm in harms} == layers
    assert fractions[-1] == 1
    assert all(0 < harm.logits_error < 0.05 for harm in harms)
    for name, value in network.model.state_dict().items():
        assert torch.equal(value, weights[name])


@pytest.mark.parametrize("signed", [True, False])
def test_rounding_has_at_most_256_values_within_half_a_step(signed: bool) -> None:
    values = torch.linspace(-3 if signed else 0, 3, 5001)
    result = rounded(values, torch.tensor(3.0), signed=signed)
    assert len(result.unique()) <= 257
    assert (result - values).abs().max() <= (6 if signed else 3) / 255 / 2 + 1e-6
