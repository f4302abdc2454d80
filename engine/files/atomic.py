"""Whole files or none: bytes go to a temporary name in the same folder, to the disk, then to their real name.

Temporary names end in `.partial`; no reader of this package ever opens one, and a writer that was killed leaves
nothing else behind. `clear_partials` sweeps them up before a job is taken up again.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from engine.errors import TurntableError

PARTIAL_SUFFIX = ".partial"
"""What every temporary name ends in."""


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk, so that a rename survives a power cut (POSIX; elsewhere nothing to do)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear_partials(folder: Path) -> int:
    """Remove what killed writers left in a folder and return how many; call it when nothing is writing there."""
    leftovers = [path for path in folder.glob(f"*{PARTIAL_SUFFIX}") if path.is_file()]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)


@contextmanager
def atomic_path(path: Path, *, size_bytes: int | None = None, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the same folder, to be written by anyone; it becomes `path` when the block ends well.

    Missing folders are made. On any failure the temporary file is removed and an older `path` stays as it was.

    Args:
        path: the file's real name.
        size_bytes: how much will be written, for the message when the disk is full.
        sync: bring the folder to the disk too; a caller that writes many files may do this once at the end.

    Raises:
        TurntableError: the file system refused: disk full, no permission, not a folder.
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
        if sync:
            sync_folder(path.parent)
    except OSError as error:
        raise _explain(error, path, partial, size_bytes) from error
    finally:
        with suppress(NotADirectoryError):  # a file stands where the folder should be: nothing was written
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: Path, *, size_bytes: int | None = None, sync: bool = True) -> Iterator[BinaryIO]:
    """Yield a binary file to write; it becomes `path` when the block ends well. Otherwise as `atomic_path`."""
    with atomic_path(path, size_bytes=size_bytes, sync=sync) as partial, partial.open("xb") as file:
        yield file


def write_bytes(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a whole file or none. Raises TurntableError when the file system refuses."""
    with atomic_file(path, size_bytes=len(data), sync=sync) as file:
        file.write(data)


def _explain(error: OSError, path: Path, partial: Path, size_bytes: int | None) -> TurntableError:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return TurntableError(f"cannot write {path}: {error.strerror or error}; choose another folder")
    needed = f"{size_bytes} bytes"
    if size_bytes is None:
        needed = f"more than {partial.stat().st_size if partial.exists() else 0} bytes"
    partial.unlink(missing_ok=True)  # what was written of it is free again
    free = shutil.disk_usage(path.parent).free
    return TurntableError(
        f"disk full: cannot write {path}: needs {needed}, {free} free; make room or choose another folder"
    )
