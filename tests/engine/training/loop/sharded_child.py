"""A run of toys under FSDP 2 on the CPU: `torchrun --nproc-per-node 2 -m tests.engine.training.loop.sharded_child RUN STOP_AT`.

accelerate has FSDP for GPUs alone, torch for CPUs as well: so accelerate is told that these are no CPUs.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import accelerate
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from engine.training.loop import processes
from engine.training.loop.run import train
from engine.training.loop.settings import LoopSettings
from engine.training.types import Batch, Losses
from tests.engine.training.loop.toys import TOYS, ToyTask, toy_recipe


class Accelerator(accelerate.Accelerator):
    """Spreads weights over CPUs."""

    distributed_type = property(lambda self: DistributedType.FSDP)
    is_fsdp2 = property(lambda self: True)

    def __init__(self, **keywords: Any) -> None:
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="no_wrap", state_dict_type="SHARDED_STATE_DICT", reshard_after_forward=True
        )
        super().__init__(**keywords, fsdp_plugin=plugin)
        self.state.fsdp_plugin = plugin


class Stopped(ToyTask):
    """Is told to stop in the middle of a step."""

    def loss(self, student: torch.nn.Module, batch: Batch, *, share: float) -> Losses:
        if len(self.shares) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGTERM)
        return super().loss(student, batch, share=share)


def main() -> int:
    """Run; 130 if stopped."""
    torch.set_num_threads(1)
    AcceleratorState.is_fsdp2 = property(lambda self: True)
    processes.Accelerator = Accelerator
    settings = LoopSettings(device="cpu", checkpoint_every=3, validate_every=4, log_every=2, seed=7)
    task = Stopped()
    task.pretrained_parameters = ["unet.to_q.weight"]
    try:
        train(task, TOYS, toy_recipe(slowed=0.5), Path(sys.argv[1]), settings)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
