"""The chart of a learning-rate search, as a separate file."""

from matplotlib.figure import Figure

from resnetkit.report.drawing import color, standalone_svg
from resnetkit.training.lr_find import RateSearch

__all__ = ["rate_sheet"]

SIZE = (560.0, 340.0)
AREA = (0.11, 0.16, 0.85, 0.72)  # of the axes: left, bottom, width, height


def rate_sheet(search: RateSearch) -> str:
    """Draws the smoothed loss against the learning rate, with the suggested rate, as SVG."""

    def paint(figure: Figure) -> None:
        axes = figure.add_axes(AREA)
        axes.plot(search.rates, search.losses, color=color("series-1"), linewidth=2.2)
        axes.axvline(search.suggested, color=color("series-2"), linestyle="dashed")
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss, nats (smoothed)")
        axes.set_title(f"Suggested: {search.suggested:.2g}")

    description = (
        f"Loss against learning rate: {search.losses[0]:.2f} nats at {search.rates[0]:.0e}, lowest"
        f" {min(search.losses):.2f}; suggested is {search.suggested:.2g}."
    )
    return standalone_svg(paint, size=SIZE, name="lr-find", description=description)
