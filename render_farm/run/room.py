"""Room on the disks that a farm writes to: when it runs short, waiting is better than failing every object."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Room:
    """What must stay free, and where."""

    folders: Sequence[Path]
    """Watched; those that are not there yet are left out."""
    min_free_bytes: int
    """On each."""

    def shortage(self) -> str:
        """Say in words where too little is free; empty if there is enough everywhere."""
        for folder in self.folders:
            if folder.is_dir() and (free := free_bytes(folder)) < self.min_free_bytes:
                return (f"{free / 1e9:.2f} GB are free in {folder}, fewer than the {self.min_free_bytes / 1e9:.2f} GB that must "
                        "stay free: make room there")  # fmt: skip
        return ""


def free_bytes(folder: Path) -> int:
    """Return the room on a folder's disk."""
    return shutil.disk_usage(folder).free
