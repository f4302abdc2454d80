"""A fresh autoencoder lets colours through before it has learned anything."""

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from engine.errors import TrainingError
from engine.training.recipes.mini import VAE
from engine.training.tasks.vae_start import start_as_identity

COLOURS = torch.tensor([[0.9, -0.8, -0.6], [-0.7, 0.6, -0.7], [-0.8, -0.5, 0.8], [0.8, 0.7, -0.8]])
"""Red, green, blue and yellow, sRGB in [-1, 1]."""


def squares() -> torch.Tensor:
    """White with a coloured square in each quarter, [1, 3, 64, 64]."""
    picture = torch.ones(1, 3, 64, 64)
    for number, colour in enumerate(COLOURS):
        top, left = 32 * (number // 2) + 8, 32 * (number % 2) + 8
        picture[0, :, top : top + 16, left : left + 16] = colour[:, None, None]
    return picture


@torch.no_grad()
def middles(vae: AutoencoderKL) -> torch.Tensor:
    made = vae.decode(vae.encode(squares()).latent_dist.mean).sample
    return torch.stack([made[0, :, 32 * (n // 2) + 16, 32 * (n % 2) + 16] for n in range(4)])


def likeness(vae: AutoencoderKL) -> float:
    """Correlation of the squares' colours, apart from their brightness, with the true ones."""
    pairs = [colour - colour.mean(1, keepdim=True) for colour in (middles(vae), COLOURS)]
    return float(torch.corrcoef(torch.stack([pair.flatten() for pair in pairs]))[0, 1])


def test_colours_come_through() -> None:
    torch.manual_seed(0)
    random = AutoencoderKL(**VAE)
    assert abs(likeness(random)) < 0.5
    assert likeness(start_as_identity(random)) > 0.8


def test_pictures_come_out_the_right_way_round() -> None:
    """Left stays left, above above: of every square its own colour is the nearest."""
    torch.manual_seed(0)
    found = middles(start_as_identity(AutoencoderKL(**VAE)))
    nearest = torch.cosine_similarity(
        (found - found.mean(1, keepdim=True))[:, None], (COLOURS - COLOURS.mean(1, keepdim=True))[None], dim=2
    ).argmax(1)
    assert nearest.tolist() == [0, 1, 2, 3]


def test_too_narrow() -> None:
    with pytest.raises(TrainingError, match="levels of at least 6 channels and 3 latent ones, got 4 and 8"):
        start_as_identity(AutoencoderKL(**{**VAE, "block_out_channels": (4, 8, 8, 8)}))
