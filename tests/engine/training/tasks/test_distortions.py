"""LGM's augmentations: nothing moves where nothing is drawn, cameras stay on their sphere and look at the object."""

import numpy as np
import torch

from engine.training.tasks.distortions import _bent, _sources, grid_distorted, jittered
from engine.training.types import Draws
from tests.engine.training.procedural import batch_of, orbit_of


def test_lines_that_stay_change_nothing():
    picture = torch.rand(3, 32, 24)
    # Bilinear weights of places computed in float32.
    torch.testing.assert_close(_bent(picture, torch.full((2, 9), 0.5)), picture, rtol=0, atol=1e-5)


def test_places_stay_in_order_and_inside():
    moves = torch.rand(17, generator=torch.Generator().manual_seed(0))
    places = _sources(64, moves)
    assert (places.diff() > 0).all()
    assert places.min() > -1
    assert places.max() < 1


def test_a_line_moves_what_stood_on_it():
    """Nine lines over 64 px stand 8 px apart; moving the fifth by a quarter of that moves its colour by 2 px."""
    picture = torch.arange(64.0).expand(3, 64, 64) / 64
    moves = torch.full((2, 9), 0.5)
    moves[0, 4] = 1.0
    bent = _bent(picture, moves)
    torch.testing.assert_close(bent[0, 0, 33:35].mean(), picture[0, 0, 31:33].mean(), rtol=0, atol=1 / 64)


def test_the_first_view_and_clips_that_are_not_drawn_stay():
    pixels = batch_of(orbit=orbit_of(every=6)).pixels
    bent = grid_distorted(pixels, 1.0, Draws((1, 2)))
    assert torch.equal(bent[:, 0], pixels[:, 0])
    assert (bent[:, 1:] != pixels[:, 1:]).flatten(2).any(-1).all()
    assert torch.equal(grid_distorted(pixels, 0.0, Draws((1, 2))), pixels)
    assert torch.equal(grid_distorted(pixels[1:], 1.0, Draws((2,)))[0], bent[1])  # whatever the batch


def test_jittered_cameras_keep_their_distance_and_look_at_the_object():
    cameras = [orbit_of(every=6).cameras] * 2
    turned = jittered(cameras, 1.0, Draws((1, 2)))
    for before, after in zip(cameras, turned, strict=True):
        assert after[0] is before[0]
        for old, new in zip(before[1:], after[1:], strict=True):
            place = new.T_world_camera[:3, 3]
            np.testing.assert_allclose(np.linalg.norm(place), 2.0)
            np.testing.assert_allclose(new.T_world_camera[:3, 2], -place / 2.0, atol=1e-12)
            angle = np.degrees(np.arccos(old.T_world_camera[:3, 2] @ new.T_world_camera[:3, 2]))
            assert 0 < angle <= 18 + 9
    assert jittered(cameras, 0.0, Draws((1, 2))) == [list(some) for some in cameras]
