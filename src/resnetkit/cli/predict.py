"""resnet predict, features and nearest: the answers of a trained network for image files."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from resnetkit.cli.options import BatchSize, Device, Json, Precision, Variant
from resnetkit.cli.output import bar, print_json, remark, say
from resnetkit.cli.predict_shards import LoadOptions, predict_into
from resnetkit.cli.records import AnswerCounts, Format, Kind, Record, chosen_form, print_records
from resnetkit.cli.workers import Address, Backend, Jobs, Scheduler, chosen_workers
from resnetkit.errors import DataError, UsageError

if TYPE_CHECKING:
    from resnetkit.data.images.check import BadImage
    from resnetkit.inference.engine import Floats
    from resnetkit.inference.features import Features
    from resnetkit.inference.predictor import Answer, Predictor

__all__ = ["features", "nearest", "predict"]

PREDICTIONS = Kind("path", "predictions", ("label", "class", "probability"))
NEAREST = Kind("query", "nearest", ("path", "similarity"))

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
    Parameter(help="Folder for the answers of very many images, as JSON lines in answers.jsonl."),
]
Shards = Annotated[
    int | None,
    Parameter(help="Parts that processes share, with --out; 64 by default. Each is written whole."),
]
DEFAULT_SHARDS = 64

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

    elsewhere = backend != "loky" or scheduler is not None or address is not None
    check_together(out, shards=shards, jobs=jobs, elsewhere=elsewhere, format=format)
    if out is not None:
        path = network.absolute() if network.exists() else network  # or a published name
        options = LoadOptions(path, variant, device, precision, batch_size)
        workers = chosen_workers(jobs, backend, device, scheduler, address)
        return predict_into(
            out,
            options,
            images_of(paths),
            top=top,
            shards=DEFAULT_SHARDS if shards is None else shards,
            workers=workers,
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


def check_together(
    out: Path | None,
    *,
    shards: int | None,
    jobs: int,
    elsewhere: bool,
    format: str,  # noqa: A002
) -> None:
    """Raises UsageError for options that belong to --out without it, or exclude each other."""
    if out is None:
        given = {
            "--shards": shards is not None,
            "--jobs": jobs != 0,
            "--backend, --scheduler and --address": elsewhere,
        }
        for option, is_given in given.items():
            if is_given:
                raise UsageError(f"{option}: expected together with --out FOLDER.")
    elif format != "table":
        raise UsageError(f"--format {format} and --out: the answers in a folder are JSON lines.")


def features(
    network: Path,
    /,
    *paths: Paths,
    out: Annotated[Path, Parameter(help="A .safetensors or .parquet file.")],
    layer: Annotated[
        str,
        Parameter(
            help="pool, the default, the input of the head; fc, the logits; or stem, stage2 and"
            " so on, averaged over space."
        ),
    ] = "pool",
    batch_size: BatchSize = 32,
    precision: Precision | None = None,
    variant: Variant = None,
    device: Device = "auto",
    json: Json = False,
) -> int:
    """Write the activations of a layer for each image, with the paths, to one file.

    An unreadable image is reported on stderr and left out; the exit code is then 3.

    Args:
        network: A run folder, its model folder, an exported network, or weights of another
            library.
    """
    from resnetkit.inference.engine import check_layer
    from resnetkit.inference.features import encoder_for, write_features
    from resnetkit.inference.predictor import load_predictor
    from resnetkit.storage import storage_errors

    encoder_for(out)
    images = images_of(paths)
    predictor = load_predictor(
        network, variant=variant, device=device, precision=precision, batch_size=batch_size
    )
    check_layer(layer, predictor.engine.layers)
    with storage_errors(out, "Choose another path with --out."):  # before the work is done
        out.parent.mkdir(parents=True, exist_ok=True)
    remark(predictor.engine.origin)
    counts = AnswerCounts()
    computed = computed_features(predictor, list(images), layer, counts)
    write_features(out, computed)
    code = counts.finish()
    count, width = computed.values.shape
    if json:
        print_json(
            {
                "file": str(out),
                "images": count,
                "width": width,
                "bad": counts.bad,
                **computed.metadata,
            }
        )
    else:
        say(f"{out}: {count:,} image(s), {width:,} features of {layer} each")
    return code


def computed_features(
    predictor: "Predictor", images: "list[str | bytes | BadImage]", layer: str, counts: AnswerCounts
) -> "Features":
    """Returns the features of all images that are not bad.

    Raises:
        DataError: when all of them are.
    """
    import numpy as np

    from resnetkit.data.images.check import BadImage
    from resnetkit.inference.features import Features

    rows, names = [], []
    with bar("features") as progress:
        for output in predictor.features(images, layer=layer):
            counts.count(output)
            progress.update((counts.good + counts.bad) / len(images))
            if not isinstance(output, BadImage):
                rows.append(output.values)
                names.append(output.name or "-")
    if not rows:
        raise DataError("there is no image to take features of: nothing was written.")
    return Features(
        values=np.stack(rows),
        paths=names,
        layer=layer,
        origin=predictor.engine.origin,
        network_sha256=predictor.engine.network_sha256,
    )


def nearest(
    features: Path,
    /,
    *queries: Paths,
    model: Annotated[Path, Parameter(help="The network that computed the features.")],
    top: Top = 5,
    format: Format = "table",  # noqa: A002  # the name of the option
    batch_size: BatchSize = 32,
    precision: Precision | None = None,
    variant: Variant = None,
    device: Device = "auto",
    json: Json = False,
) -> int:
    """Find the images whose features are most similar to those of a query (cosine similarity).

    Every image of the file is compared; a query that is one of them finds itself first.

    Args:
        features: A .safetensors file of 'resnet features'.
    """
    from resnetkit.inference.features import read_features
    from resnetkit.inference.nearest import check_computed_by
    from resnetkit.inference.predictor import load_predictor

    form, images = chosen_form(format, json=json), images_of(queries)
    if top < 1:
        raise UsageError(f"--top {top}: expected 1 or more.")
    library = read_features(features)
    predictor = load_predictor(
        model, variant=variant, device=device, precision=precision, batch_size=batch_size
    )
    check_computed_by(library, predictor.engine)
    remark(f"{len(library.paths):,} image(s), {library.layer} of {library.origin}")
    return print_records(neighbors(library, predictor, images, top), NEAREST, form)


def neighbors(
    library: "Features",
    predictor: "Predictor",
    images: "Iterator[str | bytes | BadImage]",
    top: int,
) -> "Iterator[Record | BadImage]":
    """Yields the nearest images of each query, in order."""
    from resnetkit.data.images.check import BadImage
    from resnetkit.inference.predictor import batches

    outputs = predictor.features(images, layer=library.layer)
    for batch in batches(outputs, predictor.batch_size):
        queries = [output.values for output in batch if not isinstance(output, BadImage)]
        rows = iter(ranked_neighbors(library, queries, top))
        for output in batch:
            if isinstance(output, BadImage):
                yield output
            else:
                yield Record(output.name, next(rows))


def ranked_neighbors(
    library: "Features", queries: "Sequence[Floats]", top: int
) -> list[list[tuple[str, float]]]:
    """Returns for each query the paths and similarities of the nearest images."""
    import numpy as np

    from resnetkit.inference.nearest import nearest as find_nearest

    if not queries:
        return []
    similarities, rows = find_nearest(library.values, np.stack(queries), top)
    return [
        [(library.paths[row], similarity) for row, similarity in zip(*pair, strict=True)]
        for pair in zip(rows.tolist(), similarities.tolist(), strict=True)
    ]


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
