"""From words to images: files, folders, patterns, lists and bytes."""

import os
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

import pytest

from resnetkit.data.images.check import BadImage
from resnetkit.inference.sources import find_images


@pytest.fixture(autouse=True)
def _in_a_folder_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.png", "b/10.PNG", "b/notes.txt", "a/c/x.jpeg", "a/z.jpg", "top.jpg"):
        path = Path("photos") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Path("photos/.hidden.jpg").touch()
    Path("empty").mkdir()


def images_for(*words: str, stream: bytes = b"") -> list[str | bytes | BadImage]:
    return list(find_images(words, BufferedReader(BytesIO(stream))))


EVERYTHING = [
    "photos/top.jpg",
    "photos/a/z.jpg",
    "photos/a/c/x.jpeg",
    "photos/b/10.PNG",
    "photos/b/2.png",
]


def test_files_are_taken_as_they_are_named() -> None:
    words = ["./photos/top.jpg", "photos/b/notes.txt", "none.jpg", "./photos/top.jpg"]
    assert images_for(*words) == words


def test_folders_are_searched_by_name_and_the_order_of_words_is_kept() -> None:
    assert images_for("photos") == EVERYTHING
    assert images_for("photos/b", "photos/top.jpg", "photos/a") == [
        "photos/b/10.PNG",
        "photos/b/2.png",
        "photos/top.jpg",
        "photos/a/z.jpg",
        "photos/a/c/x.jpeg",
    ]


def test_a_folder_that_links_to_itself_is_entered_once() -> None:
    Path("photos/a/again").symlink_to(Path("photos").resolve())
    assert images_for("photos") == EVERYTHING


def test_a_folder_without_images_is_named() -> None:
    (empty,) = images_for("empty")
    assert isinstance(empty, BadImage)
    assert empty.path == Path("empty")
    assert empty.reason.startswith("empty: the folder contains no images: expected files")


def test_an_unreadable_folder_is_reported_and_the_rest_is_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = os.scandir

    def refuse(folder: Path) -> Any:
        if Path(folder).name == "a":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    top, bad, *rest = images_for("photos")
    assert (top, rest) == ("photos/top.jpg", ["photos/b/10.PNG", "photos/b/2.png"])
    assert bad == BadImage(Path("photos/a"), "photos/a cannot be read: Permission denied.")


def test_patterns_match_what_a_shell_matches() -> None:
    assert images_for("photos/*/*.png") == ["photos/b/2.png"]
    assert images_for("photos/*.jpg") == ["photos/top.jpg"]
    assert images_for("photos/[ab]") == EVERYTHING[1:]
    assert images_for("photos/**/*.jp*g") == [
        "photos/a/c/x.jpeg",
        "photos/a/z.jpg",
        "photos/top.jpg",
    ]
    assert images_for("photos/b/**") == ["photos/b/10.PNG", "photos/b/2.png", "photos/b/notes.txt"]
    assert images_for("*.gif") == [BadImage(Path("*.gif"), "*.gif: nothing matches this pattern.")]


def test_a_file_may_have_the_name_of_a_pattern() -> None:
    Path("photos/[ab].jpg").touch()
    assert images_for("photos/[ab].jpg") == ["photos/[ab].jpg"]


def test_a_stream_names_files_and_folders_a_line_each() -> None:
    lines = b"photos/top.jpg\r\n\n  with blanks .jpg\nphotos/b\n[x]*\nno-end\xff.jpg"
    assert images_for("first.jpg", "-", "last.jpg", stream=lines) == [
        "first.jpg",
        "photos/top.jpg",
        "  with blanks .jpg",
        "photos/b/10.PNG",
        "photos/b/2.png",
        "[x]*",
        os.fsdecode(b"no-end\xff.jpg"),
        "last.jpg",
    ]
    assert images_for("-") == []


def test_a_stream_may_be_an_image() -> None:
    content = b"\xff\xd8\xff\xe0\x00\x10JFIF\n and so on\n"
    assert images_for("-", stream=content) == [content]


