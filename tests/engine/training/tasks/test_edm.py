"""EDM's loss against hand computation and against the sampler that its network will serve."""

import math

import pytest
import torch
from torch import Tensor, nn

from engine.multiview.edm import sample_euler_edm, v_preconditioning
from engine.multiview.guidance import Guided
from engine.multiview.schedules import edm_sigmas
from engine.training.tasks.edm import drawn, quantiles, v_errors, v_target
from engine.training.tasks.hi3d_settings import Diffusion, LogNormal
from engine.training.types import Draws, seed_from

SIGMA = torch.tensor([0.01, 0.9, 40.0], dtype=torch.float64)
GENERATOR = torch.Generator().manual_seed(0)
X0, EPS, ANSWER = (torch.randn(3, 2, 4, 5, 6, generator=GENERATOR, dtype=torch.float64) for _ in range(3))


class Answering(nn.Module):
    """Says the same whatever it is asked, and keeps what it was asked."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, latents: Tensor, timestep: Tensor, **conditions: Tensor) -> Tensor:
        self.latents, self.timestep, self.conditions = latents, timestep, conditions
        return self.answer


def test_the_loss_is_the_weighted_error_of_the_clean_latents() -> None:
    """Hi3D's configuration, number by number: lambda |D - x0|^2 with lambda = (s^2 + 1) / s^2, VScalingWithEDMcNoise."""
    network = Answering(ANSWER)
    found = v_errors(network, X0, EPS, SIGMA, {"vector": X0[:, 0, 0, 0]}).mean((1, 2, 3, 4))
    for index, s in enumerate(SIGMA.tolist()):
        x = X0[index] + s * EPS[index]
        d = x / (s**2 + 1) - s / math.sqrt(s**2 + 1) * ANSWER[index]
        by_hand = (s**2 + 1) / s**2 * ((d - X0[index]) ** 2).mean()
        # The answer is taken as float32, as a network's is.
        assert float(found[index]) == pytest.approx(float(by_hand), rel=1e-5)
        torch.testing.assert_close(network.latents[index], x / math.sqrt(s**2 + 1))
        assert float(network.timestep[index]) == pytest.approx(0.25 * math.log(s))
    assert set(network.conditions) == {"vector"}


def test_a_perfect_prediction_is_the_clean_latents_for_the_sampler() -> None:
    target = v_target(X0, EPS, SIGMA)
    noised = X0 + SIGMA.view(-1, 1, 1, 1, 1) * EPS
    torch.testing.assert_close(v_preconditioning(SIGMA).clean(noised, target), X0)
    assert float(v_errors(Answering(target), X0, EPS, SIGMA, {}).max()) < 1e-12  # rounding to float32, squared


def test_a_network_without_loss_samples_the_clean_latents() -> None:
    class Knowing(nn.Module):
        def forward(self, latents: Tensor, timestep: Tensor) -> Tensor:
            sigma = (4 * timestep).exp().view(-1, 1, 1, 1, 1)
            eps = (latents * (sigma**2 + 1).sqrt() - X0) / sigma
            return v_target(X0, eps, sigma.flatten())

    sigmas = edm_sigmas(8).double()
    made = sample_euler_edm(Guided(Knowing(), {}), EPS, sigmas)
    torch.testing.assert_close(made, X0, rtol=0, atol=1e-4)  # c_noise is told in float32; the first level is 700


def test_levels_have_the_release_distribution() -> None:
    draws = Draws([seed_from("clip", index) for index in range(4000)])
    logs = drawn(Diffusion().sigma, draws.normal()).log()
    assert float(logs.mean()) == pytest.approx(1.0, abs=0.1)  # four standard errors of 1.6 / sqrt(4000)
    assert float(logs.std()) == pytest.approx(1.6, abs=0.08)
    noise = drawn(Diffusion().augmentation, draws.normal()).log()
    assert float(noise.mean()) == pytest.approx(-3.0, abs=0.04)
    assert float(noise.std()) == pytest.approx(0.5, abs=0.03)


def test_quantiles_stand_for_equal_shares() -> None:
    found = quantiles(LogNormal(1.0, 1.6), 4)
    levels = drawn(LogNormal(1.0, 1.6), torch.randn(100_000, generator=torch.Generator().manual_seed(1)))
    below = (levels[:, None] < found).float().mean(0)
    torch.testing.assert_close(below, torch.tensor([0.125, 0.375, 0.625, 0.875]), rtol=0, atol=0.01)  # 6 errors


def test_shares_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be shares, 0 to 1, got 1.5 and 0.1"):
        Diffusion(drop_tokens=1.5)
