"""Batches of traced balls with exact depth, as a loader would make them, for Hi3D's tasks; and how a task overfits."""

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from engine.files import OrbitImages
from engine.multiview.pictures import Picture
from engine.training.plans import Optimisation
from engine.training.types import Batch, Position, Task
from tests.engine.balls import ball_orbit

BALLS = ((0.5, 20.0), (0.35, -5.0))
"""Radius in metres and elevation in degrees of each object."""


@cache
def ball(number: int, size: int, views: int) -> OrbitImages:
    radius, elevation = BALLS[number]
    images = ball_orbit(size, views, elevation, radius)
    turned = [2, 0, 1, 3] if number else [0, 1, 2, 3]  # other colours for the other object
    return replace(images, rgba=images.rgba[..., turned])


def ball_batch(size: int, views: int, numbers: tuple[int, ...] = (0, 1), seeds: tuple[int, ...] = (11, 12)) -> Batch:
    """Balls over white, their depth, and the same views at a quarter of their size as those of low quality."""
    balls = [ball(number, size, views) for number in numbers]
    rgba = torch.from_numpy(np.stack([one.rgba for one in balls])).float().permute(0, 1, 4, 2, 3) / 255
    alpha = rgba[:, :, 3:]
    pixels = 2 * (rgba[:, :, :3] * alpha + 1 - alpha) - 1
    return Batch(
        pixels=pixels, alpha=alpha, orbits=tuple(one.orbit for one in balls), backgrounds=torch.ones(len(balls), 3),
        captions=("",) * len(balls), uids=tuple(f"ball-{number}" for number in numbers), seeds=seeds[: len(balls)],
        positions=(Position(0, 0, 0),) * len(balls),
        depth_m=torch.from_numpy(np.stack([one.depth_m for one in balls])), degraded=_poor(pixels),
    )  # fmt: skip


def picture_of_ball() -> Picture:
    """A ball as a user gives it."""
    return Picture(ball(0, 64, 4).rgba[0])


def _poor(pixels: Tensor) -> Tensor:
    small = functional.interpolate(pixels.flatten(0, 1), scale_factor=0.25, mode="area")
    low = functional.interpolate(small, size=pixels.shape[3:], mode="bilinear").unflatten(0, pixels.shape[:2])
    return torch.cat([pixels[:, :1], low[:, 1:]], 1)


def overfitted(task: Task, batch: Batch, plan: Optimisation, steps: int) -> tuple[float, float]:
    """Return the loss on a batch whose draws stay the same, before and after some steps at a recipe's rate."""
    learned = [parameter for parameter in task.student.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=plan.learning_rate, betas=plan.betas, weight_decay=plan.weight_decay)
    task.student.train()
    losses = []
    for _ in range(steps):
        loss = task.loss(task.student, batch, share=0.0).total
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return losses[0], losses[-1]


def gradients(task: Task, batch: Batch) -> dict[str, bool]:
    """Return for each parameter that learns whether its gradient is not zero; none may lack one, DDP would wait."""
    task.student.zero_grad(set_to_none=True)
    task.loss(task.student, batch, share=0.0).total.backward()
    for part in task.frozen.values():
        assert all(not parameter.requires_grad and parameter.grad is None for parameter in part.parameters())
    learned = {name: part for name, part in task.student.named_parameters() if part.requires_grad}
    assert [name for name, parameter in learned.items() if parameter.grad is None] == []
    return {name: bool(parameter.grad.any()) for name, parameter in learned.items() if parameter.grad is not None}
