"""Still pictures of the measured charts, for browsers that run no scripts."""

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from resnetkit.report import charts
from resnetkit.report.language import Language
from resnetkit.report.play.values import PlayRun
from resnetkit.studies.chart import Chart, Line, LineStyle, over_runs
from resnetkit.studies.phrase import phrase

__all__ = ["still_pictures"]

Groups = Mapping[str, Sequence[PlayRun]]
RESIDUAL, PLAIN = 0, 1  # in the palette
DEPTHS = (20, 32, 56)


def still_pictures(runs: Iterable[PlayRun], t: Language) -> dict[str, list[Markup]]:
    """Returns the pictures by the part of the page that they stand in for."""
    groups: dict[str, list[PlayRun]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    drawn = {
        "curves": [error_chart(groups, depth) for depth in DEPTHS],
        "layers": layer_charts(groups, 56),
        "stacking": [stacking_chart(groups, family) for family in ("plain", "resnet")],
        "overfitting": [final_chart(groups, ("plain",))],
        "gradient": [gradient_chart(groups)],
        "backward": path_charts(groups),
        "residual": [residual_chart(groups)],
        "shapes": [shortcut_chart(groups)],
        "deep": [final_chart(groups, ("plain", "resnet"))],
        "code": [],
    }
    return {
        part: [
            Markup(charts.line_chart(chart, name=f"still-{part}-{number}", t=t))
            for number, chart in enumerate(pictures)
            if any(line.x for line in chart.lines)
        ]
        for part, pictures in drawn.items()
    }


def color_of(group: str) -> int:
    return PLAIN if group.startswith("plain") else RESIDUAL


def curve(group: str, runs: Sequence[PlayRun], split: str, *, color: int, end: str | None) -> Line:
    """Returns the errors during training."""
    values: dict[float, list[float]] = {}
    for run in runs:
        errors = run.train_error if split == "train" else run.test_error
        for epoch, error in zip(run.epochs, errors, strict=True):
            values.setdefault(epoch, []).append(number(error))
    style: LineStyle = "dashed" if split == "train" else "solid"
    return over_runs(f"{group} {split}", values, end_label=end, style=style, color=color)


def number(value: float | None) -> float:
    return float("nan") if value is None else value


def error_chart(groups: Groups, depth: int) -> Chart:
    """Returns training and test errors of the plain and the residual network of a depth."""
    lines = [
        curve(group, groups.get(group, ()), split, color=color_of(group), end=end)
        for group in (f"plain{depth}", f"resnet{depth}")
        for split, end in (("train", None), ("test", group))
    ]
    title = phrase("{depth} layers", depth=depth)
    return Chart(title, phrase("epoch"), phrase("error"), tuple(lines), top=100.0, unit="%")


def stacking_chart(groups: Groups, family: str) -> Chart:
    """Returns the training errors of a family, by depth."""
    lines = [
        curve(
            f"{family}{depth}", groups.get(f"{family}{depth}", ()), "train", color=i, end=str(depth)
        )
        for i, depth in enumerate(DEPTHS)
    ]
    title = phrase("Plain networks") if family == "plain" else phrase("Residual networks")
    return Chart(title, phrase("epoch"), phrase("error"), tuple(lines), top=100.0, unit="%")


def probe_line(groups: Groups, group: str, probe: str, key: str, *, first: int = 1) -> Line:
    """Returns a measured list against first, first + 1, ..., over the runs that have it."""
    values: dict[float, list[float]] = {}
    for run in groups.get(group, ()):
        for position, value in enumerate(run.probes.get(probe, {}).get(key, ()), first):
            values.setdefault(position, []).append(number(value))
    return over_runs(group, values, end_label=group, color=color_of(group))


def last_step(groups: Groups, group: str) -> str:
    """Returns the last step at which the layers of a group were measured, as text."""
    steps = [
        run.probes["layers"]["steps"] for run in groups.get(group, ()) if "layers" in run.probes
    ]
    return f"{steps[0][-1]:.0f}" if steps else ""


def layer_charts(groups: Groups, depth: int) -> list[Chart]:
    """Returns gradients, responses and residuals of the finished networks of a depth."""
    names = (f"plain{depth}", f"resnet{depth}")
    titles = {
        "gradients": phrase("Gradient norm by layer"),
        "responses": phrase("Response by layer"),
        "residuals": phrase("F relative to its shortcut"),
    }
    return [
        Chart(
            title,
            phrase("block, from the input")
            if kind == "residuals"
            else phrase("layer, from the input"),
            title,
            tuple(
                probe_line(groups, name, "layers", f"{kind} {last_step(groups, name)}")
                for name in names
            ),
            logarithmic=kind == "gradients",
        )
        for kind, title in titles.items()
    ]


def gradient_chart(groups: Groups) -> Chart:
    """Returns the gradients of plain networks before training."""
    lines = [
        probe_line(groups, "plain20", "layers", "gradients 0"),
        probe_line(groups, "plain56", "layers", "gradients 0"),
        *(
            probe_line(groups, f"plain56-{weights}", "gradients", "input")
            for weights in ("he", "normal")
        ),
    ]
    title = phrase("Gradient norm by layer, before training")
    return Chart(title, phrase("layer, from the input"), title, tuple(lines), logarithmic=True)


def path_charts(groups: Groups) -> list[Chart]:
    """Returns the gradient on one path and on all paths, by their number of blocks from 0."""
    titles = {
        "gradient": phrase("Gradient on one path"),
        "total": phrase("All paths of that length together"),
    }
    return [
        Chart(
            title,
            phrase("blocks that the path goes through"),
            title,
            (probe_line(groups, "resnet56", "paths", key, first=0),),
            logarithmic=key == "gradient",
        )
        for key, title in titles.items()
    ]


def residual_chart(groups: Groups) -> Chart:
    """Returns the residuals of shallow and deep residual networks after training."""
    title = phrase("F relative to its shortcut, after training")
    lines = [
        probe_line(groups, group, "layers", f"residuals {last_step(groups, group)}")
        for group in ("resnet20", "resnet56")
    ]
    return Chart(title, phrase("block, from the input"), title, tuple(lines))


def final_chart(groups: Groups, families: tuple[str, ...]) -> Chart:
    """Returns final errors by depth."""
    lines = []
    for family in families:
        for split in ("train", "test"):
            values = {
                float(run.depth): [
                    number(other.final_train_error if split == "train" else other.final_test_error)
                    for other in groups[run.group]
                ]
                for members in groups.values()
                for run in members
                if run.group == f"{family}{run.depth}"
            }
            end = family if split == "test" else None
            style: LineStyle = "dashed" if split == "train" else "solid"
            lines.append(
                over_runs(
                    f"{family} {split}", values, end_label=end, style=style, color=color_of(family)
                )
            )
    title = phrase("Final error by depth")
    return Chart(title, phrase("depth in layers"), title, tuple(lines), top=100.0, unit="%")


def shortcut_chart(groups: Groups) -> Chart:
    """Returns the test errors during training of each kind of shortcut."""
    lines = [
        curve(group, groups.get(group, ()), "test", color=color, end=group)
        for color, group in enumerate(("resnet32", "plain32", "resnet32-B", "resnet32-C"))
    ]
    title = phrase("{depth} layers", depth=32)
    return Chart(title, phrase("epoch"), phrase("error"), tuple(lines), top=100.0, unit="%")
