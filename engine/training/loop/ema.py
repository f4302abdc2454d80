"""Moving average of the trained weights: diffusers' EMAModel, with names, a file, and a way to stand in for the weights.

Under FSDP each process averages its own shard, under DDP every process averages the whole and all stay equal.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.errors import TrainingError
from engine.training.loop.names import plain_name

UPDATES = "updates"


class MovingAverage:
    """The average of a module's trained parameters.

    The decay is warmed up, (1 + n) / (10 + n) after n updates, so that early weights do not linger (diffusers, and
    torch's and TensorFlow's before it).
    """

    def __init__(self, student: nn.Module, decay: float) -> None:
        """Begin with the weights as they are. Raises ValueError unless 0 < decay < 1."""
        if not 0 < decay < 1:
            raise ValueError(f"the EMA's decay must be between 0 and 1, got {decay}")
        self._parameters = {plain_name(name): p for name, p in student.named_parameters() if p.requires_grad}
        self._average = EMAModel(self._parameters.values(), decay=decay, foreach=True)

    def update(self) -> None:
        """Take the weights of a step in."""
        self._average.step(self._parameters.values())

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        """Let the module compute with the averages; the weights come back, bit by bit, at the end."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in zip(self._parameters.values(), self._average.shadow_params, strict=True):
            weight = parameter.clone()
            parameter.copy_(average)
            average.copy_(weight)

    def save(self, path: Path) -> None:
        """Write the averages (this process's, where they are sharded) as safetensors."""
        tensors = {name: _local(average).contiguous() for name, average in self._named()}
        save_file(tensors, path, metadata={UPDATES: str(self._average.optimization_step)})

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Read what `save` wrote. Raises TrainingError if it is not there or of another network."""
        if not path.is_file():
            raise TrainingError(
                f"{path}: is not there: this checkpoint has no moving average for this process; resume with --ema-decay as "
                "before, and under FSDP with as many processes as before"
            )
        with safe_open(path, "pt") as file:
            named = dict(self._named())
            wrong = set(named) ^ set(file.keys())
            if wrong:
                raise TrainingError(f"{path}: is the average of another network: {sorted(wrong)[0]} is in one alone")
            for name, average in named.items():
                _local(average).copy_(file.get_tensor(name))
            self._average.optimization_step = int(file.metadata()[UPDATES])

    def _named(self) -> list[tuple[str, Tensor]]:
        return list(zip(self._parameters, self._average.shadow_params, strict=True))


def _local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that FSDP 2 spreads; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
