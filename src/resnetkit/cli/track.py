"""resnet track: the numbers of a run in TensorBoard and other trackers."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from resnetkit.cli.options import Json
from resnetkit.cli.output import print_json, remark, say

__all__ = ["track"]

To = Annotated[
    Literal["tensorboard", "mlflow", "wandb", "trackio"],
    Parameter(help="Tracker; tensorboard by default. The others are used where installed."),
]
Follow = Annotated[
    bool, Parameter(negative=(), help="Wait for what the run writes, until it is finished.")
]
Out = Annotated[
    Path | None, Parameter(help="Folder of the tracker's files; by default below the run.")
]


def track(
    run: Path,
    /,
    *,
    to: To = "tensorboard",
    follow: Follow = False,
    out: Out = None,
    json: Json = False,
) -> None:
    """Pass the numbers of a run on to a tracker, while it trains or afterwards.

    It reads the run folder and never slows or stops the training. Called again, it continues where
    it ended: no step twice and none missing.

    Args:
        run: A run folder.
    """
    from resnetkit.tracking.track import track as track_run

    folder = run / "tracking" / to if out is None else out
    if follow:
        remark(f"following {run} until it is finished; interrupt it at any time")
    count = track_run(run, to, folder, follow=follow)
    if json:
        print_json({"folder": str(folder), "tracker": to, "events": count})
        return
    say(f"{folder}: {count:,} new event(s)")
    if to == "tensorboard":
        say(f"tensorboard --logdir {folder}")
