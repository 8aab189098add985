"""resnet data: list, fetch, check, show and export data sets."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from resnetkit.cli.options import Json
from resnetkit.cli.output import bar, print_json, print_table, remark, remark_on_data, say
from resnetkit.data.splits import Split

if TYPE_CHECKING:
    from resnetkit.data.images.check import Duplicates, FolderReport

__all__ = ["data"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
MOST_SHOWN = 20
MOST_GROUPS = 4  # splits and classes that are named for one group of duplicates

data = App(
    name="data",
    help="List, fetch, check, show and export data sets.",
    help_epilogue="Example: resnet data fetch cifar10",
    help_format="markdown",
)


@dataclass(frozen=True)
class ListedDataset:
    """One row of the list of data sets.

    Attributes:
        name: by which it is opened.
        title: what it contains.
        megabytes: of the download.
        here: whether it is on this machine.
        source: who published it.
    """

    name: str
    title: str
    megabytes: int
    here: bool
    source: str


DIGITS = ListedDataset(
    name="digits",
    title="1,797 scanned digits of 8x8 pixels in 10 classes",
    megabytes=0,
    here=True,
    source="Alpaydin and Kaynak 1998, UCI; comes with scikit-learn",
)


@data.command(name="list", help_epilogue="Example: resnet data list")
def list_datasets(*, json: Json = False) -> None:
    """List the data sets, and whether they are on this machine."""
    from resnetkit.data.published.table import PUBLISHED, is_cached

    rows = [
        DIGITS,
        *(
            ListedDataset(name, entry.title, entry.megabytes, is_cached(name), entry.source)
            for name, entry in PUBLISHED.items()
        ),
    ]
    if json:
        print_json(rows)
        return
    print_table(
        ["name", "what", "download", "here", "source"],
        [
            [
                row.name,
                row.title,
                f"{row.megabytes} MB" if row.megabytes else "",
                "yes" if row.here else "no",
                row.source,
            ]
            for row in rows
        ],
        numbers="llrll",
    )


@data.command(help_epilogue="Example: resnet data fetch cifar10")
def fetch(
    name: str,
    /,
    *,
    source: Annotated[
        Path | None, Parameter(name="--from", help="A folder or archive that you already have.")
    ] = None,
    json: Json = False,
) -> None:
    """Download a data set and verify every byte of it.

    Args:
        name: A data set of 'resnet data list'.
    """
    from resnetkit.data.published.fetch import fetch as fetch_dataset

    with bar(f"fetch {name}") as progress:

        def observe(done: int, total: int) -> None:
            progress.update(done / total if total else 0.0, f"{done / 1e6:,.0f} MB")

        folder = fetch_dataset(name, source=source, observe=observe)
    if json:
        print_json({"name": name, "folder": str(folder)})
    else:
        say(folder)


@data.command(help_epilogue="Example: resnet data check photos/")
def check(name: str, /, *, json: Json = False) -> None:
    """Read a whole data set and report what is wrong with it.

    A published data set is compared with its known digests. Your images are all decoded: corrupt
    ones are listed, and so are duplicates in two splits or two classes. No file is changed.

    Args:
        name: A data set of 'resnet data list', or your images: a folder class/image or
            train|val|test/class/image, or a .csv or .jsonl file with path, label and split.
    """
    from resnetkit.data.datasets import custom_path, open_dataset
    from resnetkit.data.published.table import PUBLISHED, check_cached

    path = custom_path(name)
    if path is not None:
        check_folder(path, json=json)
        return
    remark_on_data(name)
    facts = check_cached(name) if name in PUBLISHED else None
    dataset = open_dataset(name)
    counts = {split: len(ids) for split, ids in dataset.splits.items()}
    if json:
        details = asdict(facts) if facts else {}
        print_json({"name": name, "images": counts, "sha256": dataset.sha256, **details})
        return
    splits = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    height, width = dataset.image_size
    say(
        f"{name} is complete: {splits} images of {height}x{width} pixels with"
        f" {dataset.channels} channel(s), {len(dataset.class_names)} classes"
    )
    if facts:
        remark(f"it came from {facts.source}")


def check_folder(root: Path, *, json: bool) -> None:
    """Checks a user's images and prints a report.

    Raises:
        DataError: when some images cannot be used.
    """
    from resnetkit.data.images.check import check_images
    from resnetkit.data.images.folder import read_images
    from resnetkit.data.images.split import split_images
    from resnetkit.errors import DataError

    images = read_images(root, fewest_classes=1)
    for text in images.remarks:
        remark(text)
    splits = {file.split for file in images.files}
    if splits & {None, "train"}:  # otherwise it is a test set: nothing is held out
        images = split_images(images, seed=0)
    with bar(f"check {root}") as progress:
        report = check_images(images, observe=progress.update)
    print_json(folder_facts(report)) if json else show_folder(root, report)
    if report.bad:
        raise DataError(
            f"{len(report.bad):,} of {report.images:,} images cannot be used. Replace or remove"
            " them, or train with data.on_bad_image=skip."
        )


def folder_facts(report: "FolderReport") -> dict[str, object]:
    """Returns a report as JSON values."""
    from resnetkit.data.images.listing import by_reason

    return {
        "images": report.images,
        "classes": report.counts,
        "imbalance": report.imbalance,
        "bad": [{"path": str(bad.path), "reason": bad.reason} for bad in report.bad],
        "converted": {note: list(map(str, paths)) for note, paths in report.converted.items()},
        "lost": {note: list(map(str, paths)) for note, paths in report.lost.items()},
        "duplicates": [
            {
                "exact": group.exact,
                "images": [
                    {"path": str(file.path), "label": file.label, "split": file.split}
                    for file in group.images
                ],
            }
            for group in report.duplicates
        ],
        "skipped": {
            reason: list(map(str, paths)) for reason, paths in by_reason(report.skipped).items()
        },
    }


def show_folder(root: Path, report: "FolderReport") -> None:
    """Prints a report as text."""
    from resnetkit.data.images.listing import by_reason

    splits = [split for split in SPLITS if any(split in row for row in report.counts.values())]
    print_table(
        ["class", *splits],
        [
            [name, *(f"{row.get(split, 0):,}" for split in splits)]
            for name, row in report.counts.items()
        ],
        numbers="l" + "r" * len(splits),
    )
    say(
        f"{root}: {report.images:,} images in {len(report.counts)} classes, the largest"
        f" {report.imbalance:.1f} times the smallest"
    )
    for bad in report.bad:
        say(f"bad: {bad.reason}")
    for note, paths in report.converted.items():
        say(f"harmless in {len(paths):,}: {note}, such as {paths[0]}")
    for note, paths in report.lost.items():
        say(f"little is left of {len(paths):,}: {note}, such as {paths[0]}")
    for group in report.duplicates[:MOST_SHOWN]:
        say(describe_duplicates(group))
    if len(report.duplicates) > MOST_SHOWN:
        say(f"and {len(report.duplicates) - MOST_SHOWN:,} more such groups: --json lists them")
    for reason, paths in by_reason(report.skipped).items():
        say(f"ignored {len(paths):,}: {reason}, such as {paths[0]}")


def describe_duplicates(group: "Duplicates") -> str:
    """Returns one line on a group of duplicates: how many, in which splits and classes."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for file in group.images:
        groups.setdefault((file.split or "train", file.label), []).append(file.path)
    listed = [
        f"{len(paths):,} in {split} {label} such as {paths[0]}"
        for (split, label), paths in list(groups.items())[:MOST_GROUPS]
    ]
    more = f", and in {len(groups) - MOST_GROUPS:,} more" if len(groups) > MOST_GROUPS else ""
    kind = "identical" if group.exact else "similar"
    return f"{kind}: {len(group.images):,} images, {', '.join(listed)}{more}"


