"""Files are whole or not there at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from vaekit.files import whole_file, write_whole


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def test_bytes_and_text_arrive_as_they_are(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"\x00\r\n\xff")
    write_whole(tmp_path / "b", "mu = µ\r\n")
    assert (tmp_path / "a").read_bytes() == b"\x00\r\n\xff"
    assert (tmp_path / "b").read_bytes() == "mu = µ\r\n".encode()


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_whole(path, "a much longer text")
    write_whole(path, "short")
    assert path.read_text() == "short"
    assert names(tmp_path) == ["a"]


def test_readers_see_the_old_content_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_whole(path, "old")
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
    assert path.read_text() == "new"


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_writer_changes_nothing(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "a"
    write_whole(path, "old")

    def fail() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_full_disk_is_named_with_the_file(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*a'$"),
        whole_file(tmp_path / "a"),
    ):
        raise full


def test_a_failed_rename_leaves_no_temporary(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(OSError):
        write_whole(tmp_path / "a", "text")
    assert names(tmp_path) == ["a"]


def test_content_and_name_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content before the rename, and (where directories can be opened) the directory after."""
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def flushed(descriptor: int) -> None:
        kind = os.fstat(descriptor).st_mode
        order.append("directory" if stat.S_ISDIR(kind) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", lambda *a: (order.append("rename"), replace(*a)))
    write_whole(tmp_path / "a", "text")
    assert order == ["file", "rename"] + (["directory"] if os.name != "nt" else [])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_the_mode_is_the_one_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "no" / "a", "text")
    assert not (tmp_path / "no").exists()
