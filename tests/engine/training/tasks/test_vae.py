"""The autoencoder's task: its terms against the library's own, and batches that do not matter."""

from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from engine.errors import TrainingError
from engine.evaluation.perceptual import Perceptual
from engine.training.recipes import recipe_named
from engine.training.tasks.build import make_task
from engine.training.tasks.vae import VaeLearning, crops
from engine.training.types import Draws
from tests.engine.training.procedural import batch_of, orbit_of

TINY = recipe_named("vae", "tiny")


@pytest.fixture
def task() -> VaeLearning:
    return make_task(TINY)


@pytest.fixture(scope="module")
def batch():
    return batch_of(orbit=orbit_of(every=8))


def test_squares_larger_than_the_views_are_refused():
    with pytest.raises(TrainingError, match="squares of 64 px do not fit views of 32; pass --size-px 64"):
        make_task(replace(TINY, task=replace(TINY.task, crop_px=64)))


@pytest.mark.parametrize("error", ["l1", "l2"])
def test_loss_as_written_down(batch, error):
    task = make_task(replace(TINY, task=replace(TINY.task, error=error, kl_weight=0.1)))
    pictures = batch.pixels.flatten(0, 1)
    posterior = task.student.vae.encode(pictures).latent_dist
    noise = Draws(batch.seeds).normal(3, 4, 8, 8).flatten(0, 1)
    made = task.student.vae.decode(posterior.mean + posterior.std * noise).sample
    difference = (made - pictures).abs() if error == "l1" else (made - pictures) ** 2
    divergence = kl_divergence(Normal(posterior.mean, posterior.std), Normal(0, 1)).sum((1, 2, 3))
    expected = difference.mean() + 0.1 * (divergence / (3 * 32 * 32)).mean()
    torch.testing.assert_close(task.loss(task.student, batch, share=0.0).total, expected)


def test_a_batch_is_the_mean_of_its_clips(task, batch):
    together = task.loss(task.student, batch, share=0.0).total
    apart = [task.loss(task.student, batch.alone(index), share=0.0).total for index in range(2)]
    torch.testing.assert_close(together, sum(apart) / 2, rtol=1e-5, atol=0)  # float32 sums in another order


def test_all_of_it_learns(task, batch):
    """From the second step on: in the first one the blocks' last convolutions still let nothing through."""
    optimizer = torch.optim.SGD(task.student.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        task.loss(task.student, batch, share=0.0).total.backward()
        optimizer.step()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in task.student.parameters())


def test_lpips_counts_where_it_is_given(batch):
    lpips = Perceptual("squeeze")
    larger = batch_of(orbit=orbit_of(size=48, every=12))
    task, plain = VaeLearning(make_task(TINY).student.vae, TINY.task, lpips), make_task(TINY)
    losses = task.loss(task.student, larger, share=0.0)
    without = plain.loss(plain.student, larger, share=0.0)
    torch.testing.assert_close(losses.total, without.total + TINY.task.perceptual_weight * losses.parts["perceptual"])
    losses.total.backward()
    assert all(parameter.grad is None for parameter in lpips.parameters())


def test_measuring_finds_what_brings_latents_to_unit_variance(task, batch):
    measured = task.measure(task.student, batch)
    mean = task.student.vae.encode(batch.pixels.flatten(0, 1)).latent_dist.mean.detach()
    assert measured["latent_scaling"] == pytest.approx(float(1 / mean.std()))
    assert task.index().settings == {"latent_scaling": measured["latent_scaling"]}
    assert task.student.training
    assert measured.keys() >= {"loss", "error", "kl", "psnr_db"}
    assert task.preview(task.student, batch)["turntable"].shape == (3, 64, 64, 3)


def test_squares_around_the_object(batch):
    """Each holds the object, is cut from its own view, and depends on its clip alone."""
    cut = crops(batch, 16)
    assert cut.shape == (6, 3, 16, 16)
    assert torch.equal(crops(batch.alone(1), 16), cut[3:])
    for pixels, alpha, square in zip(batch.pixels.flatten(0, 1), batch.alpha.flatten(0, 1), cut, strict=True):
        places = pixels.unfold(1, 16, 1).unfold(2, 16, 1).permute(1, 2, 0, 3, 4)  # every square of the view
        found = (places == square).all(2).all(2).all(2).nonzero()
        assert any(alpha[0, top : top + 16, left : left + 16].any() for top, left in found.tolist())


def test_it_learns_from_squares_and_is_measured_on_whole_views(batch):
    task, whole = make_task(replace(TINY, task=replace(TINY.task, crop_px=16))), make_task(TINY)
    assert task.measure(task.student, batch) == whole.measure(whole.student, batch)
    assert task.loss(task.student, batch, share=0.0).total != whole.loss(whole.student, batch, share=0.0).total
