"""Files written whole or not at all: a reader sees the old content or the new, never a part.

The content goes to a temporary file in the same directory, reaches the disk, and takes the final
name in one atomic rename; the directory is then flushed so that the name survives a power cut.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaekit.host import free_bytes

# More than anything has that is read whole before it is checked.
SMALL_BYTES = 2**28
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")


def is_temporary(path: Path) -> bool:
    """Tell whether a file has the name of one that is being written, or that a kill left behind."""
    return _TEMPORARY.fullmatch(path.name) is not None


def write_whole(path: Path | str, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8, to a file, whole or not at all.

    Args:
        path: the file; its directory must exist. What is there is replaced.
        content: text is written as it is, without changing line ends.

    Raises:
        OSError: it cannot be written; then nothing has changed.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def read_small(path: Path, limit: int = SMALL_BYTES) -> bytes:
    """Read a file of no more than so many bytes; another may be enormous, or never end.

    Raises:
        OSError: it cannot be read, is larger, or is no regular file.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"more than {limit:,} bytes", str(path))
    return content


def check_fits(path: Path, size: int) -> None:
    """Refuse a file whose content would not fit in the memory that is free.

    Raises:
        OSError: so many bytes are not free.
    """
    free = free_bytes()
    if size > free:
        raise OSError(errno.ENOMEM, f"takes {size:,} bytes, and {free:,} are free", str(path))


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Give a temporary path to write to, which becomes `path` when the `with` block ends well.

    For writers that want a path of their own (netCDF). If the block raises, the temporary file is
    removed and `path` stays as it was.

    Args:
        path: the file; its directory must exist. What is there is replaced.

    Yields:
        An empty temporary file in the same directory.

    Raises:
        OSError: it cannot be written; then nothing has changed.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    # Created here, and not by tempfile, so that the file gets the mode that the umask gives.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        _flush(temporary, os.O_RDWR)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        # A write to a full disk names no file.
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)
        raise
    # Windows opens no directories, and its rename needs no flush.
    if os.name != "nt":
        _flush(path.parent, os.O_RDONLY)


def _flush(path: Path, flags: int) -> None:
    """Wait until a file's content, or a directory's names, are on the disk."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
