"""Measures on held-out objects, with the averaged weights, and turntables to look at."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from accelerate.utils import gather_object
from jaxtyping import UInt8
from torch import nn

from engine.errors import TrainingError
from engine.training.loop.processes import is_sharded
from engine.training.loop.settings import Feed, Reader
from engine.training.loop.steps import Setup, on_device
from engine.training.types import Batch


@contextmanager
def averaged(setup: Setup) -> Iterator[nn.Module]:
    """Yield the student as it is judged and saved: averaged, in eval mode, without what DDP needs to train it."""
    # Where each holds a part, all must call the wrapped one together; elsewhere each computes for itself.
    student = setup.student if is_sharded(setup.accelerator) else setup.accelerator.unwrap_model(setup.student)
    with setup.average.standing_in() if setup.average is not None else nullcontext():
        student.eval()
        try:
            yield student
        finally:
            student.train()


def held_out(setup: Setup, feed: Feed) -> Iterable[Batch]:
    """Return this process's share of the held-out batches, or all of them where all must compute together."""
    assert feed.held_out is not None
    accelerator = setup.accelerator
    alone = is_sharded(accelerator)
    rank, ranks = (0, 1) if alone else (accelerator.process_index, accelerator.num_processes)
    return feed.held_out(Reader(setup.shares.micro_batch, rank, ranks))


@torch.no_grad()
def validate(setup: Setup, feed: Feed) -> tuple[dict[str, float], dict[str, UInt8[np.ndarray, "n h w 3"]]]:
    """Return means over the held-out clips, and turntables of the first of them.

    Raises TrainingError if there are none.
    """
    mine: list[tuple[int, Mapping[str, float]]] = []
    shown: dict[str, UInt8[np.ndarray, "n h w 3"]] = {}
    with averaged(setup) as student:
        for index, batch in enumerate(held_out(setup, feed)):
            here = on_device(batch, setup.accelerator.device)
            mine.append((len(batch), setup.task.measure(student, here)))
            if index == 0 and (setup.accelerator.is_main_process or is_sharded(setup.accelerator)):
                shown = dict(setup.task.preview(student, here))
    everyone = mine if is_sharded(setup.accelerator) else gather_object(mine)
    if not everyone:
        raise TrainingError("--val: the shards hold no clip that fits the recipe; see the warnings above")
    return _means(everyone), shown


def _means(measured: list[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Means over clips, of batches that may differ in size and in what could be measured."""
    names = dict.fromkeys(name for _, values in measured for name in values)
    means = {}
    for name in names:
        some = [(clips, values[name]) for clips, values in measured if name in values]
        means[name] = sum(clips * value for clips, value in some) / sum(clips for clips, _ in some)
    return means
