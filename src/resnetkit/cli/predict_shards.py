"""resnet predict --out: answers for very many images, by several processes or a cluster."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetkit.cli.output import print_json, remark, say
from resnetkit.errors import DataError

if TYPE_CHECKING:
    from resnetkit.data.images.check import BadImage
    from resnetkit.inference.predictor import Predictor
    from resnetkit.inference.shards import Manifest
    from resnetkit.studies.cluster import Workers

__all__ = ["LoadOptions", "predict_into"]


@dataclass(frozen=True)
class LoadOptions:
    """How every process loads the network; see `load_predictor`."""

    network: Path
    variant: str | None
    device: str
    precision: str | None
    batch_size: int


def predict_into(
    folder: Path,
    options: LoadOptions,
    images: "Iterator[str | bytes | BadImage]",
    *,
    top: int,
    shards: int,
    workers: "Workers",
    json: bool,
) -> int:
    """Answers all images into a folder, and returns the exit code.

    The images are listed first. Killed anywhere, the same command answers the rest.
    """
    from resnetkit.inference.engine import check_head
    from resnetkit.inference.shards import (
        ANSWERS,
        Question,
        merge,
        missing_shards,
        open_manifest,
    )
    from resnetkit.storage import exclusive

    predictor = loaded(options)
    check_head(predictor.engine)
    engine = predictor.engine
    question = Question(
        engine.network_sha256, engine.origin, engine.precision, options.batch_size, top, shards
    )
    folder = folder.absolute()
    manifest = open_manifest(folder, question, images)
    with exclusive(
        folder / ".lock",
        waiting=f"another command writes into {folder}: waiting for it.",
        advice="Choose another folder with --out.",
    ):
        missing = missing_shards(folder, manifest)
        if len(missing) < shards and not (folder / ANSWERS).exists():
            remark(f"{shards - len(missing)} of {shards} shards are there already")
        remark(f"{engine.origin}: {manifest.images:,} image(s)")
        run = partial(answer_shard, folder=folder, manifest=manifest, options=options, top=top)
        workers.run(run, missing, folder)
        path = merge(folder, manifest)
    return report(path, manifest, json=json)


def report(path: Path, manifest: "Manifest", *, json: bool) -> int:
    """Prints where the answers are and how many images were bad; returns the exit code."""
    bad = count_bad(path)
    if json:
        print_json({"file": str(path), "images": manifest.images, "bad": bad})
    else:
        say(f"{path}: {manifest.images:,} image(s), {bad:,} of them bad")
    return DataError.exit_code if bad else 0


def count_bad(path: Path) -> int:
    """Returns how many answers are errors."""
    with path.open(encoding="utf-8") as file:
        return sum(json.loads(line)["error"] is not None for line in file)


@lru_cache(maxsize=1)
def loaded(options: LoadOptions) -> "Predictor":
    """Loads the network once for each process."""
    from resnetkit.inference.predictor import load_predictor

    return load_predictor(
        options.network,
        variant=options.variant,
        device=options.device,
        precision=options.precision,
        batch_size=options.batch_size,
    )


def answer_shard(
    shard: int, *, folder: Path, manifest: "Manifest", options: LoadOptions, top: int
) -> None:
    """Answers the images of a shard, unless that is done."""
    from resnetkit.cli.predict import PREDICTIONS, records_of
    from resnetkit.cli.records import as_lines
    from resnetkit.inference.shards import images_of_shard, part_path, write_part

    if part_path(folder, shard).exists():
        return
    predictor = loaded(options)
    one_thread(predictor)
    answers: Any = predictor.predict(images_of_shard(folder, manifest, shard), top=top)
    write_part(folder, shard, as_lines(records_of(answers), PREDICTIONS))


def one_thread(predictor: "Predictor") -> None:
    """Computes with one thread: the number of threads can change the last digits."""
    if predictor.engine.name == "torch":
        import torch

        torch.set_num_threads(1)
