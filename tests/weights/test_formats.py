"""What all formats share: there and back to the bit, what a format cannot hold, hostile files."""

import io
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from helpers.weights import (
    HELD,
    IMAGENET,
    Malicious,
    answers,
    assert_answers,
    caffe_file,
    caffe_layers,
    generator,
    images,
    keras_layers,
    narrow,
    place,
    sweep,
    transformers_folder,
    transformers_name,
    write_caffe,
    write_keras,
)
from resnetkit.errors import StorageError, UsageError, WeightsError
from resnetkit.inference.predictor import Predictor
from resnetkit.resizing import Resize
from resnetkit.weights import hdf5
from resnetkit.weights.conventions import fractions, pixels
from resnetkit.weights.export import export_weights
from resnetkit.weights.format import WeightsSource
from resnetkit.weights.formats import FORMATS
from resnetkit.weights.load import load_network
from resnetkit.weights.network import TrainedNetwork


@pytest.mark.parametrize("case", sweep(HELD, *(case for case in HELD if case != "timm")))
def test_there_and_back_is_equal_to_the_bit(case: str, tmp_path: Path) -> None:
    format_name, options = HELD[case]
    network = narrow(**options)
    path = place(tmp_path, case)
    again = export_weights(network, path, format_name)
    assert again.format == format_name
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    counted = format_name not in ("keras", "caffe")
    for name, tensor in network.model.state_dict().items():
        found = again.model.state_dict()[name]
        assert found.dtype == tensor.dtype
        if counted or not name.endswith("num_batches_tracked"):
            assert found.numpy().tobytes() == tensor.numpy().tobytes()
    sizes = images(70)[:, : network.architecture.in_channels]
    assert torch.equal(answers(again.model, sizes), answers(network.model, sizes))
    torch.testing.assert_close(again.normalization.mean, network.normalization.mean)
    torch.testing.assert_close(again.normalization.std, network.normalization.std)
    for option in ("stride_in", "norm_eps", "pooling", "padding", "groups", "base_width"):
        if option != "stride_in" or network.architecture.block == "bottleneck":
            ours, theirs = network.architecture, again.architecture
            if option != "padding" or ours.shortcut == "A":
                assert getattr(ours, option) == getattr(theirs, option)
    twice = export_weights(again, place(tmp_path / "twice", case), format_name)
    assert torch.equal(answers(twice.model, sizes), answers(network.model, sizes))


def test_every_format_goes_there_and_back() -> None:
    assert {format_name for format_name, _ in HELD.values()} == set(FORMATS)


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "option A": ("torchvision", {"shortcut": "A"}, "shortcut is A, expected B"),
    "plain": ("transformers", {"shortcut": "none"}, "shortcut is none, expected B"),
    "pre-activated": ("timm", {"preactivation": True}, "preactivation is True, expected False"),
    "small stem": ("transformers", {"stem": "3x3"}, "stem is 3x3, expected 7x7"),
    "v1 in torchvision": ("torchvision", {"stride_in": "1x1"}, "stride_in is 1x1, expected 3x3"),
    "v1 in timm": ("timm", {"stride_in": "1x1"}, "stride_in is 1x1, expected 3x3"),
    "v1.5 in Keras": ("keras", {"stride_in": "3x3"}, "stride_in is 3x3, expected 1x1"),
    "grouped": ("transformers", {"groups": 2}, "groups is 2, expected 1"),
    "other eps": ("keras", {}, "norm_eps is 1e-05, expected 1.001e-05"),
    "other pooling": ("caffe", {}, "pooling is padded, expected ceil"),
    "other constants": ("keras", {}, "expected 123.68, 116.779, 103.939, which the format does"),
    "other deviations": (
        "torchvision",
        {},
        "with the standard deviation 1, 1, 1, expected 58.395",
    ),
    "three stages": ("keras", {"depths": (1, 1, 1)}, "it has 3 stages, expected 4"),
    "dilated": (
        "transformers",
        {"replace_stride_with_dilation": (False, True, True)},
        "it dilates instead of striding",
    ),
    "zeros appended": (
        "akamaster",
        {**HELD["akamaster, A"][1], "padding": "append"},
        "padding is append, expected split",
    ),
    "without normalization": ("transformers", {"norm": "none"}, "norm is none, expected batch"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_format_cannot_hold_is_not_written(case: str, tmp_path: Path) -> None:
    format_name, options, message = WRONG[case]
    with pytest.raises(WeightsError, match="cannot store this network") as caught:
        export_weights(narrow(**options), tmp_path / "net.h5", format_name)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_other_classes_are_not_taken_for_those_of_imagenet(tmp_path: Path) -> None:
    names = tuple(f"kind {number}" for number in range(1000))
    options = {"stride_in": "3x3", "std": IMAGENET[1], "num_classes": 1000}
    network = replace(narrow(**options), class_names=names)
    with pytest.raises(WeightsError, match="its 1000 classes are not those of ImageNet"):
        export_weights(network, tmp_path / "net.pth", "torchvision")
    assert export_weights(network, tmp_path / "net", "transformers").class_names == names


def test_nothing_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "net"
    path.mkdir()
    (path / "precious").touch()
    for format_name in ("resnetkit", "transformers", "caffe"):
        with pytest.raises(StorageError, match="already exists: choose another path"):
            export_weights(narrow(**HELD["caffe"][1]), path, format_name)
    assert [each.name for each in path.iterdir()] == ["precious"]


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        export_weights(narrow(), tmp_path / "net", "torchvison")
    assert str(caught.value) == (
        "unknown format 'torchvison': expected one of resnetkit, keras, caffe, torchvision, timm,"
        " transformers, akamaster. Did you mean 'torchvision'?"
    )


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        StorageError, match=r"cannot write .*: a file with this name already exists"
    ):
        export_weights(narrow(**HELD["caffe"][1]), tmp_path / "file" / "net", "caffe")


