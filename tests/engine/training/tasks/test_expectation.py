"""What is expected of an orbit: the loss by hand, what learns of the network, and what is refused."""

from dataclasses import replace

import pytest
import torch

from engine.errors import TrainingError
from engine.geometry import RING16
from engine.multiview.networks.image_orbit import ImageOrbitUNet
from engine.multiview.networks.orbit_video import OrbitVideoUNet, _places
from engine.training.recipes import recipe_named
from engine.training.tasks.build import make_task
from engine.training.tasks.expectation import ExpectationLearning
from engine.training.types import Draws, Task
from tests.engine.training.procedural import batch_of, orbit_of, picture_batch

TINY, TINY_TEXT, TINY_HI3D = (recipe_named(f"expectation-{told}", "tiny") for told in ("image", "text", "hi3d"))


@pytest.fixture
def task() -> ExpectationLearning:
    return make_task(TINY)


@pytest.fixture(scope="module")
def batch():
    return batch_of(orbit=orbit_of(every=6))


def test_loss_as_written_down(task, batch):
    """Fresh, three quarters of the first view's latents are expected of all, and half their variance is wrong."""
    task.student.eval()
    losses = task.loss(task.student, batch, share=0.0)
    x0 = task.latents.sampled(batch, Draws(batch.seeds))
    error = (0.75 * x0[:, :1] - x0) ** 2
    torch.testing.assert_close(losses.parts["loss"], error.mean())
    likelihood = 0.5 * (error.mean((2, 3, 4)) / 0.5 + torch.log(torch.tensor(0.5))).mean()
    torch.testing.assert_close(losses.total, error.mean() + 0.1 * likelihood)


def test_nothing_else_of_the_network_learns(task, batch):
    task.loss(task.student, batch, share=0.0).total.backward()
    learning = {name for name, p in task.unet.named_parameters() if p.requires_grad}
    assert learning == {name for name, p in task.unet.named_parameters() if p.grad is not None}
    assert all(name.startswith("expectation.") for name in learning)
    assert task.components() == {"unet": task.unet}
    assert set(task.index().components) == {"unet", "vae"}
    assert isinstance(task, Task)


def test_the_variance_finds_the_error(task, batch):
    """Where the expectation cannot improve any more, what is said of its error becomes its mean square."""
    for name, parameter in task.student.named_parameters():
        parameter.requires_grad_(name == "expectation.shares.bias")
    optimizer = torch.optim.Adam([task.student.expectation.shares.bias], 0.05)
    for _ in range(150):
        optimizer.zero_grad()
        task.loss(task.student, batch, share=0.0).total.backward()
        optimizer.step()
    x0 = task.latents.sampled(batch, Draws(batch.seeds))
    with torch.no_grad():
        expected, variance = task.student.eval()(task._azimuth(batch), x0[:, :1])
    torch.testing.assert_close(variance.mean(), (expected - x0).square().mean(), rtol=0.05, atol=0)


def test_it_is_measured_and_shown(task, batch):
    measured = task.measure(task.student, batch)
    assert measured == task.measure(task.student, batch)
    assert measured["psnr_db"] > 0
    assert task.preview(task.student, batch)["turntable"].shape == (4, 64, 64, 3)


def test_a_sentence_lets_expect_sums_of_pictures(batch):
    """Fresh, nothing; then what the learned pictures say, another thing for another sentence; its encoder learns along."""
    task = make_task(TINY_TEXT)
    task.student.eval()
    x0 = task.latents.sampled(batch, Draws(batch.seeds))
    torch.testing.assert_close(task.loss(task.student, batch, share=0.0).parts["loss"], x0.square().mean())
    assert set(task.components()) == {"unet", "text_encoder"}
    assert set(task.index().components) == {"unet", "text_encoder", "vae"}
    torch.nn.init.normal_(task.student.expectation.shares.weight)
    swapped = replace(batch, captions=batch.captions[::-1])
    made = [task._made(task.student, given) for given in (batch, swapped)]
    torch.testing.assert_close(made[0].flip(0), made[1])
    assert not torch.allclose(made[0], made[1], atol=1e-3)
    task.loss(task.student, batch, share=0.0).total.backward()
    assert all(p.grad is not None for p in task.text_encoder.parameters())


def test_a_dropped_sentence_is_the_negative_one(batch):
    task = make_task(replace(TINY_TEXT, task=replace(TINY_TEXT.task, drop=1.0)))
    torch.manual_seed(0)
    torch.nn.init.normal_(task.student.eval().expectation.shares.weight)
    said = replace(batch, captions=(TINY_TEXT.task.settings.negative_prompt,) * 2)
    dropped = task.loss(task.student, batch, share=0.0).parts["loss"]
    torch.testing.assert_close(dropped, torch.tensor(task.measure(task.student, said)["loss"]))
    assert float(dropped) != pytest.approx(task.measure(task.student, batch)["loss"], rel=1e-3)


def test_the_first_stage_of_hi3d_expects_what_was_learned():
    """The places that its U-Net tells the expectation are the azimuths of the cameras that it learned from."""
    ring = RING16.orbit(10.0, 32, 32)
    batch = batch_of(orbit=ring)
    task = make_task(TINY_HI3D)
    assert isinstance(task.unet, OrbitVideoUNet)
    assert set(task.index().components) == {"unet", "vae"}
    assert task.index().system == "hi3d"
    turns = (task._azimuth(batch) - _places(torch.empty(2, 16, 1, 1, 1))) / (2 * torch.pi)
    torch.testing.assert_close(turns, turns.round(), rtol=0, atol=1e-5)
    task.student.eval()
    losses = task.loss(task.student, batch, share=0.0)
    x0 = task.latents.sampled(batch, Draws(batch.seeds))
    given = x0[:, :1] / task.latents.codec.scaling  # Hi3D's condition is not scaled
    torch.testing.assert_close(losses.parts["loss"], ((0.75 * given - x0) ** 2).mean())


def test_what_works_on_from_there_neither_teaches_nor_disturbs_it(batch):
    image = recipe_named("videomv-image", "tiny")
    networks = replace(image.task.networks, unet=TINY.task.networks.unet)
    task = make_task(replace(image, task=replace(image.task, networks=networks)))
    unet = task.student.unet
    assert not any(p.requires_grad for p in unet.expectation.parameters())
    task.student.train()
    assert unet.training
    assert not unet.expectation.training  # nothing is dropped
    task.loss(task.student, batch, share=0.0).total.backward()
    assert all(p.grad is None for p in unet.expectation.parameters())


def test_what_has_no_expectation_is_refused(task, batch):
    bare = replace(TINY.task.networks, unet={**TINY.task.networks.unet, "prior": None})
    with pytest.raises(TrainingError, match="the U-Net has no prior to learn"):
        make_task(replace(TINY, task=replace(TINY.task, networks=bare)))
    with pytest.raises(TrainingError, match="is a 2D picture, an expectation is of orbits"):
        task.loss(task.student, picture_batch(), share=0.0)
    assert isinstance(task.unet, ImageOrbitUNet)
