"""How fast a run is: clips a second, and the share of the device's peak that the network's own arithmetic makes (MFU)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from engine.training.loop.steps import Taken

PEAKS: dict[str, tuple[float, float]] = {
    "H100 PCIe": (756e12, 378e12), "H100 NVL": (835e12, 417e12), "H100": (989e12, 494e12), "H200": (989e12, 494e12),
    "H20": (148e12, 74e12), "GH200": (989e12, 494e12), "B200": (2250e12, 1100e12), "A100": (312e12, 156e12),
    "A800": (312e12, 156e12), "L40S": (362e12, 183e12), "L40": (181e12, 90e12), "L4": (121e12, 60e12),
    "A40": (150e12, 75e12), "A10G": (70e12, 35e12), "A10": (125e12, 62e12), "V100": (125e12, 15.7e12),
    "T4": (65e12, 8.1e12), "RTX 4090": (165e12, 83e12), "RTX 3090": (71e12, 36e12),
}  # fmt: skip
"""Part of a device's name -> dense FLOP/s in 16 bits and in TF32 (where there is none: float32), of the makers' sheets."""
BACKWARD = 3
"""A training step costs three forward passes (Kaplan et al. 2020, section 2.1); recomputation is not counted, as in
PaLM's MFU (Chowdhery et al. 2022, appendix B)."""


def device_peak(device: torch.device, precision: str) -> float | None:
    """Return a device's dense FLOP/s at a precision; None where they are not known (CPUs)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    found = [part for part in PEAKS if part in name]
    return PEAKS[max(found, key=len)][precision == "no"] if found else None


class Counted(nn.Module):
    """A student that counts the operations of its forward passes: matrix products, convolutions and attention."""

    def __init__(self, student: nn.Module) -> None:
        """Count a student's."""
        super().__init__()
        self.student = student
        self.flop = 0

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Call it."""
        with FlopCounterMode(display=False) as counter:
            answer = self.student(*arguments, **keywords)
        self.flop += counter.get_total_flops()
        return answer


@dataclass
class Speed:
    """Steps since the last entry in the log."""

    peak: float | None
    """FLOP/s of each process's device."""
    forward_flop: int | None = None
    """Of the student, for a step's clips on one process."""
    _steps: list[Taken] = field(default_factory=list)

    def add(self, taken: Taken) -> None:
        """Count a step."""
        self._steps.append(taken)

    def told(self, clips: int) -> dict[str, float]:
        """Return what goes into the log, with steps of so many clips, and begin anew."""
        seconds = sum(taken.seconds for taken in self._steps)
        waited = sum(taken.waited for taken in self._steps)
        steps, self._steps = len(self._steps), []
        if not steps or not seconds:
            return {}
        values = {"speed/clips_per_second": steps * clips / seconds, "speed/share_waiting_for_data": waited / seconds}
        if self.peak and self.forward_flop:
            values["speed/mfu"] = BACKWARD * self.forward_flop * steps / seconds / self.peak
        return values


def count_forward(student: nn.Module, call: Callable[[nn.Module], Any]) -> int:
    """Return the operations of a student's forward passes in a call, made without gradients."""
    counted = Counted(student)
    with torch.no_grad():
        call(counted)
    return counted.flop
