"""The reconstructor's task: what it is given, what it is compared with, what learns; and that it recovers an object."""

from dataclasses import replace

import pytest
import torch

from engine.errors import TrainingError
from engine.evaluation.perceptual import Perceptual
from engine.splats.reconstructor import GaussianUNet
from engine.training.recipes import recipe_named
from engine.training.tasks.build import make_task
from engine.training.tasks.reconstructor import Reconstruction, chosen
from engine.training.types import Draws
from tests.engine.training.procedural import batch_of, orbit_of, picture_batch, thing
from tests.engine.training.tasks.stand_ins import Knowing

TINY = recipe_named("reconstructor", "tiny")
GENERATED, TRUE = TINY.task, replace(TINY.task, source="true")


def made(task_settings, perceptual=None) -> Reconstruction:
    task = make_task(replace(TINY, task=task_settings))
    if perceptual is not None:
        return Reconstruction(task.student, task_settings, task.generator, perceptual)
    return task


@pytest.fixture(scope="module")
def batch():
    return batch_of(orbit=orbit_of(every=4, start=3))


@pytest.mark.parametrize("settings", [GENERATED, TRUE, replace(TRUE, random_background=True)])
def test_a_batch_is_the_mean_of_its_clips(settings, batch):
    task = made(settings)
    together = task.loss(task.student, batch, share=0.0).total
    torch.manual_seed(1)
    apart = [task.loss(task.student, batch.alone(index), share=0.0).total for index in range(2)]
    torch.testing.assert_close(together, sum(apart) / 2, rtol=1e-4, atol=0)  # float32 sums in another order


@pytest.mark.parametrize("settings", [GENERATED, TRUE])
def test_gradients_reach_the_reconstructor_and_nothing_else(settings, batch):
    task = made(settings)
    task.loss(task.student, batch, share=0.0).total.backward()
    assert all(p.grad is not None for p in task.student.parameters())
    assert sum(p.grad.abs().sum() for p in task.student.parameters()) > 0
    assert set(task.frozen) == ({"text_encoder", "image_encoder", "unet", "vae"} if settings is GENERATED else set())
    for part in task.frozen.values():
        assert not part.training
        assert all(not p.requires_grad and p.grad is None for p in part.parameters())


def test_the_generator_is_asked_once_at_a_time_up_to_700(batch):
    """One that knows the truth gives the autoencoder's pictures of the views that were asked for."""
    task = made(GENERATED)
    generator = task.generator
    seeds = tuple(range(40))
    times = []
    for index in range(0, 40, 2):
        clips = replace(batch, seeds=seeds[index : index + 2])
        generator._unet = Knowing(generator.schedule, torch.zeros(2, 6, 4, 8, 8))
        task._generated(clips, [[0, 1, 2, 3]] * 2, Draws(clips.seeds))
        times += torch.cat(generator._unet.times).tolist()
        assert len(generator._unet.times) == 1
    assert 0 <= min(times) < 50
    assert 600 < max(times) <= 700
    x0 = torch.randn(2, 6, 4, 8, 8)
    generator._unet = Knowing(generator.schedule, x0)
    pictures = generator(batch, [[4, 1], [0, 5]], torch.tensor([0, 700]), Draws(batch.seeds))
    expected = generator.latents.codec.decode(torch.stack([x0[0, [4, 1]], x0[1, [0, 5]]]))
    torch.testing.assert_close(pictures, ((expected + 1) / 2).clamp(0, 1), rtol=0, atol=1e-3)  # v and back at t = 700


