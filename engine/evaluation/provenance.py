"""What a figure came from: the code's commit, versions, device and command line."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("turntable3d", "torch", "diffusers", "transformers", "numpy", "numba", "scikit-image")


def provenance(device: str) -> dict[str, Any]:
    """Return what a report says of where its figures came from; device is torch's name of it."""
    return {
        "command": sys.argv,
        "commit": _commit(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    }


def _commit() -> str | None:
    """The checkout's commit, `+changes` behind it where files differ; None where the code is no checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=True
        ).stdout  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+changes" if changed.strip() else commit


def _processor() -> str:
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
