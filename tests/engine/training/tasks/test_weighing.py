"""Which errors count how much, against sums by hand."""

import pytest
import torch

from engine.training.latents import LatentCache
from engine.training.recipes import recipe_named
from engine.training.tasks.build import make_task
from engine.training.tasks.weighing import FLOOR, weighed


@pytest.fixture(scope="module")
def latents() -> LatentCache:
    return make_task(recipe_named("videomv-image", "tiny")).latents


def test_errors_count_as_they_are_unless_asked(latents) -> None:
    error, x0 = torch.rand(2, 3, 4, 8, 8), torch.randn(2, 3, 4, 8, 8)
    found = weighed(error, x0, latents, visible=False, alike=False)
    torch.testing.assert_close(found, error.mean((1, 2, 3, 4)))


def test_channels_count_as_they_show(latents) -> None:
    error, x0 = torch.zeros(2, 3, 4, 8, 8), torch.randn(2, 3, 4, 8, 8)
    error[:, :, 2] = 1
    found = weighed(error, x0, latents, visible=True, alike=False)
    torch.testing.assert_close(found, latents.visibility[2].expand(2) / 4)


def test_an_orbit_counts_less_the_more_it_changes(latents) -> None:
    """A vase's views are all alike, a bicycle's are not; one view alone has nothing to be compared with."""
    vase = torch.ones(1, 3, 4, 8, 8)
    bicycle = torch.cat([torch.zeros(1, 1, 4, 8, 8), 2 * torch.ones(1, 2, 4, 8, 8)], dim=1)
    x0, error = torch.cat([vase, bicycle]), torch.ones(2, 3, 4, 8, 8)
    found = weighed(error, x0, latents, visible=False, alike=True)
    torch.testing.assert_close(found, torch.tensor([1 / FLOOR, 1 / (FLOOR + 4)]))
    alone = weighed(error[:, :1], x0[:, :1], latents, visible=False, alike=True)
    torch.testing.assert_close(alone, torch.ones(2))
