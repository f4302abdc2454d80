"""Hi3D's second stage in training: its channels, what it is given, what it starts from, and what it does without."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import engine.multiview.hi3d as hi3d_module
from engine.checkpoints.layout import write_index
from engine.errors import TrainingError
from engine.multiview.hi3d import Hi3DPipeline
from engine.multiview.networks.orbit_video import OrbitVideoUNet
from engine.multiview.orbits import OrbitRequest
from engine.multiview.random_weights import random_hi3d
from engine.multiview.schedules import normal_like
from engine.multiview.settings import Sampling
from engine.multiview.sizes import TINY_VIDEO_UNET
from engine.training.plans import Recipe
from engine.training.recipes.hi3d import RECIPES, TINY_SYSTEM
from engine.training.tasks.build import make_task
from engine.training.tasks.first_stage import FirstStage
from engine.training.tasks.hi3d_networks import refiner_from_first_stage
from engine.training.tasks.hi3d_settings import Diffusion, RefinerSettings
from engine.training.tasks.orbit_video import Kept
from engine.training.tasks.refiner import RefinerTask
from engine.training.types import Batch, Draws, Task
from tests.engine.training.tasks.ball_batches import ball_batch, gradients, overfitted, picture_of_ball

(RECIPE,) = [recipe for recipe in RECIPES if (recipe.name, recipe.size) == ("hi3d-refiner", "tiny")]
VIEWS = 3
TOLD = Diffusion(drop_tokens=0.0, drop_latents=0.0)
LEVEL = torch.tensor([0.1, 0.2])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def task() -> RefinerTask:
    return make_task(RECIPE)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return ball_batch(128, VIEWS)


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a whole Hi3D with random weights."""
    folder = tmp_path_factory.mktemp("hi3d")
    random_hi3d(TINY_SYSTEM).save_pretrained(folder)
    return folder


def changed(**changes: Any) -> Recipe:
    assert isinstance(RECIPE.task, RefinerSettings)
    return replace(RECIPE, task=replace(RECIPE.task, **changes))


@torch.no_grad()
def told(task: RefinerTask, batch: Batch, kept: Kept | None = None) -> dict[str, Tensor]:
    return task.conditions(task.given(batch), batch, Draws(batch.seeds), LEVEL[: len(batch)], kept)


def test_it_is_a_task(task: RefinerTask) -> None:
    assert isinstance(task, Task)


