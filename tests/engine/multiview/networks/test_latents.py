"""The codec against the published autoencoder, and what chunks, dimensions, draws and scalings do to it."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import load_file

from engine.checkpoints.keys_vae import vae_from_release
from engine.multiview.networks.latents import LatentCodec, normalise_latents
from tests.engine.multiview.networks.test_text_orbit import FLOAT32, PUBLISHED, relative


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[32, 32],
    ).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1  # objects, views


def test_it_encodes_and_decodes_as_the_published_autoencoder(oracles: Path):
    published = {key: torch.from_numpy(value) for key, value in np.load(oracles / "vae_small.npz").items()}
    weights = {key: value.float() for key, value in load_file(oracles / "vae_small.safetensors").items()}
    converted = vae_from_release(weights)
    vae = AutoencoderKL(**converted.config)
    vae.load_state_dict(converted.tensors)
    codec = LatentCodec(vae.eval(), chunk=1)
    with torch.no_grad():
        mean, log_variance = codec.posterior(published["image"])
        decoded = codec.decode(published["z"], scaled=False)
    assert relative(mean, published["mean"]) < PUBLISHED
    assert relative(log_variance, published["logvar"]) < PUBLISHED
    assert relative(decoded, published["decoded"]) < PUBLISHED


@torch.no_grad()
def test_chunks_change_nothing(vae: AutoencoderKL, images: torch.Tensor):
    whole, pieces = LatentCodec(vae, chunk=6), LatentCodec(vae, chunk=4)
    latents = whole.encode(images, torch.Generator().manual_seed(3))
    assert latents.shape == (2, 3, 4, 4, 4)
    assert relative(pieces.encode(images, torch.Generator().manual_seed(3)), latents) < FLOAT32
    assert relative(pieces.decode(latents), whole.decode(latents)) < FLOAT32
    assert whole.decode(latents).shape == images.shape


@torch.no_grad()
def test_leading_dimensions_are_kept(vae: AutoencoderKL, images: torch.Tensor):
    codec = LatentCodec(vae)
    latents = codec.encode(images)
    assert relative(codec.encode(images[1, 2]), latents[1, 2]) < FLOAT32  # a single picture has none
    assert relative(codec.encode(images.flatten(0, 1)), latents.flatten(0, 1)) < FLOAT32
    assert relative(codec.decode(latents[1, 2]), codec.decode(latents)[1, 2]) < FLOAT32


@torch.no_grad()
def test_a_generator_draws_from_the_posterior(vae: AutoencoderKL, images: torch.Tensor):
    codec = LatentCodec(vae, scaling=0.5)
    mean, log_variance = codec.posterior(images)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(7))
    expected = 0.5 * (mean + torch.exp(log_variance / 2) * noise)
    assert relative(codec.encode(images, torch.Generator().manual_seed(7)), expected) < FLOAT32
    assert relative(codec.encode(images), 0.5 * mean) < FLOAT32


@torch.no_grad()
def test_scaling_can_be_left_out(vae: AutoencoderKL, images: torch.Tensor):
    codec = LatentCodec(vae)
    scaled, plain = codec.encode(images), codec.encode(images, scaled=False)
    assert relative(scaled, 0.18215 * plain) < FLOAT32
    assert relative(codec.decode(plain, scaled=False), codec.decode(scaled)) < FLOAT32


def test_gradients_reach_pictures_and_latents(vae: AutoencoderKL, images: torch.Tensor):
    codec, pictures = LatentCodec(vae, chunk=2), images.clone().requires_grad_()
    codec.decode(codec.encode(pictures, torch.Generator().manual_seed(0))).sum().backward()
    assert pictures.grad is not None
    assert (pictures.grad.abs().amax((-1, -2, -3)) > 0).all()  # every picture's


@torch.no_grad()
def test_an_autoencoder_in_half_precision_takes_and_gives_float32(vae: AutoencoderKL, images: torch.Tensor):
    half = AutoencoderKL(**{key: value for key, value in vae.config.items() if not key.startswith("_")})
    half.load_state_dict(vae.state_dict())
    codec = LatentCodec(half.to(torch.bfloat16).eval())
    latents = codec.encode(images)
    assert latents.dtype == torch.float32
    assert relative(latents, LatentCodec(vae).encode(images)) < 0.1  # bfloat16 has 8 bits
    assert codec.decode(latents).dtype == torch.float32


def test_it_computes_where_it_is_told(vae: AutoencoderKL):
    """Offloaded networks report the processor, so the device is an argument; meta stands for any."""
    shape = LatentCodec(copy.deepcopy(vae).to("meta"), device="meta").encode(torch.zeros(2, 3, 8, 8))
    assert (shape.device.type, tuple(shape.shape)) == ("meta", (2, 4, 4, 4))


def test_wrong_sizes_are_refused(vae: AutoencoderKL):
    codec = LatentCodec(vae)
    with pytest.raises(ValueError, match="sides that are multiples of 2, got 9 x 8"):
        codec.encode(torch.zeros(1, 3, 8, 9))
    with pytest.raises(ValueError, match=r"latents must have shape \(..., 4, height, width\), got \(1, 3, 8, 8\)"):
        codec.decode(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        LatentCodec(vae, chunk=0)


def test_normalised_latents_stand_for_the_same_pictures() -> None:
    """Whatever was measured comes to zero mean and unit variance; decoding and the posterior's width stay."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, latent_channels=3,
    ).eval()  # fmt: skip
    images = torch.rand(6, 3, 16, 16) * 2 - 1
    codec = LatentCodec(vae, scaling=1.0)
    before_mean, before_width = codec.posterior(images)
    before = codec.decode(before_mean).detach()
    mean, deviation = before_mean.mean((0, 2, 3)), before_mean.std((0, 2, 3))
    normalise_latents(vae, mean, deviation)
    after_mean, after_width = codec.posterior(images)
    torch.testing.assert_close(after_mean.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)  # float32
    torch.testing.assert_close(after_mean.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(codec.decode(after_mean), before, atol=1e-4, rtol=0)
    ratio = (0.5 * (before_width - after_width)).exp().mean((0, 2, 3))
    torch.testing.assert_close(ratio, deviation, atol=1e-4, rtol=1e-4)
