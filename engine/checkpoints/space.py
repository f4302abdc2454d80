"""Room on the disk: asked before gigabytes are written, and told in one line when it runs out all the same."""

import errno
import shutil
from pathlib import Path

from engine.errors import CheckpointError

RESERVE_BYTES = 64 << 20
"""What should stay free besides."""


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def check_space(folder: Path, size_bytes: int, purpose: str) -> None:
    """Raise CheckpointError unless so many bytes, and a little more, fit on the folder's disk."""
    free = shutil.disk_usage(existing(folder)).free
    if size_bytes + RESERVE_BYTES > free and size_bytes > 0:
        raise CheckpointError(
            f"disk full: cannot {purpose}: needs {size_bytes / 1e9:.2f} GB in {folder}, {free / 1e9:.2f} GB free; "
            "make room or choose another folder"
        )


FULL = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: Exception) -> bool:
    """Whether this is a disk or a quota that is full; safetensors says the number in words alone."""
    return getattr(error, "errno", None) in FULL or any(f"(os error {number})" in str(error) for number in FULL)


def explain_full(error: Exception, path: Path, size_bytes: int | None) -> CheckpointError:
    """Return the error to raise when a file system refuses to write."""
    if not is_full(error):
        return CheckpointError(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}; choose another folder"
        )
    needed = "" if size_bytes is None else f"needs {size_bytes / 1e9:.2f} GB, "
    free = shutil.disk_usage(existing(path.parent)).free
    return CheckpointError(
        f"disk full: cannot write {path}: {needed}{free / 1e9:.2f} GB free; make room or choose another folder"
    )