def test_the_first_layer_sees_noisy_then_depth_then_latents(task: RefinerTask, batch: Batch) -> None:
    seen: list[Tensor] = []
    hook = task.student.unet.conv_in.register_forward_hook(lambda layer, given, made: seen.append(given[0]))
    latents = torch.randn(2, VIEWS, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        task.student(latents, torch.zeros(2), **told(task, batch))
    hook.remove()
    noise = Draws(batch.seeds).normal(VIEWS, 3, 128, 128)
    assert batch.degraded is not None
    noisy = batch.degraded + LEVEL[:, None, None, None, None] * noise
    with torch.no_grad():
        low = task.codec.encode(noisy, scaled=False)
        near = task.frozen["depth"].hi3d_channels(noisy.flatten(0, 1), (16, 16))  # type: ignore[operator]
    (entered,) = seen
    assert entered.shape == (2 * VIEWS, 17, 16, 16)
    torch.testing.assert_close(entered[:, :4], latents.flatten(0, 1))
    torch.testing.assert_close(entered[:, 4:13], near, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(entered[:, 13:], low.flatten(0, 1), rtol=1e-4, atol=1e-4)
    assert float(near.min()) == 0
    assert float(near.max()) == 1


@pytest.mark.parametrize("without", [(), ("depth",)])
def test_it_tells_what_the_pipeline_tells(without: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refiner's conditions of a whole generation, found again from the low-quality views that it made."""
    task = make_task(changed(without=without))
    assert ("depth" in task.frozen, task.system.refiner_depth) == (not without, not without)
    heard: list[dict[str, Tensor]] = []
    low: list[Tensor] = []
    enlarge, sample = hi3d_module.low_quality_views, hi3d_module.sample_stage
    monkeypatch.setattr(hi3d_module, "low_quality_views", lambda *given: low.append(enlarge(*given)) or low[-1])

    def listening(network: Any, conditions: dict[str, Tensor], *given: Any, **more: Any) -> Tensor:
        heard.append(conditions)
        return sample(network, conditions, *given, **more)

    monkeypatch.setattr(hi3d_module, "sample_stage", listening)
    first = {name: part for name, part in random_hi3d(TINY_SYSTEM).components.items() if name in ("unet", "aesthetic")}
    pipeline = Hi3DPipeline(task.system, {**first, **task.frozen, **task.components()})
    pipeline(picture=picture_of_ball(), orbit=OrbitRequest(elevation_deg=20.0), sampling=Sampling(steps=1), seed=7)
    noise = normal_like(low[0], torch.Generator().manual_seed(7 + 3))  # the pipeline's draw for the refiner

    class Given(Draws):
        def normal(self, *shape: int) -> Tensor:
            return noise

    batch = replace(ball_batch(128, 16, (0,)), degraded=low[0])
    with torch.no_grad():
        found = task.conditions(task.given(batch), batch, Given(batch.seeds), torch.tensor([0.02]), None)
    assert set(found) == set(heard[1])
    for name, value in found.items():
        torch.testing.assert_close(value, heard[1][name], rtol=1e-5, atol=1e-5)
    assert bool(found["concatenated"][:, :, :9].any()) == (not without)


def test_dropped_latents_take_the_depth_with_them(batch: Batch) -> None:
    kept = Kept(torch.ones(2), torch.tensor([[1.0] * VIEWS, [0.0] * VIEWS]))
    for drops in (True, False):
        task = make_task(changed(drop_depth=drops))
        found = told(task, batch, kept)["concatenated"]
        assert found[0, :, :9].any()
        assert found[0, :, 9:].any()
        assert not found[1, :, 9:].any()
        assert bool(found[1, :, :9].any()) != drops


def test_a_batch_is_the_mean_of_its_clips(task: RefinerTask, batch: Batch) -> None:
    with torch.no_grad():
        both = task.loss(task.student, batch, share=0.0).total
        each = [task.loss(task.student, batch.alone(index), share=0.0).total for index in range(2)]
    torch.testing.assert_close(both, (each[0] + each[1]) / 2, rtol=1e-5, atol=1e-6)  # other blocks of the products


def test_gradients_reach_the_refiner_alone(batch: Batch) -> None:
    came = gradients(make_task(changed(diffusion=TOLD)), batch)
    silent = [name for name, there in came.items() if not there]
    # One token takes all the attention whatever the question is.
    assert all(".attn2.to_" in name or ("transformer_blocks" in name and ".norm2." in name) for name in silent)
    assert all(name.startswith("unet.") for name in came)


def test_a_first_stage_gives_a_share_of_the_low_views(batch: Batch, first_stage: Path) -> None:
    parts = {"stage_one": first_stage}
    always = make_task(changed(stage_one_share=1.0), parts=parts)
    assert "refiner" not in always.frozen["stage_one"]  # type: ignore[operator]
    assert set(always.index().components) == {"refiner", "vae", "image_encoder", "depth"}
    with torch.no_grad():
        made = always.given(batch)
        never = make_task(changed(stage_one_share=0.0), parts=parts).given(batch)
        alone = always.given(batch.alone(1))
    assert batch.degraded is not None
    assert torch.equal(never, batch.degraded)
    assert torch.equal(made[:, 0], batch.pixels[:, 0])
    assert float((made[:, 1:] - batch.degraded[:, 1:]).abs().mean()) > 0.1
    torch.testing.assert_close(made[1:], alone, rtol=0, atol=1e-4)  # through 3 steps, other blocks of the products
    again = always.given(batch)
    assert torch.equal(made, again)
    always.loss(always.student, batch, share=0.0).total.backward()


def test_low_views_of_a_first_stage_last(batch: Batch, first_stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made once for all clips of the same pixels, with their noise, whatever else is drawn for a clip."""
    task = make_task(changed(stage_one_share=1.0, lasting=True), parts={"stage_one": first_stage})
    asked: list[int] = []
    make = FirstStage.__call__

    def counted(stage: FirstStage, picture: Tensor, *more: Tensor) -> Tensor:
        asked.append(len(picture))
        return make(stage, picture, *more)

    monkeypatch.setattr(FirstStage, "__call__", counted)

    def heard(batch: Batch) -> dict[str, Tensor]:
        draws = Draws(batch.seeds)
        draws.normal()  # of the noise level
        with torch.no_grad():
            return task.told(batch, draws, task.augmentation(batch, draws), None)

    keyed = replace(batch, pixels_keys=("a", "b"), starts=(0, 0), degraded=None)
    first = heard(keyed)
    assert asked == [1, 1]
    again = heard(replace(keyed, seeds=(1, 2)))
    assert asked == [1, 1]
    assert all(torch.equal(first[name], again[name]) for name in first)
    second = heard(keyed.alone(1))
    assert torch.equal(first["concatenated"][1:], second["concatenated"])
    assert not torch.equal(first["vector"][0, 256:], first["vector"][1, 256:])  # levels of their own
    turned = heard(replace(keyed, starts=(0, 1)))
    assert asked == [1, 1, 1]
    assert torch.equal(first["concatenated"][0], turned["concatenated"][0])
    assert not torch.equal(first["concatenated"][1], turned["concatenated"][1])
    unkeyed = heard(replace(keyed, pixels_keys=("", "")))
    assert asked == [1, 1, 1, 2]
    assert unkeyed["concatenated"].shape == first["concatenated"].shape
    task.loss(task.student, keyed, share=0.0).total.backward()


def test_lasting_views_are_a_first_stages(batch: Batch) -> None:
    without = make_task(changed(stage_one_share=1.0, lasting=True))
    with pytest.raises(TrainingError, match="pass --part stage_one=FOLDER"):
        without.loss(without.student, replace(batch, degraded=None), share=0.0)
    with pytest.raises(ValueError, match=r"a first stage's alone, got a share of 0\.5"):
        changed(lasting=True)


def test_a_refiner_of_a_first_stage_does_what_that_does() -> None:
    torch.manual_seed(0)
    first = OrbitVideoUNet(**TINY_VIDEO_UNET).eval()
    refiner = refiner_from_first_stage(first).eval()
    assert refiner.config.in_channels == 17
    with torch.no_grad():
        first.add_embedding.linear_1.weight[:, :256] = 0  # the score, which a refiner is not told
        draw = torch.Generator().manual_seed(1)
        latents, low = (torch.randn(1, VIEWS, 4, 8, 8, generator=draw) for _ in range(2))
        tokens, vector = torch.randn(1, 1, 32, generator=draw), torch.randn(1, 768, generator=draw)
        depth = torch.rand(1, VIEWS, 9, 8, 8, generator=draw)
        expected = first(latents, torch.zeros(1), tokens, low, vector)
        found = refiner(latents, torch.zeros(1), tokens, torch.cat([depth, low], 2), vector[:, 256:])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)  # sums of 17 channels in place of 8


def test_weights_without_a_refiner_start_it_from_their_first_stage(first_stage: Path, tmp_path: Path) -> None:
    whole = random_hi3d(TINY_SYSTEM)
    for name in ("unet", "vae", "image_encoder", "depth", "aesthetic"):
        whole.components[name].save_pretrained(tmp_path / name)
    index = make_task(RECIPE, weights=first_stage).index()
    kinds = {"unet": "OrbitVideoUNet", "aesthetic": "AestheticScorer"} | dict(index.components)
    write_index(tmp_path, replace(index, components={name: kind for name, kind in kinds.items() if name != "refiner"}))
    task = make_task(changed(pretrained=("refiner", "vae", "image_encoder", "depth")), weights=tmp_path)
    ours, theirs = task.student.unet.conv_in.weight, whole.unet.conv_in.weight
    assert torch.equal(ours[:, :4], theirs[:, :4])
    assert torch.equal(ours[:, 13:], theirs[:, 4:])
    assert not ours[:, 4:13].any()
    assert ours.requires_grad
    with pytest.raises(TrainingError, match=r"hi3d-refiner \(tiny\) starts from a pretrained refiner"):
        make_task(changed(pretrained=("refiner",)))


def test_previews_show_what_was_given(task: RefinerTask, batch: Batch) -> None:
    shown = task.preview(task.student, batch)
    assert {name: views.shape for name, views in shown.items()} == dict.fromkeys(
        ("turntable", "given"), (VIEWS, 256, 256, 3)
    )
    assert (shown["given"][0, :, :128] == shown["given"][0, :, 128:]).all()  # the first view is the clean one
    measured = task.measure(task.student, batch)
    assert measured["loss"] > 0


def test_clips_without_low_views_are_named(task: RefinerTask, batch: Batch) -> None:
    with pytest.raises(TrainingError, match="ball-0: comes without low-quality views"):
        task.loss(task.student, replace(batch, degraded=None), share=0.0)


@pytest.mark.slow
def test_it_overfits(task: RefinerTask, batch: Batch) -> None:
    keyed = replace(batch, pixels_keys=("a", "b"), starts=(0, 0))  # encoded once
    before, after = overfitted(make_task(RECIPE), keyed, RECIPE.optimisation, 50)
    assert after < before / 10
