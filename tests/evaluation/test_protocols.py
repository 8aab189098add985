"""Protocols against torchvision's crops and a loop over single views; ensembles; worst errors."""

import csv
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from resnetkit.data.dataset import Dataset
from resnetkit.data.datasets import open_dataset
from resnetkit.data.images.labels import imagenet_wnids, imagenet_words
from resnetkit.data.images.photos import Photos
from resnetkit.data.prefetch import BATCHES_AHEAD
from resnetkit.errors import DataError, UsageError
from resnetkit.evaluation import protocols
from resnetkit.evaluation.evaluate import (
    evaluate,
    evaluate_all,
    predict_probabilities,
)
from resnetkit.evaluation.network_data import class_columns, data_of, describe_class_order
from resnetkit.evaluation.protocols import PROTOCOLS, SCALES, batches_for
from resnetkit.report.evaluation_report import write_evaluation
from resnetkit.report.language import find_language
from resnetkit.resizing import Resize
from resnetkit.runtime.precision import choose_precision
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe
from resnetkit.training.run_folder import Run
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork

Recipes = Callable[..., Recipe]
SIZE, SIDE = 16, round(16 / 0.875)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def runs(tiny: Recipes, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two trainings on the same photos of unequal sizes, divided in the same way."""
    root = tmp_path_factory.mktemp("protocols")
    rng = np.random.default_rng(0)
    for label in "abc":
        (root / "photos" / label).mkdir(parents=True)
        for number in range(20):
            size = tuple(rng.integers(18, 60, 2))
            pixels = rng.integers(0, 256, (size[0] // 4, size[1] // 4, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
            image.save(root / "photos" / label / f"{number}.png")
    changes = {
        "data.name": str(root / "photos"),
        "data.image_size": SIZE,
        "data.augment.crop": "area",
    }
    changes |= {"data.augment.crop_padding": 0, "length": "2 epochs", "batch_size": 16}
    return [train(tiny({**changes, "optimizer.lr": lr}), root / f"run{lr}") for lr in (0.05, 0.01)]


@pytest.fixture
def network(runs: list[Run]) -> TrainedNetwork:
    return load_network(runs[0].folder)


@pytest.fixture
def dataset(network: TrainedNetwork) -> Dataset:
    return open_dataset(str(network.images.path), image_size=SIZE)


def views_by_hand(image: Image.Image, protocol: str) -> list[torch.Tensor]:
    """Returns the views of one image by torchvision's transforms, uint8 (C, H, W)."""
    resized = v2.functional.pil_to_tensor(v2.Resize(SIDE)(image))
    if protocol == "center":
        return [v2.functional.center_crop(resized, [SIZE, SIZE])]
    if protocol == "ten-crop":
        return list(v2.functional.ten_crop(resized, [SIZE, SIZE]))
    found = []
    for scale in SCALES:
        whole = v2.functional.pil_to_tensor(v2.Resize(round(scale * SIZE / 224))(image))
        found += [whole, whole.flip(2)]
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_probabilities_are_the_mean_over_torchvisions_views(
    protocol: Any, network: TrainedNetwork, dataset: Dataset
) -> None:
    ids = dataset.splits["test"]
    found = predict_probabilities(
        network, dataset, ids, protocol=protocol, precision=choose_precision("float32", CPU)
    )
    assert dataset.custom is not None
    for row, sample_id in zip(found, ids.tolist(), strict=True):
        image = Image.open(dataset.custom.files[sample_id].path)
        views = [
            (view.float() - network.normalization.mean) / network.normalization.std
            for view in views_by_hand(image, protocol)
        ]
        with torch.inference_mode():
            each = [network.model(view[None]).double().softmax(1)[0] for view in views]
        np.testing.assert_allclose(row, torch.stack(each).mean(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_next_images_are_decoded_while_the_network_computes(
    network: TrainedNetwork,
    dataset: Dataset,
    protocol: protocols.Protocol,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    second = threading.Event()
    decoded: list[list[int]] = []
    real = protocols.views_of_photos

    def counted(
        photos: Photos, protocol: protocols.Protocol, size: int, ids: torch.Tensor
    ) -> list[torch.Tensor]:
        decoded.append(ids.tolist())
        if len(decoded) == 2:
            second.set()
        return real(photos, protocol, size, ids)

    monkeypatch.setattr(protocols, "views_of_photos", counted)
    batches = [torch.tensor([sample_id]) for sample_id in range(12)]
    seen = protocols.views_of(network, dataset, batches, protocol=protocol, flip=False, device=CPU)
    ids, _ = next(seen)
    assert ids.tolist() == [0]
    assert second.wait(timeout=30)  # although nothing has asked for it yet
    assert len(decoded) <= 2 + BATCHES_AHEAD  # memory is bounded
    assert [ids.tolist() for ids, _ in seen] == [[number] for number in range(1, 12)]
    assert decoded == [[number] for number in range(12)]


def test_a_run_is_measured_on_the_images_it_kept_apart(runs: list[Run], dataset: Dataset) -> None:
    """The list in the run's folder decides, not a new drawing with another seed."""
    final = runs[0].final
    assert final is not None
    found = evaluate(load_network(runs[0].folder), dataset, device="cpu")
    assert found.metrics.top1.error == pytest.approx(final.test.error)
    assert found.metrics.loss == pytest.approx(final.test.loss, rel=1e-4)
    assert dataset.name == str(runs[0].images_path)


def test_an_ensemble_averages_probabilities(runs: list[Run], dataset: Dataset) -> None:
    networks = [load_network(run.folder) for run in runs]
    shares: list[float] = []
    first, second, together = evaluate_all(networks, dataset, device="cpu", observe=shares.append)
    ids, precision = dataset.splits["test"], choose_precision("float32", CPU)
    rows = [predict_probabilities(n, dataset, ids, precision=precision) for n in networks]
    labels = dataset.labels[ids].numpy()
    wrong = (np.mean(rows, axis=0).argmax(1) != labels).mean() * 100
    assert together.metrics.top1.error == pytest.approx(wrong)
    assert together.origin == "ensemble of 2 networks"
    alone = evaluate(networks[0], dataset, device="cpu")
    assert (first.metrics.loss, first.worst) == (alone.metrics.loss, alone.worst)
    assert second.metrics.loss != first.metrics.loss
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_the_worst_errors_are_the_surest_wrong_answers(
    network: TrainedNetwork, dataset: Dataset
) -> None:
    found = evaluate(network, dataset, split="train", device="cpu")
    ids, precision = dataset.splits["train"], choose_precision("float32", CPU)
    rows = predict_probabilities(network, dataset, ids, precision=precision)
    labels = dataset.labels[ids].numpy()
    sureness = np.where(rows.argmax(1) != labels, rows.max(1), -1)
    expected = [int(ids[place]) for place in np.argsort(-sureness, kind="stable")]
    count = min(24, int((sureness > 0).sum()))
    assert [each.sample_id for each in found.worst] == expected[:count]
    assert dataset.custom is not None
    for each in found.worst:
        assert each.true != each.predicted
        assert each.name == str(dataset.custom.files[each.sample_id].path)
        assert Path(each.name).parent.name == each.true


def test_what_images_do_not_allow_is_refused(network: TrainedNetwork, dataset: Dataset) -> None:
    digits = replace(open_dataset("digits"), mirrored=True)
    small = replace(network, architecture=replace(network.architecture, in_channels=1))
    small = replace(small, class_names=(), image_size=(8, 8))
    ten = replace(small.architecture, num_classes=10)
    with pytest.raises(
        DataError, match="'ten-crop' needs image files larger than the network's input"
    ):
        evaluate(replace(small, architecture=ten), digits, protocol="ten-crop", device="cpu")
    empty = replace(dataset, splits={**dataset.splits, "validation": torch.arange(0)})
    with pytest.raises(DataError, match="no images in the split 'validation'"):
        evaluate(network, empty, split="validation")
    with pytest.raises(UsageError, match="includes horizontal flips"):
        evaluate(network, dataset, protocol="ten-crop", flip=True)
    with pytest.raises(DataError, match="with the protocol center"):
        evaluate(network, replace(dataset, mirrored=False), protocol="ten-crop")


def test_images_that_were_learned_from_are_counted(
    runs: list[Run], dataset: Dataset, network: TrainedNetwork, tmp_path: Path
) -> None:
    """A folder without parts is a test set as a whole; most of this one was learned from."""
    photos = str(Path(runs[0].recipe.data.name))
    whole = data_of(network, photos)
    assert len(whole.splits["test"]) == 60
    assert evaluate(network, whole, device="cpu").learned == len(dataset.splits["train"])
    assert evaluate(network, dataset, device="cpu").learned == 0
    assert evaluate(network, dataset, split="train", device="cpu").learned == 0
    *_, together = evaluate_all([load_network(run.folder) for run in runs], whole, device="cpu")
    assert together.learned == len(dataset.splits["train"])
    copied = load_network(runs[0].model)
    assert copied.images == network.images  # the model of a run belongs to its list
    page = write_evaluation(tmp_path / "page", [together], whole).read_text()
    assert f"was trained on {together.learned} of these 60 images" in page


def in_list_of(run: Path, change: Callable[[bytes], bytes]) -> TrainedNetwork:
    """Changes the rows of training images in the list of a run, and loads its network."""
    rows = (run / "images.csv").read_bytes().splitlines(keepends=True)
    changed = [change(row) if row.rstrip().endswith(b",train") else row for row in rows]
    (run / "images.csv").write_bytes(b"".join(changed))
    return load_network(run)


def test_images_that_were_learned_from_are_recognized_by_their_content(
    runs: list[Run], network: TrainedNetwork, dataset: Dataset, tmp_path: Path
) -> None:
    photos, trained_on = Path(runs[0].recipe.data.name), len(dataset.splits["train"])
    (tmp_path / "link").symlink_to(photos)
    shutil.copytree(photos, tmp_path / "copy")
    for label in "abc":  # other names, and links to the files one by one
        (tmp_path / "others" / label).mkdir(parents=True)
        for number, path in enumerate(sorted((photos / label).iterdir())):
            (tmp_path / "others" / label / f"other{number}.png").symlink_to(path)
    changed = shutil.copytree(photos, tmp_path / "changed")
    for path in changed.rglob("*.png"):
        path.write_bytes(path.read_bytes() + b"x")
    learned = {
        name: evaluate(network, data_of(network, str(tmp_path / name)), device="cpu").learned
        for name in ("link", "copy", "others", "changed")
    }
    assert learned == {"link": trained_on, "copy": trained_on, "others": trained_on, "changed": 0}


def test_a_list_of_an_older_version_recognizes_them_by_their_path(
    runs: list[Run], dataset: Dataset, tmp_path: Path
) -> None:
    old = shutil.copytree(runs[0].folder, tmp_path / "run")
    rows = list(csv.DictReader((old / "images.csv").read_text().splitlines()))
    with (old / "images.csv").open("w") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "split"))
        table.writerows((row["path"], row["label"], row["split"]) for row in rows)
    (tmp_path / "link").symlink_to(runs[0].recipe.data.name)
    network = load_network(old)
    for name in (runs[0].recipe.data.name, str(tmp_path / "link")):
        found = evaluate(network, data_of(network, name), device="cpu")
        assert found.learned == len(dataset.splits["train"])


def test_a_run_whose_training_images_are_gone_is_measured_on_others(
    runs: list[Run], network: TrainedNetwork, tmp_path: Path
) -> None:
    copy = shutil.copytree(runs[0].folder, tmp_path / "run")
    moved = in_list_of(copy, lambda row: row.replace(b"/photos/", b"/gone/", 1))
    whole = data_of(network, runs[0].recipe.data.name)
    found = [evaluate(each, whole, device="cpu").learned for each in (network, moved)]
    assert found[0] == found[1] > 0  # by their content


def test_images_that_were_moved_keep_their_splits(
    runs: list[Run], network: TrainedNetwork, dataset: Dataset, tmp_path: Path
) -> None:
    copy = shutil.copytree(runs[0].folder, tmp_path / "run")
    new = shutil.copytree(runs[0].recipe.data.name, tmp_path / "new")
    rows = (copy / "images.csv").read_bytes()
    (copy / "images.csv").write_bytes(rows.replace(b"/photos/", b"/gone/"))
    moved = load_network(copy)
    with pytest.raises(DataError, match=r"the images of the run in .* were moved"):
        data_of(moved)
    found = data_of(moved, str(new))
    assert [list(ids) for ids in found.splits.values()] == [
        list(ids) for ids in dataset.splits.values()
    ]
    before, now = (evaluate(network, each, device="cpu") for each in (dataset, found))
    assert now.metrics.confusion == before.metrics.confusion
    assert now.metrics.loss == pytest.approx(before.metrics.loss)
    assert now.learned == 0
    (new / "a" / "0.png").write_bytes((new / "b" / "0.png").read_bytes())
    others = data_of(moved, str(new))  # one is another image: these are others
    assert len(others.splits["test"]) == 60


def test_a_test_set_may_hold_some_of_the_classes(
    runs: list[Run], network: TrainedNetwork, tmp_path: Path
) -> None:
    photos = Path(runs[0].recipe.data.name)
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "c").symlink_to(photos / "c")
    some = data_of(network, str(tmp_path / "some"))
    assert some.class_names == ("a", "b", "c")
    assert some.labels.tolist() == [2] * 20
    (tmp_path / "some" / "d").symlink_to(photos / "a")
    with pytest.raises(DataError, match=r"not trained on: d \(1 in all\)\. Its classes are a, b"):
        data_of(network, str(tmp_path / "some"))


@pytest.mark.parametrize("code", ["en", "ko"])
def test_the_report_shows_every_network_and_the_worst_images(
    code: str, runs: list[Run], dataset: Dataset, tmp_path: Path
) -> None:
    networks = [load_network(run.folder) for run in runs]
    evaluations = evaluate_all(networks, dataset, split="train", device="cpu")
    path = write_evaluation(tmp_path / "new", evaluations, dataset, find_language(code))
    page = path.read_text()
    assert "ensemble of 2 networks" in page
    assert page.count('src="data:image/png;base64,') == len(evaluations[-1].worst) > 0
    assert "http://www" not in page.replace("http://www.w3.org", "")
    facts = json.loads((tmp_path / "new" / "evaluation.json").read_text())
    assert [each["metrics"]["top1"]["error"] for each in facts] == [
        each.metrics.top1.error for each in evaluations
    ]
    assert facts[0]["worst"][0]["name"].endswith(".png")


@pytest.mark.parametrize(("kind", "first"), [("timm", "9"), ("torchvision", "10")])
def test_without_names_of_classes_the_order_is_that_of_the_library_and_said(
    network: TrainedNetwork, tmp_path: Path, kind: str, first: str
) -> None:
    for name in ("9", "10", "x"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 20)).save(tmp_path / name / "1.png")
    nameless = replace(network, class_names=(), format=kind, images=None)
    dataset = data_of(nameless, str(tmp_path))
    assert dataset.class_names[0] == first
    words = describe_class_order(nameless, dataset)
    assert words is not None
    assert f"matched by order{', in natural order' if kind == 'timm' else ''}" in words
    assert f": 0 = {first}, 1 = " in words
    assert describe_class_order(network, dataset) is None