def test_a_guessed_clip_is_noised_from_what_pure_noise_gave(batch):
    """A generator that knows other views: behind the noise of the second step stands its guess, not the truth."""
    task = made(replace(GENERATED, guessed=0.5))
    seen, other = [], torch.randn(2, 6, 4, 8, 8)
    generator = task.generator

    class Watched(Knowing):
        def __call__(self, latents, timestep, **conditions):
            seen.append((timestep, latents))
            return super().__call__(latents, timestep, **conditions)

    for first in range(0, 40, 2):
        clips = replace(batch, seeds=(first, first + 1))
        generator._unet = Watched(generator.schedule, other)
        generator(clips, [[0, 1, 2, 3]] * 2, torch.tensor([100, 100]), Draws(clips.seeds))
    assert [int(times[0]) for times, _ in seen] == [999, 100] * 20
    signal = generator.schedule.signal(torch.tensor([100, 100]), other)
    after = torch.stack([latents for _, latents in seen[1::2]])
    near_guess = (after - signal * other).square().mean((2, 3, 4, 5)) < (after.square().mean((2, 3, 4, 5)))
    assert 12 <= int(near_guess.sum()) <= 28  # about half of 40


def test_the_truth_is_put_over_any_background_as_if_photographed_there(batch):
    task = made(TRUE)
    green = torch.tensor([0.1, 0.8, 0.3])
    views = [[2, 0, 5], [1, 3, 4]]
    drawn = task._drawn([thing(0), thing(1)], batch, views, green.expand(2, 3))
    over_green = batch_of(orbit=orbit_of(every=4, start=3), background=tuple(green.tolist()))
    torch.testing.assert_close(drawn.true_colour, (chosen(over_green.pixels, views) + 1) / 2, rtol=0, atol=1e-5)
    torch.testing.assert_close(drawn.colour, drawn.true_colour, rtol=0, atol=1e-5)  # rendered from the truth itself
    torch.testing.assert_close(drawn.alpha, drawn.true_alpha, rtol=0, atol=1e-5)
    losses = task._losses(drawn, 0.0)
    assert losses.total < 1e-9
    assert drawn.psnr_db > 90


@pytest.mark.parametrize(("supervised", "count"), [(None, 6), (5, 5)])
def test_views_put_in_are_compared_and_others_as_many_as_wanted(supervised, count, batch, monkeypatch):
    task = made(replace(TRUE, supervised=supervised))
    seen = {}
    monkeypatch.setattr(task, "_true", lambda *given: seen.setdefault("in", given[1]) and original(*given))
    original = Reconstruction._true.__get__(task)
    drawn = Reconstruction._drawn.__get__(task)
    monkeypatch.setattr(task, "_drawn", lambda *given: seen.setdefault("out", given[2]) and drawn(*given))
    task.loss(task.student, batch, share=0.0)
    for shown, compared in zip(seen["in"], seen["out"], strict=True):
        assert len(set(compared)) == len(compared) == count
        assert compared[:4] == shown
    assert seen["in"][0] != seen["in"][1]  # each clip draws its own


def test_lpips_counts_late_in_the_run(batch):
    settings = replace(TRUE, supervised=4, perceptual_from=0.5, perceptual_px=48)
    task = made(settings, Perceptual("squeeze"))
    early, late = (task.loss(task.student, batch, share=share) for share in (0.49, 0.5))
    assert "perceptual" not in early.parts
    torch.testing.assert_close(late.total, early.total + late.parts["perceptual"])
    late.total.backward()
    assert all(p.grad is None for p in task.frozen["perceptual"].parameters())


def test_measuring_and_looking_repeat(batch):
    task = made(GENERATED)
    task.student.train()
    measured = task.measure(task.student, batch)
    assert measured == task.measure(task.student, batch)
    assert measured.keys() >= {"loss", "colour", "alpha", "psnr_db"}
    assert task.student.training
    assert task.preview(task.student, batch)["turntable"].shape == (6, 64, 64, 3)
    assert task.index().components == {"reconstructor": "GaussianUNet"}


def test_pictures_without_cameras_are_refused():
    task = made(TRUE)
    with pytest.raises(TrainingError, match="found 2D pictures without cameras"):
        task.loss(task.student, picture_batch(), share=0.0)
    with pytest.raises(TrainingError, match="was given no generator"):
        Reconstruction(GaussianUNet(**GENERATED.network), GENERATED)
