"""Sinusoids against float64, the published ones and half precision."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.multiview.networks.sinusoids import sinusoid


def test_cosines_come_first_then_sines():
    found = sinusoid(torch.tensor([0, 3]), 4)
    angles = np.outer([0, 3], [1, 0.01])
    np.testing.assert_allclose(found, np.concatenate([np.cos(angles), np.sin(angles)], 1), atol=1e-6)  # float32


def test_they_are_the_published(oracles: Path):
    published = np.load(oracles / "hi3d_embed.npz")
    found = sinusoid(torch.from_numpy(published["values"]).float(), 256)
    # Float32 frequencies, computed in another order, times the largest value.
    np.testing.assert_allclose(found, published["emb256"], atol=2e-7 * np.abs(published["values"]).max() + 1e-6)


def test_an_odd_width_ends_in_a_zero():
    found = sinusoid(torch.tensor([550.0]), 255)
    angles = 550 * 10000.0 ** (-np.arange(127) / 127)
    expected = np.concatenate([np.cos(angles), np.sin(angles), [0]])
    np.testing.assert_allclose(found[0], expected, atol=1e-4)  # float32 angles of 550


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.float64])
def test_angles_are_float32_whatever_is_given(dtype: torch.dtype):
    """Also inside of autocast; 981 is a whole number in float16, its angles are not."""
    with torch.autocast("cpu", torch.bfloat16):
        found = sinusoid(torch.tensor([981, 21], dtype=dtype), 320)
    assert torch.equal(found, sinusoid(torch.tensor([981.0, 21.0]), 320))
