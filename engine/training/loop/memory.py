"""Memory: computing activations twice; and when it runs out, what was asked for, and what needs less."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from engine.errors import TrainingError
from engine.training.loop.processes import Shares
from engine.training.plans import Optimisation, Recipe

log = logging.getLogger(__name__)

CPU_WORDS = re.compile(r"not enough memory|can't allocate memory|DefaultCPUAllocator", re.IGNORECASE)


def compute_twice(student: nn.Module, plan: Optimisation) -> None:
    """Let a student compute activations again in the backward pass, if its plan says so and it can.

    It can with a method of diffusers' name, `enable_gradient_checkpointing`; some tasks have called it already.
    """
    if not plan.gradient_checkpointing:
        return
    enable = getattr(student, "enable_gradient_checkpointing", None)
    if enable is not None:
        enable()
    elif not any(getattr(module, "gradient_checkpointing", False) for module in student.modules()):
        log.warning("%s cannot compute activations twice: gradient checkpointing stays off", type(student).__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the machine has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(CPU_WORDS.search(str(error)))


@contextmanager
def memory_explained(recipe: Recipe, shares: Shares, precision: str, device: torch.device) -> Iterator[None]:
    """Turn an error of memory into one that says what was asked for and what to try."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(_words(recipe, shares, precision, device)) from error


def _words(recipe: Recipe, shares: Shares, precision: str, device: torch.device) -> str:
    data, plan = recipe.data, recipe.optimisation
    total = ""
    if device.type == "cuda":
        total = f" of {torch.cuda.get_device_properties(device).total_memory / 2**30:.0f} GiB"
    tries = []
    if shares.micro_batch > 1:
        tries.append(f"--micro-batch {shares.micro_batch // 2} (the step stays {shares.batch_size} clips)")
    if not plan.gradient_checkpointing:
        tries.append("--gradient-checkpointing")
    if precision == "no" and device.type == "cuda":
        tries.append("--precision bf16")
    if plan.ema_decay is not None:
        tries.append("--ema-decay 0 (keeps no average)")
    tries.append("--lora 16 (trains adapters alone)")
    return (
        f"out of memory on {device}{total}: {recipe.name} ({recipe.size}) with {shares.micro_batch} clips of {data.views} "
        f"views at {data.size_px} px a forward pass, precision {precision}, gradient checkpointing "
        f"{'on' if plan.gradient_checkpointing else 'off'}; try {', '.join(tries)}, or more GPUs with FSDP; "
        "--dry-run estimates"
    )
