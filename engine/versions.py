"""Which code, which libraries and which device made a file or a figure."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = (
    "turntable3d", "torch", "diffusers", "transformers", "accelerate", "peft", "numpy", "numba", "scikit-image",
    "webdataset",
)  # fmt: skip


def commit() -> str | None:
    """Return the checkout's commit, `+changes` behind it where files differ; None where the code is no checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}+changes" if changed.strip() else head


def versions() -> dict[str, str | None]:
    """Return Python's version and those of the libraries; None for one that is not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES}


def device_name(device: str) -> str:
    """Return a device's own name, the processor's for cpu."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    return _processor()


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
