"""The depth network that Hi3D's second stage looks through, trained on single views of orbits with depth.

view + noise --DepthEstimator--> inverse depth --MiDaS' error--> 1 / depth, and a wall behind the object

No paper trains one for Hi3D: it takes MiDaS' as it is. Its view is normalised from the farthest to the nearest pixel,
background included, so the background must be told too; here it is a wall that touches the far side of the sphere
around the unit cube.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from engine.checkpoints.layout import WeightsIndex
from engine.errors import TrainingError
from engine.multiview.networks.depth import MULTIPLE_PX, DepthEstimator
from engine.training.tasks.components import Start, index_of
from engine.training.tasks.depth_loss import relative_depth_errors
from engine.training.tasks.edm import drawn
from engine.training.tasks.hi3d_networks import taken_depth
from engine.training.tasks.hi3d_settings import DepthSettings
from engine.training.tasks.previews import at_rest, turntables
from engine.training.types import Batch, Draws, Losses

HALF_DIAGONAL_M = 3**0.5 / 2
"""Of the unit cube that every object fits into."""


class DepthTask:
    """Views in, relative inverse depth out."""

    unused_parameters = False

    def __init__(self, student: DepthEstimator, settings: DepthSettings) -> None:
        """Train a network whose parameters that take no part are frozen already (see `silent_parameters`)."""
        self.student, self.settings = student, settings
        self.frozen: dict[str, nn.Module] = {}

    def loss(self, student: nn.Module, batch: Batch, *, share: float) -> Losses:
        """Return MiDaS' error of all views. Raises TrainingError for clips without depth."""
        draws = Draws(batch.seeds, batch.pixels.device)
        pictures = batch.pixels
        if self.settings.augmentation is not None:
            level = drawn(self.settings.augmentation, draws.normal())
            pictures = pictures + level[:, None, None, None, None] * draws.normal(*pictures.shape[1:])
        total = self._error(student(pictures.flatten(0, 1)).float(), batch)
        return Losses(total, {"depth": total.detach()})

    def measure(self, student: nn.Module, batch: Batch) -> Mapping[str, float]:
        """Return the error without noise, and how far off the refiner's channels would be (0 to 1)."""
        with at_rest(student):
            predicted = student(batch.pixels.flatten(0, 1)).float()
        truth, _ = inverse_depth(batch)
        off = (_stretched(predicted) - _stretched(truth.flatten(0, 1))).abs().mean()
        return {"loss": float(self._error(predicted, batch)), "channel_error": float(off)}

    def preview(self, student: nn.Module, batch: Batch) -> Mapping[str, UInt8[np.ndarray, "n h w 3"]]:
        """Return turntables: true beside predicted depth, near is white, and the views beside predicted depth."""
        with at_rest(student):
            predicted = student(batch.pixels.flatten(0, 1)).float()
        truth, _ = inverse_depth(batch)
        near, true = (
            (2 * _stretched(depth) - 1).view_as(truth)[:, :, None].expand_as(batch.pixels)
            for depth in (predicted, truth.flatten(0, 1))
        )
        return {"depth": turntables(true, near), "views": turntables(batch.pixels, near)}

    def components(self) -> Mapping[str, Any]:
        """Return the depth network."""
        return {"depth": self.student}

    def index(self) -> WeightsIndex:
        """Return an index that names the network alone; it is a part of Hi3D."""
        return index_of("hi3d", self.components(), {})

    def _error(self, predicted: Float[Tensor, "m h w"], batch: Batch) -> Float[Tensor, ""]:
        """Return the mean over clips of the mean over their views that show something."""
        truth, valid = inverse_depth(batch)
        rule = self.settings
        errors = relative_depth_errors(
            predicted, truth.flatten(0, 1), valid.flatten(0, 1), gradient_weight=rule.gradient_weight,
            scales=rule.scales, trimmed=rule.trimmed,
        ).view(len(batch), -1)  # fmt: skip
        shows = (batch.alpha >= 0.5).flatten(2).any(2)
        return ((errors * shows).sum(1) / shows.sum(1).clamp(min=1)).mean()


def inverse_depth(batch: Batch) -> tuple[Float[Tensor, "b n h w"], Bool[Tensor, "b n h w"]]:
    """Return true inverse depth, 1 / m, and where it is known: everywhere but where alpha and depth disagree.

    Raises:
        TrainingError: clips without depth or cameras.
    """
    if batch.depth_m is None or batch.orbits is None:
        lacks = "cameras" if batch.orbits is None else "depth"
        raise TrainingError(f"{batch.uids[0]}: comes without {lacks}; the recipe depth learns from orbits with depth")
    far = [orbit.distance_m + HALF_DIAGONAL_M for orbit in batch.orbits]
    wall = torch.from_numpy(np.stack(far)).to(batch.depth_m)[:, :, None, None]
    there = batch.depth_m > 0
    valid = there == (batch.alpha[:, :, 0] >= 0.5)
    return torch.where(there, 1 / batch.depth_m.clamp(min=1e-6), 1 / wall), valid


def silent_parameters(network: DepthEstimator) -> list[str]:
    """Return parameters that DPT has and never uses: their gradient is none, which DDP would wait for.

    The last norm and the pooler belong to other tasks; the deepest fusion has no map to add; the first maps of the
    hybrid come from the residual network, whose own last stages feed the transformer.
    """
    device = next(network.parameters()).device
    with torch.enable_grad():
        network(torch.zeros(1, 3, 2 * MULTIPLE_PX, 2 * MULTIPLE_PX, device=device)).sum().backward()
    silent = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    network.zero_grad(set_to_none=True)
    return silent


def build(start: Start) -> DepthTask:
    """Load or make the network; see `build.make_task`.

    Raises:
        TrainingError: it must be pretrained and is not given, or the views' size is none that it takes.
        CheckpointError: the weights do not load.
    """
    settings, side = start.plan(DepthSettings), start.recipe.data.size_px
    if side % MULTIPLE_PX:
        raise TrainingError(f"depth: views must be a multiple of {MULTIPLE_PX} px wide, got {side}; pass --size-px")
    student = taken_depth(start, settings.network, settings.pretrained)
    student.requires_grad_(True)
    for name in silent_parameters(student):
        student.get_parameter(name).requires_grad_(False)
    return DepthTask(student, settings)


def _stretched(depth: Float[Tensor, "m h w"]) -> Float[Tensor, "m h w"]:
    """Bring each view from its farthest to its nearest pixel to [0, 1], as the refiner is told it."""
    low = depth.amin((1, 2), keepdim=True)
    return (depth - low) / (depth.amax((1, 2), keepdim=True) - low).clamp(min=1e-6)
