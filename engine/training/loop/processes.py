"""The processes of a run, by Hugging Face accelerate: one, DDP, FSDP or DeepSpeed, as its environment says."""

import os
from dataclasses import dataclass
from typing import Literal

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, GradientAccumulationPlugin

from engine.errors import TrainingError
from engine.training.loop.settings import LoopSettings
from engine.training.plans import Optimisation
from engine.training.types import Task

Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True)
class Shares:
    """How a step's clips are dealt."""

    micro_batch: int
    """Clips of a forward pass."""
    accumulated: int
    """Forward passes of a step on each process."""
    ranks: int
    """Processes."""

    @property
    def batch_size(self) -> int:
        """Clips of a step."""
        return self.micro_batch * self.accumulated * self.ranks


def deal(batch_size: int, micro_batch: int | None, ranks: int) -> Shares:
    """Deal a step's clips to processes and micro-batches. Raises TrainingError if that does not come out even."""
    micro = micro_batch or max(1, batch_size // ranks)
    accumulated, rest = divmod(batch_size, micro * ranks)
    if rest or not accumulated:
        raise TrainingError(
            f"--batch-size {batch_size} cannot be dealt to {ranks} processes with --micro-batch {micro}: "
            f"take a multiple of {micro * ranks}, or another --micro-batch"
        )
    return Shares(micro, accumulated, ranks)


def on_cpu(device: str) -> bool:
    """Whether a run computes on the CPU. Raises TrainingError for CUDA where there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: there is no CUDA device here; see `turntable doctor`, or take --device cpu")
    return device == "cpu" or (not torch.cuda.is_available() and not torch.backends.mps.is_available())


def precision_of(settings: LoopSettings, plan: Optimisation) -> Precision:
    """Return what the student computes in: the recipe's precision, but float32 on a CPU, which has no faster one."""
    asked: Precision = plan.precision if settings.precision == "auto" else settings.precision
    if not on_cpu(settings.device):
        return asked
    if settings.precision == "fp16":
        raise TrainingError("--precision fp16: needs a GPU; on a CPU take --precision no")
    return "no" if settings.precision == "auto" else asked


def join(task: Task, settings: LoopSettings, plan: Optimisation) -> tuple[Accelerator, Shares]:
    """Join the run's processes; return what speaks with them, and how a step's clips are dealt to them."""
    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run in this process may have left one
    ddp = DistributedDataParallelKwargs(
        find_unused_parameters=bool(getattr(task, "unused_parameters", False)), gradient_as_bucket_view=True
    )
    accelerator = Accelerator(
        cpu=on_cpu(settings.device), mixed_precision=precision_of(settings, plan), kwargs_handlers=[ddp],
        gradient_accumulation_plugin=GradientAccumulationPlugin(adjust_scheduler=False, sync_with_dataloader=False),
    )  # fmt: skip
    _check_sharding(accelerator)
    shares = deal(plan.batch_size, settings.micro_batch, accelerator.num_processes)
    accelerator.gradient_accumulation_steps = shares.accumulated
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        config = accelerator.state.deepspeed_plugin.deepspeed_config
        config["train_micro_batch_size_per_gpu"] = shares.micro_batch
        config["gradient_accumulation_steps"] = shares.accumulated
        config["gradient_clipping"] = plan.clip_norm or 0.0
    if accelerator.device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, for what autocast leaves in float32
    return accelerator, shares


def _check_sharding(accelerator: Accelerator) -> None:
    """Raise TrainingError where accelerate's configuration asks for what would not be done, or was never tried."""
    for name, kind in (("FSDP", DistributedType.FSDP), ("DEEPSPEED", DistributedType.DEEPSPEED)):
        asked = os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true"
        if asked and accelerator.distributed_type != kind:
            raise TrainingError(
                f"accelerate's configuration asks for {name}, but these {accelerator.num_processes} process(es) on "
                f"{accelerator.device.type} run as {accelerator.distributed_type.value}: it wants several GPUs"
            )
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise TrainingError(
            "FSDP in its first version is not supported: set fsdp_version: 2 in accelerate's configuration"
        )


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether each process holds but a part of the weights, so that all must join in whatever is done with them."""
    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def leave(accelerator: Accelerator) -> None:
    """Take leave of the other processes."""
    accelerator.end_training()
