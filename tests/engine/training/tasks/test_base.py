"""Hi3D's first stage in training: told what the pipeline tells it, learning what it samples with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.checkpoints.layout import write_index
from engine.errors import TrainingError
from engine.multiview.generation import as_tensor
from engine.multiview.hi3d import Hi3DPipeline
from engine.multiview.orbits import OrbitRequest
from engine.multiview.pictures import hi3d_framing
from engine.multiview.schedules import normal_like
from engine.multiview.settings import Sampling
from engine.multiview.sizes import TINY_VIDEO_UNET, tiny_vae
from engine.training.plans import Recipe
from engine.training.recipes.hi3d import RECIPES
from engine.training.tasks.base import BaseTask
from engine.training.tasks.build import make_task
from engine.training.tasks.hi3d_settings import BaseSettings, Diffusion
from engine.training.tasks.orbit_video import Kept, drawn_kept
from engine.training.types import Draws, Task, seed_from
from tests.engine.training.procedural import picture_batch
from tests.engine.training.tasks.ball_batches import ball_batch, gradients, overfitted, picture_of_ball

(RECIPE,) = [recipe for recipe in RECIPES if (recipe.name, recipe.size) == ("hi3d-base", "tiny")]
VIEWS = 4


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def task() -> BaseTask:
    return make_task(RECIPE)


def changed(**changes: Any) -> Recipe:
    assert isinstance(RECIPE.task, BaseSettings)
    return replace(RECIPE, task=replace(RECIPE.task, **changes))


MINI_LIKE = changed(
    unet={**TINY_VIDEO_UNET, "in_channels": 16, "out_channels": 8, "projection_class_embeddings_input_dim": 512},
    vae={**tiny_vae(4), "latent_channels": 8},
    aesthetic=None,
    train_image_encoder=True,
)
"""Another autoencoder, no aesthetic score, the image encoder trained along: as the mini family."""


class Listening(nn.Module):
    """A U-Net that keeps what it is told."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.config = network, network.config
        self.told: list[dict[str, Tensor]] = []

    def forward(self, latents: Tensor, timestep: Tensor, **conditions: Tensor) -> Tensor:
        self.told.append({"latents": latents, "timestep": timestep, **conditions})
        return self.network(latents, timestep, **conditions)


class Given(Draws):
    """Draws that were drawn elsewhere."""

    def __init__(self, noise: Tensor) -> None:
        self.noise = noise

    def normal(self, *shape: int) -> Tensor:
        assert self.noise.shape[1:] == shape
        return self.noise


def test_it_is_a_task(task: BaseTask) -> None:
    assert isinstance(task, Task)


@pytest.mark.parametrize("recipe", [changed(scored_view="first"), MINI_LIKE])
def test_it_tells_what_the_pipeline_tells(recipe: Recipe) -> None:
    task = make_task(recipe)
    heard = Listening(task.student.unet)
    parts: dict[str, Any] = {"image_encoder": task.student.image_encoder, **task.frozen, "unet": heard}
    Hi3DPipeline(task.system, parts)(
        picture=picture_of_ball(), orbit=OrbitRequest(elevation_deg=20.0), sampling=Sampling(steps=1), seed=5
    )
    image = as_tensor(hi3d_framing(picture_of_ball(), 64).rgb)[None]
    noise = normal_like(image, torch.Generator().manual_seed(5 + 1))  # the pipeline's draw of the condition
    batch = ball_batch(64, 16, (0,))
    batch = replace(batch, pixels=torch.cat([image[:, None], batch.pixels[:, 1:]], 1))
    with torch.no_grad():
        found = task.conditions(task.given(batch), batch, Given(noise), torch.tensor([0.02]), None)
        if "pixels" in found:
            seen = Listening(task.student.unet)
            task.student.unet, kept = seen, task.student.unet
            task.student(heard.told[0]["latents"][1:], heard.told[0]["timestep"][1:], **found)
            task.student.unet, found = kept, seen.told[0]
    for name in ("tokens", "concatenated", "vector"):  # [1:]: the branch that is told everything
        torch.testing.assert_close(found[name], heard.told[0][name][1:], rtol=1e-5, atol=1e-5)