@pytest.mark.parametrize(
    "beginning",
    [
        b"P6\n640 480\n255\n",
        b"P5 640 480 255 ",
        b"P3\n# made by hand\n4 4\n255\n",
        b"Pf\n640 480\n-1.0\n",
        b"\xff\xd8\xff\xfe\x11\x11",  # a JPEG that begins with a comment
    ],
)
def test_an_image_is_known_by_its_header_without_a_zero_byte(beginning: bytes) -> None:
    content = beginning + b"a pixel\n" * 100
    assert images_for("-", stream=content) == [content]


def test_a_path_may_begin_like_a_header() -> None:
    lines = b"P1 photo.jpg\nP6\n640 480\n"
    assert images_for("-", stream=lines) == ["P1 photo.jpg", "P6", "640 480"]


def test_a_zero_byte_in_a_later_line_is_no_path() -> None:
    first, bad = images_for("-", stream=b"x" * 100 + b"\nno\0path\n")
    assert first == "x" * 100
    assert isinstance(bad, BadImage)
    assert bad.reason == "standard input: a line contains a zero byte, and so is not a path."


LONG = "x" * 200_000


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("end", ["", "\n", "\nlast.jpg\n"])
def test_a_line_without_end_is_skipped_without_reading_it_as_a_whole(
    encoding: str, end: str
) -> None:
    first, bad, *rest = images_for("-", stream=f"first.jpg\n{LONG}{end}".encode(encoding))
    assert first == "first.jpg"
    assert isinstance(bad, BadImage)
    assert bad.reason.startswith("standard input: a line is longer than 65,536 characters")
    assert rest == (["last.jpg"] if "last" in end else [])


def test_an_image_without_an_extension_is_found_in_a_folder() -> None:
    Path("plain").mkdir()
    Path("plain/0001").write_bytes(b"\xff\xd8\xff\xe0")
    Path("plain/README").write_text("an image")
    assert images_for("plain") == ["plain/0001"]


def test_a_list_without_end_is_read_as_it_is_needed() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"one.jpg\ntwo.jpg\n")
    with open(reading, "rb") as stream:
        images = find_images(["-"], stream)
        assert [next(images), next(images)] == ["one.jpg", "two.jpg"]
        os.write(writing, b"three.jpg\n")
        assert next(images) == "three.jpg"
        os.close(writing)
        assert list(images) == []


LINES = "photos/top.jpg\nphotos/caf\u00e9.jpg\nphotos/b\n"
LISTS = {
    "a mark": b"\xef\xbb\xbf" + LINES.encode(),
    "a mark and line ends of Windows": b"\xef\xbb\xbf" + LINES.replace("\n", "\r\n").encode(),
    "UTF-16": LINES.encode("utf-16"),
    "UTF-16 of Windows": b"\xff\xfe" + LINES.replace("\n", "\r\n").encode("utf-16-le"),
    "UTF-16, big end first": b"\xfe\xff" + LINES.encode("utf-16-be"),
    "UTF-16 without a mark": LINES.encode("utf-16-le"),
}


@pytest.mark.parametrize("case", LISTS)
def test_lists_of_windows_are_read(case: str) -> None:
    assert images_for("-", stream=LISTS[case]) == [
        "photos/top.jpg",
        "photos/caf\u00e9.jpg",
        "photos/b/10.PNG",
        "photos/b/2.png",
    ]


def test_a_list_of_windows_leaves_the_stream_open() -> None:
    stream = BufferedReader(BytesIO("a.jpg\nb.jpg\n".encode("utf-16")))
    assert next(iter(find_images(["-"], stream))) == "a.jpg"
    assert not stream.closed


def test_unreadable_files_in_a_folder_are_reported_without_blocking() -> None:
    for name in ("c/1.heic", "c/2.jpg"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    Path("c/3.jpg").symlink_to("nowhere.jpg")
    os.mkfifo("c/4.jpg")
    bad, *files = images_for("c")
    assert isinstance(bad, BadImage)
    assert "c/1.heic: HEIC, which is not supported" in bad.reason
    assert files == ["c/2.jpg", "c/3.jpg", "c/4.jpg"]  # reading them says what is wrong