@data.command(help_epilogue="Example: resnet data show cifar10 --out cifar10.png")
def show(
    name: str,
    /,
    *,
    out: Annotated[Path | None, Parameter(help="PNG file; by default NAME.png here.")] = None,
    json: Json = False,
) -> None:
    """Write a contact sheet: for each class its name and a row of training images.

    Args:
        name: A data set of 'resnet data list', or your images, as for 'resnet data check'.
    """
    from resnetkit.data.contact_sheet import CELL_PIXELS, write_contact_sheet
    from resnetkit.data.datasets import custom_path, open_dataset

    custom_images = custom_path(name)
    remark_on_data(name)
    dataset = open_dataset(name, image_size=CELL_PIXELS)
    stem = name if custom_images is None else custom_images.resolve().stem
    path = write_contact_sheet(dataset, out or Path(f"{stem}.png"))
    if json:
        print_json({"name": name, "file": str(path)})
    else:
        say(path)


@data.command(help_epilogue="Example: resnet data export digits --out photos")
def export(
    name: str,
    /,
    *,
    out: Annotated[Path, Parameter(help="A folder, which must not exist.")],
    split: Annotated[
        tuple[Split, ...],
        Parameter(negative=(), help="A split to write; may be repeated; all by default."),
    ] = (),
    json: Json = False,
) -> None:
    """Write a data set as PNG files: train|val|test/class/NNNN.png.

    The folder can be given wherever your images can, such as to 'resnet train --data'.

    Args:
        name: A data set of 'resnet data list'.
    """
    from resnetkit.data.datasets import custom_path, open_dataset
    from resnetkit.data.export import export_images
    from resnetkit.errors import UsageError

    if custom_path(name) is not None:
        raise UsageError(f"{name} is a path: expected a data set of 'resnet data list'.")
    remark_on_data(name)
    dataset = open_dataset(name)
    with bar(f"export {name}") as progress:
        counts = export_images(dataset, out, splits=split or SPLITS, observe=progress.update)
    if json:
        print_json({"name": name, "folder": str(out), "images": counts})
        return
    splits = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    say(f"{out}: {splits} images in {len(dataset.class_names)} classes")