def test_the_score_is_the_middle_views_as_released(task: BaseTask) -> None:
    batch = ball_batch(64, VIEWS)
    draws = Draws(batch.seeds)
    with torch.no_grad():
        told = task.conditions(task.given(batch), batch, draws, torch.tensor([0.1, 0.1]), None)
        expected = task.frozen["aesthetic"](batch.pixels[:, VIEWS // 2])
    torch.testing.assert_close(told["vector"][:, 0], expected)


@pytest.mark.parametrize("by", ["clip", "view"])
def test_conditions_are_dropped_at_their_rates_and_independently(by: Any) -> None:
    draws = Draws([seed_from(index) for index in range(6000)])
    kept = drawn_kept(Diffusion(drop_tokens=0.1, drop_latents=0.3, drop_by=by), draws, 3)
    tokens, latents = 1 - kept.tokens, 1 - kept.latents
    # Four standard errors of a share among 6000.
    assert float(tokens.mean()) == pytest.approx(0.1, abs=0.016)
    assert float(latents[:, 1].mean()) == pytest.approx(0.3, abs=0.024)
    assert float((tokens * latents[:, 0]).mean()) == pytest.approx(0.1 * 0.3, abs=0.009)
    together = float((latents[:, 0] * latents[:, 2]).mean())
    assert together == pytest.approx(0.3 if by == "clip" else 0.3**2, abs=0.024)


def test_what_is_dropped_is_zero_and_the_vector_stays(task: BaseTask) -> None:
    batch = ball_batch(64, VIEWS)
    level = torch.tensor([0.1, 0.1])

    def told(kept: Kept | None) -> dict[str, Tensor]:
        with torch.no_grad():
            return task.conditions(task.given(batch), batch, Draws(batch.seeds), level, kept)

    all_of_it = told(None)
    views = torch.ones(2, VIEWS)
    views[1, 2] = 0
    some = told(Kept(torch.tensor([0.0, 1.0]), views))
    assert not some["tokens"][0].any()
    assert not some["concatenated"][1, 2].any()
    assert torch.equal(some["tokens"][1], all_of_it["tokens"][1])
    assert torch.equal(some["concatenated"][0], all_of_it["concatenated"][0])
    assert torch.equal(some["vector"], all_of_it["vector"])
    assert all_of_it["tokens"].any(-1).all()


def test_a_batch_is_the_mean_of_its_clips(task: BaseTask) -> None:
    batch = ball_batch(64, VIEWS)
    with torch.no_grad():
        both = task.loss(task.student, batch, share=0.0).total
        each = [task.loss(task.student, batch.alone(index), share=0.0).total for index in range(2)]
    assert float(abs(each[0] - each[1])) > 1e-3
    torch.testing.assert_close(both, (each[0] + each[1]) / 2, rtol=1e-5, atol=1e-6)  # other blocks of the products


@pytest.mark.parametrize("recipe", [RECIPE, MINI_LIKE])
def test_gradients_reach_what_is_trained(recipe: Recipe) -> None:
    assert isinstance(recipe.task, BaseSettings)
    keeping = replace(recipe, task=replace(recipe.task, diffusion=Diffusion(drop_tokens=0.0)))
    came = gradients(make_task(keeping), ball_batch(64, VIEWS))
    silent = {name for name, there in came.items() if not there}
    # One token takes all the attention whatever the question is: queries, keys and what stands before them learn nothing.
    asked = {name for name in silent if ".attn2.to_q." in name or ".attn2.to_k." in name}
    asked |= {name for name in silent if "transformer_blocks" in name and ".norm2." in name}
    # A softmax forgets what is added to all keys alike.
    asked |= {name for name in silent if name.endswith("k_proj.bias")}
    assert silent - asked == set()
    assert any(name.startswith("image_encoder.") for name in came) == keeping.task.train_image_encoder


def test_dropped_tokens_leave_the_encoder_a_gradient_of_zero() -> None:
    """None of its parameters may lack one: DDP would wait for it."""
    assert isinstance(MINI_LIKE.task, BaseSettings)
    task = make_task(replace(MINI_LIKE, task=replace(MINI_LIKE.task, diffusion=Diffusion(drop_tokens=1.0))))
    task.loss(task.student, ball_batch(64, VIEWS), share=0.0).total.backward()
    assert task.student.image_encoder is not None
    grads = [parameter.grad for parameter in task.student.image_encoder.parameters()]
    assert all(grad is not None and not grad.any() for grad in grads)


def test_measures_and_previews(task: BaseTask) -> None:
    batch = ball_batch(64, VIEWS)
    task.student.train()
    one, again = task.measure(task.student, batch), task.measure(task.student, batch)
    assert one == again
    levels = [value for name, value in one.items() if name != "loss"]
    assert len(levels) == 4
    assert one["loss"] == pytest.approx(sum(levels) / 4)
    shown = task.preview(task.student, batch)["turntable"]
    assert shown.shape == (VIEWS, 2 * 64, 2 * 64, 3)
    truth = ((batch.pixels[1, 2].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8)
    assert (shown[2, 64:, :64] == truth.numpy()).all()
    assert task.student.training


@pytest.mark.parametrize("recipe", [RECIPE, MINI_LIKE])
def test_what_was_trained_is_a_pipeline(recipe: Recipe, tmp_path: Path) -> None:
    task = make_task(recipe, seed=3)
    index = task.index()
    for name, part in {**task.frozen, **task.components()}.items():
        part.save_pretrained(tmp_path / name)
    write_index(tmp_path, index)
    assert set(index.components) == {*task.frozen, *task.components()}
    pipeline = Hi3DPipeline.from_pretrained(tmp_path)
    assert pipeline.settings == task.system
    made = pipeline(picture=picture_of_ball(), sampling=Sampling(steps=1))
    assert made.images.rgba.shape == (16, 64, 64, 4)
    again = make_task(recipe, weights=tmp_path)
    for one, other in zip(task.student.parameters(), again.student.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_it_cannot_learn_from_is_named(task: BaseTask, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="picture-0: is a 2D picture, Hi3D learns from orbits"):
        task.loss(task.student, picture_batch(), share=0.0)
    with pytest.raises(TrainingError, match=r"hi3d-base \(tiny\) starts from a pretrained vae, but none were given"):
        make_task(changed(pretrained=("vae",)))
    with pytest.raises(TrainingError, match="in_channels must be 16 for this VAE \\(8 channels\\)"):
        make_task(changed(vae={**tiny_vae(4), "latent_channels": 8}))
    with pytest.raises(TrainingError, match="is told an aesthetic score, but the recipe has no scorer"):
        make_task(changed(aesthetic=None))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [RECIPE, MINI_LIKE])
def test_it_overfits(recipe: Recipe) -> None:
    task = make_task(recipe)
    batch = replace(ball_batch(64, VIEWS), pixels_keys=("a", "b"), starts=(0, 0))  # encoded once
    before, after = overfitted(task, batch, recipe.optimisation, 60)
    assert after < before / 10
