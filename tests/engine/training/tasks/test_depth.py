"""MiDaS' error against what it must not notice and against hand computation; the depth network as a task."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.checkpoints.layout import write_index
from engine.errors import TrainingError
from engine.multiview.networks.depth import DepthEstimator
from engine.training.plans import Recipe
from engine.training.recipes.hi3d import RECIPES
from engine.training.tasks.build import make_task
from engine.training.tasks.depth import DepthTask, inverse_depth, silent_parameters
from engine.training.tasks.depth_loss import aligned, gradient_errors, invariant_errors, relative_depth_errors
from engine.training.types import Task
from tests.engine.training.procedural import picture_batch
from tests.engine.training.tasks.ball_batches import ball_batch, gradients, overfitted

(RECIPE,) = [recipe for recipe in RECIPES if (recipe.name, recipe.size) == ("depth", "tiny")]
GENERATOR = torch.Generator().manual_seed(0)
TRUTH = 0.4 + torch.rand(2, 16, 16, generator=GENERATOR)
OTHER = torch.rand(2, 16, 16, generator=GENERATOR)
VALID = torch.rand(2, 16, 16, generator=GENERATOR) > 0.2


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def task() -> DepthTask:
    return make_task(RECIPE)


@pytest.mark.parametrize("trimmed", [0.0, 0.2])
def test_the_error_does_not_know_scale_and_shift(trimmed: float) -> None:
    expected = relative_depth_errors(OTHER, TRUTH, VALID, trimmed=trimmed)
    assert (expected > 0.1).all()
    scale, shift = torch.tensor([7.0, 0.02])[:, None, None], torch.tensor([-3.0, 11.0])[:, None, None]
    # The second keeps a fiftieth of its digits beside a shift of 11.
    moved = relative_depth_errors(scale * OTHER + shift, TRUTH, VALID, trimmed=trimmed)
    torch.testing.assert_close(moved, expected, rtol=2e-3, atol=0)
    same = relative_depth_errors(scale * TRUTH + shift, TRUTH, VALID, trimmed=trimmed)
    torch.testing.assert_close(same, torch.zeros(2), rtol=0, atol=2e-3)
    assert (relative_depth_errors(-TRUTH, TRUTH, VALID, trimmed=trimmed) > 0.5).all()  # far is not near


def test_pixels_that_do_not_count_do_not_count() -> None:
    spoilt = torch.where(VALID, OTHER, torch.full_like(OTHER, 1e6))
    assert torch.equal(
        relative_depth_errors(spoilt, TRUTH, VALID, trimmed=0.2),
        relative_depth_errors(OTHER, TRUTH, VALID, trimmed=0.2),
    )
    nothing = relative_depth_errors(OTHER.requires_grad_(), TRUTH, torch.zeros_like(VALID))
    assert torch.equal(nothing, torch.zeros(2))
    nothing.sum().backward()
    assert not OTHER.grad.any()
    OTHER.requires_grad_(False)


def test_the_terms_by_hand() -> None:
    depth = torch.tensor([[[1.0, 2.0], [3.0, 8.0]]])
    everywhere = torch.ones(1, 2, 2, dtype=torch.bool)
    # The lower median is 2, the mean distance from it (1 + 0 + 1 + 6) / 4 = 2.
    residual = torch.tensor([[[-0.5, 0.0], [0.5, 3.0]]])
    torch.testing.assert_close(aligned(depth, everywhere), residual)
    assert float(invariant_errors(residual, everywhere)) == pytest.approx((0.5 + 0 + 0.5 + 3) / (2 * 4))
    assert float(invariant_errors(residual, everywhere, 0.25)) == pytest.approx((0.5 + 0 + 0.5) / (2 * 4))
    down, across = (1.0 + 3.0) / 4, (0.5 + 2.5) / 4
    assert float(gradient_errors(residual, everywhere, 1)) == pytest.approx(down + across)
    assert float(gradient_errors(residual, everywhere, 3)) == pytest.approx(down + across)  # one pixel has no neighbour
    half = torch.tensor([[[True, True], [True, False]]])
    assert float(gradient_errors(residual, half, 1)) == pytest.approx((1.0 + 0.5) / 3)


def test_flat_predictions_are_numbers() -> None:
    flat = torch.ones_like(TRUTH).requires_grad_()
    error = relative_depth_errors(flat, TRUTH, VALID)
    error.sum().backward()
    assert error.isfinite().all()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_the_truth_is_inverse_depth_before_a_wall() -> None:
    batch = ball_batch(64, 2)
    truth, valid = inverse_depth(batch)
    assert batch.depth_m is not None
    middle = truth[:, 0, 32, 32]
    # Cameras stand at 2 m; half a pixel beside the axis the ball is hardly farther.
    torch.testing.assert_close(middle, 1 / (2 - torch.tensor([0.5, 0.35])), rtol=2e-3, atol=0)
    torch.testing.assert_close(truth[:, 0, 0, 0], torch.full((2,), 1 / (2 + np.sqrt(3) / 2), dtype=torch.float32))
    assert (truth[batch.depth_m > 0].min() > truth[:, 0, 0, 0]).all()
    assert 0.9 < float(valid.float().mean()) <= 1
    shifted = replace(batch, alpha=batch.alpha.roll(3, 4))
    assert float(inverse_depth(shifted)[1].float().mean()) < float(valid.float().mean())


def test_it_is_a_task_whose_batch_is_the_mean_of_its_clips(task: DepthTask) -> None:
    assert isinstance(task, Task)
    with torch.no_grad():
        both = task.loss(task.student, ball_batch(64, 2), share=0.0).total
        each = [task.loss(task.student, ball_batch(64, 2, (i,), (11 + i,)), share=0.0).total for i in range(2)]
    assert float(abs(each[0] - each[1])) > 1e-4
    torch.testing.assert_close(both, (each[0] + each[1]) / 2, rtol=1e-4, atol=1e-5)  # other blocks of the products


def test_views_that_show_nothing_do_not_count(task: DepthTask) -> None:
    batch = ball_batch(64, 2, (0,))
    assert batch.depth_m is not None
    depth, alpha = batch.depth_m.clone(), batch.alpha.clone()
    depth[:, 1] = 0
    alpha[:, 1] = 0
    plain = replace(task.settings, augmentation=None)
    quiet = DepthTask(task.student, plain)
    with torch.no_grad():
        found = quiet.loss(task.student, replace(batch, depth_m=depth, alpha=alpha), share=0.0).total
        expected = quiet.loss(task.student, ball_batch(64, 2, (0,)), share=0.0).total
        per_view = relative_depth_errors(
            task.student(batch.pixels[0]), *(part[0] for part in inverse_depth(batch)),
            gradient_weight=0.5, scales=4,
        )  # fmt: skip
    torch.testing.assert_close(found, per_view[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(expected, per_view.mean(), rtol=1e-4, atol=1e-5)


def test_gradients_reach_all_that_takes_part(task: DepthTask) -> None:
    came = gradients(task, ball_batch(64, 2))
    assert [name for name, there in came.items() if not there] == []
    silent = [name for name, parameter in task.student.named_parameters() if not parameter.requires_grad]
    assert sorted(silent) == sorted(silent_parameters(task.student.requires_grad_(True)))
    for name in silent:
        task.student.get_parameter(name).requires_grad_(False)
    # DPT's last norm, and the fusion that has no deeper map to add.
    assert {name.split(".")[1] for name in silent} == {"dpt", "neck"}


def test_weights_are_written_and_measured(task: DepthTask, tmp_path: Path) -> None:
    batch = ball_batch(64, 2)
    for name, part in task.components().items():
        part.save_pretrained(tmp_path / name)
    write_index(tmp_path, task.index())
    again = make_task(replace(RECIPE, task=replace(task.settings, pretrained=("depth",))), weights=tmp_path)
    assert again.measure(again.student, batch) == task.measure(task.student, batch)
    assert 0 < task.measure(task.student, batch)["channel_error"] < 1
    assert {name: shown.shape for name, shown in task.preview(task.student, batch).items()} == dict.fromkeys(
        ("depth", "views"), (2, 128, 128, 3)
    )


def test_what_it_cannot_learn_from_is_named(task: DepthTask) -> None:
    with pytest.raises(TrainingError, match="ball-0: comes without depth"):
        task.loss(task.student, replace(ball_batch(64, 2), depth_m=None), share=0.0)
    pictures = replace(picture_batch(), depth_m=torch.ones(2, 1, 32, 32))
    with pytest.raises(TrainingError, match="picture-0: comes without cameras"):
        task.loss(task.student, pictures, share=0.0)
    odd: Recipe = replace(RECIPE, data=replace(RECIPE.data, size_px=100))
    with pytest.raises(TrainingError, match="views must be a multiple of 32 px wide, got 100"):
        make_task(odd)


def test_a_fresh_network_is_alive_everywhere() -> None:
    """Its last ReLU would else be shut for whole views."""
    for seed in range(3):
        student: DepthEstimator = make_task(RECIPE, seed=seed).student
        with torch.no_grad():
            assert (student(ball_batch(64, 2).pixels.flatten(0, 1)) > 0).all()


@pytest.mark.slow
def test_it_overfits() -> None:
    task = make_task(RECIPE)
    before, after = overfitted(task, ball_batch(64, 2), RECIPE.optimisation, 280)
    assert after < before / 10
