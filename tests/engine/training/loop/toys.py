"""A task and a loader of toys, so that the loop is tested by itself: what they compute depends on seeds alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.training.loop.settings import Feed, Reader
from engine.training.plans import DataPlan, Optimisation, Recipe
from engine.training.types import Batch, Draws, Losses, Position, seed_from

SIDE, VIEWS = 4, 2


class ToyNetwork(nn.Module):
    """Two layers of attention's names, dropout, and a module that is trained whole beside adapters."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        inside = 3 * SIDE * SIDE
        self.to_q = nn.Linear(inside, width)
        self.dropout = nn.Dropout(0.0)
        self.to_out = nn.ModuleList([nn.Linear(width, inside)])
        self.camera_embedding = nn.Linear(1, inside)

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.dropout(torch.tanh(self.to_q(pixels.flatten(2))))
        answer = self.to_out[0](hidden) + self.camera_embedding(pixels.flatten(2).mean(-1, keepdim=True))
        return answer.unflatten(2, (3, SIDE, SIDE))

    def save_pretrained(self, folder: Path) -> None:
        Path(folder).mkdir(parents=True)
        save_file(
            {name: tensor.contiguous() for name, tensor in self.state_dict().items()}, Path(folder) / "toy.safetensors"
        )


class ToyStudent(nn.Module):
    """The network as a part of what is trained."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.unet = ToyNetwork(width)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.unet(pixels)


class ToyTask:
    """Learns to take noise off."""

    def __init__(self, dropout: float = 0.0, width: int = 16) -> None:
        torch.manual_seed(0)
        self.student: nn.Module = ToyStudent(width)
        self.student.unet.dropout.p = dropout
        self.frozen: Mapping[str, nn.Module] = {"vae": nn.Linear(1, 1)}
        self.spoil: Sequence[str] = ()
        self.shares: list[float] = []

    def loss(self, student: nn.Module, batch: Batch, *, share: float) -> Losses:
        self.shares.append(share)
        draws = Draws(batch.seeds, batch.pixels.device)
        noisy = batch.pixels + draws.normal(*batch.pixels.shape[1:])
        error = (student(noisy) - batch.pixels).square().mean()
        if set(batch.uids) & set(self.spoil):
            error = error * float("nan")
        return Losses(error, {"error": error.detach()})

    def measure(self, student: nn.Module, batch: Batch) -> Mapping[str, float]:
        return {"loss": float((student(batch.pixels) - batch.pixels).square().mean()), "other": 1.0}

    def preview(self, student: nn.Module, batch: Batch) -> Mapping[str, UInt8[np.ndarray, "n h w 3"]]:
        made = ((student(batch.pixels)[0].clamp(-1, 1) + 1) * 127.5).to(torch.uint8)
        return {"toy": made.permute(0, 2, 3, 1).cpu().numpy()}

    def components(self) -> Mapping[str, Any]:
        return {"unet": self.student.unet}


def toy_batch(samples: Sequence[int], epoch: int, reader: int, first_index: int) -> Batch:
    """Stack samples, each a function of its number."""
    pixels = torch.stack([
        torch.rand(VIEWS, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(sample)) * 2 - 1 for sample in samples
    ])  # fmt: skip
    return Batch(
        pixels=pixels, alpha=torch.ones(len(samples), VIEWS, 1, SIDE, SIDE), orbits=None,
        backgrounds=torch.ones(len(samples), 3), captions=("",) * len(samples),
        uids=tuple(f"object{sample}" for sample in samples),
        seeds=tuple(seed_from(sample, epoch) for sample in samples),
        positions=tuple(Position(reader, epoch, first_index + i) for i in range(len(samples))),
    )  # fmt: skip


OBJECTS = 8


def toy_train(reader: Reader) -> Iterator[Batch]:
    """Endless: sample k of the global order goes to rank k % ranks; one reader a rank."""
    start = reader.start_after.get(reader.rank)
    taken = 0 if start is None else start.index + 1
    while True:
        numbers = [(taken + i) * reader.ranks + reader.rank for i in range(reader.micro_batch)]
        yield toy_batch([number % OBJECTS for number in numbers], 0, reader.rank, taken)
        taken += reader.micro_batch


def toy_held_out(reader: Reader) -> Iterator[Batch]:
    """Five objects that are not trained on, the last batch a smaller one."""
    mine = list(range(100, 105))[reader.rank :: reader.ranks]
    for at in range(0, len(mine), reader.micro_batch):
        yield toy_batch(mine[at : at + reader.micro_batch], 0, reader.rank, at)


TOYS = Feed(toy_train, toy_held_out)


def toy_recipe(**changes: Any) -> Recipe:
    """A recipe of few steps; changes are Optimisation's."""
    plan = replace(
        Optimisation(steps=8, batch_size=4, learning_rate=1e-2, ema_decay=0.9, schedule="cosine", warmup_steps=2,
                     clip_norm=1.0, precision="no"), **changes,
    )  # fmt: skip
    return Recipe("vae", "tiny", "A toy.", DataPlan(views=VIEWS, size_px=SIDE), plan)
