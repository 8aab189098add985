"""What the network sees: normalization against numpy, augmented shares, evaluation of each once."""

import numpy as np
import pytest
import torch

from resnetkit.data.augment.crop_and_flip import Augmentation
from resnetkit.data.batches import Batch, TrainingBatches
from resnetkit.data.dataset import Dataset
from resnetkit.data.datasets import open_dataset
from resnetkit.data.loader import (
    DeviceLoader,
)
from resnetkit.data.normalization import Normalization, NormalizationKind, measure_normalization

CPU = torch.device("cpu")


def color_images(count: int = 50) -> torch.Tensor:
    """Returns images whose channels have very different means and spreads."""
    generator = torch.Generator().manual_seed(0)
    channels = [
        torch.randint(low, high, (count, 6, 7), dtype=torch.uint8, generator=generator)
        for low, high in ((0, 256), (200, 230), (3, 9))
    ]
    return torch.stack(channels, 1)


def feed_of(
    dataset: Dataset, kind: NormalizationKind = "channel", crop_padding: int = 0
) -> DeviceLoader:
    normalization = measure_normalization(dataset.images[dataset.splits["train"]], kind)
    return DeviceLoader.of(
        dataset,
        normalization,
        CPU,
        seed=3,
        augmentation=Augmentation(crop_padding=crop_padding),
    )


def test_normalized_training_images_have_mean_0_and_deviation_1() -> None:
    digits = open_dataset("digits")
    images = feed_of(digits).normalized(digits.splits["train"])
    assert images.double().mean().item() == pytest.approx(0, abs=1e-6)
    assert images.double().std(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_pixel_mean_makes_every_pixel_zero_on_average() -> None:
    digits = open_dataset("digits")
    images = feed_of(digits, "pixel-mean").normalized(digits.splits["train"])
    assert images.double().mean(0).abs().max() < 1e-7
    assert images.abs().max() <= 1


@pytest.mark.parametrize("kind", ["channel", "pixel-mean"])
def test_normalization_is_measured_on_the_training_part_alone(kind: NormalizationKind) -> None:
    digits = open_dataset("digits")
    part = digits.images[digits.splits["train"]]
    ours, whole = (measure_normalization(images, kind) for images in (part, digits.images))
    assert torch.equal(feed_of(digits, kind).normalization.mean, ours.mean)
    assert not torch.equal(ours.mean, whole.mean)


def test_training_gives_this_ranks_share_with_its_labels() -> None:
    digits = open_dataset("digits")
    (batch,) = TrainingBatches(digits.splits["train"], 16, seed=3, rank=1, ranks=2).between(5, 6)
    images, labels = feed_of(digits).training(batch)
    local_ids = batch.sample_ids[1::2]
    assert labels.tolist() == digits.labels[local_ids].tolist()
    train = digits.images[digits.splits["train"]].numpy().astype(np.float64)
    expected = (digits.images[local_ids].numpy() - train.mean()) / train.std()
    np.testing.assert_allclose(images.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_zero_padding_is_the_mean_and_not_black() -> None:
    """A black image is far below the mean; what is padded around it is zero."""
    black = Dataset(
        "black",
        torch.zeros(200, 1, 8, 8, dtype=torch.uint8),
        torch.zeros(200, dtype=torch.int64),
        ("black",),
        {"train": torch.arange(200), "validation": torch.arange(0), "test": torch.arange(0)},
        mirrored=True,
        sha256="",
    )
    loader = DeviceLoader.of(
        black,
        Normalization(torch.full((1, 1, 1), 100.0), torch.full((1, 1, 1), 50.0)),
        CPU,
        seed=0,
        augmentation=Augmentation(crop_padding=2),
    )
    ids = torch.arange(200)
    images, _ = loader.training(Batch(0, 0, ids, ids, ends_epoch=True))
    assert set(images.flatten().tolist()) == {0.0, -2.0}


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_evaluation_shows_every_sample_once_and_as_it_is(ranks: int) -> None:
    digits = open_dataset("digits")
    loader, ids = feed_of(digits, crop_padding=2), digits.splits["validation"]
    met = [
        (image.numpy().tobytes(), label)
        for rank in range(ranks)
        for images, labels in loader.evaluation(ids, 50, rank=rank, ranks=ranks)
        for image, label in zip(images.contiguous(), labels.tolist(), strict=True)
    ]
    expected = zip(loader.normalized(ids).contiguous(), digits.labels[ids].tolist(), strict=True)
    assert sorted(met) == sorted((image.numpy().tobytes(), label) for image, label in expected)


def test_images_have_their_channels_last_in_memory() -> None:
    dataset = Dataset(
        "colors",
        color_images(),
        torch.zeros(50, dtype=torch.int64),
        ("one",),
        {"train": torch.arange(50), "validation": torch.arange(0), "test": torch.arange(0)},
        mirrored=True,
        sha256="",
    )
    loader = feed_of(dataset)
    (evaluated, _), *_ = loader.evaluation(torch.arange(8), 8, rank=0, ranks=1)
    assert evaluated.stride() == (6 * 7 * 3, 1, 7 * 3, 3)
