"""Normalization: measured and applied as numpy does in float64."""

import numpy as np
import torch

from resnetkit.data.normalization import Normalization, measure_normalization


def color_images(count: int = 50) -> torch.Tensor:
    """Returns images whose channels have very different means and spreads."""
    generator = torch.Generator().manual_seed(0)
    channels = [
        torch.randint(low, high, (count, 6, 7), dtype=torch.uint8, generator=generator)
        for low, high in ((0, 256), (200, 230), (3, 9))
    ]
    return torch.stack(channels, 1)


def test_channel_normalization_equals_numpy_in_float64() -> None:
    images = color_images()
    wide = images.numpy().astype(np.float64)
    measured = measure_normalization(images, "channel")
    assert measured.mean.shape == measured.std.shape == (3, 1, 1)
    assert measured.mean.dtype == measured.std.dtype == torch.float32
    np.testing.assert_allclose(measured.mean.flatten(), wide.mean((0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(measured.std.flatten(), wide.std((0, 2, 3)), rtol=1e-7)


def test_pixel_mean_equals_numpy_in_float64() -> None:
    images = color_images()
    measured = measure_normalization(images, "pixel-mean")
    assert measured.mean.shape == (3, 6, 7)
    np.testing.assert_allclose(measured.mean, images.numpy().astype(np.float64).mean(0), rtol=1e-7)
    assert measured.std.flatten().tolist() == [255.0] * 3


def test_a_channel_of_one_color_is_not_divided_by_zero() -> None:
    measured = measure_normalization(torch.full((4, 1, 5, 5), 77, dtype=torch.uint8), "channel")
    assert measured.mean.item() == 77
    assert measured.std.item() == 1


def test_normalized_images_equal_numpy_in_float64() -> None:
    images = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8)
    mean, std = torch.tensor([120.5, 3.0, 250.0]), torch.tensor([60.0, 1.0, 33.3])
    expected = (images.numpy().astype(np.float64) - mean.numpy()[:, None, None]) / std.numpy()[
        :, None, None
    ]
    normalized = Normalization(mean[:, None, None], std[:, None, None])(images)
    assert normalized.dtype == torch.float32
    np.testing.assert_allclose(normalized.numpy(), expected, rtol=1e-5, atol=1e-5)
    assert normalized.is_contiguous(memory_format=torch.channels_last)


def test_a_mean_of_each_pixel_is_averaged_for_images_of_other_sizes() -> None:
    images = color_images()
    normalization = measure_normalization(images, "pixel-mean")
    averaged = normalization.per_channel()
    assert normalization.is_per_pixel
    assert not averaged.is_per_pixel
    torch.testing.assert_close(averaged.mean.flatten(), normalization.mean.mean((1, 2)))
    assert torch.equal(averaged.std, normalization.std)
    assert averaged(images[:, :, :3, :3]).shape == (len(images), 3, 3, 3)
