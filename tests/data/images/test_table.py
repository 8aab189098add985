"""Tables of images as programs and people write them: read where they mean one thing, else said."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from resnetkit.data.images import table as table_module
from resnetkit.data.images.folder import read_images
from resnetkit.data.images.listing import ImageFile, ImageList, relocated, with_digests
from resnetkit.data.images.table import read_list, write_images
from resnetkit.errors import DataError

ROWS = [("photos/cat/1.jpg", "cat", "train"), ("photos/dog/2.jpg", "dog", "val")]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a table beside two images."""
    for name, label, _ in ROWS:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(label)

    def write_table(content: bytes | str, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_table


def meant(table: Path) -> list[tuple[str, str, str | None]]:
    """Returns relative path, label and split of each image."""
    return [
        (os.path.relpath(file.path, table.parent), file.label, file.split)
        for file in read_images(table).files
    ]


PLAIN = "path,label,split\n" + "".join(f"{','.join(row)}\n" for row in ROWS)
READ: dict[str, bytes | str] = {
    "plain": PLAIN,
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "bars": PLAIN.replace(",", "|"),
    "blanks after commas": PLAIN.replace(",", ", "),
    "blanks around": PLAIN.replace(",", " , ").replace("\n", " \n"),
    "capitals": PLAIN.replace("path,label,split", "Path,LABEL,Split").replace("train", "Train"),
    "backslashes": PLAIN.replace("/", "\\"),
    "line ends of Windows": PLAIN.replace("\n", "\r\n"),
    "old line ends": PLAIN.replace("\n", "\r"),
    "a mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "UTF-16 without a mark": PLAIN.encode("utf-16-le"),
    "UTF-32": PLAIN.encode("utf-32"),
    "empty lines": f"\n  \n,,\n{PLAIN}\n\n",
    "an empty line within": PLAIN.replace("\nphotos/dog", "\n\nphotos/dog"),
    "what tells Excel": "sep=;\n" + PLAIN.replace(",", ";"),
    "quotes": PLAIN.replace("photos/cat/1.jpg", '"photos/cat/1.jpg"').replace("path", '"path"', 1),
    "an index": "".join(
        f"{n if n else ''},{line}\n" for n, line in enumerate(PLAIN.strip().split("\n"))
    ),
    "columns left empty": "".join(f"{line},,\n" for line in PLAIN.strip().split("\n")),
    "other names of splits": PLAIN.replace(",train", ",training_set").replace(",val", ",dev"),
}


@pytest.mark.parametrize("case", READ)
def test_tables_that_mean_one_thing_are_read(write: Callable[..., Path], case: str) -> None:
    assert meant(write(READ[case])) == [
        ("photos/cat/1.jpg", "cat", "train"),
        ("photos/dog/2.jpg", "dog", "validation"),
    ]


def test_tabs_are_known_by_the_name_as_well(write: Callable[..., Path]) -> None:
    assert len(meant(write(PLAIN.replace(",", "\t"), "table.tsv"))) == 2


HEAD = "path,label\n"
CAT, DOG = "photos/cat/1.jpg,cat\n", "photos/dog/2.jpg,dog\n"
REFUSED: dict[str, tuple[bytes | str, str]] = {
    "a column twice": (
        "path,label,Label\n" + CAT,
        "line 1: the column label occurs twice in the header",
    ),
    "another column twice": ("\npath,label,x,x\n" + CAT, "line 2: the column x occurs twice"),
    "no heading": (CAT + DOG, "line 1 has the columns photos/cat/1.jpg, cat: expected path, label"),
    "an open quote": (f'{HEAD}{CAT}"{DOG}{CAT}', "line 3: a quote is opened and never closed"),
    "two open quotes": (f'{HEAD}"{CAT}"{DOG}', "line 2: a quote is closed within a value, or"),
    "a comma in a path": (f"{HEAD}photos/cat,dog/1.jpg,cat\n", "line 2: 3 values, but the header"),
    "a column of paths alone": ("path\nphotos/cat/1.jpg\n", "line 1 has the columns path"),
    "a path of Windows": (f"{HEAD}C:\\photos\\1.jpg,cat\n", "Write it with / as in"),
    "a label that shows nothing": (f"{HEAD}photos/cat/1.jpg,\u200b \n", "line 2: expected a path"),
    "half of UTF-16": (PLAIN.encode("utf-16")[:-1], "begins as UTF-16, but it is not"),
    "zero bytes": (PLAIN.encode() + b"\0\0\0", "is not text: it contains zero bytes"),
    "an LFS pointer": (
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "Git LFS pointer",
    ),
    "URLs": (
        f"{HEAD}{CAT}https://example.org/dog.jpg,dog\n",
        "line 3: https://example.org/dog.jpg is a URL, and images are not downloaded",
    ),
    "one-hot labels": (
        "path,cat,dog,fox\nphotos/cat/1.jpg,1,0,0\n",
        "The labels look one-hot encoded: replace these columns by one column label",
    ),
    "names without extensions": (
        f"{HEAD}photos/cat/1,cat\n",
        "There is 1.jpg: paths need the extension of the file.",
    ),
    "comment lines": (
        f"# made by hand\n{HEAD}{CAT}",
        "Remove the lines that begin with #: the first line must be the header.",
    ),
    "a page": ("<!DOCTYPE html>\n<html></html>", "HTML"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_tables_are_refused_with_the_line(write: Callable[..., Path], case: str) -> None:
    content, message = REFUSED[case]
    with pytest.raises(DataError) as caught:
        read_images(write(content))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "path,weight,height\nphotos/cat/1.jpg,1,17\n",
        "path,cat,dog\nphotos/cat/1.jpg,1,1\n",
        "path,class\nphotos/cat/1.jpg,cat\n",
        "path\n",
    ],
)
def test_other_columns_are_not_taken_for_one_hot_labels(
    write: Callable[..., Path], content: str
) -> None:
    with pytest.raises(DataError) as caught:
        read_images(write(content))
    assert "one-hot" not in str(caught.value)
    assert str(caught.value).endswith("separated by commas; split is optional.")


def test_a_missing_file_without_an_extension_gets_no_hint(write: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"there is no .*/photos/cat/9\.$"):
        read_images(write(f"{HEAD}photos/cat/9,cat\n"))


def test_the_line_of_an_open_quote_is_that_where_it_opens(write: Callable[..., Path]) -> None:
    folder = write(HEAD).parent
    for number in range(600):
        (folder / f"{number}.jpg").touch()
    rows = [f"{number}.jpg,{number % 2}\n" for number in range(600)]
    rows[300] = '"' + rows[300]
    for more in ("", "x" * 200_000):  # the end comes first, or the longest value
        with pytest.raises(DataError, match="line 302: a quote is opened and never closed"):
            read_images(write(HEAD + "".join(rows) + more))


REFUSED_LINES = {
    "a key twice": (
        '{"path": "photos/cat/1.jpg", "label": "cat", "label": "dog"}',
        "line 1: the key 'label' occurs twice",
    ),
    "a key twice but for case": (
        '{"path": "photos/cat/1.jpg", "label": "cat", "Label": "dog"}',
        "line 1: a key occurs twice",
    ),
    "a split that is a number": (
        '\n{"path": "photos/cat/1.jpg", "label": "cat", "split": 0}',
        "line 2: the split is 0, expected one of train, val, test",
    ),
    "deep brackets": ("[" * 100_000, "line 1: "),
}


@pytest.mark.parametrize("case", REFUSED_LINES)
def test_json_lines_are_refused_with_the_line(write: Callable[..., Path], case: str) -> None:
    content, message = REFUSED_LINES[case]
    with pytest.raises(DataError) as caught:
        read_images(write(content, "table.jsonl"))
    assert message in str(caught.value)


def test_a_name_with_blanks_or_backslashes_is_that_file(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("a\\b.jpg", " c.jpg", "d.jpg "):
        (tmp_path / name).touch()
    table = write('path,label\n"a\\b.jpg",1\n" c.jpg",2\n"d.jpg ",3\n')
    assert {name for name, *_ in meant(table)} == {"a\\b.jpg", " c.jpg", "d.jpg "}


def test_a_pipe_is_refused_without_blocking(write: Callable[..., Path], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match=r"line 2: .*pipe\.jpg is not a regular file"):
        read_images(write("path,label\npipe.jpg,a\n"))
    with pytest.raises(DataError, match=r"pipe\.csv cannot be read"):
        read_images(tmp_path / "pipe.csv")


def test_one_file_in_two_splits_through_a_link_is_reported(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "link.jpg").symlink_to("photos/cat/1.jpg")
    table = write(PLAIN + "link.jpg,cat,val\n")
    remark = read_images(table).remarks[0]
    assert "same files as images of another class or split" in remark


# Lists that runs keep


@pytest.fixture
def images(tmp_path: Path) -> ImageList:
    """Lists images of which one has a name that is not UTF-8, and one is long."""
    for label, name in (("cat", os.fsdecode(b"\xe9.jpg")), ("cat", "b,\n.jpg"), ("dog", "c.jpg")):
        path = tmp_path / "photos" / label / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(500_000 if name == "c.jpg" else 300))
    return with_digests(read_images(tmp_path / "photos"))


def test_a_list_is_read_back_whether_its_files_are_there_or_not(
    images: ImageList, tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_bytes(write_images(images))
    assert read_images(tmp_path / "list.csv").files == images.files
    before = images.sha256
    (tmp_path / "photos").rename(tmp_path / "gone")
    again = read_list(tmp_path / "list.csv", images.root)
    assert again.files == images.files
    moved = relocated(again, tmp_path / "gone")
    assert moved.sha256 == before  # of names and sizes, not of places
    assert [file.path.is_file() for file in moved.files] == [True] * 3
    assert [file.digest for file in moved.files] == [file.digest for file in images.files]


def test_a_list_keeps_a_space_before_a_name(tmp_path: Path) -> None:
    for name in (" cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / " 1.jpg").touch()
    images = with_digests(read_images(tmp_path / "photos"))
    (tmp_path / "list.csv").write_bytes(write_images(images))
    again = read_list(tmp_path / "list.csv", images.root)
    assert [file.name for file in again.files] == [" cat/ 1.jpg", "dog/ 1.jpg"]
    assert again.sha256 == images.sha256


def test_a_list_keeps_its_order_wherever_its_images_are(images: ImageList, tmp_path: Path) -> None:
    backwards = replace(images, files=images.files[::-1])
    (tmp_path / "list.csv").write_bytes(write_images(backwards))
    assert read_images(tmp_path / "list.csv").files == backwards.files


def test_a_list_that_could_not_be_read_back_is_not_written(
    images: ImageList, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(write_images(images))
    monkeypatch.setattr(table_module, "LARGEST_TABLE", size)
    assert len(write_images(images)) == size
    monkeypatch.setattr(table_module, "LARGEST_TABLE", size - 1)
    with pytest.raises(DataError, match="the list of its 3 images would have more than"):
        write_images(images)


@pytest.mark.parametrize("offset", [0, 250_000, 499_999])
def test_other_images_under_the_same_names_are_noticed(images: ImageList, offset: int) -> None:
    moved = images.root.rename(images.root.with_name("moved"))
    content = bytearray((moved / "dog" / "c.jpg").read_bytes())
    content[offset] ^= 1
    (moved / "dog" / "c.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"the content of 1 of 3 differs, such as dog/c\.jpg"):
        relocated(images, moved)
    (moved / "dog" / "c.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 3 are missing, such as dog/c\.jpg"):
        relocated(images, moved)


def test_the_images_of_a_table_may_move_with_it_or_stay(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    outside = tmp_path.parent / f"{tmp_path.name} outside.jpg"
    outside.touch()
    table = write(f"{PLAIN}{outside},fox,train\n")
    listed = with_digests(read_images(table))
    new = tmp_path / "elsewhere" / "deeper"
    new.mkdir(parents=True)
    (tmp_path / "photos").rename(new / "photos")
    table = table.rename(new / "table.csv")
    paths = {file.label: file.path for file in relocated(listed, table).files}
    assert paths == {
        "cat": new / "photos/cat/1.jpg",
        "dog": new / "photos/dog/2.jpg",
        "fox": outside,
    }


def test_a_list_says_which_images_were_not_read(tmp_path: Path) -> None:
    files = (ImageFile(tmp_path / "gone.jpg", "a"),)
    assert with_digests(ImageList(tmp_path, files)).files[0].digest == ""


@pytest.mark.parametrize("column", ["subset", "Partition"])
def test_splits_in_a_column_of_another_name_are_not_drawn_again(
    write: Callable[..., Path], column: str
) -> None:
    with pytest.raises(DataError, match=r"contains splits .* but is not called split"):
        read_images(write(PLAIN.replace("split", column)))
    other = PLAIN.replace("split", "split,subset").replace("train\n", "train,val\n")
    assert read_images(write(other.replace("2.jpg,dog,val\n", "2.jpg,dog,val,train\n"))).files
