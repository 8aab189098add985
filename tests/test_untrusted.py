"""Files, JSON and text from outside are bounded before they are believed."""

import errno
import gzip
import json
import os
import socket
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from resnetkit.untrusted import (
    decompressed,
    markup_text,
    name_as_text,
    open_regular,
    parse_json,
    path_from_text,
    printable,
    read_bounded,
    recognized_mistake,
)


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert read_bounded(path, 7) == b"content"
    (tmp_path / "link").symlink_to(path)
    assert read_bounded(tmp_path / "link", 1 << 40) == b"content"


def test_a_file_that_is_too_large_is_refused_with_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: it takes no room
    with pytest.raises(OSError, match="it is larger than 1 MiB") as caught:
        read_bounded(path, 1 << 20)
    assert caught.value.errno == errno.EFBIG


def test_memory_follows_the_size_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"small")
    tracemalloc.start()
    read_bounded(path, 1 << 30)
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("pipe", "endless", "socket"):
            with (
                pytest.raises(OSError, match=r"regular|No such device"),
                open_regular(tmp_path / name),
            ):
                pass
    with pytest.raises(IsADirectoryError), open_regular(tmp_path):
        pass


def test_a_file_that_claims_no_size_is_read() -> None:
    assert read_bounded(Path("/proc/self/status"), 1 << 20).startswith(b"Name:")


def test_gzip_is_unpacked_and_a_bomb_is_not() -> None:
    packed = gzip.compress(b"0" * 10_000_000)
    pieces = [packed[start : start + 100] for start in range(0, len(packed), 100)]
    assert decompressed(pieces, 10_000_000) == b"0" * 10_000_000
    tracemalloc.start()
    with pytest.raises(ValueError, match="decompresses to more than 1 MiB"):
        decompressed([packed], 1 << 20)
    assert tracemalloc.get_traced_memory()[1] < 1 << 23
    tracemalloc.stop()


@pytest.mark.parametrize("content", [b"", b"text", gzip.compress(b"0" * 100, mtime=0)[:-9]])
def test_what_is_not_whole_gzip_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"truncated|not gzip"):
        decompressed([content], 1000)


@pytest.mark.parametrize("size", [1, 7, 1 << 20])  # of the chunks: members begin anywhere in them
def test_the_members_of_a_gzip_stream_are_joined(size: int) -> None:
    members = [gzip.compress(content, mtime=0) for content in (b"one ", b"", b"two")]
    stream = b"\0\0".join(members) + b"\0" * 9
    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert decompressed(chunks, 7) == gzip.decompress(b"".join(members)) == b"one two"
    with pytest.raises(ValueError, match="decompresses to more than 6 bytes"):
        decompressed(chunks, 6)
    with pytest.raises(ValueError, match="truncated"):
        decompressed([b"".join(members)[:-4]], 7)


@pytest.mark.parametrize("text", ['{"a": [1, {"b": null}]}', "[]", '"[[["', "1e3"])
def test_json_is_parsed_as_python_does(text: str) -> None:
    assert parse_json(text) == json.loads(text)
    assert parse_json(text.encode("utf-8-sig")) == json.loads(text)


def test_brackets_in_strings_are_not_counted() -> None:
    text = json.dumps(["[" * 10_000 + '\\"' + "{" * 10_000])
    assert parse_json(text) == json.loads(text)
    wide = json.dumps([[{}] for _ in range(10_000)])
    assert parse_json(wide) == json.loads(wide)


@pytest.mark.parametrize("bracket", ["[", '{"a":'])
def test_deep_nesting_is_refused(bracket: str) -> None:
    with pytest.raises(ValueError, match="nested more than 100 levels"):
        parse_json(bracket * 100_000)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '[{"b": {"a": 1, "c": 2, "a": 1}}]'])
def test_a_key_twice_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the key 'a' occurs twice"):
        parse_json(text)


