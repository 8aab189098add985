"""The contact sheet of a data set: one row of training images per class."""

from io import BytesIO
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from resnetkit.data.dataset import Dataset
from resnetkit.storage import storage_errors, write_file

__all__ = [
    "CELL_PIXELS",
    "contact_sheet",
    "write_contact_sheet",
]

IMAGES_PER_CLASS = 12
CELL_PIXELS = 64
GAP_PIXELS = 4
LABEL_PIXELS = 150


def contact_sheet(dataset: Dataset) -> Image.Image:
    """Draws the first training images of each class, resized by nearest neighbor."""
    pitch = CELL_PIXELS + GAP_PIXELS
    size = (LABEL_PIXELS + IMAGES_PER_CLASS * pitch, len(dataset.class_names) * pitch + GAP_PIXELS)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=18)
    train = dataset.splits["train"]
    for label, class_name in enumerate(dataset.class_names):
        top = label * pitch + GAP_PIXELS
        middle = (GAP_PIXELS * 2, top + CELL_PIXELS // 2)
        draw.text(middle, class_name, fill="black", font=font, anchor="lm")
        members = train[dataset.labels[train] == label][:IMAGES_PER_CLASS]
        for column, sample_id in enumerate(members.tolist()):
            cell = picture(dataset, sample_id).resize((CELL_PIXELS,) * 2, Image.Resampling.NEAREST)
            sheet.paste(cell, (LABEL_PIXELS + column * pitch, top))
    return sheet


def picture(dataset: Dataset, sample_id: int) -> Image.Image:
    """Returns one sample as an image."""
    pixels = dataset.images[torch.tensor(sample_id)].permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if dataset.channels == 1 else pixels)


def write_contact_sheet(dataset: Dataset, path: Path) -> Path:
    """Writes the contact sheet as a PNG file and returns its path.

    Raises:
        StorageError: when the file cannot be written.
    """
    buffer = BytesIO()
    contact_sheet(dataset).save(buffer, format="PNG")
    with storage_errors(path, "Choose another file with --out."):
        write_file(path, buffer.getvalue())
    return path
