"""What VideoMV's networks are told: cameras from the picture's azimuth on, and nothing in the unconditional branch."""

import numpy as np
import pytest
import torch

from engine.geometry import RING24
from engine.geometry.frames import to_videomv
from engine.multiview.conditions import cameras_told, facing_front, picture_told, text_told, unconditional


def rolled(start: int):
    ring = RING24.orbit(20.0, 32, 32)
    return ring.subset([(start + i) % 24 for i in range(24)])


@pytest.mark.parametrize("start", [0, 1, 7, 23])
def test_turned_to_the_front_every_start_is_the_ring_from_azimuth_0(start):
    ring, turned = RING24.orbit(20.0, 32, 32), facing_front(rolled(start))
    np.testing.assert_allclose(turned.T_world_camera, ring.T_world_camera, atol=1e-12)
    np.testing.assert_allclose(np.cos(np.radians(turned.azimuth_deg - ring.azimuth_deg)), 1, atol=1e-12)


def test_a_ring_from_the_front_is_not_touched():
    ring = RING24.orbit(20.0, 32, 32)
    assert facing_front(ring) is ring


def test_picture_networks_are_told_the_front_and_text_networks_the_world():
    orbits = [rolled(0), rolled(7)]
    told = cameras_told(orbits, "picture")
    torch.testing.assert_close(told[0], told[1], rtol=0, atol=1e-6)  # float32 of the same numbers
    as_they_are = cameras_told(orbits, "text")
    expected = np.stack([to_videomv(orbit.T_world_camera) for orbit in orbits]).astype(np.float32)
    assert np.array_equal(as_they_are.numpy(), expected)


def test_the_unconditional_branch_keeps_cameras_and_latents_only():
    text, negative, cameras = torch.ones(1, 77, 4), torch.full((1, 77, 4), 2.0), torch.ones(1, 24, 16)
    assert unconditional(text_told(text, cameras), negative).keys() == {"text", "cameras"}
    assert text_told(text, None).keys() == {"text"}
    told = picture_told(text, torch.ones(1, 1, 4), torch.ones(1, 4, 8, 8), cameras)
    nothing = unconditional(told, negative)
    assert torch.equal(nothing["text"], negative)
    assert not nothing["image_embedding"].any()
    assert nothing["image_latents"] is told["image_latents"]
    assert nothing["cameras"] is cameras
