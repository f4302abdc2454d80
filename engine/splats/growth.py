"""Where Gaussians are missing or useless: densification and pruning (3DGS section 5.2), with a bound on their number."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from engine.splats.parameters import TrainedGaussians
from engine.splats.projection import rotations

SPLIT_SHRINK = 1.6
"""A split halves a Gaussian into two of its size over this (3DGS section 5.2)."""
PULLED = 1.5
"""Only Gaussians pulled this many times harder than the mean are split or cloned."""


def prune(trained: TrainedGaussians, opacity: float) -> Bool[Tensor, " n"]:
    """Remove Gaussians fainter than an opacity; return which stay. The last ones are never removed."""
    keep = trained.gaussians.opacity_logits.detach().sigmoid() >= opacity
    if not keep.any():
        keep = torch.ones_like(keep)
    trained.keep(keep)
    return keep


def densify(trained: TrainedGaussians, pull: Float[Tensor, " n"], room: int, generator: np.random.Generator) -> None:
    """Split the wide and clone the narrow among those that the error pulls hardest, `room` at most.

    Args:
        trained: changed in place.
        pull: summed gradient lengths of the centres since the last round.
        room: how many may be added.
        generator: places the halves of a split.
    """
    wanted = torch.nonzero(pull > PULLED * pull.mean())[:, 0]
    if room <= 0 or len(wanted) == 0:
        return
    chosen = wanted[torch.argsort(pull[wanted], descending=True)[:room]]
    rows = trained.rows(chosen)
    widest = rows["log_scales"].amax(-1)
    split = widest > widest.median()
    axes = rotations(rows["quaternions"]) * rows["log_scales"].exp()[:, None, :]
    draw = torch.from_numpy(generator.standard_normal((len(chosen), 3)).astype(np.float32)).to(axes)
    offset = torch.where(split[:, None], (axes @ draw[..., None])[..., 0], 0.0)
    smaller = rows["log_scales"] - split[:, None] * float(np.log(SPLIT_SHRINK))
    added = rows | {"means": rows["means"] + offset, "log_scales": smaller}
    trained.change(chosen, {"means": rows["means"] - offset, "log_scales": smaller}, added)
