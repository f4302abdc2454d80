"""What the log shows: true and made turntables side by side; and a student at rest while it is looked at."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from engine.multiview.generation import as_bytes


def turntables(truth: Float[Tensor, "b n 3 h w"], made: Float[Tensor, "b n 3 h w"]) -> UInt8[np.ndarray, "n hs ws 3"]:
    """Return a film of pictures in [-1, 1]: truth on the left, what was made on the right, a row for each clip."""
    rows = [as_bytes(torch.cat([true, other], -1)) for true, other in zip(truth.cpu(), made.cpu(), strict=True)]
    return np.concatenate(rows, 1)


@contextmanager
def at_rest(student: nn.Module) -> Iterator[None]:
    """Switch a student to evaluation without gradients; afterwards it trains again if it did."""
    training = student.training
    student.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        student.train(training)
