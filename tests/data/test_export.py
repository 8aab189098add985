"""Data sets as image files: read again, they are the same images in the same splits."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from resnetkit.data.dataset import Dataset
from resnetkit.data.datasets import DATASETS, open_dataset
from resnetkit.data.export import export_images, folders_of_classes
from resnetkit.data.images.folder import read_images
from resnetkit.data.published.table import PUBLISHED
from resnetkit.data.splits import Split
from resnetkit.errors import StorageError, UsageError


@pytest.fixture
def few() -> Dataset:
    """Returns 150 digits."""
    return DATASETS["few"]()


@pytest.fixture
def color() -> Dataset:
    """Returns six random color images of 3x5 pixels in two classes."""
    return Dataset(
        name="color",
        images=torch.randint(0, 256, (6, 3, 3, 5), dtype=torch.uint8),
        labels=torch.tensor([0, 1, 0, 1, 0, 1]),
        class_names=("T-shirt/top", "ankle boot"),
        splits={
            "train": torch.tensor([4, 1, 0]),
            "validation": torch.tensor([3, 2]),
            "test": torch.tensor([5]),
        },
        mirrored=True,
        sha256="",
    )


def test_the_files_are_the_samples_in_order(color: Dataset, tmp_path: Path) -> None:
    export_images(color, tmp_path / "photos")
    expected = {
        "train/T-shirt-top/0001.png": 4,
        "train/T-shirt-top/0002.png": 0,
        "train/ankle boot/0001.png": 1,
        "val/T-shirt-top/0001.png": 2,
        "val/ankle boot/0001.png": 3,
        "test/ankle boot/0001.png": 5,
    }
    files = sorted((tmp_path / "photos").rglob("*.png"))
    assert [str(path.relative_to(tmp_path / "photos")) for path in files] == sorted(expected)
    for name, sample in expected.items():
        with Image.open(tmp_path / "photos" / name) as image:
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        assert torch.equal(pixels, color.images[torch.tensor(sample)])


def test_the_folder_is_read_as_the_same_splits_and_classes(few: Dataset, tmp_path: Path) -> None:
    counts = export_images(few, tmp_path / "photos")
    images = read_images(tmp_path / "photos")
    assert counts == {split: len(ids) for split, ids in few.splits.items()}
    assert images.class_names == few.class_names
    assert images.remarks == ()
    assert images.skipped == ()
    for split, ids in few.splits.items():
        labels = sorted(int(file.label) for file in images.files if file.split == split)
        assert labels == few.labels[ids].sort().values.tolist()


def test_it_is_opened_as_custom_images(few: Dataset, tmp_path: Path) -> None:
    export_images(few, tmp_path / "photos")
    photos = open_dataset(str(tmp_path / "photos"), image_size=8, crop_pct=1.0, channels=1)
    first = photos.splits["test"][0]
    label = int(photos.labels[first])
    of_label = few.splits["test"][few.labels[few.splits["test"]] == label]
    assert torch.equal(photos.images[first[None]][0], few.images[of_label[0]])


def test_only_the_given_splits_are_written(few: Dataset, tmp_path: Path) -> None:
    splits: list[Split] = ["test", "test"]
    assert list(export_images(few, tmp_path / "photos", splits=splits)) == ["test"]
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["test"]


def test_an_existing_folder_is_left_alone(few: Dataset, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(StorageError, match=r"photos already exists: choose another folder"):
        export_images(few, tmp_path / "photos")
    assert list((tmp_path / "photos").iterdir()) == []


def test_what_fails_leaves_nothing(few: Dataset, tmp_path: Path) -> None:
    def interrupt(fraction: float) -> None:
        if fraction > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_images(few, tmp_path / "photos", observe=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_noticed_before_anything_is_written(
    few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(free=150 * 4096 - 1)  # a block for each image, less one byte
    monkeypatch.setattr("shutil.disk_usage", lambda folder: free)
    with pytest.raises(StorageError, match=r"may need 1 MiB, but 1 MiB are free\. Free some"):
        export_images(few, tmp_path / "new" / "photos")
    assert list(tmp_path.iterdir()) == []


def test_nothing_and_files_are_refused(few: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected train, validation or test"):
        export_images(few, tmp_path / "photos", splits=[])
    export_images(few, tmp_path / "photos")
    custom = replace(few, name="mine", custom=read_images(tmp_path / "photos"))
    with pytest.raises(UsageError, match="mine consists of image files already"):
        export_images(custom, tmp_path / "again")


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_class_has_a_folder_of_its_own(name: str) -> None:
    names = PUBLISHED[name].class_names
    assert len(set(folders_of_classes(names))) == len(names)


def test_progress_reaches_the_end(few: Dataset, tmp_path: Path) -> None:
    fractions: list[float] = []
    export_images(few, tmp_path / "photos", splits=["validation"], observe=fractions.append)
    assert fractions[-1] == 1.0
    assert fractions == sorted(fractions)
