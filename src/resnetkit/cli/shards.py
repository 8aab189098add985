"""Predictions and features of very many images, by several processes or a cluster."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from signal import SIGTERM
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

from cyclopts import Parameter

from resnetkit.cli.output import bar, remark
from resnetkit.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from resnetkit.data.images.check import BadImage
    from resnetkit.inference.engine import Engine
    from resnetkit.inference.predictor import Predictor
    from resnetkit.inference.shards import Result, ShardFolder
    from resnetkit.studies.cluster import Workers
    from resnetkit.training.signals import StopRequest

__all__ = [
    "DEFAULT_SHARDS",
    "FeatureJob",
    "LoadOptions",
    "PredictionJob",
    "Shards",
    "load_options",
    "run_shards",
]

Item = TypeVar("Item")

DEFAULT_SHARDS = 64
POLL_SECONDS = 0.5  # between two looks at how far the work is

Shards = Annotated[
    int | None,
    Parameter(help="Parts in the folder --out, which processes share; each is written whole."),
]


@dataclass(frozen=True)
class LoadOptions:
    """How every process loads the network; see `load_predictor`."""

    network: Path
    variant: str | None
    device: str
    precision: str | None
    batch_size: int


def load_options(
    network: Path, variant: str | None, device: str, precision: str | None, batch_size: int
) -> LoadOptions:
    """Returns how to load a network in processes whose current folder may be another one."""
    is_path = network.exists() or "#" in network.name  # FILE#ENTRY; else a published name
    path = network.absolute() if is_path else network
    return LoadOptions(path, variant, device, precision, batch_size)


class Job(Protocol):
    """What is done with the images of each shard.

    Attributes:
        wanted: see `Question`.
        files: names of the result and of the parts.
    """

    @property
    def wanted(self) -> str: ...
    @property
    def files(self) -> "Result": ...

    def check(self, engine: "Engine") -> None:
        """Raises an error for a network that cannot do it."""
        ...

    def content(
        self, predictor: "Predictor", images: "Iterable[str | BadImage]", rows: Iterable[int]
    ) -> Iterable[bytes | memoryview]:
        """Yields the content of a part.

        Args:
            predictor: of the network.
            images: of the shard.
            rows: their positions in the list of all images.
        """
        ...

    def finish(self, folder: "ShardFolder") -> None:
        """Writes the result of complete parts."""
        ...


@dataclass(frozen=True)
class PredictionJob:
    """Predicts the most probable classes; see `Job`.

    Attributes:
        top: classes in an answer.
    """

    top: int

    @property
    def wanted(self) -> str:
        return f"top {self.top}"

    @property
    def files(self) -> "Result":
        from resnetkit.inference.shards import ANSWERS

        return ANSWERS

    def check(self, engine: "Engine") -> None:
        from resnetkit.inference.engine import check_head

        check_head(engine)
        if self.top < 1:
            raise UsageError(f"--top {self.top}: expected 1 or more.")

    def content(
        self, predictor: "Predictor", images: "Iterable[str | BadImage]", rows: Iterable[int]
    ) -> Iterable[bytes | memoryview]:
        from resnetkit.cli.predict import PREDICTIONS, records_of
        from resnetkit.cli.records import as_lines

        answers = predictor.predict(images, top=self.top)
        for line in as_lines(records_of(answers), PREDICTIONS):
            yield line.encode() + b"\n"

    def finish(self, folder: "ShardFolder") -> None:
        from resnetkit.inference.shards import merge_answers

        merge_answers(folder)


@dataclass(frozen=True)
class FeatureJob:
    """Computes the activations of a layer; see `Job`.

    Attributes:
        layer: see `Predictor.features`.
    """

    layer: str

    @property
    def wanted(self) -> str:
        return f"layer {self.layer}"

    @property
    def files(self) -> "Result":
        from resnetkit.inference.shards import FEATURES

        return FEATURES

    def check(self, engine: "Engine") -> None:
        from resnetkit.inference.engine import check_layer

        check_layer(self.layer, engine.layers)

    def content(
        self, predictor: "Predictor", images: "Iterable[str | BadImage]", rows: Iterable[int]
    ) -> Iterable[bytes | memoryview]:
        from resnetkit.inference.feature_shards import part_content

        outputs = predictor.features(images, layer=self.layer)
        return part_content(outputs, predictor.engine, self.layer, rows)

    def finish(self, folder: "ShardFolder") -> None:
        from resnetkit.inference.feature_shards import index_features

        index_features(folder)


def run_shards(
    path: Path,
    job: Job,
    options: LoadOptions,
    images: "Iterator[str | bytes | BadImage]",
    *,
    paths: Sequence[str],
    shards: int,
    workers: "Workers",
) -> "ShardFolder":
    """Does a job for all images, and returns the folder with the result.

    The images are listed first. Killed anywhere, the same call does the rest.

    Args:
        path: of the folder.
        job: what is done.
        options: how the network is loaded.
        images: that the paths name.
        paths: as they were given.
        shards: number of parts.
        workers: what computes them.

    Raises:
        ResnetkitError: when the network, the folder or the workers cannot be used.
    """
    from resnetkit.inference.shards import Question, in_words, open_shards
    from resnetkit.studies.heartbeat import beating, end_others

    engine = loaded(options).engine
    job.check(engine)
    question = Question(
        engine.network_sha256,
        engine.origin,
        engine.precision,
        options.batch_size,
        job.wanted,
        shards,
        in_words(paths),
    )
    with open_shards(path.absolute(), question, job.files, images) as folder:
        missing = folder.missing
        if 0 < len(missing) < shards:
            remark(f"{shards - len(missing)} of {shards} shards are there already")
        remark(f"{engine.origin}: {folder.manifest.images:,} image(s)")
        end_others(folder.path)
        with beating(folder.path) as heartbeat, shown_progress(folder):
            run = partial(do_shard, folder=folder, job=job, options=options, heartbeat=heartbeat)
            workers.run(run, missing, folder.path)
        job.finish(folder)
    return folder


@contextmanager
def shown_progress(folder: "ShardFolder") -> Iterator[None]:
    """Shows on a terminal how many shards are complete while the block runs."""
    with bar("shards") as progress:
        if not progress.is_shown:
            yield
            return
        ended, shards = threading.Event(), folder.manifest.question.shards

        def show() -> None:
            done = shards - len(folder.missing)
            progress.update(done / shards, f"{done} of {shards}")

        def poll() -> None:
            while not ended.wait(POLL_SECONDS):
                show()

        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            show()


def do_shard(
    shard: int, *, folder: "ShardFolder", job: Job, options: LoadOptions, heartbeat: Path
) -> None:
    """Does the job for a shard, unless that is done.

    Raises:
        Interrupted: when the process that started this one is gone.
    """
    from resnetkit.inference.shards import write_part
    from resnetkit.studies.heartbeat import watched

    part = folder.part(shard)
    if part.exists() or folder.result.exists():
        return
    predictor = loaded(options)
    one_thread(predictor)
    with watched(heartbeat) as stop:
        images = until_stopped(folder.images(shard), stop)
        rows = count(shard, folder.manifest.question.shards)
        write_part(part, job.content(predictor, images, rows))


def until_stopped(items: Iterable[Item], stop: "StopRequest") -> Iterator[Item]:
    """Yields items until a stop is requested.

    Raises:
        Interrupted: then.
    """
    for item in items:
        if stop:
            raise Interrupted("stopped: the command that started this process is gone.", SIGTERM)
        yield item


@lru_cache(maxsize=1)
def loaded(options: LoadOptions) -> "Predictor":
    """Loads the network once for each process, to compute with one thread."""
    from resnetkit.inference.predictor import load_predictor
    from resnetkit.runtime.resources import limited_processors

    with limited_processors(1):
        return load_predictor(
            options.network,
            variant=options.variant,
            device=options.device,
            precision=options.precision,
            batch_size=options.batch_size,
        )


def one_thread(predictor: "Predictor") -> None:
    """Lets torch compute with one thread: the number of threads can change the last digits."""
    if predictor.engine.name == "torch":
        import torch

        torch.set_num_threads(1)
