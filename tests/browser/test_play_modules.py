"""The modules of the interactive page against torch and probes/lesions, by way of node."""

import json
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers.browser import node
from resnetkit.data.dataset import Dataset
from resnetkit.data.datasets import open_digits
from resnetkit.data.normalization import measure_normalization
from resnetkit.errors import ArchitectureError, WeightsError
from resnetkit.models.resnet import ResNet
from resnetkit.models.zoo import cifar, find_architecture
from resnetkit.probes.hooks import inputs_and_outputs
from resnetkit.probes.lesions import (
    neighbors,
    removable_blocks,
    swapped,
    top1_test_error,
    without_blocks,
)
from resnetkit.report.play.weights import pack_digits, pack_network
from resnetkit.training.loop import train
from resnetkit.training.recipe import load_recipe
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork

pytestmark = pytest.mark.browser

Change = dict[str, list[str]]
PROMISED = 1e-4  # largest error of a logit, as a fraction of the largest logit of the image


def ask(kind: str, **question: object) -> Any:
    """Returns what the modules answer, in node."""
    command = [node(), str(Path(__file__).with_name("answer.mjs"))]
    outcome = subprocess.run(
        command, input=json.dumps({"kind": kind, **question}), capture_output=True, text=True
    )
    assert outcome.returncode == 0, outcome.stderr
    return json.loads(outcome.stdout)


def some_digits(count: int = 60) -> Dataset:
    """Returns the digits with fewer of them in the test split."""
    dataset = open_digits()
    return replace(dataset, splits={**dataset.splits, "test": dataset.splits["test"][:count]})


def small_network(dataset: Dataset, depth: int = 8, **options: Any) -> TrainedNetwork:
    """Returns a network of random weights whose normalization has seen the digits."""
    architecture = cifar(depth).with_options(num_classes=10, in_channels=1, **options)
    generator = torch.Generator().manual_seed(depth)
    model = architecture.build(generator)
    normalization = measure_normalization(dataset.images, "pixel-mean")
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
        for _ in range(20):
            model(normalization(dataset.images[:200]))
    return TrainedNetwork(
        model=model.eval(),
        architecture=architecture,
        normalization=normalization,
        class_names=dataset.class_names,
        image_size=(8, 8),
        data="digits",
        origin="a network of the tests",
    )


def changed(model: ResNet, change: Change) -> AbstractContextManager[None]:
    """Changes a network by probes/lesions."""
    if change.get("off"):
        return without_blocks(model, change["off"])
    if change.get("exchanged"):
        return swapped(model, *change["exchanged"])
    return nullcontext()


def all_changes(model: ResNet) -> list[Change]:
    """Returns no change, each block off, and each two neighbors exchanged."""
    blocks = removable_blocks(model)
    return [
        {},
        *({"off": [name]} for name in blocks),
        *({"exchanged": list(pair)} for pair in neighbors(blocks)),
    ]


def torch_logits(network: TrainedNetwork, dataset: Dataset) -> Tensor:
    with torch.inference_mode():
        images = dataset.images[dataset.splits["test"]]
        return network.model(network.normalization(images)).double()


def check_logits(ours: list[list[float]], expected: Tensor) -> None:
    """Checks the logits against the promise, and the classes."""
    logits = torch.tensor(ours, dtype=torch.float64)
    errors = (logits - expected).abs().amax(1) / expected.abs().amax(1)
    assert errors.max() < PROMISED
    assert torch.equal(logits.argmax(1), expected.argmax(1))


