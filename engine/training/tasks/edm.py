"""Learning v at EDM's noise levels (Karras et al. 2022), with the very preconditioning that Hi3D samples with.

x0, eps, sigma --> x = x0 + sigma eps --c_in--> network --> F --> D = c_skip x + c_out F
loss = (sigma^2 + 1) / sigma^2 |D - x0|^2 = |F - v|^2,   v = (eps - sigma x0) / sqrt(sigma^2 + 1)

The two are equal since (sigma^2 + 1) / sigma^2 c_out^2 = 1; the right one does not take the difference of two numbers
that hardly differ where sigma is small.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from engine.multiview.edm import v_preconditioning
from engine.training.tasks.hi3d_settings import LogNormal


def drawn(rule: LogNormal, normal: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Return numbers of a log-normal distribution for unit normal ones."""
    return torch.exp(rule.mean + rule.deviation * normal)


def quantiles(rule: LogNormal, count: int) -> Float[Tensor, " {count}"]:
    """Return `count` numbers that stand for equal shares of a log-normal distribution, rising."""
    shares = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return drawn(rule, torch.special.ndtri(shares).float())


def v_target(
    x0: Float[Tensor, "b n c h w"], eps: Float[Tensor, "b n c h w"], sigma: Float[Tensor, " b"]
) -> Float[Tensor, "b n c h w"]:
    """Return what the network should predict, so that the sampler's D is x0."""
    around = sigma.to(x0).view(-1, 1, 1, 1, 1)
    return (eps - around * x0) / (around**2 + 1).sqrt()


def v_errors(
    network: nn.Module,
    x0: Float[Tensor, "b n c h w"],
    eps: Float[Tensor, "b n c h w"],
    sigma: Float[Tensor, " b"],
    conditions: dict[str, Tensor],
) -> Float[Tensor, "b n c h w"]:
    """Return the squared errors of what is predicted.

    Args:
        network: called as in sampling: c_in x, c_noise, the conditions by name.
        x0: clean latents, scaled.
        eps: unit normal.
        sigma: noise level, one for each clip.
        conditions: what the network is told.
    """
    around = v_preconditioning(sigma)
    noised = x0 + sigma.to(x0).view(-1, 1, 1, 1, 1) * eps
    predicted = network(around.scaled(noised), around.noise, **conditions)
    return (predicted.float() - v_target(x0, eps, sigma)).square()
