"""The table of data sets: open one by name, with its content verified and its split fixed."""

import hashlib
from collections.abc import Callable
from functools import partial

import torch

from resnetkit.data.dataset import Dataset, Split, stratified_split
from resnetkit.data.published import PUBLISHED, open_published
from resnetkit.errors import DataError, UsageError, did_you_mean

__all__ = ["DATASETS", "Dataset", "Split", "open_dataset", "stratified_split"]

DIGITS_SHA256 = "0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382"


def open_digits() -> Dataset:
    """Opens scikit-learn's 1,797 scanned digits of 8x8 pixels, which come with the library.

    Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI repository.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = torch.from_numpy(digits.target).to(torch.int64)
    sixteenths = torch.from_numpy(digits.images)  # float64 (N, 8, 8), whole numbers from 0 to 16
    dataset = Dataset(
        name="digits",
        images=(sixteenths * 255 / 16).round().to(torch.uint8)[:, None],
        labels=labels,
        class_names=tuple(map(str, digits.target_names)),
        splits=stratified_split(labels, test_share=0.2, validation_share=0.1),
        mirrored=False,
        sha256=DIGITS_SHA256,
    )
    check_digest(dataset)
    return dataset


def check_digest(dataset: Dataset) -> None:
    """Checks that a data set that is in memory is what its digest says.

    Raises:
        DataError: when it is not.
    """
    content = hashlib.sha256(dataset.images.contiguous().numpy().tobytes())
    content.update(dataset.labels.numpy().tobytes())
    if content.hexdigest() != dataset.sha256:
        raise DataError(
            f"the data set '{dataset.name}' is not what it should be: its content has the SHA-256"
            f" {content.hexdigest()[:16]}..., expected {dataset.sha256[:16]}.... Reinstall"
            " scikit-learn, which it comes with."
        )


DATASETS: dict[str, Callable[[], Dataset]] = {
    "digits": open_digits,
    **{name: partial(open_published, name) for name in PUBLISHED},
}


def open_dataset(name: str) -> Dataset:
    """Opens a data set by name.

    Raises:
        UsageError: when there is none of that name.
        DataError: when its content is not what it should be.
    """
    if name not in DATASETS:
        raise UsageError(
            f"unknown data set '{name}': expected one of {', '.join(DATASETS)}."
            + did_you_mean(name, DATASETS)
        )
    return DATASETS[name]()