@pytest.mark.parametrize("format_name", ["transformers", "caffe"])
@pytest.mark.parametrize("changed", ["a tensor", "the constants", "the network"])
def test_what_reads_differently_does_not_stay(
    format_name: str, changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check after writing can fail: one bit of one tensor is enough."""

    whole = FORMATS[format_name]

    def careless(source: WeightsSource) -> TrainedNetwork:
        again = whole.load(source)
        if changed == "a tensor":
            bits = again.model.state_dict()["layer2.0.bn2.bias"].view(torch.int32)
            bits[3] ^= 1
        if changed == "the constants":
            return replace(
                again,
                normalization=replace(again.normalization, std=again.normalization.std * 1.01),
            )
        if changed == "the network":
            other = again.architecture.with_options(stride_in="3x3").build()
            other.load_state_dict(again.model.state_dict())
            return replace(again, model=other.eval())
        return again

    monkeypatch.setitem(FORMATS, format_name, replace(whole, load=careless))
    message = {
        "a tensor": r"layer2\.0\.bn2\.bias",
        "the constants": "the mean or standard deviation of images",
        "the network": "the logits",
    }[changed]
    with pytest.raises(WeightsError, match=f"gave another network: .*{message}"):
        export_weights(
            narrow(**HELD["caffe" if format_name == "caffe" else "transformers, v1"][1]),
            tmp_path / "net",
            format_name,
        )
    assert not list(tmp_path.iterdir())


def test_foreign_weights_become_our_own_with_all_that_is_known(tmp_path: Path) -> None:
    network = load_network(write_caffe(tmp_path / "net", caffe_layers()))
    again = export_weights(network, tmp_path / "model", "resnetkit")
    assert again.origin == network.origin
    assert again.architecture == network.architecture
    assert torch.equal(again.normalization.mean, network.normalization.mean)
    with pytest.raises(WeightsError, match="by its format"):
        load_network(tmp_path / "model", variant="v1.5")


def test_the_shortest_fractions_give_the_same_constants() -> None:
    for fraction in (0.485, 0.229, 0.1, 1 / 3, 2e-7, 0.999999):
        constants = pixels((fraction,))
        assert torch.equal(pixels(tuple(fractions(constants))), constants)
    assert fractions(pixels((0.485, 0.229))) == [0.485, 0.229]
    every = torch.rand(3000, generator=generator()) * 255
    assert torch.equal(pixels(tuple(fractions(every[:, None, None]))).flatten(), every)


def test_conventions_hold_the_published_constants() -> None:
    constants = {
        name: entry.convention.normalization
        for name, entry in FORMATS.items()
        if entry.convention is not None
    }
    assert [name for name in constants if constants[name] is None] == ["timm", "transformers"]
    for name in ("keras", "caffe"):
        normalization = constants[name]
        assert normalization is not None
        assert normalization.mean.flatten().tolist() == pytest.approx([123.68, 116.779, 103.939])


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("where", ["torchvision", "transformers"])
def test_code_in_a_file_never_runs(
    where: str, legacy: bool, basic: nn.Module, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    path = tmp_path / "net.pth"
    state: dict[str, Any] = dict(basic.state_dict())
    if where == "transformers":
        path = transformers_folder(tmp_path / "net", basic) / "pytorch_model.bin"
        state = {transformers_name(name): tensor for name, tensor in state.items()}
        path.with_name("model.safetensors").unlink()
    content = {**state, "x": Malicious(trap)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match="Nothing in it was executed"):
        load_network(path)
    assert not trap.exists()
    torch.load(path, weights_only=False)
    assert trap.exists()  # the file is a trap indeed


def mutated(whole: bytes, draw: random.Random) -> bytes:
    """Returns a file with some bytes changed, most of them where files describe themselves."""
    content = bytearray(whole)
    for _ in range(draw.choice([1, 2, 8, 40])):
        area = draw.choice([64, 2000, len(content)])
        content[draw.randrange(min(area, len(content)))] = draw.choice([0, 1, 127, 128, 255])
    if draw.random() < 0.25:
        del content[draw.randrange(len(content)) :]
    return bytes(content)


def tiny_safetensors() -> bytes:
    network = narrow(stride_in="3x3", std=IMAGENET[1])
    return safetensors.torch.save(
        network.model.state_dict(), {"format": "pt", "resnetkit.variant": "v1.5"}
    )


def tiny_keras() -> bytes:
    stream = io.BytesIO()
    write_keras(stream, keras_layers())  # type: ignore[arg-type]
    return stream.getvalue()


def tiny_torch(*, legacy: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(
        narrow(block="basic", std=IMAGENET[1]).model.state_dict(),
        stream,
        _use_new_zipfile_serialization=not legacy,
    )
    return stream.getvalue()


def test_the_length_of_a_header_may_look_like_anything(basic: nn.Module, tmp_path: Path) -> None:
    """A Caffe file may begin with the byte 10, and so may a safetensors file."""
    whole = safetensors.torch.save(dict(basic.state_dict()))
    length = int.from_bytes(whole[:8], "little")
    for first in (10, 18):
        padding = (first - length) % 256
        header = (length + padding).to_bytes(8, "little")
        content = header + whole[8 : 8 + length] + b" " * padding + whole[8 + length :]
        assert content[0] == first
        (tmp_path / "net").write_bytes(content)
        assert_answers(load_network(tmp_path / "net"), basic)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "safetensors": tiny_safetensors,
    "caffe": lambda: caffe_file(caffe_layers()),
    "torch": lambda: tiny_torch(legacy=False),
    "torch, legacy": lambda: tiny_torch(legacy=True),
    "keras": tiny_keras,
}
FEW = {"safetensors": 20, "caffe": 20, "torch": 20, "torch, legacy": 20, "keras": 2}
MANY = {"safetensors": 150, "caffe": 150, "torch": 150, "torch, legacy": 300, "keras": 12}


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        *FEW.items(),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in MANY.items()),
    ],
)
def test_hostile_files_only_ever_give_our_error(
    kind: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "SECONDS", 3.0)
    whole, draw = HOSTILE[kind](), random.Random(kind)
    path, refused = tmp_path / "net", 0
    path.write_bytes(whole)
    load_network(path)
    for _ in range(count):
        path.write_bytes(mutated(whole, draw))
        try:
            load_network(path)
        except WeightsError:
            refused += 1
    assert refused > count // 3  # changed weights alone are not noticed


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_cut_anywhere_is_refused(kind: str, tmp_path: Path) -> None:
    whole = HOSTILE[kind]()
    for length in (0, 1, 9, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "net").write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            load_network(tmp_path / "net")


VIEWS = {
    "as ever": ((224, 224), 0.875, Resize()),
    "small": ((64, 64), 0.875, Resize()),
    "rounded up": ((64, 64), 0.9, Resize()),  # 64 / 0.9 = 71.1
    "rounded down": ((160, 160), 0.95, Resize("bicubic", "center", "floor")),
    "squashed": ((96, 96), 1.0, Resize("bicubic", "squash", "floor")),
    "squashed and cut": ((96, 96), 0.9, Resize("bilinear", "squash", "floor")),
    "large": ((384, 384), 0.95, Resize("lanczos")),
    "oblong": ((96, 64), 0.875, Resize()),
}


HOLD_ALL = {"resnetkit": set(VIEWS), "timm": set(VIEWS)}


HOLD_ALL["transformers"] = set(VIEWS) - {"oblong", "rounded up"}


FORMS_AND_VIEWS = [
    # timm has names for its networks, of which the smallest takes a second to write and read.
    pytest.param(form, view, marks=pytest.mark.slow)
    if form == "timm" and view != "squashed and cut"
    else (form, view)
    for form in ("resnetkit", "timm", "transformers", "torchvision")
    for view in VIEWS
]


@pytest.mark.parametrize(("form", "view"), FORMS_AND_VIEWS)
def test_how_images_are_shown_is_written_or_refused(form: str, view: str, tmp_path: Path) -> None:
    """What a reader would show otherwise is not written."""
    size, crop_pct, resize = VIEWS[view]
    options = HELD["timm"][1] if form == "timm" else {"block": "basic"}  # timm's have names
    network = replace(
        narrow(**options, std=IMAGENET[1]), image_size=size, crop_pct=crop_pct, resize=resize
    )
    if view in HOLD_ALL.get(form, {"as ever"}):
        again = export_weights(network, tmp_path / "net", form)
        assert again.image_size == size
        assert again.resize.side(max(size), again.crop_pct) == resize.side(max(size), crop_pct)
        assert (again.resize.interpolation, again.resize.mode) == (
            *(resize.interpolation, resize.mode),
        )
    else:
        with pytest.raises(
            WeightsError, match=r"does not store that|no processor|begins at 4, .* at 3"
        ):
            export_weights(network, tmp_path / "net", form)
        assert not (tmp_path / "net").exists()


def test_a_network_that_was_asked_before_is_written_too(tmp_path: Path) -> None:
    network = narrow(**HELD["transformers, basic"][1])
    list(Predictor.of(network, device="cpu").features(Image.new("RGB", (250, 250))))
    again = export_weights(network, tmp_path / "net", "transformers")
    assert torch.equal(answers(again.model, images()), answers(network.model, images()))
