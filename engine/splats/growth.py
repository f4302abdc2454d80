"""Where Gaussians are missing or useless: densification and pruning (3DGS section 5.2), with a bound on their number."""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class GrowthSettings:
    """What every optimisation of Gaussians settles: how long it runs, and how their number changes on the way."""

    iterations: int = 1000
    """Optimiser steps."""
    grow_every: int = 100
    """Steps between two rounds of pruning and growth; 0: never."""
    grow_until: float = 0.6
    """Share of the iterations after which nothing is split, cloned or pruned any more."""
    grow_share: float = 0.08
    """Largest share of the Gaussians that one round may add."""
    max_gaussians: int = 60_000
    """Growth stops here."""
    prune_opacity: float = 0.02
    """Gaussians fainter than this are removed, 0 to 1."""


class Growth:
    """Takes the optimiser's steps; every so often it prunes, and grows where the error has pulled since."""

    def __init__(self, trained: TrainedGaussians, settings: GrowthSettings, generator: np.random.Generator) -> None:
        """Watch Gaussians that are being trained.

        Args:
            trained: changed in place.
            settings: when and how much.
            generator: places the halves of splits; may be the one that draws other things too.
        """
        self._trained, self._settings, self._generator = trained, settings, generator
        self._pull = trained.leaves[0].new_zeros(len(trained))

    def step(self, index: int) -> None:
        """After a backward pass: take Adam's step of this index, from 0, then prune and grow if it is time."""
        trained, settings = self._trained, self._settings
        self._pull += trained.pull()
        trained.step()
        if not settings.grow_every or (index + 1) % settings.grow_every:
            return
        if index < settings.grow_until * settings.iterations:
            keep = prune(trained, settings.prune_opacity)
            room = min(settings.max_gaussians - len(trained), int(settings.grow_share * len(trained)))
            densify(trained, self._pull[keep], room, self._generator)
            self._pull = trained.leaves[0].new_zeros(len(trained))


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
