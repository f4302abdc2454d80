"""VideoMV's tasks: targets by hand, conditions against the pipeline's, and what learns of it all."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.checkpoints.layout import write_index
from engine.errors import TrainingError
from engine.multiview.networks.latents import visibility
from engine.multiview.orbits import OrbitRequest
from engine.multiview.pictures import Picture
from engine.multiview.settings import NEGATIVE_PROMPT, Sampling
from engine.multiview.videomv import VideoMVPipeline
from engine.training.recipes import recipe_named
from engine.training.tasks.build import make_task
from engine.training.tasks.diffusion import OrbitDiffusion
from engine.training.types import Draws, Task
from tests.engine.training.procedural import batch_of, orbit_of, picture_batch
from tests.engine.training.tasks.stand_ins import Recorder

TEXT, IMAGE = recipe_named("videomv-text", "tiny"), recipe_named("videomv-image", "tiny")


def alpha_bar_linear(t):
    """DDPM's product over Stable Diffusion's betas, one by one."""
    first, last, product = math.sqrt(0.00085), math.sqrt(0.012), 1.0
    for step in range(t + 1):
        product *= 1 - (first + (last - first) * step / 999) ** 2
    return product


def alpha_bar_cosine(t):
    """The cosine schedule's product, its root shifted and scaled so that the last is 0 (Lin et al. 2024)."""

    def f(share):
        return math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2

    roots, product = [], 1.0
    for step in range(1000):
        product *= 1 - min(1 - f((step + 1) / 1000) / f(step / 1000), 0.999)
        roots.append(math.sqrt(product))
    return ((roots[t] - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2


def drawn_by_hand(task, clips, offset=0.0):
    """Times, clean latents and noise of clips, in the order in which the task draws them."""
    draws = Draws(clips.seeds)
    times = [int(1000 * share) for share in draws.uniform().tolist()]
    mean, log_variance = task.latents.codec.posterior(clips.pixels)
    x0 = (mean + torch.exp(log_variance / 2) * draws.normal(*mean.shape[1:])) * task.settings.latent_scaling
    noise = draws.normal(*mean.shape[1:])
    if offset:
        noise = noise + offset * draws.normal(4, 4, 1, 1)
    return times, x0, noise


def test_eps_is_the_target_from_text(text_task, clips):
    student = Recorder()
    loss = text_task.loss(student, clips, share=0.0).total
    times, x0, noise = drawn_by_hand(text_task, clips)
    noisy, asked, _ = student.calls[0]
    assert asked.tolist() == times
    for index, t in enumerate(times):
        expected = math.sqrt(alpha_bar_linear(t)) * x0[index] + math.sqrt(1 - alpha_bar_linear(t)) * noise[index]
        torch.testing.assert_close(noisy[index], expected, rtol=1e-5, atol=1e-5)  # float32 against float64
    torch.testing.assert_close(loss, (noise**2).mean())  # it predicted zeros


def test_v_is_the_target_from_pictures_and_channels_shift_together(image_task, clips):
    student = Recorder()
    loss = image_task.loss(student, clips, share=0.0).total
    times, x0, noise = drawn_by_hand(image_task, clips, offset=0.1)
    signal = torch.tensor([math.sqrt(alpha_bar_cosine(t)) for t in times]).view(-1, 1, 1, 1, 1)
    spread = torch.tensor([math.sqrt(1 - alpha_bar_cosine(t)) for t in times]).view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(student.calls[0][0], signal * x0 + spread * noise, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss, ((signal * noise - spread * x0) ** 2).mean(), rtol=1e-5, atol=0)


def test_errors_count_as_they_show(text_task, clips):
    """Channels weigh as much as noise in them shows in the pictures."""
    task = OrbitDiffusion(
        {**text_task.frozen, "unet": text_task.student.unet}, replace(text_task.plan, visible=True), text_task.latents
    )
    weights = visibility(text_task.latents.codec)
    assert float(weights.mean()) == pytest.approx(1)
    assert float(weights.max() / weights.min()) > 1.2  # random decoders favour some
    loss = task.loss(Recorder(), clips, share=0.0).total
    _, _, noise = drawn_by_hand(text_task, clips)
    torch.testing.assert_close(loss, (noise**2 * weights[:, None, None]).mean())  # it predicted zeros


def test_clips_count_alike(text_task, clips):
    """By how far the other views are from the first."""
    task = OrbitDiffusion(
        {**text_task.frozen, "unet": text_task.student.unet}, replace(text_task.plan, alike=True), text_task.latents
    )
    loss = task.loss(Recorder(), clips, share=0.0).total
    _, x0, noise = drawn_by_hand(text_task, clips)
    ahead = torch.stack([((clip[1:] - clip[0]) ** 2).mean() for clip in x0])
    assert float(ahead.max() / ahead.min()) > 1.02
    torch.testing.assert_close(loss, ((noise**2).mean((1, 2, 3, 4)) / (0.05 + ahead)).mean())  # it predicted zeros
    single = picture_batch()
    assert torch.isfinite(task.loss(Recorder(), single, share=0.0).total)  # no other views: as they are


@pytest.mark.parametrize("which", ["text_task", "image_task", "joint_task"])
def test_a_batch_is_the_mean_of_its_clips(which, clips, request):
    task = request.getfixturevalue(which)
    together = task.loss(task.student, clips, share=0.0).total
    torch.manual_seed(12345)  # nothing is drawn from torch's own generator: tiny networks have no dropout
    apart = [task.loss(task.student, clips.alone(index), share=0.0).total for index in range(2)]
    torch.testing.assert_close(together, sum(apart) / 2, rtol=1e-5, atol=0)  # float32 sums in another order


@pytest.mark.parametrize(
    ("recipe", "trained"),
    [
        (TEXT, ("unet",)),
        (TEXT, ("unet", "text_encoder")),
        (IMAGE, ("unet",)),
        (IMAGE, ("unet", "image_encoder")),
    ],
)
def test_gradients_reach_what_learns_and_nothing_else(recipe, trained, clips):
    task = make_task(replace(recipe, task=replace(recipe.task, trained=trained, drop=0.0)))
    task.student.unet.camera_embedding.linear_2.weight.data.normal_()  # at zero it hides the layer before it
    task.loss(task.student, clips, share=0.0).total.backward()
    without = [name for name, parameter in task.student.named_parameters() if parameter.grad is None]
    assert not without  # DDP would wait for them
    for part in trained:
        assert any(p.grad.abs().sum() > 0 for p in task.components()[part].parameters())
    assert set(task.frozen) | set(trained) == set(task.index().components)
    for part in task.frozen.values():
        assert not part.training
        assert all(not p.requires_grad and p.grad is None for p in part.parameters())


def test_dropped_text_is_the_negative_prompt(text_task, clips):
    said = text_task.frozen["text_encoder"].encode([*clips.captions, NEGATIVE_PROMPT, ""])
    for drop, expected in ((0.0, said[:2]), (1.0, said[[2, 2]])):
        task = text_task.told
        conditions = task.whole(clips, text_task.latents.moments(clips), Draws(clips.seeds))
        conditions = task.dropped(conditions, clips, drop, Draws(clips.seeds))
        torch.testing.assert_close(conditions["text"], expected, rtol=1e-4, atol=1e-5)  # one by one, or together
    assert (said[2] - said[3]).abs().max() > 0.1  # and the empty text would be told from it


def test_text_is_dropped_as_often_as_it_should(text_task):
    many = 300
    draws = Draws(range(many))
    told = text_task.told
    conditions = {"text": torch.zeros(many, 77, 32)}
    lost = told.dropped(conditions, picture_batch(many), 0.1, draws)["text"].flatten(1).any(1)
    assert 0.05 < lost.float().mean() < 0.16  # 3 standard deviations


def test_a_dropped_picture_is_what_guidance_subtracts(image_task, clips):
    told = image_task.told
    moments = image_task.latents.moments(clips)
    whole = told.whole(clips, moments, Draws(clips.seeds))
    lost = told.dropped(whole, clips, 1.0, Draws(clips.seeds))
    for name, value in told.nothing(whole, clips).items():
        assert torch.equal(lost[name], value)
    assert not lost["image_embedding"].any()
    assert torch.equal(lost["image_latents"], whole["image_latents"])


@pytest.mark.parametrize(("recipe", "encoder"), [(TEXT, "text_encoder"), (IMAGE, "image_encoder")])
@pytest.mark.parametrize("drop", [0.0, 1.0])
def test_an_encoder_that_learns_says_what_it_says_frozen(recipe, encoder, drop, clips):
    losses = []
    for trained in (("unet",), ("unet", encoder)):
        task = make_task(replace(recipe, task=replace(recipe.task, trained=trained, drop=drop)))
        losses.append(task.loss(task.student, clips, share=0.0).total)
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=0)  # runs of one or of two texts at once


@pytest.mark.parametrize("kind", ["text", "picture"])
def test_conditions_are_those_of_the_pipeline(kind, text_task, image_task):
    """A clip that starts at azimuth 90, and a pipeline that is given its first view, tell a network the same."""
    task = text_task if kind == "text" else image_task
    every = orbit_of(every=1, start=0 if kind == "text" else 6)
    batch = quantised(batch_of((0,), every))
    with torch.no_grad():
        task.frozen["vae"].quant_conv.bias[4:] -= 30  # a posterior without width: pipeline and clip draw other noise
    try:
        moments = task.latents.moments(batch)
        whole = task.told.whole(batch, moments, Draws(batch.seeds))
        nothing = task.told.nothing(whole, batch)
        conditional, unconditional = pipeline_conditions(task, batch)
    finally:
        with torch.no_grad():
            task.frozen["vae"].quant_conv.bias[4:] += 30
    for told, expected in ((whole, conditional), (nothing, unconditional)):
        assert told.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(told[name], value, rtol=1e-4, atol=1e-5)  # one, two or three texts at once


def quantised(batch):
    return replace(batch, pixels=((batch.pixels + 1) * 127.5).round() / 127.5 - 1)


def pipeline_conditions(task, batch):
    student = Recorder()
    student.weight = torch.nn.Parameter(torch.zeros(1))
    pipeline = VideoMVPipeline(task.settings, {**task.frozen, "unet": student})
    levels = ((batch.pixels[0, 0] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Picture(np.dstack([levels, np.full(levels.shape[:2], 255, np.uint8)]))
    caption = batch.captions[0].removesuffix(", 3d asset")
    pipeline(
        **({"prompt": caption} if task.settings.kind == "text" else {"picture": picture}),
        orbit=OrbitRequest(elevation_deg=15.0, distance_m=2.0),
        sampling=Sampling(steps=1, framing="kept", batched_guidance=False),
    )
    return student.calls[0][2], student.calls[1][2]


def test_pictures_are_orbits_of_one_view_without_cameras(joint_task):
    student = Recorder()
    joint_task.loss(student, picture_batch(), share=0.0)
    latents, _, conditions = student.calls[0]
    assert latents.shape == (2, 1, 4, 8, 8)
    assert conditions.keys() == {"text"}
    joint_task.student.zero_grad()
    joint_task.loss(joint_task.student, picture_batch(), share=0.0).total.backward()
    idle = {name for name, p in joint_task.student.named_parameters() if p.grad is None}
    assert idle == {name for name, _ in joint_task.student.named_parameters() if "camera_embedding" in name}
    assert joint_task.unused_parameters
    joint_task.student.zero_grad()


def test_measuring_changes_nothing_and_repeats(image_task, clips):
    image_task.student.train()
    first = image_task.measure(image_task.student, clips)
    assert first == image_task.measure(image_task.student, clips)
    assert first["loss"] == pytest.approx(np.mean([first[f"loss_at_{t}"] for t in (125, 375, 625, 875, 999)]))
    assert image_task.student.training
    assert all(p.grad is None for p in image_task.student.parameters())


@pytest.mark.parametrize("which", ["text_task", "image_task"])
def test_a_preview_shows_truth_beside_what_is_made(which, clips, request):
    task = request.getfixturevalue(which)
    film = task.preview(task.student, clips)["turntable"]
    assert film.shape == (4, 64, 64, 3)
    truth = ((clips.pixels[1, 2] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(film[2, 32:, :32], truth)
    assert isinstance(task, Task)


def test_the_first_weights_stable_diffusion_knew_are_told_from_later_ones(image_task):
    slowed = image_task.pretrained_parameters
    names = {name for name, _ in image_task.student.named_parameters()}
    assert slowed < names
    assert "unet.conv_in.weight" in slowed
    for later in ("temp", "camera", "fps", "image_latents", "context_embedding", "transformer_in"):
        assert not any(later in name for name in slowed)
        assert any(later in name for name in names)


def test_weights_go_out_and_come_back(tmp_path, image_task, clips):
    everything = {**image_task.frozen, **image_task.components()}
    for name in image_task.index().components:
        everything[name].save_pretrained(tmp_path / name)
    write_index(tmp_path, image_task.index())
    assert VideoMVPipeline.from_pretrained(tmp_path).settings == image_task.settings
    again = make_task(replace(IMAGE, task=replace(IMAGE.task, pretrained=("unet", "vae"))), weights=tmp_path, seed=7)
    losses = [task.loss(task.student, clips, share=0.0).total for task in (image_task, again)]
    assert torch.equal(*losses)
    with pytest.raises(TrainingError, match=r"its unet is a ImageOrbitUNet, videomv-text wants a TextOrbitUNet"):
        make_task(TEXT, weights=tmp_path)
    only = make_task(TEXT, parts={"vae": tmp_path})
    assert torch.equal(only.frozen["vae"].quant_conv.weight, image_task.frozen["vae"].quant_conv.weight)


def test_what_must_be_pretrained_is_asked_for():
    recipe = replace(TEXT, task=replace(TEXT.task, pretrained=("unet",)))
    with pytest.raises(
        TrainingError, match=r"videomv-text \(tiny\) starts from a pretrained unet, but none were given"
    ):
        make_task(recipe)
    make_task(recipe, fresh=True)
    with pytest.raises(TrainingError, match="videomv-text has no use for perceptual: leave it out"):
        make_task(TEXT, perceptual=Path("vgg.pth"))


def test_the_autoencoders_own_scaling_is_taken(tmp_path, text_task):
    text_task.frozen["vae"].save_pretrained(tmp_path / "vae")
    index = text_task.index()
    write_index(
        tmp_path, replace(index, system="vae", components={"vae": "AutoencoderKL"}, settings={"latent_scaling": 0.7})
    )
    task = make_task(TEXT, weights=tmp_path)
    assert task.settings.latent_scaling == 0.7
    assert task.latents.codec.scaling == 0.7
    assert task.index().settings["latent_scaling"] == 0.7


@pytest.mark.parametrize("late", [0.0, 0.4, 1.0])
def test_times_are_as_late_as_the_recipe_says(late):
    """Uniform, but for the share that comes from the last three tenths."""
    recipe = recipe_named("videomv-image", "tiny")
    task = make_task(replace(recipe, task=replace(recipe.task, late=late)))
    times = task._times(Draws(range(4000)))
    expected = 0.3 + 0.7 * late
    assert float((times >= 700).float().mean()) == pytest.approx(expected, abs=0.03)  # four deviations of 4,000 draws
    assert float((times >= 963).float().mean()) == pytest.approx(0.037 + (0.5 - 0.037) * late, abs=0.03)
    assert int(times.min()) >= 0
    assert int(times.max()) <= 999
