"""resnet predict: the answers of a trained network for image files."""

import os
import sys
from collections.abc import Iterable, Iterator
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from resnetkit.cli.options import BatchSize, Device, Json, Precision, Variant
from resnetkit.cli.output import print_json, remark, say
from resnetkit.cli.records import Format, Kind, Record, chosen_form, print_records
from resnetkit.cli.shards import (
    DEFAULT_SHARDS,
    LoadOptions,
    PredictionJob,
    Shards,
    load_options,
    run_shards,
)
from resnetkit.cli.workers import (
    Address,
    Backend,
    Jobs,
    Scheduler,
    chosen_workers,
    refuse_worker_options,
)
from resnetkit.errors import DataError, UsageError

if TYPE_CHECKING:
    from resnetkit.data.images.check import BadImage
    from resnetkit.inference.predictor import Answer
    from resnetkit.studies.cluster import Workers

__all__ = ["Paths", "Top", "images_of", "predict"]

PREDICTIONS = Kind("path", "predictions", ("label", "class", "probability"))

Paths = Annotated[
    str,
    Parameter(
        allow_leading_hyphen=True,  # for the word `-`; others are refused in `images_of`
        help="Images: files, folders, patterns such as 'photos/**/*.jpg', or -, standard input: a"
        " path a line, or the content of one image.",
    ),
]
AnswersOut = Annotated[
    Path | None,
    Parameter(
        help="Folder for the answers of very many images, as JSON lines in answers.jsonl; in"
        f" {DEFAULT_SHARDS} shards by default."
    ),
]
Top = Annotated[int, Parameter(help="How many are printed for each image; 5 by default.")]


def predict(
    network: Path,
    /,
    *paths: Paths,
    top: Top = 5,
    format: Format = "table",  # noqa: A002  # the name of the option
    batch_size: BatchSize = 32,
    precision: Precision | None = None,
    variant: Variant = None,
    device: Device = "auto",
    out: AnswersOut = None,
    shards: Shards = None,
    jobs: Jobs = 0,
    backend: Backend = "loky",
    scheduler: Scheduler = None,
    address: Address = None,
    json: Json = False,
) -> int:
    """Predict the most probable classes of each image, in the order of the images.

    An unreadable image is reported on stderr and in the field error, and the others are predicted;
    the exit code is then 3.

    With --out, processes of this machine or of a cluster share the images, and the answers are
    written into a folder. Killed anywhere, the same command answers the rest.

    Args:
        network: A run folder, its model folder, an exported network, or weights of another
            library.
    """
    from resnetkit.inference.predictor import load_predictor

    if out is None:
        refuse_worker_options("--out FOLDER", shards, jobs, backend, scheduler, address)
    else:
        if format != "table":
            raise UsageError(
                f"--format {format} and --out: the answers in a folder are JSON lines."
            )
        return predict_into(
            out,
            load_options(network, variant, device, precision, batch_size),
            paths,
            top=top,
            shards=DEFAULT_SHARDS if shards is None else shards,
            workers=chosen_workers(jobs, backend, device, scheduler, address),
            json=json,
        )
    form, images = chosen_form(format, json=json), images_of(paths)
    predictor = load_predictor(
        network, variant=variant, device=device, precision=precision, batch_size=batch_size
    )
    answers = predictor.predict(images, top=top)
    remark(predictor.engine.origin)
    return print_records(records_of(answers), PREDICTIONS, form)


def records_of(answers: "Iterable[Answer | BadImage]") -> "Iterator[Record | BadImage]":
    """Yields answers as records."""
    from resnetkit.data.images.check import BadImage

    for answer in answers:
        if isinstance(answer, BadImage):
            yield answer
        else:
            ranked = [(guess.label, guess.name, guess.probability) for guess in answer.ranked]
            yield Record(answer.name, ranked)


def predict_into(
    folder: Path,
    options: LoadOptions,
    paths: tuple[str, ...],
    *,
    top: int,
    shards: int,
    workers: "Workers",
    json: bool,
) -> int:
    """Answers all images into a folder, and returns the exit code."""
    images, job = images_of(paths), PredictionJob(top)
    done = run_shards(folder, job, options, images, paths=paths, shards=shards, workers=workers)
    count, bad = done.manifest.images, count_bad(done.result)
    if json:
        print_json({"file": str(done.result), "images": count, "bad": bad})
    else:
        say(f"{done.result}: {count:,} image(s), {bad:,} of them bad")
    return DataError.exit_code if bad else 0


def count_bad(path: Path) -> int:
    """Returns how many answers are errors.

    Raises:
        DataError: when the file is corrupt.
    """
    import json

    try:
        with path.open(encoding="utf-8") as file:
            return sum(json.loads(line)["error"] is not None for line in file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is corrupt ({type(error).__name__}). Remove it, and the same command answers"
            " again."
        ) from error


def images_of(arguments: tuple[str, ...]) -> "Iterator[str | bytes | BadImage]":
    """Returns the images that arguments name, listed as they are needed.

    Raises:
        UsageError: when there are no arguments, or one of them looks like an option.
    """
    from resnetkit.inference.sources import find_images

    if not arguments:
        raise UsageError("no images: name files, folders or patterns, or - for standard input.")
    for argument in arguments:
        if argument.startswith("-") and argument != "-" and not os.path.lexists(argument):
            raise UsageError(
                f"unknown option {argument}; write a file of that name as ./{argument}."
            )
    return find_images(arguments, standard_input())


def standard_input() -> BufferedReader:
    """Returns standard input as bytes; empty where it was closed."""
    buffer = getattr(sys.stdin, "buffer", None)
    return buffer if isinstance(buffer, BufferedReader) else BufferedReader(BytesIO())
