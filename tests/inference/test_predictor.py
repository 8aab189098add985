"""Answers of a predictor against PIL and torch by hand, and against evaluation to the bit."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import resnetkit
from resnetkit.data.datasets import open_dataset
from resnetkit.data.images.check import BadImage
from resnetkit.data.prefetch import BATCHES_AHEAD
from resnetkit.errors import DataError, ResnetkitError, UsageError
from resnetkit.evaluation.evaluate import predict_probabilities
from resnetkit.inference.engines import torch as engine_module
from resnetkit.inference.predictor import Answer, Predictor
from resnetkit.runtime.precision import choose_precision
from resnetkit.weights import load as load_module
from resnetkit.weights.network import TrainedNetwork

Draw = Callable[..., Image.Image]
MakeNetwork = Callable[..., TrainedNetwork]
CPU = torch.device("cpu")


def by_hand(network: TrainedNetwork, image: Image.Image) -> Tensor:
    """Returns the probabilities of an image, worked out with PIL and torch: float64 (K,)."""
    size = network.image_size[0]
    image = image.convert("L" if len(network.normalization.mean) == 1 else "RGB")
    side = round(size / 0.875)
    width, height = image.size
    scale = side / min(width, height)
    image = image.resize(
        (max(side, int(width * scale)), max(side, int(height * scale))), Image.Resampling.BILINEAR
    )
    left, upper = round((image.width - size) / 2), round((image.height - size) / 2)
    pixels = np.asarray(image.crop((left, upper, left + size, upper + size)), dtype=np.float32)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    images = (
        torch.from_numpy(pixels).permute(2, 0, 1)[None] - network.normalization.mean
    ) / network.normalization.std
    with torch.no_grad():
        return network.model(images)[0].double().softmax(0)


def probabilities(answer: Answer | BadImage, classes: int) -> Tensor:
    assert isinstance(answer, Answer)
    values = torch.zeros(classes, dtype=torch.float64)
    for guess in answer.ranked:
        values[guess.label] = guess.probability
    return values


def decoding() -> list[threading.Thread]:
    """Returns the threads that decode for a predictor."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("channels", [1, 3])