def test_the_last_of_very_many_keys_twice_is_refused() -> None:
    keys = ", ".join(f'"{number}": 0' for number in range(100_000))
    with pytest.raises(ValueError, match="the key '99999' occurs twice"):
        parse_json(f'{{{keys}, "99999": 1}}')


def test_a_long_key_twice_is_named_by_its_beginning() -> None:
    key = "a" * 10_000
    with pytest.raises(ValueError, match="occurs twice") as error:
        parse_json(json.dumps({key: 1})[:-1] + f', "{key}": 1}}')
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"nul", b"1" * 10_000])
def test_what_is_not_json_is_refused_as_a_value(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|decode|10,000 digits"):
        parse_json(content)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused_unless_asked_for(number: str) -> None:
    with pytest.raises(ValueError, match=f"{number}, which is not a finite number"):
        parse_json(f'{{"loss": [{number}]}}')
    assert repr(parse_json(number, finite=False)) == repr(json.loads(number))


def test_text_cannot_steer_a_terminal() -> None:
    text = "dog\x1b[2J\r\n\x9b31m\u202egod\u2028\ud800"
    assert printable(text) == "dog\\x1b[2J\\r\\n\\x9b31m\\u202egod\\u2028\\ud800"
    assert printable("two\nlines", keep="\n") == "two\nlines"
    assert printable("caf\u00e9 \ud55c") == "caf\u00e9 \ud55c"


@pytest.mark.parametrize(
    "name", ["Screenshot 9.41\u202fAM", "a\u00a0b", "\U0001f469\u200d\U0001f4bb", "\u3000"]
)
def test_names_that_systems_make_are_shown_as_they_are(name: str) -> None:
    assert printable(name) == name


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (POINTER, "Git LFS pointer"),
        (b"/annex/objects/SHA256E-s1--00.pth\n", "git-annex pointer"),
        (b"<!DOCTYPE html><html>", "HTML page"),
        (b"\xef\xbb\xbf\r\n <HTML lang=en>", "HTML page"),
        (b"<!-- saved from url=(1)x -->\n<!-- 2 -->\n<html>", "HTML page"),
        (b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C">', "HTML page"),
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "error message"),
        (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "macOS"),
    ],
)
def test_what_people_have_in_place_of_a_file_is_recognized(content: bytes, words: str) -> None:
    assert words in (recognized_mistake(content) or "")


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"\x89HDF", b'{"a": 1}', b"<svg>", b"<!---->" * 10_000, b"\x80\x02}"],
    ids=["nothing", "zip", "HDF5", "JSON", "drawing", "comments", "pickle"],
)
def test_other_files_are_not_mistaken_for_a_mistake(content: bytes) -> None:
    assert recognized_mistake(content) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31m", "a\\x1b[31m"),
        ("a\x85b\x9b", "a\\x85b\\x9b"),
        ("\u202eexe.png", "\\u202eexe.png"),
        ("a\ud800b", "a\\ud800b"),
        ("caf\udcc3\udca9", "caf\u00e9"),
        ("a\n\tb &amp; <b>\u00e9\u00a0\U0001f600", "a\n\tb &amp; <b>\u00e9\u00a0\U0001f600"),
    ],
)
def test_markup_holds_no_character_that_it_may_not_hold(text: str, shown: str) -> None:
    assert markup_text(text) == shown


def test_names_are_utf8_in_a_locale_of_ascii() -> None:
    program = (
        "from resnetkit.untrusted import name_as_text as text, path_from_text as path, printable\n"
        "name = 'caf\\udcc3\\udca9'\n"  # what this locale makes of the bytes of UTF-8
        "assert text(name) == 'caf\\xe9' == printable(name) and path(text(name)) == name\n"
        "assert text('\\udcff') == '\\udcff' == path('\\udcff')\n"
        "assert path('\\ud800') == '\\ud800'\n"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_names_are_themselves_where_the_locale_is_utf8() -> None:
    for name in ("cat", "caf\u00e9", "a\udcff"):
        assert name_as_text(name) == path_from_text(name) == name
