"""EDM (Karras et al. 2022): unit noise in, clean latents out, by Euler steps over falling noise levels, as Hi3D does.

x --(stage 2: low-resolution views mixed in)--> c_in x --network--> F --> D = c_skip x + c_out F --guidance--> x0
  --> x + (sigma_next - sigma) (x - x0) / sigma
"""

import math
from dataclasses import dataclass
from functools import partial

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


@dataclass(frozen=True)
class Preconditioning:
    """The four coefficients around the network: D(x) = c_skip x + c_out F(c_in x, c_noise) (Karras equation 7)."""

    skip: Float[Tensor, " b"]
    """c_skip."""
    out: Float[Tensor, " b"]
    """c_out."""
    scale_in: Float[Tensor, " b"]
    """c_in."""
    noise: Float[Tensor, " b"]
    """c_noise, the time that the network is told."""

    def clean(
        self, latents: Float[Tensor, "b n c h w"], prediction: Float[Tensor, "b n c h w"]
    ) -> Float[Tensor, "b n c h w"]:
        """Return D, the clean latents that a prediction F stands for."""
        return _times(self.skip, latents) + _times(self.out, prediction)

    def scaled(self, latents: Float[Tensor, "b n c h w"]) -> Float[Tensor, "b n c h w"]:
        """Return the network's input, c_in x."""
        return _times(self.scale_in, latents)


def v_preconditioning(sigma: Float[Tensor, " b"]) -> Preconditioning:
    """Return Stable Video Diffusion's coefficients: F is v at unit data variance (Karras Table 1 has the others)."""
    root = (sigma**2 + 1).sqrt()
    return Preconditioning(skip=1 / (sigma**2 + 1), out=-sigma / root, scale_in=1 / root, noise=0.25 * sigma.log())


@dataclass(frozen=True)
class LowResolutionInjection:
    """Hi3D stage 2 (in its code, not in its paper): before each step, move towards the noised low-resolution views.

    x <- (1 - a) x + a (z + sigma eps),   a = (0.5 (1 + cos(i / steps)))^power

    with i / steps in radians and eps the noise that the walk began with. The first step starts from the views alone
    and the last is hardly moved. Released with 25 steps; another count walks the same curve in other strides.
    """

    latents: Float[Tensor, "b n c h w"]
    """z: the low-resolution views, enlarged and encoded, scaled as the latents that are sampled."""
    power: float = 40.0
    """How soon the weight falls."""

    def weight(self, index: int, count: int) -> float:
        """Return a, at step `index` of `count`: 1 at the first, falling."""
        return (0.5 * (1 + math.cos(index / count))) ** self.power

    def mixed(
        self,
        latents: Float[Tensor, "b n c h w"],
        noise: Float[Tensor, "b n c h w"],
        sigma: Float[Tensor, ""],
        weight: float,
    ) -> Float[Tensor, "b n c h w"]:
        """Return the latents at noise level sigma, moved by the weight."""
        return (1 - weight) * latents + weight * (self.latents.to(latents) + sigma.to(latents) * noise)


@torch.no_grad()
def sample_euler_edm(
    guided: Guided,
    noise: Float[Tensor, "b n c h w"],
    sigmas: Float[Tensor, " sigmas"],
    *,
    guidance_scale: Scale = 1.0,
    interval: GuidanceInterval = ALWAYS,
    injection: LowResolutionInjection | None = None,
    refinement: RefinementPlan | None = None,
    on_step: OnStep | None = None,
) -> Float[Tensor, "b n c h w"]:
    """Walk from noise to clean latents (Karras algorithm 1 without its correction, S_churn 0).

    Args:
        guided: the network with its conditions; called with c_noise.
        noise: unit normal, scaled here to the first level; the arithmetic is in its dtype.
        sigmas: noise levels, falling to a final 0, one more than there are steps; see `edm_sigmas`.
        guidance_scale: one, or one for each view; Hi3D grows from 1 to 2.5 in stage 1 and to 2 in stage 2.
        interval: which steps are guided.
        injection: the low-resolution views of stage 2.
        refinement: 3D-aware denoising at some steps.
        on_step: called after every step; what it raises ends the walk.

    Raises:
        ValueError: the levels do not fall.
    """
    if len(sigmas) < 2 or bool((sigmas[1:] >= sigmas[:-1]).any()) or sigmas[-1] < 0:
        raise ValueError(f"sigmas must fall to 0 in at least one step, got {sigmas.tolist()}")
    sigmas, count = sigmas.to(noise.device), len(sigmas) - 1
    # Unit variance of the data is part of the first level's.
    latents = noise * (1 + sigmas[0] ** 2).sqrt().to(noise)
    for index in range(count):
        sigma, plan = sigmas[index], plan_at(refinement, index)
        if injection is not None:
            latents = injection.mixed(latents, noise, sigma, injection.weight(index, count))
        around = v_preconditioning(sigma.expand(len(latents)))
        needed = branches_needed(guidance_scale, interval.holds(index, count), plan)
        branches = guided(around.scaled(latents), around.noise, needed)
        x0 = clean_latents(branches, partial(around.clean, latents), guidance_scale, plan)
        latents = euler_step(latents, x0, sigma, sigmas[index + 1])
        if on_step is not None:
            on_step(Step(index, count, latents, x0))
    return latents


def euler_step(
    latents: Float[Tensor, "b n c h w"],
    x0: Float[Tensor, "b n c h w"],
    sigma: Float[Tensor, ""],
    next_sigma: Float[Tensor, ""],
) -> Float[Tensor, "b n c h w"]:
    """Follow dx/dsigma = (x - D) / sigma to the next level (Karras algorithm 1, lines 4 and 5)."""
    slope = (latents - x0) / sigma.to(latents)
    return latents + (next_sigma - sigma).to(latents) * slope


def _times(values: Float[Tensor, " b"], latents: Float[Tensor, "b n c h w"]) -> Float[Tensor, "b n c h w"]:
    """Multiply each object by its value."""
    return values.to(latents).view(-1, 1, 1, 1, 1) * latents
