"""Photos as a tensor: the middle view, random views, and the stream of batches."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from resnetkit.data.augment.crop_and_flip import Augmentation
from resnetkit.data.batches import Batch, TrainingBatches
from resnetkit.data.dataset import Dataset, Images
from resnetkit.data.datasets import open_dataset
from resnetkit.data.draws import Draws
from resnetkit.data.images.crops import center_crop
from resnetkit.data.images.labels import imagenet_wnids
from resnetkit.data.images.photos import Photos, least_side, random_boxes
from resnetkit.data.loader import DeviceLoader
from resnetkit.data.normalization import Normalization
from resnetkit.data.splits import Split
from resnetkit.errors import DataError, UsageError
from resnetkit.resizing import BILINEAR

Draw = Callable[..., Image.Image]
MakeFolder = Callable[..., Path]
CPU = torch.device("cpu")
UNLIKELY = 1e-4


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, draw: Draw) -> Photos:
    folder = tmp_path_factory.mktemp("photos")
    sizes = [(40, 30), (30, 40), (64, 32), (25, 50), (33, 33), (101, 67)]
    for number, size in enumerate(sizes):
        draw(number, size).save(folder / f"{number}.png")
    return Photos(tuple(folder / f"{n}.png" for n in range(len(sizes))), 3, 24, 0.875)


def pictures(photos: Photos) -> list[Image.Image]:
    return [Image.open(path) for path in photos.paths]


def test_the_middle_view_is_torchvisions_resize_and_center_crop(photos: Photos) -> None:
    side = round(24 / 0.875)
    theirs = v2.Compose([v2.Resize(side), v2.CenterCrop(24), v2.PILToTensor()])
    ours = photos[torch.arange(6)]
    assert ours.shape == (6, 3, 24, 24)
    assert ours.dtype == torch.uint8
    for number, image in enumerate(pictures(photos)):
        assert torch.equal(ours[number], theirs(image))
        assert torch.equal(photos[torch.tensor(number)], ours[number])


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (225, 224), (224, 224), (300, 1000)])
def test_the_middle_view_is_theirs_at_the_sizes_of_imagenet(
    size: tuple[int, int], draw: Draw
) -> None:
    image = draw(1, size)
    theirs = v2.CenterCrop(224)(v2.Resize(256)(image))
    assert np.array_equal(np.asarray(center_crop(image, 224, 256, BILINEAR)), np.asarray(theirs))


def test_grey_photos_have_one_channel(photos: Photos) -> None:
    gray = Photos(photos.paths, 1, 24, 0.875)
    assert gray.shape == (6, 1, 24, 24)
    assert gray[torch.tensor([2, 0])].shape == (2, 1, 24, 24)


def boxes_of(count: int, augmentation: Augmentation, width: int, height: int) -> np.ndarray:
    boxes = random_boxes(Draws(torch.arange(count), 5, 2), augmentation, size=24)
    return np.array([boxes(index, width, height) for index in range(count)])


def assert_uniform(values: np.ndarray, low: float, high: float) -> None:
    assert stats.kstest((values - low) / (high - low), "uniform").pvalue > UNLIKELY


@pytest.mark.parametrize(("width", "height"), [(400, 300), (300, 400)])
def test_crops_by_area_have_the_given_area_shape_and_position(width: int, height: int) -> None:
    """Half of the area or less fits in every shape, so that nothing is drawn again."""
    drawn = boxes_of(4000, Augmentation(crop="area", area=(0.1, 0.5)), width, height)
    left, upper, right, lower = drawn.T
    assert drawn.min() >= 0
    assert right.max() <= width + 1e-9
    assert lower.max() <= height + 1e-9
    w, h = right - left, lower - upper
    assert_uniform(w * h / (width * height), 0.1, 0.5)
    assert_uniform(np.log(w / h), np.log(3 / 4), np.log(4 / 3))
    assert_uniform(left / (width - w), 0, 1)
    assert_uniform(upper / (height - h), 0, 1)


def test_a_crop_that_never_fits_is_the_largest_in_the_middle() -> None:
    drawn = boxes_of(50, Augmentation(crop="area", area=(1.0, 1.0)), 400, 100)
    assert {tuple(box) for box in drawn.round(3)} == {(133.333, 0, 266.667, 100)}


def test_crops_by_scale_have_the_paper_s_sizes(draw: Draw) -> None:
    """A square of 24 from an image whose shorter side becomes 32 to 60, each equally often."""
    drawn = boxes_of(5800, Augmentation(crop="scale", side=(32, 60)), 200, 100)
    left, upper, right, lower = drawn.T
    np.testing.assert_allclose(right - left, lower - upper)
    sides = 24 / (right - left) * 100
    counts = np.bincount(sides.round().astype(int), minlength=61)[32:]
    np.testing.assert_allclose(sides, sides.round())
    assert counts.sum() == 5800
    assert stats.chisquare(counts).pvalue > UNLIKELY
    assert_uniform(left / (200 - (right - left)), 0, 1)


def test_a_random_view_is_what_torchvision_cuts_out(tmp_path: Path, draw: Draw) -> None:
    images = [draw(number, (500, 375)) for number in range(4)]
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    photos = Photos(tuple(tmp_path / f"{number}.png" for number in range(4)), 3, 24, 0.875)
    shown, ids = Augmentation(crop="area", area=(0.3, 1.0)), torch.arange(4)
    boxes = random_boxes(Draws(ids, 1, 0), shown, size=20)
    ours = photos.random_views(Draws(ids, 1, 0), shown, size=20)
    for number, image in enumerate(images):
        left, upper, right, lower = boxes(number, *image.size)
        box = [round(upper), round(left), round(lower - upper), round(right - left)]
        theirs = v2.functional.resized_crop(v2.functional.pil_to_tensor(image), *box, [20, 20])
        assert (ours[number].float() - theirs.float()).abs().mean() < 1  # they round to pixels


def test_views_depend_on_seed_epoch_and_sample_alone(photos: Photos) -> None:
    shown = Augmentation(crop="area")

    def views(ids: list[int], seed: int = 0, epoch: int = 0) -> Tensor:
        return photos.random_views(Draws(torch.tensor(ids), seed, epoch), shown, size=24)

    assert torch.equal(views([0, 1, 2])[[2, 0]], views([2, 0]))
    assert not torch.equal(views([1]), views([1], seed=1))
    assert not torch.equal(views([1]), views([1], epoch=1))


def test_enough_pixels_are_decoded_for_the_smallest_crop() -> None:
    assert least_side(Augmentation(crop="area", area=(0.25, 1)), 100) == 200
    assert least_side(Augmentation(crop="scale", side=(256, 480)), 224) == 480


# As a data set


def test_custom_images_are_a_data_set(tmp_path: Path, make_folder: MakeFolder) -> None:
    make_folder(tmp_path, {"cat": 10, "dog": 20})
    dataset = open_dataset(str(tmp_path), image_size=16)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.image_size == (16, 16)
    assert (dataset.channels, dataset.mirrored) == (3, True)
    assert {split: len(ids) for split, ids in dataset.splits.items()} == {
        "train": 24,
        "validation": 3,
        "test": 3,
    }
    assert sorted(torch.cat(list(dataset.splits.values())).tolist()) == list(range(30))
    assert dataset.labels.tolist() == [0] * 10 + [1] * 20
    with pytest.raises(UsageError, match="need an image size"):
        open_dataset(str(tmp_path))


def test_a_missing_test_split_is_that_of_validation(
    tmp_path: Path, make_folder: MakeFolder
) -> None:
    make_folder(tmp_path, {"train/a": 3, "train/b": 3, "val/a": 2, "val/b": 2})
    splits = open_dataset(str(tmp_path), image_size=16).splits
    assert len(splits["validation"]) == 4
    assert torch.equal(splits["test"], splits["validation"])


def test_the_folders_of_imagenet_have_its_names(tmp_path: Path, draw: Draw) -> None:
    draw(0).save(tmp_path / "one.jpg")
    for wnid in imagenet_wnids():
        folder = tmp_path / "train" / wnid
        folder.mkdir(parents=True)
        for name in ("a.jpg", "b.jpg"):
            (folder / name).hardlink_to(tmp_path / "one.jpg")
    names = open_dataset(str(tmp_path), image_size=8).class_names
    assert len(names) == 1000
    assert (names[0], names[999]) == ("tench", "toilet tissue")


# Batches

HALF = Normalization(torch.full((3, 1, 1), 127.5), torch.full((3, 1, 1), 64.0))


def dataset_of(images: Images) -> Dataset:
    """Returns six images of two classes, all of them to be learned from."""
    none = torch.arange(0)
    splits: dict[Split, Tensor] = {"train": torch.arange(6), "validation": none, "test": none}
    return Dataset("six", images, torch.arange(6) % 2, ("a", "b"), splits, True, "")


def feed_of(photos: Photos, augmentation: Augmentation) -> DeviceLoader:
    return DeviceLoader.of(dataset_of(photos), HALF, CPU, seed=3, augmentation=augmentation)


def test_batches_come_in_order_with_their_labels_and_are_those_of_one_call(
    photos: Photos,
) -> None:
    loader = feed_of(photos, Augmentation(crop="area", flip="random"))
    batches = TrainingBatches(torch.arange(6), 2, seed=3)
    met = [
        (batch, *ready()) for batch, ready in loader.stream(batches.between(0, 9), lambda step: 8)
    ]
    assert [batch.step for batch, _, _ in met] == list(range(9))
    for batch, images, labels in met:
        alone, expected = loader.training(batch, size=8)
        assert torch.equal(images, alone)
        assert torch.equal(labels, expected)
        assert labels.tolist() == (batch.sample_ids % 2).tolist()
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_mirror_images_are_of_the_same_crop(photos: Photos) -> None:
    ids = torch.arange(6)
    batch = Batch(0, 0, ids, ids, ends_epoch=True)
    (plain, _), (mirrored, _) = (
        feed_of(photos, Augmentation(crop="area", flip=flip)).training(batch)
        for flip in ("none", "random")
    )
    same = [torch.equal(a, b) for a, b in zip(plain, mirrored, strict=True)]
    flipped = [torch.equal(a.flip(2), b) for a, b in zip(plain, mirrored, strict=True)]
    assert all(a != b for a, b in zip(same, flipped, strict=True))
    assert any(same)
    assert any(flipped)


def test_padded_crops_are_those_of_images_in_memory(photos: Photos) -> None:
    shown = Augmentation(crop_padding=2, flip="random")
    ids = torch.arange(6)
    batch = Batch(0, 0, ids, ids, ends_epoch=True)
    in_memory = DeviceLoader.of(dataset_of(photos[ids]), HALF, CPU, seed=3, augmentation=shown)
    for ours, theirs in zip(
        feed_of(photos, shown).training(batch), in_memory.training(batch), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_evaluation_shows_the_middle(photos: Photos) -> None:
    loader = feed_of(photos, Augmentation(crop="area"))
    ((images, labels),) = loader.evaluation(torch.arange(6), 10, rank=0, ranks=1)
    assert torch.equal(images, HALF(photos[torch.arange(6)]))
    assert labels.tolist() == [0, 1] * 3


def test_a_corrupt_photo_ends_the_stream_with_its_name(photos: Photos, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(photos.paths[0].read_bytes()[:500])
    broken = Photos((*photos.paths[:3], tmp_path / "bad.png", *photos.paths[4:]), 3, 24, 0.875)
    batches = TrainingBatches(torch.arange(6), 2, seed=3).between(0, 3)
    stream = feed_of(broken, Augmentation()).stream(batches, lambda step: 0)
    with pytest.raises(DataError, match=r"bad\.png: it cannot be decoded"):
        [ready() for _, ready in stream]
