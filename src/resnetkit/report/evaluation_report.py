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
from resnetkit.evaluation.metrics import Mistake, mistakes
from resnetkit.evaluation.protocols import Protocol
from resnetkit.report.confusion import MOST_CLASSES, confusion_chart
from resnetkit.report.language import ENGLISH, Language
from resnetkit.report.page import render
from resnetkit.storage import storage_errors, write_file
from resnetkit.studies.phrase import Phrase, phrase
from resnetkit.studies.statistics import SPLIT_NAMES
from resnetkit.training.events import finite

__all__ = ["EvaluationPage", "evaluation_facts", "evaluation_page", "write_evaluation"]

MOST_MISTAKES = 8
PICTURE_SIDE = 112  # pixels in the gallery


@dataclass(frozen=True)
class Picture:
    """One picture of the gallery of the worst errors.

    Attributes:
        address: data URL of the image.
        error: the true class, the predicted one, and its probability.
    """

    address: str
    error: WorstError


@dataclass(frozen=True)
class EvaluationPage:
    """What the template shows of evaluations.

    Attributes:
        evaluations: of one network, or of several and their ensemble.
        protocol: the views of each image that were averaged.
        split: name of the split.
        chart: confusion matrix of the last evaluation; None for too many classes.
        mistakes: its most frequent confusions.
        gallery: its worst errors.
    """

    evaluations: Sequence[Evaluation]
    protocol: Phrase
    split: Phrase
    chart: Markup | None
    mistakes: list[Mistake]
    gallery: list[Picture]

    @property
    def last(self) -> Evaluation:
        """Returns the evaluation that is shown in detail: of the ensemble where there is one."""
        return self.evaluations[-1]


def write_evaluation(
    folder: Path, evaluations: Sequence[Evaluation], dataset: Dataset, t: Language = ENGLISH
) -> Path:
    """Writes report.html and evaluation.json into a folder.

    Args:
        folder: created when it does not exist.
        evaluations: of one network, or of several and their ensemble.
        dataset: on which they were measured, for the pictures.
        t: language of the page.

    Returns:
        The path of report.html.

    Raises:
        StorageError: when the folder cannot be written.
    """
    page = render("evaluation.html.j2", evaluation_page(evaluations, dataset, t), t)
    path = folder / "report.html"
    with storage_errors(folder, "Choose another folder with --out."):
        folder.mkdir(parents=True, exist_ok=True)
        facts = [evaluation_facts(evaluation) for evaluation in evaluations]
        write_file(folder / "evaluation.json", json.dumps(facts, indent=1, allow_nan=False))
        write_file(path, page)
    return path


PROTOCOL_NAMES: dict[Protocol, Phrase] = {
    "center": phrase("center crop"),
    "ten-crop": phrase("ten crops per image, probabilities averaged"),
    "multi-scale": phrase("whole images at five sizes, probabilities averaged"),
}


def evaluation_page(
    evaluations: Sequence[Evaluation], dataset: Dataset, t: Language
) -> EvaluationPage:
    """Returns what the template shows of evaluations on a data set."""
    last = evaluations[-1]
    return EvaluationPage(
        evaluations=evaluations,
        protocol=PROTOCOL_NAMES[last.protocol],
        split=SPLIT_NAMES[last.split],
        chart=confusion_of(last, t),
        mistakes=mistakes(last.metrics.confusion)[:MOST_MISTAKES],
        gallery=[Picture(picture_address(dataset, error), error) for error in last.worst],
    )


def evaluation_facts(evaluation: Evaluation) -> dict[str, object]:
    """Returns an evaluation as JSON values; null stands for a number that is not finite."""
    facts = asdict(evaluation)
    facts["metrics"]["classes"] = [finite(row) for row in facts["metrics"]["classes"]]
    return facts


def confusion_of(evaluation: Evaluation, t: Language) -> Markup | None:
    """Returns the chart of the confusion matrix; None for more classes than can be drawn."""
    matrix = evaluation.metrics.confusion
    if len(matrix) > MOST_CLASSES:
        return None
    names = [row.name for row in evaluation.metrics.classes]
    return Markup(confusion_chart(matrix, names, name="confusion", t=t))


def picture_address(dataset: Dataset, error: WorstError) -> str:
    """Returns the data URL of the image of an error."""
    pixels = dataset.images[torch.tensor(error.sample_id)].permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels[..., 0] if dataset.channels == 1 else pixels)
    scale = PICTURE_SIDE / max(image.size)
    # Small images keep their pixels; photos are smoothed.
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
    size = (round(image.width * scale), round(image.height * scale))
    buffer = BytesIO()
    image.resize(size, method).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
