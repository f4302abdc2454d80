"""DDIM (Song et al. 2021): unit noise in, clean latents out, in VideoMV's steps and with its 3D-aware variant.

x_t --network--> prediction --guidance--> x0 --(every so often through 3D and back)--> x0 --equation 12--> x_{t-1}
"""

import math
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from engine.multiview.denoiser import OnStep, RefinementPlan, Step
from engine.multiview.guidance import (
    ALWAYS,
    GuidanceInterval,
    Guided,
    Scale,
    branches_needed,
    clean_latents,
    plan_at,
)
from engine.multiview.schedules import NoiseSchedule, normal_like

Spacing = Literal["leading", "trailing", "leap"]
"""leading: the releases' times. trailing: from the last time on (Lin et al. 2024, section 3.3), which few steps need where
that time is pure noise: leading ones would tell the network a time at which something should show already. leap: the last
time, then trailing ones of the `LEAP` below, as SDEdit (Meng et al. 2022) works on from a guess: a small network's mean of
all orbits that may be becomes a little sharper, while in the middle of the walk it would have to choose one, mostly wrong."""
LEAP = 0.4
"""Share of the schedule above which a leap passes over all but the last time; what is known of it stands at MINI_PICTURE."""


def ddim_timesteps(count: int, steps: int, spacing: Spacing = "leading") -> list[int]:
    """Return the times that are visited, falling.

    Args:
        count: of the schedule.
        steps: how many. Where they do not divide the count, leading ones are as many as fit, more than `steps`.
        spacing: leading: 981, 961, ..., 1 for 50 steps of 1000, as in the release, one more than a multiple of the stride
            `count // steps`; trailing: 999, 979, ..., 19; leap: 999, 399, 266, 132 for 4 steps.

    Raises:
        ValueError: steps is not in 1 to count, or too many to be below the leap.
    """
    most = 1 + int(LEAP * count) if spacing == "leap" else count
    if not 1 <= steps <= most:
        raise ValueError(f"steps must be from 1 to {most}, got {steps}")
    if spacing == "leap":
        return [count - 1, *(round(LEAP * count * (steps - done) / (steps - 1)) - 1 for done in range(1, steps))]
    if spacing == "trailing":
        return [round(count * (steps - done) / steps) - 1 for done in range(steps)]
    return [min(t + 1, count - 1) for t in range(0, count, count // steps)][::-1]


def _walk(count: int, steps: int, spacing: Spacing) -> list[tuple[int, int | None]]:
    """Pairs of times, from one to the next; None is clean. Leading walks end at time 0, as in the release."""
    times = ddim_timesteps(count, steps, spacing)
    if spacing != "leading":
        return list(zip(times, [*times[1:], None], strict=True))
    return [(time, max(time - count // steps, 0)) for time in times]


@torch.no_grad()
def sample_ddim(
    guided: Guided,
    noise: Float[Tensor, "b n c h w"],
    schedule: NoiseSchedule,
    *,
    steps: int = 50,
    spacing: Spacing = "leading",
    guidance_scale: Scale = 9.0,
    interval: GuidanceInterval = ALWAYS,
    refinement: RefinementPlan | None = None,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Float[Tensor, "b n c h w"]:
    """Walk from noise to clean latents.

    Where times are leading, the walk ends at alpha_bar_0, a little below 1, as in the release; others end clean.

    Args:
        guided: the network with its conditions; called with whole times as floats.
        noise: unit normal, the start; the arithmetic is in its dtype.
        schedule: times and what the network predicts.
        steps: how many, see `ddim_timesteps`.
        spacing: which times, likewise.
        guidance_scale: the release's is 9 from text and 6 from an image.
        interval: which steps are guided.
        refinement: 3D-aware denoising at some steps.
        eta: share of DDPM's noise in each step, 0 for none (equation 16).
        generator: draws that noise; needed where eta is above 0.
        on_step: called after every step; what it raises ends the walk.

    Raises:
        ValueError: steps out of range, eta negative or without a generator.
    """
    walk = _walk(schedule.count, steps, spacing)
    if eta < 0 or (eta > 0 and generator is None):
        raise ValueError(f"eta must be 0, or above with a generator; got {eta} and {generator}")
    latents = noise
    for index, (time, previous) in enumerate(walk):
        t = torch.full((len(latents),), time, device=latents.device)
        plan = plan_at(refinement, index)
        branches = guided(latents, t.float(), branches_needed(guidance_scale, interval.holds(index, len(walk)), plan))
        x0 = clean_latents(branches, partial(_x0, schedule, latents, t), guidance_scale, plan)
        fresh = normal_like(latents, generator) if eta > 0 and generator is not None else None
        latents = x0 if previous is None else ddim_step(schedule, latents, x0, (time, previous), eta, fresh)
        if on_step is not None:
            on_step(Step(index, len(walk), latents, x0))
    return latents


def ddim_step(
    schedule: NoiseSchedule,
    latents: Float[Tensor, "b n c h w"],
    x0: Float[Tensor, "b n c h w"],
    times: tuple[int, int],
    eta: float = 0.0,
    fresh: Float[Tensor, "b n c h w"] | None = None,
) -> Float[Tensor, "b n c h w"]:
    """Go from the first of two times to the second, given the clean latents (equation 12; `fresh` is its noise)."""
    t, previous = (torch.full((len(latents),), time, device=latents.device) for time in times)
    eps = schedule.eps(latents, x0, t)
    if fresh is None or eta == 0:
        return schedule.signal(previous, latents) * x0 + schedule.spread(previous, latents) * eps
    # Equation 16, in the table's float64: half precision holds 1 for the alpha_bars of the last steps.
    bar, bar_previous = (float(schedule.alpha_bars[time]) for time in times)
    sigma = eta * math.sqrt((1 - bar_previous) / (1 - bar) * (1 - bar / bar_previous))
    direction = math.sqrt(max(1 - bar_previous - sigma**2, 0)) * eps
    return schedule.signal(previous, latents) * x0 + direction + sigma * fresh


def _x0(schedule: NoiseSchedule, latents: Tensor, t: Tensor, prediction: Tensor) -> Tensor:
    return schedule.x0(latents, prediction, t)
