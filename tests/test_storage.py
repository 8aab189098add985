"""Files and folders that are replaced whole, and refusals of the system as sentences."""

import errno
import fcntl
import os
import pwd
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resnetkit.errors import StorageError
from resnetkit.storage import (
    check_file,
    check_folder,
    exclusive,
    new_folder,
    path_in_home,
    remove_leftovers,
    replaced_folder,
    storage_errors,
    temporary_for,
    write_file,
    write_synced,
)

SENTENCES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this system allows",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a parent of this path is a file, not a folder",
    errno.EEXIST: "a file with this name already exists",
    errno.EIO: "Input/output error",
}


def refuse(number: int) -> None:
    raise OSError(number, os.strerror(number))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("number", SENTENCES)
def test_a_refusal_becomes_a_sentence_with_advice(number: int) -> None:
    with pytest.raises(StorageError) as caught, storage_errors(Path("runs/a"), "Make room."):
        refuse(number)
    assert str(caught.value) == f"cannot write runs/a: {SENTENCES[number]}. Make room."
    assert caught.value.exit_code == 1
    assert isinstance(caught.value.__cause__, OSError)


def test_what_cannot_be_written_is_noticed_before_the_work(tmp_path: Path) -> None:
    check_file(tmp_path / "new" / "page.html", "")
    assert names_in(tmp_path) == ["new"]
    assert names_in(tmp_path / "new") == []
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"new: Is a directory\. Choose another\."):
        check_file(tmp_path / "new", "Choose another.")
    for folder in (tmp_path / "file", tmp_path / "file" / "new"):
        with pytest.raises(StorageError, match=f"cannot write {folder}: a"):
            check_folder(folder, "")


def test_what_is_no_refusal_passes_as_it_is() -> None:
    with pytest.raises(KeyError), storage_errors(Path("runs/a"), ""):
        raise KeyError("step")


@pytest.mark.parametrize("content", ["caf\u00e9\n", b"\x00\xff", ""])
def test_a_file_holds_what_was_written(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "file"
    write_file(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_a_file_keeps_its_old_content_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    path = tmp_path / "file"
    write_file(path, "old")
    owner = os if operation == "fsync" else Path
    monkeypatch.setattr(owner, operation, lambda *_: refuse(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        write_file(path, "new")
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["file"]


def test_readers_never_see_a_part_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the moment of its replacement, the old file and the whole new one are on the disk."""
    path = tmp_path / "file"
    write_file(path, "old")
    seen: list[str] = []
    real = Path.replace

    def observed(self: Path, target: Path) -> Path:
        seen.extend([path.read_text(), self.read_text()])
        return real(self, target)

    monkeypatch.setattr(Path, "replace", observed)
    write_file(path, "new")
    assert seen == ["old", "new"]
    assert path.read_text() == "new"


def test_content_is_synced_before_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(descriptor: int) -> None:
        order.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        real_sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        order.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    write_file(tmp_path / "file", "new")
    assert order == ["file", "rename", "folder"]


def test_a_folder_is_there_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with replaced_folder(tmp_path / "model") as temporary:
            write_synced(temporary / content, b"")
            assert "new" not in names_in(tmp_path)
    assert names_in(tmp_path) == ["model"]
    assert names_in(tmp_path / "model") == ["new"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_folder_stays_as_it_was_when_the_block_fails(
    tmp_path: Path, error: BaseException
) -> None:
    def fill(name: str) -> None:
        with replaced_folder(tmp_path / "model") as temporary:
            write_synced(temporary / name, b"")
            if name == "new":
                raise error

    fill("old")
    with pytest.raises(type(error)):
        fill("new")
    assert names_in(tmp_path) == ["model"]
    assert names_in(tmp_path / "model") == ["old"]


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    write_file(tmp_path / "kept", "kept")
    folder, file = temporary_for(tmp_path / "model"), temporary_for(tmp_path / "recipe.yaml")
    folder.mkdir()
    (folder / "half").write_text("half")
    file.write_text("half")
    remove_leftovers(tmp_path)
    assert names_in(tmp_path) == ["kept"]


def test_writers_at_the_same_time_leave_one_whole_result(tmp_path: Path) -> None:
    """Each writes a file and a folder of its own content 50 times, next to seven others."""

    def write(number: int) -> None:
        for _ in range(50):
            write_file(tmp_path / "file", f"{number}" * 1000)
            with replaced_folder(tmp_path / "model") as temporary:
                for name in "ab":
                    write_synced(temporary / name, f"{number}".encode())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert names_in(tmp_path) == ["file", "model"]
    assert len(set((tmp_path / "file").read_text())) == 1
    first, second = [(tmp_path / "model" / name).read_bytes() for name in "ab"]
    assert first == second


def test_of_several_new_folders_the_first_stays_and_the_others_are_refused(tmp_path: Path) -> None:
    def make(number: int) -> bool:
        try:
            with new_folder(tmp_path / "new") as folder:
                (folder / "file").write_text(str(number))
                time.sleep(0.05)
        except StorageError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(make, range(4)))
    assert done.count(True) == 1
    assert (tmp_path / "new" / "file").read_text() == str(done.index(True))
    assert names_in(tmp_path) == ["new"]


@pytest.mark.parametrize("name", ["new", "new/theirs"])
def test_a_new_folder_replaces_nothing(tmp_path: Path, name: str) -> None:
    theirs = tmp_path / name

    def make() -> None:
        with new_folder(tmp_path / "new"):
            theirs.parent.mkdir(exist_ok=True)
            theirs.write_text("theirs")

    with pytest.raises(StorageError, match=r"new already exists"):
        make()
    assert theirs.read_text() == "theirs"
    assert names_in(tmp_path) == ["new"]


def test_one_after_the_other_holds_a_lock_and_a_wait_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("resnetkit.storage.QUIET_SECONDS", 0.05)
    inside: list[int] = []

    def work(number: int) -> bool:
        with exclusive(tmp_path / "lock", waiting="it is in use", advice="") as held:
            inside.append(number)
            time.sleep(0.1)
            inside.remove(number)
            return held and not inside

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(work, range(3)))
    assert "it is in use" in caplog.text


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_where_there_are_no_locks_work_goes_on_and_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(_: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with exclusive(tmp_path / "lock", waiting="", advice="") as held:
        assert not held


def test_the_wait_for_a_lock_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnetkit.storage.QUIET_SECONDS", 0.01)
    monkeypatch.setattr("resnetkit.storage.MAX_WAIT_HOURS", 0.0)

    def work() -> None:
        with exclusive(tmp_path / "lock", waiting="", advice=""):
            pass

    with (
        exclusive(tmp_path / "lock", waiting="", advice=""),
        ThreadPoolExecutor(1) as pool,
        pytest.raises(StorageError, match=r"another process has held .*lock for"),
    ):
        pool.submit(work).result()


def test_a_lock_where_nothing_can_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StorageError, match=r"cannot write .*/file/lock: a .* Move\."),
        exclusive(tmp_path / "file" / "lock", waiting="", advice="Move."),
    ):
        pass


def test_the_home_is_where_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert path_in_home("~/kept", "VARIABLE") == Path("/somewhere/kept")
    assert path_in_home("/other/~", "VARIABLE") == Path("/other/~")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    with pytest.raises(StorageError, match=r"no home folder\. Set VARIABLE to a"):
        path_in_home("~/kept", "VARIABLE")
    assert path_in_home("kept", "VARIABLE") == Path("kept")
