"""What a benchmark's figures belong to: device, commit, command, versions."""

import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from engine.versions import commit, device_name


def machine(device: str, threads: int) -> dict[str, Any]:
    """Describe this run: goes into every benchmark's JSON."""
    return {
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
        "commit": commit() or "unknown",
        "device": device_name(device),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
