"""resnet weights: what is shown of a file, what is converted, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from resnetkit.models.zoo import Architecture
from resnetkit.weights.load import load_network

Resnet = Callable[..., Any]

DEPTHS, WIDTHS = (1, 2, 1, 1), (8, 12, 16, 20)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Writes a small network of bottlenecks in the layout of torchvision."""
    architecture = Architecture("bottleneck", DEPTHS, WIDTHS, "7x7", 224, False)
    model = architecture.with_options(num_classes=5).build(torch.Generator().manual_seed(0))
    torch.save(model.state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


def test_show_says_what_a_file_is(file: Path, resnet: Resnet) -> None:
    answer = resnet("weights", "show", str(file), "--variant", "v1.5")
    assert answer.code == 0
    parameters = sum(p.numel() for p in load_network(file, variant="v1").model.parameters())
    assert dict(answer.rows) == {
        "what": "value",
        "format": "torchvision",
        "network": "an unnamed network: 1, 2, 1, 1 bottleneck blocks",
        "variant": "v1.5, stride in the 3x3",
        "parameters": f"{parameters:,}",
        "tensors": "122",
        "images": "3 x 224 x 224",
        "evaluated on": "the center crop, the shorter side resized to 256 (bilinear)",
        "mean": "123.675, 116.28, 103.53",
        "deviation": "58.395, 57.12, 57.375",
        "classes": "5, without names",
        "trained on": "unknown",
        "recognized as": (
            "a residual network in the layout of torchvision, v1.5 (stride in the 3x3) as given,"
            " images in RGB normalized with the constants of ImageNet"
        ),
    }


def test_show_says_it_to_machines(file: Path, resnet: Resnet) -> None:
    values = resnet("weights", "show", str(file), "--variant", "v1", "--json").values
    assert (values["format"], values["variant"], values["tensors"]) == ("torchvision", "v1", 122)
    assert values["architecture"]["widths"] == list(WIDTHS)
    assert values["preprocessing"]["mean"] == pytest.approx([123.675, 116.28, 103.53])
    assert values["preprocessing"]["mean_shape"] == [3, 1, 1]
    assert (values["image_size"], values["class_names"], values["name"]) == ([224, 224], [], "")


def test_a_mean_image_and_names_are_shown_in_few_words(
    file: Path, tmp_path: Path, resnet: Resnet, forge: Callable[[Path], None]
) -> None:
    import json

    resnet("weights", "convert", str(file), "--variant", "v1", "--to", "resnetkit", "--out", "own")
    safetensors.torch.save_file(
        {"mean": torch.full((3, 224, 224), 100.0), "std": torch.ones(3, 1, 1)},
        tmp_path / "own" / "preprocessing.safetensors",
    )
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    config["class_names"] = ["a", "b", "c", "d", "e"]
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    forge(tmp_path / "own")
    rows = dict(resnet("weights", "show", "own").rows)
    assert rows["mean"] == "an image of 3 x 224 x 224"
    assert rows["classes"] == "5: a, b, c, ..."
    values = resnet("weights", "show", "own", "--json").values
    assert values["preprocessing"]["mean"] == [100, 100, 100]
    assert values["preprocessing"]["mean_shape"] == [3, 224, 224]


def test_convert_writes_what_another_library_reads(file: Path, resnet: Resnet) -> None:
    words = ("--variant", "v1", "--to", "transformers", "--out", "net")
    answer = resnet("weights", "convert", str(file), *words)
    assert (answer.code, answer.out) == (0, "net\n")
    assert "all 122 tensors and the logits were read again: equal bit by bit" in answer.err
    assert "v1 (stride in the 1x1) as given" in answer.err
    again = load_network(Path("net"))
    assert (again.format, again.architecture.stride_in) == ("transformers", "1x1")
    for name, tensor in load_network(file, variant="v1").model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor)


def test_convert_says_it_to_machines(file: Path, resnet: Resnet) -> None:
    words = ("--variant", "v1.5", "--to", "torchvision", "--out", "new/net.safetensors")
    values = resnet("weights", "convert", str(file), *words, "--json").values
    assert values == {
        "file": "new/net.safetensors",
        "from": "torchvision",
        "to": "torchvision",
        "parameters": values["parameters"],
        "tensors": 122,
    }
    assert values["parameters"] > 1000
    assert resnet("weights", "show", "new/net.safetensors").code == 0  # it says its variant


REFUSED: dict[str, tuple[list[str], int, str]] = {
    "no variant": (["show", "FILE"], 3, "Choose: --variant v1 or --variant v1.5"),
    "unknown variant": (["show", "FILE", "--variant", "v2"], 2, "unknown variant 'v2'"),
    "nothing there": (["show", "none"], 3, "there is no none"),
    "unknown format": (
        ["convert", "FILE", "--variant", "v1", "--to", "onnx", "--out", "x"],
        2,
        "unknown format 'onnx': expected one of resnetkit, keras, caffe, torchvision",
    ),
    "a format that cannot hold it": (
        ["convert", "FILE", "--variant", "v1", "--to", "torchvision", "--out", "x"],
        3,
        "stride_in is 1x1, expected 3x3",
    ),
    "something in the way": (
        ["convert", "FILE", "--variant", "v1", "--to", "transformers", "--out", "FILE"],
        1,
        "choose another path",
    ),
    "no place": (["convert", "FILE", "--to", "timm"], 2, "--out"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case: str, file: Path, resnet: Resnet) -> None:
    words, code, message = REFUSED[case]
    before = file.read_bytes()
    answer = resnet("weights", *(str(file) if word == "FILE" else word for word in words))
    assert answer.code == code
    assert message in answer.err
    assert file.read_bytes() == before


def test_other_commands_take_the_variant(file: Path, resnet: Resnet) -> None:
    for variant, strides in (
        ("v1", ["1x1, 12, /2", "3x3, 12"]),
        ("v1.5", ["1x1, 12", "3x3, 12, /2"]),
    ):
        answer = resnet("inspect", str(file), "--variant", variant, "--json")
        assert answer.code == 0
        first = answer.values[str(file)]["stages"][2]["blocks"][0]["layers"]
        assert [layer for layer in first if ", 12" in layer] == strides
    assert "Choose: --variant" in resnet("inspect", str(file)).err
    assert "Choose: --variant" in resnet("evaluate", str(file), "--data", "digits").err
    answer = resnet("evaluate", str(file), "--data", "digits", "--variant", "v1")
    assert "v1 (stride in the 1x1) as given" in answer.err


def test_a_network_without_a_head_has_no_classes(file: Path, resnet: Resnet) -> None:
    tensors = {n: t for n, t in torch.load(file).items() if not n.startswith("fc.")}
    torch.save(tensors, file)
    command = ("weights", "show", str(file), "--variant", "v1.5")
    assert dict(resnet(*command).rows)["classes"] == "none (no head)"
    assert json.loads(resnet(*command, "--json").out)["has_head"] is False


@pytest.mark.parametrize(("to", "is_said"), [("transformers", True), ("resnetkit", False)])
def test_a_middle_that_readers_cut_out_elsewhere_is_said(
    to: str, is_said: bool, file: Path, tmp_path: Path, resnet: Resnet
) -> None:
    out = ("--to", to, "--out", str(tmp_path / "out"))
    answer = resnet("weights", "convert", str(file), "--variant", "v1.5", *out)
    assert answer.code == 0
    assert ("up to one pixel away" in " ".join(answer.err.split())) is is_said
