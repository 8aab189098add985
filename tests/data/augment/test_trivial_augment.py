"""Trivial augmentation against torchvision's, erasing and mixing against their definitions."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import v2

from resnetkit.data.augment.crop_and_flip import Augmentation, erased
from resnetkit.data.augment.mixup import mixed
from resnetkit.data.augment.trivial_augment import OPERATIONS, STRENGTHS, random_alterations
from resnetkit.data.draws import Draws
from resnetkit.data.images.photos import Photos

Draw = Callable[..., Image.Image]
UNLIKELY = 1e-4
THEIRS = v2.TrivialAugmentWide()
NAMES = dict(zip(OPERATIONS, THEIRS._AUGMENTATION_SPACE, strict=True))


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_of_every_strength_is_torchvisions(name: str, draw: Draw) -> None:
    image = draw(3, (64, 48))
    magnitudes, is_signed = THEIRS._AUGMENTATION_SPACE[NAMES[name]]
    values = magnitudes(STRENGTHS, 48, 64)
    for strength in range(STRENGTHS):
        for sign in (1, -1) if is_signed else (1,):
            value = 0.0 if values is None else sign * float(values[strength])
            theirs = THEIRS._apply_image_or_video_transform(
                image, NAMES[name], value, THEIRS.interpolation, {}
            )
            ours = OPERATIONS[name](image, strength, sign)
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_operations_are_drawn_equally_often_and_by_sample(draw: Draw) -> None:
    image = draw(5)
    ids = torch.arange(4200)
    drawn = random_alterations(Draws(ids, 0, 0))
    looks = [np.asarray(each(image)).tobytes() for each in drawn]
    same = sum(look == image.tobytes() for look in looks)
    # The identity always, and the others where their strength does nothing: 11 at strength 0.
    expected = 4200 / 14 * (1 + 11 / STRENGTHS)
    assert abs(same - expected) < 5 * expected**0.5
    again = random_alterations(Draws(ids[[7, 3]], 0, 0))
    assert np.asarray(again[0](image)).tobytes() == looks[7]
    assert np.asarray(again[1](image)).tobytes() == looks[3]


def test_photos_are_altered_after_they_are_cut_out(tmp_path: Path, draw: Draw) -> None:
    for number in range(6):
        draw(number, (60, 40)).save(tmp_path / f"{number}.png")
    photos = Photos(tuple(tmp_path / f"{n}.png" for n in range(6)), 3, 24, 0.875)
    ids = torch.arange(6)
    plain, altered = (
        photos.random_views(Draws(ids, 2, 1), Augmentation(crop="area", policy=policy), size=24)
        for policy in ("none", "trivial")
    )
    for before, after, alter in zip(
        plain, altered, random_alterations(Draws(ids, 2, 1)), strict=True
    ):
        expected = alter(Image.fromarray(before.permute(1, 2, 0).numpy()))
        np.testing.assert_array_equal(after.permute(1, 2, 0).numpy(), np.asarray(expected))


# Erasing


def test_boxes_are_erased_of_the_right_share_of_images() -> None:
    images, ids = torch.ones(4000, 2, 40, 30), torch.arange(4000)
    found = erased(images, Draws(ids, 0, 0), 0.3)
    zeros = found == 0
    hit = zeros.flatten(1).any(1)
    assert abs(hit.double().mean() - 0.3) < 0.03
    assert torch.equal(zeros[:, 0], zeros[:, 1])
    share = zeros[hit, 0].double().mean((1, 2))
    assert share.min() > 0.005
    assert share.max() < 0.36
    assert stats.kstest(share[share > 0.05], lambda x: (x - 0.05) / (1 / 3 - 0.05)).pvalue > 1e-12
    for mask in zeros[hit, 0][:100]:  # each is one whole box
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
        assert mask.sum() == len(rows) * len(columns)
    assert torch.equal(erased(images[5:9], Draws(ids[5:9], 0, 0), 0.3), found[5:9])


# Mixing


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.arange(1.0, 5)[:, None, None, None].expand(4, 1, 20, 10).clone()
    return images, torch.eye(3)[[0, 1, 2, 0]]


def test_mixup_mixes_images_and_labels_in_one_proportion() -> None:
    images, labels = batch()
    shares = []
    for step in range(400):
        found, targets = mixed(images, labels, mixup=0.4, cutmix=0, seed=1, step=step)
        share = targets[1, 1].item()
        shares.append(share)
        assert targets.sum(1).tolist() == pytest.approx([1] * 4)
        assert targets[1].tolist() == pytest.approx([1 - share, share, 0])
        assert found[1].unique().tolist() == pytest.approx([2 * share + 1 * (1 - share)])
        assert found[0].unique().tolist() == pytest.approx([1 * share + 4 * (1 - share)])
    assert stats.kstest(shares, stats.beta(0.4, 0.4).cdf).pvalue > UNLIKELY


def test_cutmix_pastes_a_box_and_counts_its_area() -> None:
    images, labels = batch()
    for step in range(100):
        found, targets = mixed(images, labels, mixup=0, cutmix=1.0, seed=1, step=step)
        pasted = found[2, 0] == 2
        assert (pasted | (found[2, 0] == 3)).all()
        assert targets[2, 1].item() == pytest.approx(pasted.double().mean().item(), abs=1e-6)
        if pasted.any():
            rows, columns = pasted.any(1).sum(), pasted.any(0).sum()
            assert pasted.sum() == rows * columns
        assert torch.equal(images, batch()[0])  # what was given stays


def test_both_are_drawn_about_equally_often_and_by_step() -> None:
    images, labels = batch()

    def look(step: int) -> torch.Tensor:
        return mixed(images, labels, mixup=0.4, cutmix=1.0, seed=1, step=step)[0]

    cut = sum(set(look(step).unique().tolist()) <= {1.0, 2.0, 3.0, 4.0} for step in range(300))
    assert 110 < cut < 190
    assert torch.equal(look(17), look(17))
