"""The report of an evaluation: errors side by side, confusions, and the worst errors."""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import torch
from markupsafe import Markup
from PIL import Image

from resnetkit.data.dataset import Dataset
from resnetkit.evaluation.evaluate import Evaluation, WorstError
from resnetkit.evaluation.metrics import mistakes
from resnetkit.report.confusion import MOST_CLASSES, confusion_chart
from resnetkit.report.language import ENGLISH, Language
from resnetkit.report.page import render
from resnetkit.storage import storage_errors, write_file
from resnetkit.training.events import finite

__all__ = ["evaluation_facts", "write_evaluation"]

MOST_MISTAKES = 8
PICTURE_SIDE = 112  # pixels in the gallery


@dataclass(frozen=True)
class Worst:
    """One picture of the gallery.

    Attributes:
        picture: address of the image, with the image in it.
        error: what was taken for what.
    """

    picture: str
    error: WorstError


def write_evaluation(
    folder: Path, evaluations: Sequence[Evaluation], dataset: Dataset, t: Language = ENGLISH
) -> Path:
    """Writes report.html and evaluation.json into a folder.

    Args:
        folder: made when it is not there.
        evaluations: of one network, or of several and their ensemble.
        dataset: that was measured on, for the pictures.
        t: language of the page.

    Returns:
        The path of report.html.

    Raises:
        StorageError: when the folder cannot be written.
    """
    page = render(
        "evaluation.html.j2",
        t,
        evaluations=evaluations,
        last=evaluations[-1],
        protocol=PROTOCOL_WORDS[evaluations[-1].protocol],
        chart=confusion_of(evaluations[-1], t),
        mistakes=mistakes(evaluations[-1].metrics.confusion)[:MOST_MISTAKES],
        gallery=[Worst(picture(dataset, error), error) for error in evaluations[-1].worst],
    )
    path = folder / "report.html"
    with storage_errors(folder, "Choose another folder with --out."):
        folder.mkdir(parents=True, exist_ok=True)
        facts = [evaluation_facts(each) for each in evaluations]
        write_file(folder / "evaluation.json", json.dumps(facts, indent=1, allow_nan=False))
        write_file(path, page)
    return path


PROTOCOL_WORDS = {
    "center": "the middle of each image",
    "ten-crop": "ten crops of each image, whose probabilities are averaged",
    "multi-scale": "the whole of each image at five sizes, whose probabilities are averaged",
}


def evaluation_facts(evaluation: Evaluation) -> dict[str, object]:
    """Returns an evaluation for machines; null stands for what is not a number."""
    found = asdict(evaluation)
    found["metrics"]["classes"] = [finite(each) for each in found["metrics"]["classes"]]
    return found


def confusion_of(evaluation: Evaluation, t: Language) -> Markup | None:
    """Returns the chart of the confusion matrix; none for more classes than can be drawn."""
    matrix = evaluation.metrics.confusion
    if len(matrix) > MOST_CLASSES:
        return None
    names = [each.name for each in evaluation.metrics.classes]
    return Markup(confusion_chart(matrix, names, name="confusion", t=t))


def picture(dataset: Dataset, error: WorstError) -> str:
    """Returns an image as an address that holds it."""
    pixels = dataset.images[torch.tensor(error.sample_id)].permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels[..., 0] if dataset.channels == 1 else pixels)
    scale = PICTURE_SIDE / max(image.size)
    # Small images keep their pixels; photos are smoothed.
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
    size = (round(image.width * scale), round(image.height * scale))
    buffer = BytesIO()
    image.resize(size, method).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
