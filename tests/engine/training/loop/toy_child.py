"""A run of toys in a process of its own: `python -m tests.engine.training.loop.toy_child RUN [STEPS] [KILL_AT] [MICRO]`."""

import os
import signal
import sys
from pathlib import Path

import torch

from engine.training.loop.run import train
from engine.training.loop.settings import LoopSettings
from engine.training.types import Batch, Losses
from tests.engine.training.loop.toys import TOYS, ToyTask, toy_recipe


class Mortal(ToyTask):
    """Is killed at a step, as by a power cut: in the middle of its loss."""

    def __init__(self, kill_at: int, dropout: float) -> None:
        super().__init__(dropout)
        self._kill_at = kill_at

    def loss(self, student: torch.nn.Module, batch: Batch, *, share: float) -> Losses:
        if len(self.shares) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(student, batch, share=share)


def main() -> None:
    """Run."""
    run, steps, kill_at, dropout = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    torch.set_num_threads(1)
    settings = LoopSettings(device="cpu", checkpoint_every=3, validate_every=4, log_every=2, seed=7)
    train(Mortal(kill_at, dropout), TOYS, toy_recipe(steps=steps), Path(run), settings)


if __name__ == "__main__":
    main()
