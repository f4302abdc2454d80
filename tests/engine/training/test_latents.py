"""Cached latents: the same as encoding, turned as the clips are, whole on the disk, and of one autoencoder alone."""

from dataclasses import replace

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from engine.multiview.networks.encoders import seeded
from engine.multiview.networks.latents import LatentCodec
from engine.multiview.sizes import tiny_vae
from engine.training.kept import weights_hash
from engine.training.latents import LatentCache
from engine.training.types import Draws
from tests.engine.training.procedural import batch_of, orbit_of

HALF = 1e-3
"""Relative spacing of float16."""


def autoencoder(seed: int = 0) -> AutoencoderKL:
    with seeded(seed):
        return AutoencoderKL(**tiny_vae(3)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    return autoencoder()


def keyed(start: int = 0):
    return replace(batch_of(orbit=orbit_of(every=6, start=6 * start), keys=("a", "b")), starts=(start, start))


def test_moments_are_the_autoencoders(vae):
    batch = keyed()
    mean, log_variance = LatentCache(LatentCodec(vae)).moments(batch)
    true_mean, true_log_variance = LatentCodec(vae).posterior(batch.pixels)
    torch.testing.assert_close(mean, true_mean, rtol=HALF, atol=1e-4)
    torch.testing.assert_close(log_variance, true_log_variance, rtol=HALF, atol=1e-4)


def test_a_turned_clip_is_found_and_turned(vae):
    """The whole point: one entry serves all starts."""
    cache = LatentCache(LatentCodec(vae))
    cache.moments(keyed())
    turned = keyed(start=3)
    found = cache.moments(turned)
    assert cache.kept.made == 2
    for moments, true in zip(found, LatentCodec(vae).posterior(turned.pixels), strict=True):
        torch.testing.assert_close(moments, true, rtol=HALF, atol=1e-4)


def test_the_start_at_which_an_entry_is_made_leaves_no_trace(vae):
    first, second = LatentCache(LatentCodec(vae)), LatentCache(LatentCodec(vae))
    first.moments(keyed(start=1))
    for one, other in zip(first.moments(keyed()), second.moments(keyed()), strict=True):
        assert torch.equal(one, other)


def test_neighbours_in_a_batch_change_no_bit(vae):
    batch = keyed()
    together = LatentCache(LatentCodec(vae)).sampled(batch, Draws(batch.seeds))
    for index in range(2):
        one = batch.alone(index)
        assert torch.equal(LatentCache(LatentCodec(vae)).sampled(one, Draws(one.seeds))[0], together[index])


def test_another_run_finds_entries_on_disk(vae, tmp_path):
    batch = keyed()
    made = LatentCache(LatentCodec(vae), tmp_path).moments(batch)
    again = LatentCache(LatentCodec(vae), tmp_path)
    for one, other in zip(made, again.moments(batch), strict=True):
        assert torch.equal(one, other)
    assert again.kept.made == 0
    assert not list(tmp_path.rglob("*.partial"))


def test_another_autoencoder_finds_nothing(vae, tmp_path):
    batch = keyed()
    LatentCache(LatentCodec(vae), tmp_path).moments(batch)
    other = LatentCache(LatentCodec(autoencoder(seed=1)), tmp_path)
    other.moments(batch)
    assert other.kept.made == 2
    assert weights_hash(vae) != weights_hash(autoencoder(seed=1))
    assert weights_hash(vae) == weights_hash(autoencoder())


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * 100])
def test_a_damaged_entry_is_made_again_and_said(vae, tmp_path, caplog, damage):
    batch = keyed()
    made = LatentCache(LatentCodec(vae), tmp_path).moments(batch)
    cache = LatentCache(LatentCodec(vae), tmp_path)
    path = cache.kept.path("a")
    path.write_bytes(damage(path.read_bytes()))
    for one, other in zip(made, cache.moments(batch), strict=True):
        assert torch.equal(one, other)
    assert cache.kept.made == 1
    assert str(path) in caplog.text
    mended = LatentCache(LatentCodec(vae), tmp_path)
    mended.moments(batch)
    assert mended.kept.made == 0


def test_an_entry_with_another_number_of_views_is_not_taken(vae, tmp_path):
    LatentCache(LatentCodec(vae), tmp_path).moments(keyed())
    fewer = replace(batch_of(orbit=orbit_of(every=12), keys=("a", "b")))
    cache = LatentCache(LatentCodec(vae), tmp_path)
    assert cache.moments(fewer)[0].shape[1] == 2


def test_memory_keeps_to_its_limit(vae):
    batch = keyed()
    cache = LatentCache(LatentCodec(vae), memory_bytes=1)
    cache.moments(batch)
    cache.moments(batch)
    assert cache.kept.made == 4  # one entry fits, and the other one drives it out each time
    plenty = LatentCache(LatentCodec(vae))
    plenty.moments(batch)
    plenty.moments(batch)
    assert plenty.kept.made == 2


class Counting(LatentCodec):
    """Counts the clips that go through the autoencoder."""

    encoded = 0

    def posterior(self, images):
        self.encoded += len(images) if images.ndim == 5 else 1
        return super().posterior(images)


def test_clips_without_a_key_are_encoded_each_time(vae, tmp_path):
    batch, codec = batch_of(orbit=orbit_of(every=6)), Counting(vae)
    cache = LatentCache(codec, tmp_path)
    exact = LatentCodec(vae).posterior(batch.pixels)
    for _ in range(2):
        for one, other in zip(cache.moments(batch), exact, strict=True):
            assert torch.equal(one, other)  # not even rounded
    assert codec.encoded == 4
    assert not list(tmp_path.iterdir())


def test_beside_clips_with_a_key_as_well(vae, tmp_path):
    codec = Counting(vae)
    cache, mixed = LatentCache(codec, tmp_path), replace(keyed(), pixels_keys=("a", ""))
    cache.moments(mixed)
    cache.moments(mixed)
    assert codec.encoded == 3
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_latents_are_drawn_from_the_posterior_and_scaled(vae):
    batch = batch_of(orbit=orbit_of(every=6))
    cache = LatentCache(LatentCodec(vae, scaling=0.5))
    mean, log_variance = cache.moments(batch)
    noise = Draws(batch.seeds).normal(*mean.shape[1:])
    expected = 0.5 * (mean + torch.exp(log_variance / 2) * noise)
    torch.testing.assert_close(cache.sampled(batch, Draws(batch.seeds)), expected, rtol=0, atol=0)


def test_entries_made_in_half_precision_are_kept_apart(vae, tmp_path):
    batch = keyed()
    LatentCache(LatentCodec(vae), tmp_path).moments(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = LatentCache(LatentCodec(vae), tmp_path)
        half.moments(batch)
    assert half.kept.made == 2
