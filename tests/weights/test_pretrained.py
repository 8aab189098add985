"""from_pretrained and save_pretrained, and the same by torch.hub."""

import copy
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import resnetkit
from helpers.weights import torchvision_twin
from resnetkit.data.normalization import Normalization
from resnetkit.errors import ArchitectureError, StorageError, UsageError, WeightsError
from resnetkit.models.zoo import ARCHITECTURES
from resnetkit.weights.export import export_weights
from resnetkit.weights.network import TrainedNetwork

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Writes a small trained network."""
    architecture = ARCHITECTURES["resnet20"].with_options(num_classes=3)
    network = TrainedNetwork(
        model=architecture.build(torch.Generator().manual_seed(0)).eval(),
        architecture=architecture,
        normalization=Normalization(torch.full((3, 1, 1), 100.0), torch.full((3, 1, 1), 50.0)),
        class_names=("a", "b", "c"),
        image_size=(32, 32),
        data="few",
        origin="resnet20",
    )
    export_weights(network, tmp_path / "net", "resnetkit")
    return tmp_path / "net"


def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_a_trained_network_is_a_module_that_knows_its_images(folder: Path) -> None:
    model = resnetkit.from_pretrained(folder)
    assert isinstance(model, torch.nn.Module)
    assert not model.training
    assert model.trained.model is model
    assert model.trained.class_names == ("a", "b", "c")
    expected = resnetkit.load_network(folder).model(images())
    assert torch.equal(model(images()), expected)
    assert torch.equal(resnetkit.from_pretrained(str(folder))(images()), expected)
    assert "trained" not in "".join(model.state_dict())


def test_it_is_copied_and_pickled_as_a_whole(folder: Path) -> None:
    model = resnetkit.from_pretrained(folder)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.trained.model is again
        assert again is not model
        assert torch.equal(again(images()), model(images()))


def test_what_was_learned_since_is_saved(folder: Path, tmp_path: Path) -> None:
    model = resnetkit.from_pretrained(folder).train()
    model(images()).square().sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter -= 0.1 * parameter.grad
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    resnetkit.save_pretrained(model, tmp_path / "mine")
    assert model.training
    again = resnetkit.from_pretrained(tmp_path / "mine")
    for name, tensor in before.items():
        assert torch.equal(model.state_dict()[name], tensor), name
        assert torch.equal(again.state_dict()[name], tensor), name
    assert not torch.equal(again.fc.weight, resnetkit.from_pretrained(folder).fc.weight)
    assert again.trained.class_names == ("a", "b", "c")
    assert torch.equal(again.trained.normalization.mean, model.trained.normalization.mean)


def test_what_cannot_be_saved_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not come from from_pretrained"):
        resnetkit.save_pretrained(resnetkit.create_model("resnet20"), tmp_path / "mine")
    model = resnetkit.from_pretrained(folder)
    with pytest.raises(StorageError, match="already exists: choose another path"):
        resnetkit.save_pretrained(model, folder)
    model.fc = torch.nn.Linear(64, 5)
    with pytest.raises(WeightsError, match=r"'fc.weight' has the shape \(5, 64\), expected"):
        resnetkit.save_pretrained(model, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
    trained = model.trained
    mine = replace(
        trained,
        architecture=trained.architecture.with_options(num_classes=5),
        class_names=tuple("vwxyz"),
    )
    resnetkit.export_weights(mine, tmp_path / "mine", "resnetkit")  # the way that is open
    assert resnetkit.from_pretrained(tmp_path / "mine").trained.class_names == tuple("vwxyz")


def test_the_variant_is_asked_for(tmp_path: Path) -> None:
    torch.save(torchvision_twin().state_dict(), tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="does not state where its bottleneck blocks stride"):
        resnetkit.from_pretrained(tmp_path / "net.pth")
    loaded = resnetkit.from_pretrained(tmp_path / "net.pth", variant="v1")
    assert loaded.trained.architecture.stride_in == "1x1"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"in_channels": 1}, r"do not fit in_channels=1: they were trained with in_channels=3\."),
        ({"num_classes": 7}, "do not fit num_classes=7: .* num_classes=3"),
        ({"shortcut": "C", "recompute": True}, "do not fit shortcut='C': .* shortcut='A'"),
        ({"shortcut": "B", "in_channels": 1}, "do not fit shortcut='B', in_channels=1: "),
    ],
)
def test_trained_weights_refuse_options_of_other_shapes(
    options: dict[str, object], words: str, folder: Path
) -> None:
    with pytest.raises(ArchitectureError, match=words):
        resnetkit.backbone(weights=folder, **options)  # type: ignore[arg-type]


def test_trained_weights_take_options_of_the_same_shapes(folder: Path) -> None:
    model = resnetkit.backbone(
        weights=folder,
        out=("stage2",),
        in_channels=3,
        recompute=True,
        replace_stride_with_dilation=(False, True),
    )
    assert torch.equal(model.network.conv1.weight, resnetkit.from_pretrained(folder).conv1.weight)


def test_the_hub_gives_trained_networks(folder: Path) -> None:
    model = torch.hub.load(str(ROOT), "resnet20", source="local", pretrained=str(folder))
    assert torch.equal(model(images()), resnetkit.from_pretrained(folder)(images()))


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("resnet32", {}, "is not a resnet32: it is"),
        ("resnet20", {"shortcut": "B"}, "takes no other options than variant"),
    ],
)
def test_the_hub_refuses_what_does_not_fit(
    folder: Path, name: str, options: dict[str, str], reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        torch.hub.load(str(ROOT), name, source="local", pretrained=str(folder), **options)
    with pytest.raises(UsageError, match="pretrained is the path or the name"):
        torch.hub.load(str(ROOT), name, source="local", pretrained=True)
    with pytest.raises(WeightsError, match=r"there is no .*none"):
        torch.hub.load(str(ROOT), name, source="local", pretrained=str(folder / "none"))
