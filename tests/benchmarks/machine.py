"""What a benchmark's figures belong to: device, commit, command, versions."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch


def machine(device: str, threads: int) -> dict[str, Any]:
    """Describe this run: goes into every benchmark's JSON."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
    return {
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
        "commit": commit.stdout.strip() or "unknown",
        "device": name,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
