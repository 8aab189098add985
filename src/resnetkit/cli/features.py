"""resnet features and nearest: activations of a network, and the most similar images."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from resnetkit.cli.options import BatchSize, Device, Json, Precision, Variant
from resnetkit.cli.output import bar, print_json, remark, say
from resnetkit.cli.predict import Paths, Top, images_of
from resnetkit.cli.records import AnswerCounts, Format, Kind, Record, chosen_form, print_records
from resnetkit.cli.shards import FeatureJob, LoadOptions, Shards, load_options, run_shards
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
    from resnetkit.inference.features import Features, Library
    from resnetkit.inference.predictor import Predictor
    from resnetkit.studies.cluster import Workers

__all__ = ["features", "nearest"]

NEAREST = Kind("query", "nearest", ("path", "similarity"))

FeaturesOut = Annotated[
    Path, Parameter(help="A .safetensors or .parquet file; with --shards, a folder.")
]
Layer = Annotated[
    str,
    Parameter(
        help="pool, the default, the input of the head; fc, the logits; or stem, stage2 and so on,"
        " averaged over space."
    ),
]


def features(
    network: Path,
    /,
    *paths: Paths,
    out: FeaturesOut,
    layer: Layer = "pool",
    batch_size: BatchSize = 32,
    precision: Precision | None = None,
    variant: Variant = None,
    device: Device = "auto",
    shards: Shards = None,
    jobs: Jobs = 0,
    backend: Backend = "loky",
    scheduler: Scheduler = None,
    address: Address = None,
    json: Json = False,
) -> int:
    """Write the activations of a layer for each image, with the paths, to one file.

    An unreadable image is reported on stderr and left out; the exit code is then 3.

    With --shards, processes of this machine or of a cluster share the images, and write a folder of
    that many files. Killed anywhere, the same command does the rest.

    Args:
        network: A run folder, its model folder, an exported network, or weights of another
            library.
    """
    from resnetkit.inference.engine import check_layer
    from resnetkit.inference.features import encoder_for, write_features
    from resnetkit.inference.predictor import load_predictor
    from resnetkit.storage import check_file

    if shards is not None:
        return features_into(
            out,
            load_options(network, variant, device, precision, batch_size),
            paths,
            layer=layer,
            shards=shards,
            workers=chosen_workers(jobs, backend, device, scheduler, address),
            json=json,
        )
    refuse_worker_options("--shards N", shards, jobs, backend, scheduler, address)
    encoder_for(out)
    images = images_of(paths)
    predictor = load_predictor(
        network, variant=variant, device=device, precision=precision, batch_size=batch_size
    )
    check_layer(layer, predictor.engine.layers)
    check_file(out, "Choose another path with --out.")  # before the work is done
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


def features_into(
    folder: Path,
    options: LoadOptions,
    paths: tuple[str, ...],
    *,
    layer: str,
    shards: int,
    workers: "Workers",
    json: bool,
) -> int:
    """Writes the features of all images into a folder, and returns the exit code."""
    from resnetkit.inference.feature_shards import BAD, index_features

    if folder.suffix in (".safetensors", ".parquet"):
        raise UsageError(f"--out {folder} --shards {shards}: shards are a folder, not one file.")
    images, job = images_of(paths), FeatureJob(layer)
    done = run_shards(folder, job, options, images, paths=paths, shards=shards, workers=workers)
    index = index_features(done)
    if json:
        print_json({"folder": str(done.path), **asdict(index)})
    else:
        say(f"{folder}: {index.images:,} image(s), {index.width:,} features of {layer} each")
    if index.bad:
        remark(f"{index.bad:,} bad image(s): {done.path / BAD} says why")
    return DataError.exit_code if index.bad else 0


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

    Every image is compared; a query that is one of them finds itself first.

    Args:
        features: What 'resnet features' wrote: a .safetensors file, or a folder of shards.
    """
    from resnetkit.inference.feature_shards import open_library
    from resnetkit.inference.nearest import check_computed_by
    from resnetkit.inference.predictor import load_predictor

    form, images = chosen_form(format, json=json), images_of(queries)
    if top < 1:
        raise UsageError(f"--top {top}: expected 1 or more.")
    library = open_library(features)
    predictor = load_predictor(
        model, variant=variant, device=device, precision=precision, batch_size=batch_size
    )
    check_computed_by(library, predictor.engine)
    remark(f"{library.images:,} image(s), {library.layer} of {library.origin}")
    return print_records(neighbors(library, predictor, images, top), NEAREST, form)


def neighbors(
    library: "Library",
    predictor: "Predictor",
    images: "Iterator[str | bytes | BadImage]",
    top: int,
) -> "Iterator[Record | BadImage]":
    """Yields the nearest images of each query, in order."""
    from resnetkit.data.images.check import BadImage
    from resnetkit.inference.nearest import nearest_in
    from resnetkit.inference.predictor import batches

    outputs = predictor.features(images, layer=library.layer)
    for batch in batches(outputs, predictor.batch_size):
        queries = [output.values for output in batch if not isinstance(output, BadImage)]
        ranked = iter(nearest_in(library, queries, top))
        for output in batch:
            if isinstance(output, BadImage):
                yield output
            else:
                yield Record(output.name, [(near.path, near.similarity) for near in next(ranked)])