@pytest.mark.parametrize(
    "options",
    [
        {"shortcut": "none"},
        {"shortcut": "A"},
        pytest.param({"shortcut": "A", "padding": "split"}, marks=pytest.mark.slow),
        pytest.param({"shortcut": "B"}, marks=pytest.mark.slow),
        {"shortcut": "C"},
        pytest.param({"shortcut": "A", "norm": "none"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_logits_maps_and_blocks_are_those_of_torch(options: dict[str, Any]) -> None:
    dataset = some_digits(9)
    network = small_network(dataset, **options)
    packed = pack_network(network, dataset.images[dataset.splits["test"]])
    answer = ask(
        "network", packed=packed.as_json(), digits=pack_digits(dataset).as_json(), changes=[{}]
    )
    check_logits(answer["logits"], torch_logits(network, dataset))
    image = network.normalization(dataset.images[dataset.splits["test"][:1]])
    names = [block["name"] for block in answer["runs"][0]["blocks"]]
    with torch.inference_mode(), inputs_and_outputs(network.model, names) as activations:
        maps = network.model.features(image)
    for stage in answer["runs"][0]["stages"]:
        check_map(stage, maps[stage["name"]])
    for block in answer["runs"][0]["blocks"]:
        x, output = activations[block["name"]]
        check_map(block["x"], x)
        check_map(block["output"], output)
        module = network.model.get_submodule(block["name"])
        with torch.inference_mode():
            check_map(block["residual"], module.residual(x))
            if module.downsample is None:
                assert block["shortcut"] is None
            else:
                check_map(block["shortcut"], module.downsample(x))


def check_map(ours: dict[str, Any], expected: Tensor) -> None:
    """Checks a feature map against that of torch, (1, C, H, W)."""
    assert (ours["channels"], ours["height"], ours["width"]) == tuple(expected.shape[1:])
    values = np.array(ours["values"]).reshape(expected.shape)
    np.testing.assert_allclose(values, expected, atol=3e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("shortcut", ["none", "A"])
def test_errors_after_a_lesion_are_those_of_the_probe(shortcut: str) -> None:
    dataset = some_digits()
    network = small_network(dataset, 14, shortcut=shortcut)
    changes = [*all_changes(network.model), {"off": ["layer1.0", "layer3.1"]}]
    errors = network_errors(network, dataset, changes)
    for change, error in zip(changes, errors, strict=True):
        with changed(network.model, change):
            assert error["error"] == pytest.approx(top1_test_error(network, dataset), abs=1e-9)
    assert len({error["wrong"] for error in errors}) > 1


def network_errors(
    network: TrainedNetwork, dataset: Dataset, changes: list[Change]
) -> list[dict[str, float]]:
    packed = pack_network(network, dataset.images[dataset.splits["test"]])
    answer = ask(
        "network", packed=packed.as_json(), digits=pack_digits(dataset).as_json(), changes=changes
    )
    check_logits(answer["logits"], torch_logits(network, dataset))
    errors: list[dict[str, float]] = answer["errors"]
    return errors


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["plain20", "plain56", "resnet20", "resnet56"])
def test_networks_of_the_quick_study_are_those_of_torch(name: str, tmp_path: Path) -> None:
    """A digit whose two largest logits are closer than the promise may fall to either side."""
    run = train(load_recipe("digits-study", {"model.name": name}), tmp_path / "run")
    network, dataset = load_network(run.folder), open_digits()
    changes = all_changes(network.model)
    errors = network_errors(network, dataset, changes)
    for change, error in zip(changes, errors, strict=True):
        with changed(network.model, change):
            expected = top1_test_error(network, dataset)
            top = torch_logits(network, dataset)
        first, second = top.topk(2).values.unbind(1)
        close = int((first - second < 2 * PROMISED * top.abs().amax(1)).sum())
        assert abs(error["error"] - expected) <= 100 * close / error["count"] + 1e-9, change


@pytest.mark.parametrize(
    ("architecture", "message"),
    [("resnet50", "the page computes CIFAR networks"), ("preresnet20", "pre-activated")],
)
def test_other_networks_are_refused(architecture: str, message: str) -> None:
    dataset = some_digits(4)
    other = find_architecture(architecture).with_options(num_classes=10, in_channels=1).build()
    network = replace(small_network(dataset), model=other.eval())
    with pytest.raises(ArchitectureError, match=message):
        pack_network(network, dataset.images[:4])


def test_weights_that_are_not_finite_are_refused() -> None:
    dataset = some_digits(4)
    network = small_network(dataset)
    with torch.no_grad():
        network.model.fc.weight[0, 0] = float("nan")
    with pytest.raises(WeightsError, match="not finite: its training diverged"):
        pack_network(network, dataset.images[:4])


class Twin(nn.Module):
    """The network on spirals, in torch."""

    def __init__(self, settings: dict[str, Any], parameters: list[list[float]]) -> None:
        super().__init__()
        depth, self.shortcut = settings["depth"], settings["shortcut"]
        sizes = [(2, 16), *[(16, 16)] * depth, (16, 1)]
        values = iter(parameters)
        layers = []
        for index, (inputs, outputs) in enumerate(sizes):
            weight = next(values)
            norm = settings["normalization"] and index < len(sizes) - 1
            linear = nn.Linear(inputs, outputs, bias=not norm)
            bn = nn.BatchNorm1d(outputs) if norm else nn.Identity()
            assign(linear.weight, weight)
            assign(bn.bias if norm else linear.bias, next(values))
            if norm:
                assign(bn.weight, next(values))
            layers.append(nn.Sequential(linear, bn))
        self.layers = nn.ModuleList(layers)
        self.double()

    def forward(self, points: Tensor) -> Tensor:
        x = functional.relu(self.layers[0](points))
        for i in range(1, len(self.layers) - 1, 2):
            residual = self.layers[i + 1](functional.relu(self.layers[i](x)))
            x = functional.relu(residual + x if self.shortcut else residual)
        return self.layers[-1](x)[:, 0]

    def ordered(self) -> list[nn.Parameter]:
        """Returns weight, bias and scale of each layer, in the order of the page."""
        parameters = []
        for linear, bn in self.layers:
            norm = isinstance(bn, nn.BatchNorm1d)
            parameters += [linear.weight, bn.bias if norm else linear.bias]
            parameters += [bn.weight] if norm else []
        return parameters


def assign(parameter: nn.Parameter, values: list[float]) -> None:
    parameter.data = torch.tensor(values, dtype=torch.float64).reshape(parameter.shape)


close: Callable[..., None] = partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("shortcut", "normalization"),
    [
        (True, True),
        (False, False),
        pytest.param(True, False, marks=pytest.mark.slow),
        pytest.param(False, True, marks=pytest.mark.slow),
    ],
)
def test_training_on_spirals_is_that_of_torch(shortcut: bool, normalization: bool) -> None:
    settings = {
        "depth": 6, "shortcut": shortcut, "normalization": normalization,
        "initialization": "he", "lr": 0.01,
    }  # fmt: skip
    answer = ask("spiral", settings=settings, steps=3)
    points = torch.tensor(answer["points"], dtype=torch.float64).reshape(-1, 2)
    labels = torch.tensor(answer["labels"], dtype=torch.float64)
    twin = Twin(settings, answer["records"][0]["before"])
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.01, momentum=0.9)
    for record in answer["records"]:
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(twin(points), labels)
        loss.backward()
        close(record["loss"], loss.item())
        for ours, parameter in zip(record["gradients"], twin.ordered(), strict=True):
            close(ours, parameter.grad.flatten())
        optimizer.step()
    for ours, parameter in zip(answer["after"], twin.ordered(), strict=True):
        close(ours, parameter.detach().flatten())
    for (mean, variance), (_, bn) in zip(answer["running"], twin.layers, strict=True):
        if isinstance(bn, nn.BatchNorm1d):
            close(mean, bn.running_mean)
            close(variance, bn.running_var)


@pytest.mark.parametrize("initialization", ["he", "xavier"])
def test_initial_weights_have_the_variance_of_their_rule(initialization: str) -> None:
    settings = {
        "depth": 30, "shortcut": True, "normalization": True,
        "initialization": initialization, "lr": 0.01,
    }  # fmt: skip
    before = ask("spiral", settings=settings, steps=1)["records"][0]["before"]
    hidden = np.array([values for values in before if len(values) == 16 * 16])
    assert len(hidden) == 30
    assert hidden.mean() == pytest.approx(0, abs=0.02)
    assert hidden.var() == pytest.approx({"he": 2 / 16, "xavier": 1 / 16}[initialization], rel=0.06)
