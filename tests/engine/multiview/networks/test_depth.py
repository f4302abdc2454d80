"""Hi3D's depth channels: sizes, order, range, chunks. That the network is MiDaS': test_keys_dpt."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine.multiview.networks.depth import DepthEstimator, reduced


@pytest.fixture(scope="module")
def estimator() -> DepthEstimator:
    return DepthEstimator.fresh()


def released_channels(network: DepthEstimator, x: Tensor) -> Tensor:
    """Follow DepthEmbedder.forward with the network given."""
    height, width = x.shape[2:]
    y = functional.interpolate(x, [int(side / 2.6666 / 32) * 32 for side in (height, width)], mode="bilinear")
    y = network(y)[:, None]
    y = functional.interpolate(y, [height // 8 * 3, width // 8 * 3], mode="bilinear")
    for i in range(y.shape[0]):
        y[i] -= torch.min(y[i])
        y[i] /= max(torch.max(y[i]).item(), 1e-6)
    b, _, rows, columns = y.shape
    blocks = y.reshape(b, rows // 3, 3, columns // 3, 3)  # 'b c (h h0) (w w0) -> b (c h0 w0) h w'
    return blocks.permute(0, 2, 4, 1, 3).reshape(b, 9, rows // 3, columns // 3)


def test_as_released(estimator: DepthEstimator) -> None:
    images = torch.rand(3, 3, 192, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = released_channels(estimator, images)
        estimator.chunk = 2
        found = estimator.hi3d_channels(images)
    assert found.shape == (3, 9, 24, 32)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)  # of [0, 1]: float32, batches of another size
    assert (found.amin(dim=(1, 2, 3)) == 0).all()
    torch.testing.assert_close(found.amax(dim=(1, 2, 3)), torch.ones(3))


def test_neighbours_stand_side_by_side() -> None:
    """A depth that is its own pixel's number shows where each pixel goes."""

    class Counting(DepthEstimator):
        def forward(self, images: Tensor) -> Tensor:
            return torch.arange(12 * 12.0).reshape(1, 12, 12).expand(len(images), -1, -1)

    found = Counting(DepthEstimator.fresh().model).hi3d_channels(torch.zeros(1, 3, 32, 32))[0] * 143
    for channel in range(9):
        row, column = divmod(channel, 3)
        assert float(found[channel, 2, 1]) == pytest.approx(12 * (3 * 2 + row) + 3 * 1 + column, abs=1e-3)


def test_flat_views_are_zero_not_nan(estimator: DepthEstimator) -> None:
    dead = DepthEstimator.fresh()
    with torch.no_grad():
        dead.model.head.head[4].weight.zero_()
        assert torch.equal(dead.hi3d_channels(torch.zeros(1, 3, 64, 64), (4, 4)), torch.zeros(1, 9, 4, 4))


def test_sizes() -> None:
    assert reduced((1024, 1024)) == (384, 384)
    assert reduced((512, 1024)) == (192, 384)
    assert reduced((64, 64)) == (32, 32)  # the release would ask for no pixels at all


def test_the_networks_own_forward_agrees(estimator: DepthEstimator) -> None:
    """transformers' forward takes its configured square size alone; there both are the same."""
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        theirs = estimator.model(pixel_values=images).predicted_depth
        torch.testing.assert_close(estimator(images), theirs, rtol=1e-5, atol=1e-6)


def test_folder_and_errors(estimator: DepthEstimator, tmp_path: Path) -> None:
    estimator.save_pretrained(tmp_path)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.no_grad():
        read = DepthEstimator.from_pretrained(tmp_path)
        torch.testing.assert_close(read(images), estimator(images), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="sides must be multiples of 32 pixels, got 64x48; resize first"):
        estimator(torch.zeros(1, 3, 48, 64))
