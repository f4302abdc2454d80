"""Gaussians under an optimiser: leaf tensors and Adam's state, which stay in step when rows come and go."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from engine.splats.gaussians import Gaussians


@dataclass(frozen=True)
class LearningRates:
    """Adam's step sizes at the start; all fall exponentially to `final_share` of it."""

    means: float = 1e-3
    """Metres a step; the object's longest side is 1."""
    log_scales: float = 5e-3
    """A step."""
    quaternions: float = 2e-3
    """A step."""
    opacity_logits: float = 5e-2
    """A step."""
    sh: float = 5e-3
    """A step, degree 0."""
    higher_sh: float = 5e-4
    """A step, degrees 1 to 3."""
    final_share: float = 0.05
    """What is left of the step sizes at the end."""


class TrainedGaussians:
    """Gaussians as leaf tensors with their Adam."""

    def __init__(self, tensors: dict[str, Tensor], rates: LearningRates) -> None:
        self._rates = rates
        self._tensors = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
        groups = [{"params": [tensor], "lr": getattr(rates, name)} for name, tensor in self._tensors.items()]
        self._adam = torch.optim.Adam(groups, eps=1e-15, fused=True)

    @staticmethod
    def of(gaussians: Gaussians, rates: LearningRates) -> "TrainedGaussians":
        """Start from Gaussians; spherical harmonics above degree 0 get a step size of their own."""
        names = ("means", "log_scales", "quaternions", "opacity_logits")
        tensors = dict(zip(names, gaussians.tensors, strict=False))
        return TrainedGaussians(tensors | {"sh": gaussians.sh[:, :1], "higher_sh": gaussians.sh[:, 1:]}, rates)

    def __len__(self) -> int:
        return len(self._tensors["means"])

    @property
    def gaussians(self) -> Gaussians:
        """The present Gaussians, attached to the graph."""
        t = self._tensors
        sh = torch.cat([t["sh"], t["higher_sh"]], 1)
        return Gaussians(t["means"], t["log_scales"], t["quaternions"], t["opacity_logits"], sh)

    @property
    def leaves(self) -> list[Tensor]:
        """The tensors that Adam moves, for `backward(inputs=...)`."""
        return list(self._tensors.values())

    def decay(self, done: float) -> None:
        """Set the step sizes for the share of the fit that is done, 0 to 1."""
        for group, name in zip(self._adam.param_groups, self._tensors, strict=True):
            group["lr"] = getattr(self._rates, name) * self._rates.final_share**done

    def pull(self) -> Float[Tensor, " n"]:
        """Return how hard the last loss pulls each centre (length of its gradient)."""
        gradient = self._tensors["means"].grad
        assert gradient is not None, "pull() comes after backward() and before step()"
        return gradient.norm(dim=-1)

    def step(self) -> None:
        """Take one Adam step and forget the gradients."""
        self._adam.step()
        self._adam.zero_grad()

    def keep(self, rows: Bool[Tensor, " n"]) -> None:
        """Drop all other rows, with their moments."""
        self._replace({name: tensor.detach()[rows] for name, tensor in self._tensors.items()}, rows, 0)

    def change(self, rows: Tensor, changed: dict[str, Tensor], added: dict[str, Tensor]) -> None:
        """Overwrite some fields of some rows (indices) and add new rows, whose moments start at zero."""
        tensors = {name: tensor.detach().clone() for name, tensor in self._tensors.items()}
        for name, values in changed.items():
            tensors[name][rows] = values
        everything = torch.ones(len(self), dtype=torch.bool, device=tensors["means"].device)
        joined = {name: torch.cat([tensor, added[name]]) for name, tensor in tensors.items()}
        self._replace(joined, everything, len(added["means"]))

    def rows(self, chosen: Tensor) -> dict[str, Tensor]:
        """Return copies of some rows of every field."""
        return {name: tensor.detach()[chosen].clone() for name, tensor in self._tensors.items()}

    def _replace(self, tensors: dict[str, Tensor], kept: Tensor, added: int) -> None:
        """Swap in other leaf tensors: the moments of the kept rows, zeros for the added."""
        for group, (name, old) in zip(self._adam.param_groups, list(self._tensors.items()), strict=True):
            leaf = tensors[name].clone().requires_grad_()
            state = self._adam.state.pop(old, {})
            for moment in ("exp_avg", "exp_avg_sq"):
                if moment in state:
                    rows = state[moment][kept]
                    state[moment] = torch.cat([rows, rows.new_zeros(added, *rows.shape[1:])])
            group["params"] = [leaf]
            if state:
                self._adam.state[leaf] = state
            self._tensors[name] = leaf