# Networks that expect other images, or number the same classes differently


@pytest.fixture
def other(network: TrainedNetwork) -> TrainedNetwork:
    """The same weights, as if trained on larger images that were resized otherwise."""
    return replace(
        network,
        normalization=network.normalization.per_channel(),
        image_size=(24, 24),
        crop_pct=1.0,
        resize=Resize("bicubic", rounding="floor", draft=False),
    )


@pytest.mark.parametrize("protocol", ["center", "ten-crop"])
def test_every_network_sees_photos_in_its_own_format(
    protocol: Any,
    network: TrainedNetwork,
    other: TrainedNetwork,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside another network it is measured as alone, and so it is in Python."""
    monkeypatch.setattr(protocols, "BATCH_PIXELS", 7 * 24**2)  # other batches for other sizes
    views: dict[str, Any] = {"protocol": protocol, "device": "cpu"}
    alone = [evaluate(each, data_of(each), **views) for each in (network, other)]
    assert alone[0].metrics.loss != pytest.approx(alone[1].metrics.loss)
    dataset = data_of(network)
    *together, ensemble = evaluate_all([network, other], dataset, **views)
    for single, beside in zip(alone, together, strict=True):
        assert beside.metrics.loss == pytest.approx(single.metrics.loss)
        assert beside.metrics.top1 == single.metrics.top1
    ids, precision = dataset.splits["test"], choose_precision("float32", CPU)
    rows = [
        predict_probabilities(each, dataset, ids, protocol=protocol, precision=precision)
        for each in (network, other)
    ]
    mean = np.mean(rows, axis=0)[np.arange(len(ids)), dataset.labels[ids]]
    assert ensemble.metrics.loss == pytest.approx(-np.log(mean).mean())
    listed = open_dataset(str(network.images.path), image_size=SIZE, crop_pct=0.5)
    found, expected = (evaluate(other, each, **views) for each in (listed, data_of(other)))
    assert found.metrics.loss == expected.metrics.loss


def test_the_size_of_batches_follows_the_size_of_images(network: TrainedNetwork) -> None:
    def count(protocol: Any, *sizes: int) -> int:
        networks = [replace(network, image_size=(size, size)) for size in sizes]
        return len(batches_for(networks, torch.arange(1000), protocol)[0])

    assert [count("center", size) for size in (8, 32, 64, 112, 224, 448, 2000)] == [
        *[250] * 4,
        64,
        16,
        1,
    ]
    assert [count("ten-crop", size) for size in (32, 224, 448)] == [25, 25, 16]
    assert [count("multi-scale", size) for size in (32, 224)] == [1, 1]
    assert count("center", 32, 448, 224) == 16


def test_every_network_numbers_classes_as_alone(network: TrainedNetwork, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("10", "9", "x"):
        (tmp_path / name).mkdir()
        for number in range(3):
            pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    networks = [
        replace(network, images=None, class_names=("x", "10", "9")),
        replace(network, images=None, class_names=(), format="timm"),
        replace(network, images=None, class_names=(), format="torchvision"),
    ]
    datasets = [data_of(each, str(tmp_path)) for each in networks]
    assert [each.class_names for each in datasets] == [
        ("x", "10", "9"),
        ("9", "10", "x"),
        ("10", "9", "x"),
    ]
    alone = [
        evaluate(each, dataset, device="cpu")
        for each, dataset in zip(networks, datasets, strict=True)
    ]
    for dataset in datasets:
        *together, ensemble = evaluate_all(networks, dataset, device="cpu")
        for single, beside in zip(alone, together, strict=True):
            assert beside.metrics.loss == pytest.approx(single.metrics.loss)
            assert beside.metrics.top1 == single.metrics.top1
        words = [describe_class_order(each, dataset) for each in networks]
        assert words[0] is None
        assert "in natural order and without case as timm does: 0 = 9, 1 = 10" in str(words[1])
        assert "by order: 0 = 10, 1 = 9, 2 = x" in str(words[2])
        ids, precision = dataset.splits["test"], choose_precision("float32", CPU)
        rows = predict_probabilities(network, dataset, ids, precision=precision)
        in_order = [rows.take(class_columns(each, dataset), axis=1) for each in networks]
        mean = np.mean(in_order, axis=0)[np.arange(len(ids)), dataset.labels[ids]]
        assert ensemble.metrics.loss == pytest.approx(-np.log(mean).mean())


WORDS = imagenet_words()
NAMES_OF_IMAGENET: dict[str, tuple[str, ...]] = {
    "torchvision": WORDS,
    "transformers": tuple(f"{word}, another word" for word in WORDS),
    "ids": imagenet_wnids(),
    "numbers of folders": tuple(map(str, range(1000))),
    "folders out of order": imagenet_wnids()[::-1],
}


@pytest.mark.parametrize("data", NAMES_OF_IMAGENET)
@pytest.mark.parametrize("names", ["torchvision", "transformers"])
def test_imagenet_is_known_under_the_names_of_every_library(
    names: str, data: str, network: TrainedNetwork, dataset: Dataset
) -> None:
    thousand = replace(network.architecture, num_classes=1000)
    known = replace(network, architecture=thousand, class_names=NAMES_OF_IMAGENET[names])
    order = class_columns(known, replace(dataset, class_names=NAMES_OF_IMAGENET[data]))
    step = -1 if data == "folders out of order" else 1
    assert order.tolist() == list(range(1000))[::step]


@pytest.mark.parametrize("data", ["torchvision", "transformers", "ids", "numbers of folders"])
def test_a_nameless_network_of_imagenet_numbers_its_classes_as_all_do(
    data: str, network: TrainedNetwork, dataset: Dataset
) -> None:
    thousand = replace(network.architecture, num_classes=1000)
    nameless = replace(network, architecture=thousand, class_names=(), format="timm")
    order = class_columns(nameless, replace(dataset, class_names=NAMES_OF_IMAGENET[data]))
    assert order.tolist() == list(range(1000))


def test_images_that_evaluation_cannot_show_are_refused_with_the_reason(
    runs: list[Run], network: TrainedNetwork
) -> None:
    oblong = replace(network, image_size=(224, 320))
    with pytest.raises(DataError, match=r"224x320 pixels, but .* squares only. 'resnet predict'"):
        evaluate(oblong, data_of(oblong, runs[0].recipe.data.name), device="cpu")
    layers = replace(network, architecture=replace(network.architecture, in_channels=4))
    with pytest.raises(DataError, match="takes images with 4 channels, but image files have 3"):
        evaluate(layers, data_of(layers, runs[0].recipe.data.name), device="cpu")
