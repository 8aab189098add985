"""Augmentation: slow loops in numpy, every offset and flip, and independence of batches."""

from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional

from resnetkit.data.augment.crop_and_flip import (
    augment,
    color_shifts,
    crop_and_flip,
    flips,
    measure_color_axes,
)
from resnetkit.data.draws import Draws

PADDING, SIZE = 4, 32
OFFSETS = 2 * PADDING + 1
UNLIKELY = 1e-4


def slow_crop_and_flip(
    image: np.ndarray, row: int, column: int, flipped: bool, size: tuple[int, int]
) -> np.ndarray:
    window = image[:, row : row + size[0], column : column + size[1]]
    return window[:, :, ::-1] if flipped else window


def numbered_images(count: int) -> Tensor:
    """Returns images whose pixel at (y, x) has the value 1 + 32y + x."""
    image = 1 + torch.arange(SIZE * SIZE, dtype=torch.float32).reshape(1, 1, SIZE, SIZE)
    return image.expand(count, -1, -1, -1)


def seen_views(views: Tensor) -> np.ndarray:
    """Reads off numbered images, after augmentation, which of the 162 views each one is.

    The pixel in the middle is always one of the image; its number says which, and the one to its
    right whether x grows or falls.
    """
    middle = SIZE // 2
    number = views[:, 0, middle, middle].long() - 1
    flipped = views[:, 0, middle, middle + 1] < views[:, 0, middle, middle]
    row = number // SIZE - middle + PADDING
    origin = torch.where(flipped, SIZE - 1 - middle, middle)
    column = number % SIZE - origin + PADDING
    assert row.min() >= 0
    assert row.max() < OFFSETS
    assert column.min() >= 0
    assert column.max() < OFFSETS
    return ((row * OFFSETS + column) * 2 + flipped).numpy()


def views_of(count: int, *, seed: int = 0, epoch: int = 0) -> np.ndarray:
    """Returns the views of so many samples, augmented as in the paper."""
    seen = [
        seen_views(
            augment(
                numbered_images(len(ids)),
                Draws(ids, seed, epoch),
                crop_padding=PADDING,
                flip="random",
            )
        )
        for ids in torch.arange(count).split(2_000)
    ]
    return np.concatenate(seen)


def assert_all_views_equally_often(views: np.ndarray) -> None:
    counts = np.bincount(views, minlength=2 * OFFSETS**2).reshape(OFFSETS**2, 2)
    assert counts.shape == (81, 2)
    assert (counts > 0).all()
    assert stats.chisquare(counts.flatten()).pvalue > UNLIKELY
    assert stats.chisquare(counts.sum(1)).pvalue > UNLIKELY
    assert stats.chisquare(counts.sum(0)).pvalue > UNLIKELY


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_crop_and_flip_equals_slicing_image_by_image(data: st.DataObject) -> None:
    side = st.integers(min_value=1, max_value=9)
    batch, channels, height, width = (data.draw(side) for _ in range(4))
    size = (data.draw(st.integers(1, height)), data.draw(st.integers(1, width)))
    images = torch.randn(batch, channels, height, width)
    if data.draw(st.booleans()):
        images = images.contiguous(memory_format=torch.channels_last)

    def drawn(strategy: st.SearchStrategy[int]) -> list[int]:
        return data.draw(st.lists(strategy, min_size=batch, max_size=batch))

    rows = drawn(st.integers(0, height - size[0]))
    columns = drawn(st.integers(0, width - size[1]))
    mirrored = data.draw(st.lists(st.booleans(), min_size=batch, max_size=batch))

    fast = crop_and_flip(
        images, torch.tensor(rows), torch.tensor(columns), torch.tensor(mirrored), size=size
    )
    slow = [
        slow_crop_and_flip(image, row, column, flipped, size)
        for image, row, column, flipped in zip(images.numpy(), rows, columns, mirrored, strict=True)
    ]
    np.testing.assert_array_equal(fast.numpy(), np.stack(slow))


def test_every_one_of_the_81_crops_and_its_mirror_image_comes_equally_often_over_samples() -> None:
    assert_all_views_equally_often(views_of(8_100))


def test_every_one_of_the_81_crops_and_its_mirror_image_comes_equally_often_over_epochs() -> None:
    views = [views_of(1, epoch=epoch)[0] for epoch in range(3_240)]
    assert_all_views_equally_often(np.array(views))


def test_row_column_and_flip_are_independent_of_each_other() -> None:
    views = views_of(16_200, seed=1)
    flipped, column, row = views % 2, views // 2 % OFFSETS, views // 2 // OFFSETS
    for first, second in ((row, column), (row, flipped), (column, flipped)):
        table = np.histogram2d(first, second, bins=(first.max() + 1, second.max() + 1))[0]
        assert stats.chi2_contingency(table).pvalue > UNLIKELY


def test_other_seeds_and_epochs_give_other_views() -> None:
    base = views_of(500)
    for other in (views_of(500, seed=1), views_of(500, epoch=1)):
        assert (base == other).mean() < 0.05  # 1 in 162 by chance


