"""resnet models: the table against the paper and torchvision, and layers that add up."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from resnetkit.cli.output import print_table
from resnetkit.models.zoo import ARCHITECTURES, create_model

Resnet = Callable[..., Any]
# torchvision's documentation, "Num. params", of the weights of each network.
TORCHVISION = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "wide_resnet50_2": 68_883_240,
}
# He et al. 2015, table 6: layers, millions of parameters, test error in percent.
TABLE_6 = {
    "resnet20": (20, 0.27, 8.75),
    "resnet32": (32, 0.46, 7.51),
    "resnet44": (44, 0.66, 7.17),
    "resnet56": (56, 0.85, 6.97),
    "resnet110": (110, 1.7, 6.43),
    "resnet1202": (1202, 19.4, 7.93),
}
quick = pytest.mark.usefixtures("_without_the_deepest")


def whole(cell: str) -> int:
    return int(cell.replace(",", "") or 0)


@quick
def test_the_table_has_every_architecture(resnet: Resnet) -> None:
    answer = resnet("models")
    assert (answer.code, answer.err) == (0, "")
    heading, *rows = answer.rows
    assert heading[:4] == ["name", "layers", "parameters", "mult-adds"]
    assert [row[0] for row in rows] == list(ARCHITECTURES)
    assert {len(row) for row in rows} == {len(heading)}


@quick
def test_the_table_says_what_the_paper_says(resnet: Resnet) -> None:
    check_table_6(resnet, set(TABLE_6) - {"resnet1202"})


@pytest.mark.slow
def test_the_table_says_what_the_paper_says_of_1202_layers(resnet: Resnet) -> None:
    check_table_6(resnet, {"resnet1202"})


def check_table_6(resnet: Resnet, names: set[str]) -> None:
    rows = {row[0]: row for row in resnet("models").rows}
    assert rows["resnet20"][1:6] == ["20", "269,722", "40.6 M", "3x32x32", "8.75 %"]
    for name in names:
        layers, millions, error = TABLE_6[name]
        assert whole(rows[name][1]) == layers
        assert whole(rows[name][2]) / 1e6 == pytest.approx(millions, rel=0.03)
        assert rows[name][5:] == [f"{error} %", "CIFAR-10 test, table 6"]
        # Shortcuts of option A have no parameters.
        assert rows[name.replace("resnet", "plain")][1:5] == rows[name][1:5]


@quick
def test_the_table_says_what_torchvision_says(resnet: Resnet) -> None:
    rows = {row["name"]: row for row in resnet("models", "--json").values}
    assert {name: rows[name]["parameters"] for name in TORCHVISION} == TORCHVISION
    assert rows["resnet50"]["input"] == [3, 224, 224]
    assert rows["resnet50"]["paper_error"] == 22.85
    assert rows["preresnet20"]["paper_error"] is None


@quick
def test_people_and_machines_are_told_the_same(resnet: Resnet) -> None:
    _, *rows = resnet("models").rows
    for row, values in zip(rows, resnet("models", "--json").values, strict=True):
        assert row[0] == values["name"]
        assert (whole(row[1]), whole(row[2])) == (values["layers"], values["parameters"])
        assert row[3] == f"{values['multiply_adds'] / 1e6:,.1f} M"


@pytest.mark.parametrize(
    "name", ["resnet20", "plain56", "preresnet164", "resnet50", "resnet18_3x3", "resnext50_32x4d"]
)
def test_layers_sum_to_the_totals(resnet: Resnet, name: str) -> None:
    values = resnet("models", name, "--json").values
    for quantity in ("parameters", "multiply_adds"):
        assert sum(layer[quantity] for layer in values["layers"]) == values[quantity] > 0
    weighted = [layer for layer in values["layers"] if layer["multiply_adds"]]
    assert values["depth"] == len([w for w in weighted if "downsample" not in w["name"]])

    answer = resnet("models", name)
    _, *layers, total = answer.rows
    assert total[0] == f"{name}, {values['depth']} layers"
    assert [layer[0] for layer in layers] == [layer["name"] for layer in values["layers"]]
    assert sum(whole(layer[3]) for layer in layers) == whole(total[3]) == values["parameters"]
    assert answer.err == ""


def test_layers_are_those_of_the_network(resnet: Resnet) -> None:
    modules = dict(create_model("resnet20").named_modules())
    for layer in resnet("models", "resnet20", "--json").values["layers"]:
        module = modules[layer["name"]]
        expected = nn.Conv2d if isinstance(module, nn.Conv2d) else type(module)
        assert layer["kind"] == expected.__name__
        assert layer["parameters"] == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--set", "shortcut=C"], {"shortcut": "C"}),
        (
            ["--set", "shortcut=B", "--set", "num_classes=100"],
            {"shortcut": "B", "num_classes": 100},
        ),
        (["--set", "in_channels=1"], {"in_channels": 1}),
        (["--set", "num_classes=7", "--set", "num_classes=9"], {"num_classes": 9}),
        (["--set=norm=none"], {"norm": "none"}),
    ],
    ids=" ".join,
)
def test_options_replace_values(resnet: Resnet, words: list[str], options: dict[str, Any]) -> None:
    values = resnet("models", "resnet56", *words, "--json").values
    network = create_model("resnet56", **options)
    assert values["parameters"] == sum(p.numel() for p in network.parameters())
    assert {key: values["architecture"][key] for key in options} == options
    assert f"\t{values['parameters']:,}\t" in resnet("models", "resnet56", *words).out


def test_a_plain_network_has_no_shortcuts(resnet: Resnet) -> None:
    plain, residual = (resnet("models", name, "--json").values for name in ("plain20", "resnet20"))
    assert plain["architecture"]["shortcut"] == "none"
    assert plain["parameters"] == residual["parameters"]
    projections = resnet("models", "resnet20", "--set", "shortcut=B").out
    assert "downsample" in projections
    assert "downsample" not in resnet("models", "plain20").out


@quick
def test_a_terminal_gets_a_table_with_whole_names(terminal: Callable[..., str]) -> None:
    shown = terminal("models", columns=100)
    for name in ARCHITECTURES:
        assert f"\n{name} " in shown
    assert "269,722" in shown
    assert "\t" not in shown


@quick
def test_narrow_terminals_get_whole_names(terminal: Callable[..., str]) -> None:
    shown = terminal("models", "resnet20", columns=40)
    for name in ("layer1.0.conv1", "layer3.2.bn2"):
        assert name in shown


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_narrow_terminal_cuts_no_number(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table(
        ["name", "parameters", "measured on"],
        [["resnet1202", "19,421,274", "CIFAR-10 test, table 6"]],
        numbers="lrl",
    )
    printed = capsys.readouterr().out
    assert {"resnet1202", "19,421,274", "CIFAR-10"} <= set(printed.split())
    assert "\N{HORIZONTAL ELLIPSIS}" not in printed