def test_answers_are_those_worked_out_by_hand(
    make_network: MakeNetwork, draw: Draw, channels: int, tmp_path: Path
) -> None:
    network = make_network(channels=channels)
    sizes = [(40, 30), (30, 40), (24, 24), (101, 67), (25, 50), (500, 375)]
    images = [draw(number, size) for number, size in enumerate(sizes)]
    paths = [tmp_path / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        image.save(path)
    answers = list(Predictor.of(network, batch_size=4).predict(paths, top=7))
    assert [answer.name for answer in answers] == [str(path) for path in paths]
    best = set()
    for answer, image in zip(answers, images, strict=True):
        expected = by_hand(network, image)
        torch.testing.assert_close(probabilities(answer, 7), expected, rtol=1e-4, atol=1e-5)
        assert [guess.probability for guess in answer.ranked] == sorted(
            (guess.probability for guess in answer.ranked), reverse=True
        )
        assert [guess.name for guess in answer.ranked] == [
            f"kind {guess.label}" for guess in answer.ranked
        ]
        best.add(int(expected.argmax()))
    assert len(best) > 1  # images that are told apart


def test_images_of_a_named_set_get_the_probabilities_of_evaluation(
    make_network: MakeNetwork, tmp_path: Path
) -> None:
    network = make_network(data="digits", crop_pct=1.0, channels=1, size=(8, 8), classes=10)
    digits = open_dataset("digits")
    sample_ids = digits.splits["test"][:60]
    expected = predict_probabilities(
        network, digits, sample_ids, flip=False, precision=choose_precision("float32", CPU)
    )
    paths = []
    for sample in sample_ids.tolist():
        paths.append(tmp_path / f"{sample}.png")
        Image.fromarray(digits.images[sample, 0].numpy()).save(paths[-1])
    answers = Predictor.of(network, device="cpu", batch_size=60).predict(paths, top=10)
    predicted = torch.stack([probabilities(answer, 10) for answer in answers])
    assert np.array_equal(predicted.numpy(), expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_custom_photos_get_the_probabilities_of_evaluation(
    make_network: MakeNetwork, draw: Draw, tmp_path: Path, precision: str
) -> None:
    for number in range(12):
        folder = tmp_path / f"class{number % 2}"
        folder.mkdir(exist_ok=True)
        draw(number, (40 + 30 * number, 300)).save(folder / f"{number}.jpg")
    photos = open_dataset(str(tmp_path), image_size=24)
    network = make_network(data=str(tmp_path), classes=2)
    expected = predict_probabilities(
        network,
        photos,
        torch.arange(12),
        flip=False,
        precision=choose_precision(precision, CPU),
    )
    predictor = Predictor.of(network, device="cpu", precision=precision, batch_size=12)
    answers = list(predictor.predict(photos.images.paths))  # type: ignore[union-attr]
    assert np.array_equal(
        torch.stack([probabilities(answer, 2) for answer in answers]).numpy(), expected
    )


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_bad_files_are_reported_in_order_and_the_rest_is_predicted(
    make_network: MakeNetwork, good_and_bad: list[Path], batch_size: int
) -> None:
    network = make_network()
    answers = list(Predictor.of(network, batch_size=batch_size).predict(good_and_bad))
    for answer, path in zip(answers, good_and_bad, strict=True):
        if path.stem.isdecimal():
            with Image.open(path) as image:
                expected = by_hand(network, image)
            assert answer.name == str(path)
            assert answer.ranked[0].label == int(expected.argmax())
            assert answer.ranked[0].probability == pytest.approx(float(expected.max()), rel=1e-4)
        else:
            assert answer.path == path
            assert answer.reason.startswith(f"{path}: ")
    assert answers[1].ranked == pytest.approx(answers[-1].ranked)  # the same file twice


def test_a_bad_image_is_yielded_unchanged(make_network: MakeNetwork, draw: Draw) -> None:
    bad = BadImage(Path("void"), "void: nothing is there.")
    first, second = Predictor.of(make_network()).predict([bad, draw(0)])
    assert first == bad
    assert (second.name, len(second.ranked)) == (None, 5)


def test_a_single_image_needs_no_list(
    make_network: MakeNetwork, draw: Draw, tmp_path: Path
) -> None:
    predictor, path = Predictor.of(make_network()), tmp_path / "one.png"
    draw(0).save(path)
    for picture in (path, str(path), path.read_bytes(), draw(0)):
        (answer,) = predictor.predict(picture)
        assert answer.ranked == next(predictor.predict([path])).ranked


def test_no_more_classes_than_there_are_and_names_where_there_are_none(
    make_network: MakeNetwork, draw: Draw
) -> None:
    predictor = Predictor.of(make_network(names=False))
    (answer,) = predictor.predict(draw(0), top=1000)
    assert len(answer.ranked) == 7
    assert sum(guess.probability for guess in answer.ranked) == pytest.approx(1)
    assert [guess.name for guess in answer.ranked] == [
        f"class {guess.label}" for guess in answer.ranked
    ]


def test_of_equal_probabilities_the_lower_label_comes_first(
    make_network: MakeNetwork, draw: Draw
) -> None:
    network = make_network(classes=1000)
    torch.nn.init.zeros_(network.model.fc.weight)
    (answer,) = Predictor.of(network).predict(draw(0), top=500)
    assert [guess.label for guess in answer.ranked] == list(range(500))
    assert [guess.probability for guess in answer.ranked] == [pytest.approx(1 / 1000)] * 500


def test_answers_that_are_no_numbers_are_errors(make_network: MakeNetwork, draw: Draw) -> None:
    network = make_network()
    network.model.fc.weight.data[0, 0] = float("nan")
    (answer,) = Predictor.of(network).predict(draw(0))
    reason = (
        "the image: the output of the network is not finite: its weights do not fit this image."
    )
    assert answer == BadImage(None, reason)
    assert list(Predictor.of(network).features(draw(0), layer="fc")) == [answer]


def test_no_more_is_read_than_a_few_batches_ahead(make_network: MakeNetwork, draw: Draw) -> None:
    taken = count()

    def endless() -> Iterator[Image.Image]:
        while True:
            next(taken)
            yield draw(0)

    answers = Predictor.of(make_network(), batch_size=4).predict(endless())
    for _ in range(8):
        next(answers)
    assert decoding()
    assert next(taken) <= (1 + BATCHES_AHEAD) * 4 + 5
    answers.close()  # type: ignore[attr-defined]
    del answers
    assert not decoding()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "a batch of 0 images: expected from 1 to 4,096"),
        ({"batch_size": 10**6}, "a batch of 1000000 images"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    make_network: MakeNetwork, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Predictor.of(make_network(), **changes)  # type: ignore[arg-type]


def test_questions_that_cannot_be_are_refused_at_once(make_network: MakeNetwork) -> None:
    predictor = Predictor.of(make_network())
    with pytest.raises(UsageError, match="the 0 most probable classes: expected at least 1"):
        predictor.predict([], top=0)
    with pytest.raises(UsageError, match=r"unknown layer 'stage5': .* fc. Did you mean 'stage4'"):
        predictor.features([], layer="stage5")
    channels = replace(make_network().architecture, in_channels=2)
    with pytest.raises(DataError, match="takes images with 2 channels"):
        Predictor.of(replace(make_network(), architecture=channels))


def test_threads_share_a_predictor(make_network: MakeNetwork, draw: Draw) -> None:
    predictor, images = Predictor.of(make_network(), batch_size=3), [draw(n) for n in range(8)]
    expected = list(predictor.predict(images))
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(lambda: list(predictor.predict(images))) for _ in range(8)]
    assert all(result.result() == expected for result in results)


def test_a_network_is_placed_once(
    make_network: MakeNetwork, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, moves = make_network(), count()
    move = network.model.to
    monkeypatch.setattr(network.model, "to", lambda *a, **k: (next(moves), move(*a, **k))[1])
    list(Predictor.of(network, batch_size=1).predict([draw(n) for n in range(5)]))
    assert next(moves) == 1


def test_too_little_memory_is_an_error_of_its_own(
    make_network: MakeNetwork, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network()

    def fails(error: Exception) -> None:
        def forward(_: Tensor) -> Tensor:
            raise error

        monkeypatch.setattr(network.model, "forward", forward)

    short = [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ]
    for error in short:
        fails(error)
        with pytest.raises(ResnetkitError, match="use a smaller --batch-size"):
            list(Predictor.of(network).predict(draw(0)))
    fails(RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        list(Predictor.of(network).predict(draw(0)))


def test_it_is_loaded_in_one_call(
    make_network: MakeNetwork, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, asked = make_network(), []

    def load(path: Path, *, variant: str) -> TrainedNetwork:
        asked.append((path, variant))
        return network

    monkeypatch.setattr(load_module, "load_network", load)
    predictor = resnetkit.load_predictor("some/run", variant="v1", batch_size=3)
    assert asked == [(Path("some/run"), "v1")]
    assert (predictor.engine.network, predictor.batch_size) == (network, 3)  # type: ignore[attr-defined]
    assert isinstance(predictor, resnetkit.Predictor)
    np.testing.assert_allclose(
        predictor.engine.probabilities(predictor.transform.pixels(draw(1))[None])[0],
        by_hand(network, draw(1)),
        rtol=1e-4,
        atol=1e-5,
    )


def float32_precisions() -> list[str]:
    backends: Any = torch.backends
    return [backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision]


def test_a_gpu_predicts_in_full_float32(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, seen = make_network(), []
    engine = engine_module.TorchEngine(network, device="cpu")
    monkeypatch.setattr(engine, "device", torch.device("cuda"))  # the model stays where it is
    network.model.conv1.register_forward_hook(lambda *_: seen.append(float32_precisions()))
    before = float32_precisions()
    pixels = np.zeros((1, len(network.normalization.mean), *network.image_size), np.uint8)
    engine.probabilities(pixels)
    engine.features(pixels, "pool")
    assert seen == [["ieee", "ieee"]] * 2
    assert float32_precisions() == before
