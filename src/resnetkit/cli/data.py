"""resnet data: which data sets there are, fetching, checking and looking at them."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from resnetkit.cli.options import Json
from resnetkit.cli.output import bar, print_json, print_table, remark

__all__ = ["data"]

data = App(
    name="data",
    help="List, fetch, check and show data sets.",
    help_epilogue="Example: resnet data fetch cifar10",
)


@data.command(name="list", help_epilogue="Example: resnet data list")
def list_datasets(*, json: Json = False) -> None:
    """List the data sets and whether they are on this machine."""
    from resnetkit.data.published import PUBLISHED, cache_folder

    rows: list[dict[str, Any]] = [
        {
            "name": "digits",
            "title": "1,797 scanned digits of 8x8 pixels in 10 classes",
            "megabytes": 0,
            "here": True,
            "source": "Alpaydin and Kaynak 1998, UCI; comes with scikit-learn",
        }
    ]
    rows += [
        {
            "name": name,
            "title": published.title,
            "megabytes": published.megabytes,
            "here": (cache_folder() / "datasets" / name).is_dir(),
            "source": published.source,
        }
        for name, published in PUBLISHED.items()
    ]
    if json:
        print_json(rows)
        return
    print_table(
        ["name", "what", "download", "here", "source"],
        [
            [
                row["name"],
                row["title"],
                f"{row['megabytes']} MB" if row["megabytes"] else "",
                "yes" if row["here"] else "no",
                row["source"],
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
        Path | None, Parameter(name="--from", help="A folder or archive that you have already.")
    ] = None,
    json: Json = False,
) -> None:
    """Bring a data set to this machine and verify every byte of it.

    Args:
        name: A data set of 'resnet data list'.
    """
    from resnetkit.data.roads import fetch as fetch_dataset

    with bar(f"fetch {name}") as progress:

        def observe(done: int, total: int) -> None:
            progress.update(done / total if total else 0.0, f"{done / 1e6:,.0f} MB")

        folder = fetch_dataset(name, source=source, observe=observe)
    if json:
        print_json({"name": name, "folder": str(folder)})
    else:
        print(folder)


@data.command(help_epilogue="Example: resnet data check cifar10")
def check(name: str, /, *, json: Json = False) -> None:
    """Read a data set from the first to the last byte and compare it with what it must be.

    Args:
        name: A data set of 'resnet data list'.
    """
    from resnetkit.data.datasets import open_dataset
    from resnetkit.data.published import PUBLISHED, check_cached

    facts = check_cached(name) if name in PUBLISHED else {}
    dataset = open_dataset(name)
    counts = {split: len(ids) for split, ids in dataset.splits.items()}
    if json:
        print_json({"name": name, "images": counts, "sha256": dataset.sha256, **facts})
        return
    parts = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    height, width = dataset.image_size
    print(
        f"{name} is whole: {parts} images of {height}x{width} pixels with"
        f" {dataset.channels} channel(s), {len(dataset.class_names)} classes"
    )
    if facts:
        remark(f"it came from {facts['road']}")


@data.command(help_epilogue="Example: resnet data show cifar10 --out cifar10.png")
def show(
    name: str,
    /,
    *,
    out: Annotated[Path | None, Parameter(help="PNG file; by default NAME.png here.")] = None,
    json: Json = False,
) -> None:
    """Write a contact sheet: a row of training images a class, with its name.

    Args:
        name: A data set of 'resnet data list'.
    """
    from resnetkit.data.contact_sheet import write_contact_sheet
    from resnetkit.data.datasets import open_dataset

    path = write_contact_sheet(open_dataset(name), out or Path(f"{name}.png"))
    if json:
        print_json({"name": name, "file": str(path)})
    else:
        print(path)
