"""Inspection: which probes run on which network, and what they say together."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from resnetkit.data.datasets import open_dataset
from resnetkit.data.normalization import Normalization
from resnetkit.errors import ArchitectureError, DataError, UsageError, WeightsError
from resnetkit.models.zoo import ARCHITECTURES
from resnetkit.probes.inspection import (
    Inspection,
    Subject,
    find_subject,
    inspect_network,
    load_trained,
    network_counts,
    saliency,
)
from resnetkit.probes.lesions import top1_test_error
from resnetkit.weights.network import TrainedNetwork


def untrained(name: str, *, data: str = "digits") -> Subject:
    """Returns a network for digits with two blocks a stage that knows its data and nothing else."""
    architecture = ARCHITECTURES[name].with_options(in_channels=1)
    architecture = replace(architecture, depths=(2, 2, 2))
    network = TrainedNetwork(
        model=architecture.build(torch.Generator().manual_seed(0)).eval(),
        architecture=architecture,
        normalization=Normalization(torch.full((1, 1, 1), 80.0), torch.full((1, 1, 1), 90.0)),
        class_names=tuple("0123456789"),
        image_size=(8, 8),
        data=data,
        origin="drawn",
    )
    return Subject(architecture, 8, network)


def probes_of(inspection: Inspection) -> set[str]:
    """Returns the names of the probes that were run."""
    return {name for name, value in vars(inspection).items() if value} - {"remarks"}


def test_a_residual_network_is_probed_by_all_quick_probes() -> None:
    inspection = inspect_network(untrained("resnet20"))
    assert probes_of(inspection) == {"gradients", "receptive_fields", "responses", "residuals"}
    assert inspection.gradients is not None
    assert inspection.residuals is not None
    assert len(inspection.gradients) == 2 + 2 * 6
    assert inspection.residuals[0].name == "layer1.0"
    assert inspection.remarks == ()


def test_a_thorough_inspection_adds_lesions_and_paths() -> None:
    subject = untrained("resnet20")
    assert subject.network is not None
    inspection = inspect_network(subject, thorough=True)
    assert inspection.lesions is not None
    assert inspection.paths is not None
    whole = top1_test_error(subject.network, open_dataset("digits"))
    assert [lesion.blocks for lesion in inspection.lesions] == [
        "without layer1.0",
        "without layer1.1",
        "without layer2.1",
        "without layer3.1",
        "layer1.0 and layer1.1 exchanged",
    ]
    assert all(lesion.error - lesion.points == whole for lesion in inspection.lesions)
    assert sum(path.paths for path in inspection.paths) == 2**6


def test_a_plain_network_is_probed_as_far_as_possible_and_the_reason_is_given() -> None:
    inspection = inspect_network(untrained("plain20"))
    assert probes_of(inspection) == {"gradients", "receptive_fields", "responses"}
    (remark,) = inspection.remarks
    assert "a plain network has none" in remark


def test_without_its_data_a_network_is_not_probed() -> None:
    inspection = inspect_network(untrained("resnet20", data=""))
    assert probes_of(inspection) == set()
    (remark,) = inspection.remarks
    assert remark.startswith("no probe was run: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"has_head": False}, "has no head"),
        ({"image_size": (16, 16)}, "was trained on images of 16x16 pixels"),
    ],
    ids=["head", "size"],
)
def test_a_network_that_does_not_fit_its_data_is_not_probed(
    changes: dict[str, Any], message: str
) -> None:
    subject = untrained("resnet20")
    assert subject.network is not None
    other = replace(subject, network=replace(subject.network, **changes))
    inspection = inspect_network(other)
    assert probes_of(inspection) == set()
    assert message in inspection.remarks[0]
    with pytest.raises((DataError, WeightsError), match=message):
        inspect_network(other, data="digits")  # which was asked for


def test_a_network_without_a_head_has_no_answer_to_explain() -> None:
    network = untrained("resnet20").network
    assert network is not None
    with pytest.raises(WeightsError, match="has no head, so that it cannot classify"):
        saliency(replace(network, has_head=False), "3")


def test_an_architecture_is_probed_in_a_thorough_inspection_only() -> None:
    subject = find_subject("resnet20", {"initialization": "normal"})
    assert subject.network is None
    assert inspect_network(subject) == Inspection()
    inspection = inspect_network(subject, thorough=True)
    assert probes_of(inspection) == {"gradients", "receptive_fields"}
    assert inspection == inspect_network(subject, thorough=True)  # the noise is always the same


def test_counts_are_those_of_the_outline() -> None:
    plain, residual = (
        network_counts(find_subject(name).stages) for name in ("plain20", "resnet20")
    )
    assert plain == {**residual, "shortcuts": 0}
    assert residual["blocks"] == residual["shortcuts"] == 9
    assert network_counts(find_subject("resnet20", {"shortcut": "C"}).stages)["projections"] == 9


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="Did you mean 'resnet20'"):
        find_subject("resnet21")
    with pytest.raises(UsageError, match="without trained weights"):
        load_trained("resnet20")


def test_the_answer_of_a_saliency_map_is_the_prediction() -> None:
    pytest.importorskip("captum")
    network = untrained("resnet20").network
    assert network is not None
    digits = open_dataset("digits")
    image = digits.images[digits.splits["test"][3]]
    with torch.no_grad():
        probabilities = network.model(network.normalization(image[None])).double().softmax(1)[0]
    result = saliency(network, "3")
    assert torch.equal(result.image, image)
    assert result.answer == str(int(probabilities.argmax()))
    assert result.probability == pytest.approx(float(probabilities.max()))
    assert {values.shape for values in result.maps.values()} == {(8, 8)}
    with pytest.raises(UsageError, match="has 359 test images, from 0"):
        saliency(network, "359")
