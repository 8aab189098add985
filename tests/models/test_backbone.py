"""The backbone: its maps, what is cut off, and a detector of torchvision on top of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, box_iou

from resnetkit.errors import ArchitectureError, WeightsError
from resnetkit.models.backbone import OUT, Backbone
from resnetkit.models.zoo import create_model
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe
from resnetkit.weights.load import load_network
from resnetkit.weights.pretrained import backbone

Recipes = Callable[..., Recipe]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_maps_have_the_channels_and_strides_that_are_said(name: str) -> None:
    body = backbone(name).eval()
    with torch.inference_mode():
        maps = body(torch.randn(1, 3, 64, 96))
    assert list(maps) == list(OUT)
    for map_name, found in maps.items():
        stride = body.strides[map_name]
        assert found.shape == (1, body.channels[map_name], 64 // stride, 96 // stride)
    assert list(body.strides.values()) == [4, 8, 16, 32]


def test_maps_are_those_of_the_whole_network() -> None:
    body = backbone("resnet18", out=["stage4", "stem"], generator=seeded()).eval()
    whole = create_model("resnet18", generator=seeded()).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        ours, theirs = body(images), whole.features(images, ["stem", "stage4"])
    assert list(ours) == ["stem", "stage4"]
    for name, found in ours.items():
        assert torch.equal(found, theirs[name])


@pytest.mark.parametrize("name", ["resnet18", "preresnet18"])
def test_the_stem_alone_is_a_backbone_too(name: str) -> None:
    maps = backbone(name, out=["stem"])(torch.randn(1, 3, 32, 32))
    assert [tuple(found.shape) for found in maps.values()] == [(1, 64, 8, 8)]


@pytest.mark.parametrize("name", ["resnet18", "preresnet18", "resnet20"])
@pytest.mark.parametrize("last", ["stage2", "stage3"])
def test_every_parameter_of_what_is_left_gets_a_gradient(name: str, last: str) -> None:
    body = backbone(name, out=[last])
    sum(found.sum() for found in body(torch.randn(2, 3, 32, 32)).values()).backward()
    without = [key for key, p in body.named_parameters() if p.grad is None]
    assert (without == []) == (not name.startswith("pre"))


def test_dilation_keeps_the_resolution() -> None:
    body = backbone("resnet18", replace_stride_with_dilation=(False, True, True))
    assert list(body.strides.values()) == [4, 8, 8, 8]


def test_learned_weights_are_used_with_their_constants(tiny: Recipes, tmp_path: Path) -> None:
    run = train(tiny({"model.name": "resnet20"}), tmp_path / "run")
    body = backbone("resnet20", weights=run.folder, out=["stage2", "stage4"]).eval()
    trained = load_network(run.folder)
    images = torch.randn(2, 1, 16, 16)
    with torch.inference_mode():
        ours, theirs = body(images), trained.model.features(images)
    assert torch.equal(ours["stage4"], theirs["stage4"])
    assert body.mean == pytest.approx((trained.normalization.mean.item() / 255,))
    assert body.std == pytest.approx((trained.normalization.std.item() / 255,))
    with pytest.raises(ArchitectureError, match="is not a resnet32: it is resnet20 trained by"):
        backbone("resnet32", weights=run.folder)
    with pytest.raises(ArchitectureError, match="is not a preresnet20"):
        backbone("preresnet20", weights=run.folder)
    with pytest.raises(WeightsError, match="there is no"):
        backbone("resnet20", weights=tmp_path / "none")


def test_what_is_frozen_stays() -> None:
    body = backbone("resnet18", freeze="stage2", frozen_norm=True).train()
    frozen = {key for key, p in body.named_parameters() if not p.requires_grad}
    assert {"network.conv1.weight", "network.layer1.0.conv1.weight"} <= frozen
    assert "network.layer2.0.conv1.weight" not in frozen
    assert not any(m.training for m in body.modules() if isinstance(m, nn.BatchNorm2d))


def test_impossible_requests_are_refused() -> None:
    for out, message in (
        (["stage9"], "unknown feature map 'stage9': expected stem, stage2"),
        ([], "expected one or more maps"),
        (["stage2", "stage2"], "each once"),
    ):
        with pytest.raises(ArchitectureError, match=message):
            backbone("resnet18", out=out)
    with pytest.raises(ArchitectureError, match="unknown architecture"):
        backbone("resnet19")
    with pytest.raises(ArchitectureError, match="the backbone ends with stage3"):
        backbone("resnet18", out=["stage3"], freeze="stage4")


class WithPyramid(nn.Module):
    """A backbone and a feature pyramid, as torchvision's detectors want them."""

    def __init__(self, body: Backbone, channels: int) -> None:
        super().__init__()
        self.body, self.out_channels = body, channels
        self.fpn = FeaturePyramidNetwork(list(body.channels.values()), channels)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.fpn(self.body(images))  # type: ignore[no-any-return]


def drawn(number: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns an image of one bright rectangle on noise, and where it is."""
    generator = seeded(number)
    left, upper = torch.randint(4, 24, (2,), generator=generator).tolist()
    width, height = torch.randint(20, 36, (2,), generator=generator).tolist()
    image = 0.2 * torch.rand(3, 64, 64, generator=generator)
    image[:, upper : upper + height, left : left + width] += 0.7
    box = torch.tensor([[left, upper, left + width, upper + height]], dtype=torch.float32)
    return image, {"boxes": box, "labels": torch.ones(1, dtype=torch.int64)}


@pytest.mark.slow
def test_a_detector_of_torchvision_learns_a_handful_of_images() -> None:
    torch.manual_seed(0)  # its own layers and samplers draw from torch's generator
    body = backbone("resnet18", generator=seeded(), out=["stage3", "stage4"])
    detector = FasterRCNN(
        WithPyramid(body, 32),
        num_classes=2,
        min_size=64,
        max_size=64,
        image_mean=list(body.mean),
        image_std=list(body.std),
        rpn_anchor_generator=AnchorGenerator(((16, 24), (32, 48)), ((0.5, 1.0, 2.0),) * 2),
        box_roi_pool=MultiScaleRoIAlign(["stage3", "stage4"], output_size=5, sampling_ratio=2),
        box_detections_per_img=5,
        rpn_pre_nms_top_n_train=200,
        rpn_post_nms_top_n_train=50,
        box_batch_size_per_image=32,
    )
    images, targets = zip(*map(drawn, range(4)), strict=True)
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(60):
        parts = detector(list(images), [dict(target) for target in targets])
        loss = torch.stack(list(parts.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    detector.eval()
    with torch.inference_mode():
        found = detector(list(images))
    assert losses[-1] < 0.4 * losses[0]
    for prediction, target in zip(found, targets, strict=True):
        best = prediction["boxes"][:1]
        assert box_iou(best, target["boxes"]).item() > 0.5


def test_weights_of_a_residual_network_are_not_those_of_a_plain_one(tmp_path: Path) -> None:
    """Their tensors have the same names but for the projections, and both would load."""
    torch.save(create_model("resnet50", num_classes=3).state_dict(), tmp_path / "net.pth")
    with pytest.raises(ArchitectureError, match="is not a plain50"):
        backbone("plain50", weights=tmp_path / "net.pth", variant="v1.5")
