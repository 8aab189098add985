"""Archives: what they hold under known names comes out, and nothing they claim does harm."""

import gzip
import io
import os
import tarfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from resnetkit.data.published import archive as module
from resnetkit.data.published.archive import unpack
from resnetkit.errors import DataError

NAMES = ("wanted", "other")
MAX_BYTES = 10_000
Member = tuple[tarfile.TarInfo, bytes]


def regular(name: str, content: bytes = b"content") -> Member:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    return header, content


def special(name: str, kind: bytes, target: str = "") -> Member:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header, b""


def tar_bytes(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        for header, content in members:
            file.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def unpacked(folder: Path, content: bytes) -> dict[str, bytes]:
    """Returns what is unpacked of an archive, by relative path."""
    archive, out = folder / "archive.tgz", folder / "out"
    archive.write_bytes(content)
    out.mkdir(exist_ok=True)
    unpack(archive, out, NAMES, max_bytes=MAX_BYTES)
    return {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_known_files_are_unpacked_a_folder_into_a_folder(
    tmp_path: Path, form: int, pack: Callable[[bytes], bytes]
) -> None:
    content = tar_bytes(
        special("a", tarfile.DIRTYPE),
        regular("a/wanted", b"1" * 511),
        regular("a/unknown", b"x" * 1000),
        regular("b/wanted", b"2" * 512),
        regular("./a/other", b"3" * 513),
        regular("c/empty/wanted", b""),
        form=form,
    )
    assert unpacked(tmp_path, pack(content)) == {
        "0/wanted": b"1" * 511,
        "0/other": b"3" * 513,
        "1/wanted": b"2" * 512,
        "2/wanted": b"",
    }


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("folder", ["long/" * 60, "f\u00f6rmchen", "phot\udce9s"])
def test_names_may_be_long_or_no_text(tmp_path: Path, form: int, folder: str) -> None:
    content = tar_bytes(regular(f"{folder}/wanted"), regular("wanted"), form=form)
    assert unpacked(tmp_path, content) == {"0/wanted": b"content", "1/wanted": b"content"}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE]
)
def test_a_known_file_that_is_none_is_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(DataError, match="a/wanted in it is a link or another special file"):
        unpacked(tmp_path, tar_bytes(special("a/wanted", kind, "/etc/passwd")))


def test_nothing_is_written_elsewhere_whatever_names_and_links_say(tmp_path: Path) -> None:
    """Links to elsewhere, then files through them, with names up to the longest that exist."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "wanted").write_bytes(b"untouched")
    deep = "/".join(["d" * 247] * 16)
    content = tar_bytes(
        special("link", tarfile.SYMTYPE, str(victim)),
        regular("link/wanted", b"1"),
        special(f"{deep}/l", tarfile.SYMTYPE, "../" * 17 + "victim"),
        regular(f"{deep}/l/wanted", b"2"),
        special("hard", tarfile.LNKTYPE, f"{deep}/l/wanted"),
        regular("hard", b"3"),
        regular("../victim/wanted", b"4"),
        regular(f"{victim}/wanted", b"5"),
    )
    assert sorted(unpacked(tmp_path, content).values()) == [b"1", b"2", b"4", b"5"]
    assert (victim / "wanted").read_bytes() == b"untouched"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.tgz", "out", "victim"]


@pytest.mark.parametrize("second", ["a/wanted", "./a//wanted", "a/./wanted"])
def test_one_file_twice_is_refused(tmp_path: Path, second: str) -> None:
    with pytest.raises(DataError, match=r"it contains .*wanted twice"):
        unpacked(tmp_path, tar_bytes(regular("a/wanted", b"1"), regular(second, b"2")))


def with_size(name: str, claimed: int) -> bytes:
    """Returns an archive in which a file claims a size."""
    header = tarfile.TarInfo(name)
    header.size = claimed
    return header.tobuf(tarfile.GNU_FORMAT) + b"content".ljust(1024, b"\0")


def sparse(name: str) -> bytes:
    header = tarfile.TarInfo(name)
    header.type = tarfile.GNUTYPE_SPARSE
    return header.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (with_size("wanted", MAX_BYTES + 1), "is 10,001 bytes, expected at most 10,000"),
        (with_size("wanted", 1 << 60), "is 1,152,921,504,606,846,976 bytes"),
        (with_size("wanted", 5_000), "it is truncated"),
        (with_size("unknown", 1 << 60), "it is truncated"),
        (with_size("unknown", -512), "the size of a file in it is negative"),
        (sparse("unknown"), "is sparse: pack it without --sparse"),
        (tar_bytes(regular("wanted"))[:700], "it is truncated"),
        (tar_bytes(regular("wanted"))[:100], "it is truncated"),
        (b"wanted" * 1000, "not a tar archive"),
        (gzip.compress(b"wanted" * 1000), "not a tar archive"),
        (gzip.compress(tar_bytes(regular("wanted")))[:-30], "it is truncated|not gzip"),
        (b"\x1f\x8b not gzip", "not gzip"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        (b"<html>", "HTML page"),
    ],
    ids=[
        "slightly too large",
        "absurdly large",
        "shorter than claimed",
        "unknown and absurdly large",
        "negative",
        "sparse",
        "cut in a file",
        "cut in a header",
        "text",
        "text in gzip",
        "cut gzip",
        "no gzip",
        "pointer",
        "page",
    ],
)
def test_corrupt_and_dishonest_archives_are_refused(
    tmp_path: Path, content: bytes, words: str
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        unpacked(tmp_path, content)
    assert str(tmp_path / "archive.tgz") in str(caught.value)


def test_an_escape_sequence_in_a_name_does_not_reach_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        unpacked(tmp_path, tar_bytes(special("\x1b[2J/wanted", tarfile.SYMTYPE)))
    assert "\x1b" not in str(caught.value)


def test_a_bomb_is_stopped_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STREAM_BYTES", 20 << 20)
    header = tarfile.TarInfo("unknown")
    header.size = 1 << 40
    bomb = gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(40 << 20), 1)
    tracemalloc.start()
    with pytest.raises(DataError, match="decompresses to more than 20 MiB"):
        unpacked(tmp_path, bomb)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_too_many_members_are_refused_in_time(tmp_path: Path) -> None:
    block = tarfile.TarInfo("unknown").tobuf(tarfile.GNU_FORMAT)
    started = time.process_time()
    with pytest.raises(DataError, match="contains more than 10,000 files"):
        unpacked(tmp_path, gzip.compress(block * 50_000, 1))
    assert time.process_time() - started < 20


def pax(content: bytes) -> bytes:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(content)
    return header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


@pytest.mark.parametrize(
    "content",
    [
        b"1" * 16_000,  # which old versions of tarfile search again from every digit
        b"1" * 3_000_000,
        b"99999999999 path=a\n",
        b"19 size=-99999999\n",
        b"30 GNU.sparse.map=0,1,2,3,4,5\n",
    ],
    ids=["digits", "many digits", "absurd length", "negative size", "sparse"],
)
def test_what_describes_a_member_is_no_trap(tmp_path: Path, content: bytes) -> None:
    plain = tar_bytes(regular("wanted"), form=tarfile.USTAR_FORMAT)
    started = time.process_time()
    assert unpacked(tmp_path, pax(content) + plain) == {"0/wanted": b"content"}
    assert time.process_time() - started < 20


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tgz")
    with pytest.raises(OSError, match="not a regular file"):
        unpack(tmp_path / "pipe.tgz", tmp_path, NAMES, max_bytes=1)
