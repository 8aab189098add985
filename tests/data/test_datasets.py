"""Named data sets: what they hold, how they are split for ever, and what is refused."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.datasets
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from resnetkit.data import datasets
from resnetkit.data.dataset import Dataset
from resnetkit.data.datasets import (
    DATASETS,
    custom_path,
    open_dataset,
    open_digits,
    other_meaning,
)
from resnetkit.data.stratified import stratified_split
from resnetkit.errors import DataError, UsageError
from resnetkit.training.recipe import load_recipe

# Published results depend on who is in which part: these may never change.
SPLIT_SHA256 = {
    "train": "058a15d89e680db0f4b8fbfface0e9987f330e6898bbaa15b9cd380c5d41e0b0",
    "validation": "7c3d8fcce83969fa2a8c98c393a6e046b1ded64bdcaa52eb155c67d0daed5f56",
    "test": "5ca23d3a475054c6fad95539abf595b770cf16daab241356cb41a6a9a37cad51",
}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_dataset("digits")


def test_digits_are_those_of_scikit_learn(digits: Dataset) -> None:
    theirs = sklearn.datasets.load_digits()
    assert digits.images.dtype == torch.uint8
    assert digits.images.shape == (1797, 1, 8, 8)
    assert digits.labels.dtype == torch.int64
    np.testing.assert_array_equal(digits.labels.numpy(), theirs.target)
    # 17 levels from 0 to 16 become 17 levels from 0 to 255, and back again.
    brightness = digits.images[:, 0].numpy() / 255
    np.testing.assert_array_equal(np.rint(brightness * 16), theirs.images)
    np.testing.assert_allclose(brightness, theirs.images / 16, atol=0.5 / 255)
    assert digits.images.max() == 255
    assert digits.class_names == tuple("0123456789")
    assert not digits.mirrored
    assert (digits.channels, digits.image_size) == (1, (8, 8))


def test_digits_are_read_without_importing_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    open_digits()
    assert "sklearn" not in sys.modules


def test_digits_are_asked_of_scikit_learn_where_its_file_lies_elsewhere(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "find_spec", lambda name: None)  # as for a frozen program
    again = open_digits()
    assert isinstance(again.images, Tensor)
    assert torch.equal(again.images, digits.images[:])
    assert torch.equal(again.labels, digits.labels)


def test_digits_are_split_into_splits_of_fixed_size(digits: Dataset) -> None:
    sizes = {name: len(ids) for name, ids in digits.splits.items()}
    assert sizes == {"train": 1259, "validation": 179, "test": 359}


def test_every_digit_is_in_exactly_one_split(digits: Dataset) -> None:
    together = torch.cat(list(digits.splits.values()))
    assert together.sort().values.tolist() == list(range(1797))


def test_every_class_has_its_fraction_of_every_split_within_one_sample(digits: Dataset) -> None:
    members = digits.labels.bincount()
    for split, fraction in {"test": 0.2, "validation": 0.1, "train": 0.7}.items():
        counts = digits.labels[digits.splits[split]].bincount(minlength=10)
        assert (counts - fraction * members).abs().max() < 1


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_split_of_digits_never_changes(digits: Dataset, split: Any) -> None:
    ids = ",".join(map(str, digits.splits[split].tolist()))
    assert hashlib.sha256(ids.encode()).hexdigest() == SPLIT_SHA256[split]


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=80),
    tenths=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    seed=st.integers(0, 2**63 - 1),
)
def test_a_split_takes_the_given_fraction_of_each_class(
    labels: list[int], tenths: tuple[int, int], seed: int
) -> None:
    test_fraction, validation_fraction = tenths[0] / 10, tenths[1] / 10
    if sum(tenths) == 10:  # two roundings up would ask for more than there is
        validation_fraction -= 0.1
    splits = stratified_split(
        torch.tensor(labels),
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
    )
    assert sorted(torch.cat(list(splits.values())).tolist()) == list(range(len(labels)))
    for label in set(labels):
        count = labels.count(label)
        for split, fraction in (("test", test_fraction), ("validation", validation_fraction)):
            taken = sum(labels[index] == label for index in splits[split].tolist())
            assert abs(taken - fraction * count) <= 0.5 + 1e-9
    assert all(ids.tolist() == sorted(ids.tolist()) for ids in splits.values())


def test_another_seed_gives_another_split(digits: Dataset) -> None:
    fractions = {"test_fraction": 0.2, "validation_fraction": 0.1}
    once, again, other = (
        stratified_split(digits.labels, **fractions, seed=seed)["test"].tolist()
        for seed in (1, 1, 2)
    )
    assert once == again
    assert len(set(once) & set(other)) < 0.35 * len(once)  # a fifth by chance


Table = npt.NDArray[np.float64]


def spoil_image(table: Table) -> Table:
    table[1000, 27] += 1 if table[1000, 27] < 16 else -1
    return table


def spoil_label(table: Table) -> Table:
    table[1000, -1] = (table[1000, -1] + 1) % 10
    return table


def drop_last(table: Table) -> Table:
    return table[:-1]


@pytest.mark.parametrize("spoil", [spoil_image, spoil_label, drop_last])
def test_other_content_is_refused(
    monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Table], Table]
) -> None:
    spoilt = spoil(datasets.digits_table())
    monkeypatch.setattr(datasets, "digits_table", lambda: spoilt)
    monkeypatch.setitem(DATASETS, "digits", open_digits)  # other tests read them only once
    with pytest.raises(DataError, match=r"'digits' is corrupt: .* expected 0b7e9c3202"):
        open_dataset("digits")


def test_an_unknown_name_is_refused_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(DATASETS, "few")  # which only tests have
    with pytest.raises(UsageError) as caught:
        open_dataset("digit")
    assert str(caught.value) == (
        "unknown data set 'digit': expected one of digits, cifar10, cifar100, fashion-mnist,"
        " mnist, or the path of a folder of images. Did you mean 'digits'?"
    )


@pytest.fixture
def _folders_of_every_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes folders here that have the names of data sets and others, and a home with photos."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("digits", "cifar10", "photos", ".hidden", "home/photos"):
        (tmp_path / name).mkdir(parents=True)


@pytest.mark.usefixtures("_folders_of_every_name")
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("digits", None),
        ("cifar10", None),
        ("mnist", None),
        ("", None),
        ("nothing", None),
        ("./digits", "HERE/digits"),
        ("digits/", "HERE/digits"),
        ("HERE/cifar10", "HERE/cifar10"),
        ("photos", "photos"),
        ("./photos", "photos"),
        ("photos/cat", "photos/cat"),
        ("~/photos", "HERE/home/photos"),
        (".hidden", ".hidden"),
        (".", "."),
        ("..", ".."),
        ("./nothing", "nothing"),
        ("~no-such-user/photos", "~no-such-user/photos"),
    ],
)
def test_what_is_typed_as_a_path_is_one_and_any_other_name_is_a_data_sets_first(
    tmp_path: Path, name: str, path: str | None
) -> None:
    actual = custom_path(name.replace("HERE", str(tmp_path)))
    assert actual == (None if path is None else Path(path.replace("HERE", str(tmp_path))))
    if actual is not None and actual.exists():
        assert custom_path(str(actual)) == actual  # as a Path, a path stays one


@pytest.mark.usefixtures("_folders_of_every_name")
def test_a_tilde_that_is_a_name_here_is_that_name(tmp_path: Path) -> None:
    (tmp_path / "~" / "photos").mkdir(parents=True)
    assert custom_path("~/photos") == Path("~/photos")


@pytest.mark.usefixtures("_folders_of_every_name")
def test_a_name_with_two_meanings_gets_a_remark() -> None:
    for name in ("digits", "cifar10"):
        assert f"write './{name}'" in (other_meaning(name) or "")
    for name in ("mnist", "./digits", "photos", "nothing", ""):
        assert other_meaning(name) is None


@pytest.mark.usefixtures("_folders_of_every_name")
def test_a_recipe_keeps_which_one_was_meant(tmp_path: Path) -> None:
    assert load_recipe("digits").data.name == "digits"
    for name, path in {"./digits": "digits", "~/photos": "home/photos"}.items():
        recipe = load_recipe("digits", {"data.name": name, "data.image_size": 32})
        assert recipe.data.name == str(tmp_path / path)