@pytest.mark.parametrize(("padding", "mode"), [("zeros", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize("amount", [1, 3, 7])
def test_what_lies_around_an_image_is_what_numpy_pads(
    padding: Literal["zeros", "reflect"], mode: Literal["constant", "reflect"], amount: int
) -> None:
    """Every view is a window of the image padded by numpy, and all of them are met."""
    image = torch.arange(1, 65, dtype=torch.float32).reshape(1, 1, 8, 8)
    padded = np.pad(image[0, 0].numpy(), amount, mode=mode)
    windows = {
        padded[row : row + 8, column : column + 8].tobytes()
        for row in range(2 * amount + 1)
        for column in range(2 * amount + 1)
    }
    ids = torch.arange(30 * (2 * amount + 1) ** 2)
    views = augment(
        image.expand(len(ids), -1, -1, -1),
        Draws(ids, 0, 0),
        crop_padding=amount,
        padding=padding,
    )
    assert {view.numpy().tobytes() for view in views[:, 0].contiguous()} == windows


def test_no_padding_and_no_flip_leave_images_as_they_are() -> None:
    images = torch.randn(5, 3, 6, 7)
    assert torch.equal(augment(images, Draws(torch.arange(5), 0, 0), crop_padding=0), images)


def test_images_of_unequal_sides_keep_their_size() -> None:
    images = torch.randn(5, 3, 6, 9)
    views = augment(images, Draws(torch.arange(5), 0, 0), crop_padding=2, flip="random")
    assert views.shape == images.shape


def test_alternating_flips_alternate_exactly_from_a_random_start() -> None:
    ids = torch.arange(10_000)
    epochs = [flips(Draws(ids, 5, epoch), "alternating") for epoch in range(5)]
    for before, after in pairwise(epochs):
        assert torch.equal(before, ~after)
    assert stats.binomtest(int(epochs[0].sum()), 10_000).pvalue > UNLIKELY


def test_random_flips_do_not_alternate() -> None:
    ids = torch.arange(10_000)
    first, second = (flips(Draws(ids, 5, epoch), "random") for epoch in (0, 1))
    assert stats.binomtest(int((first == second).sum()), 10_000).pvalue > UNLIKELY


def test_no_flip_shows_no_mirror_image() -> None:
    assert not flips(Draws(torch.arange(1_000), 0, 0), "none").any()


@pytest.mark.parametrize("channels_last", [False, True])
def test_output_has_its_channels_last_in_memory(channels_last: bool) -> None:
    images = torch.randn(4, 3, 8, 8)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    views = augment(images, Draws(torch.arange(4), 0, 0), crop_padding=1, flip="random")
    assert views.stride() == (3 * 8 * 8, 1, 8 * 3, 3)
    assert views.is_contiguous(memory_format=torch.channels_last)


@given(
    ids=st.permutations(range(24)),
    cuts=st.lists(st.integers(0, 24), max_size=4),
    ranks=st.integers(1, 4),
)
@settings(max_examples=30, deadline=None)
def test_a_sample_looks_the_same_however_samples_are_divided(
    ids: list[int], cuts: list[int], ranks: int
) -> None:
    images = torch.randn(24, 2, 8, 8, generator=torch.Generator().manual_seed(0))

    def seen(sample_ids: Tensor) -> Tensor:
        return augment(images[sample_ids], Draws(sample_ids, 9, 3), crop_padding=2, flip="random")

    together = seen(torch.arange(24))
    bounds = [0, *sorted(cuts), 24]
    for start, stop in pairwise(bounds):
        part = torch.tensor(ids[start:stop], dtype=torch.int64)
        for rank in range(ranks):
            share = part[rank::ranks]
            assert torch.equal(seen(share), together[share])


def test_small_crops_lie_at_every_place_of_the_padded_image_equally_often() -> None:
    size, ids = 3, torch.arange(9_000)
    side = 5 + 2 * 1 - size + 1
    images = torch.arange(1.0, 26).reshape(1, 1, 5, 5).expand(len(ids), 1, 5, 5)
    crops = augment(images, Draws(ids, 0, 0), crop_padding=1, size=size)
    assert crops.shape == (len(ids), 1, size, size)
    padded = functional.pad(images[:1], (1,) * 4)
    windows = padded.unfold(2, size, 1).unfold(3, size, 1).reshape(side**2, size**2)
    matches = (crops.reshape(len(ids), 1, -1) == windows).all(2)
    assert (matches.sum(1) == 1).all()
    assert stats.chisquare(matches.sum(0)).pvalue > UNLIKELY


def test_color_axes_are_scikit_learns_principal_components() -> None:
    generator = torch.Generator().manual_seed(0)
    gray = torch.randint(40, 200, (20, 1, 6, 6), generator=generator)
    noise = torch.randint(-30, 30, (20, 3, 6, 6), generator=generator)
    images = (gray + noise * torch.tensor([1, 0.5, 0.2])[:, None, None]).to(torch.uint8)
    pixels = images.permute(0, 2, 3, 1).reshape(-1, 3).numpy() / 255
    theirs = PCA().fit(pixels)
    axes = measure_color_axes(images).flip(1)  # theirs begin with the largest
    np.testing.assert_allclose(axes.norm(dim=0), theirs.explained_variance_, rtol=1e-6)
    cosines = (axes / axes.norm(dim=0)).T.numpy() * theirs.components_
    np.testing.assert_allclose(np.abs(cosines.sum(1)), 1, rtol=1e-6)


def test_colors_are_shifted_by_a_tenth_of_the_variance_along_each_axis() -> None:
    axes = torch.diag(torch.tensor([0.2, 0.02, 0.004], dtype=torch.float64))
    shifts = color_shifts(Draws(torch.arange(20_000), 0, 0), axes)
    assert shifts.shape == (20_000, 3, 1, 1)
    for axis, variance in enumerate((0.2, 0.02, 0.004)):
        drawn = shifts[:, axis, 0, 0].numpy() / (0.1 * variance * 255)
        assert stats.kstest(drawn, "norm").pvalue > UNLIKELY
