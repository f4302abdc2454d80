"""Classifier-free guidance: a network and its conditions in, predictions with and without the conditions out.

guided = unconditional + scale * (conditional - unconditional)          (Ho and Salimans 2022, equation 6)

The scale may grow from view to view (Hi3D), hold during a part of the steps only (`GuidanceInterval`), and the two
branches may be refined in 3D before they are combined (`clean_latents`).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from engine.multiview.denoiser import BranchChoice, Branches, Conditions, Denoiser, RefinementPlan

Scale = float | int | Float[Tensor, " n"]
"""Strength of the guidance, one for all views or one for each; 1 is none."""


class Guided:
    """A network with its conditions. Call it with noisy latents and a time; it answers for one branch or both."""

    def __init__(
        self,
        network: Denoiser,
        conditional: Conditions,
        unconditional: Conditions | None = None,
        *,
        batched: bool = True,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Keep the network and what it is told.

        Args:
            network: noisy latents, times, conditions by name -> prediction.
            conditional: what the network is told.
            unconditional: the same names and shapes without the content; None where there is no guidance.
            batched: both branches in one forward; False runs them one after the other, in half the memory.
            dtype: what the network computes in; None for that of the latents. The samplers keep their own.

        Raises:
            ValueError: the two branches do not hold the same names, or other shapes where batched.
        """
        self.network = network
        self.conditional = _in_dtype(conditional, dtype)
        self.unconditional = None if unconditional is None else _in_dtype(unconditional, dtype)
        self.batched = batched
        self.dtype = dtype
        if self.unconditional is not None:
            _check_match(self.conditional, self.unconditional, batched)

    def __call__(
        self, latents: Float[Tensor, "b n c h w"], time: Float[Tensor, " b"], branches: BranchChoice = "both"
    ) -> Branches:
        """Predict, in the latents' dtype."""
        if self.unconditional is None or branches == "conditional":
            return Branches(self._run(latents, time, self.conditional), None)
        if not self.batched:
            conditional = self._run(latents, time, self.conditional)
            return Branches(conditional, self._run(latents, time, self.unconditional))
        both = {name: torch.cat([self.unconditional[name], value]) for name, value in self.conditional.items()}
        unconditional, conditional = self._run(latents.repeat(2, 1, 1, 1, 1), time.repeat(2), both).chunk(2)
        return Branches(conditional, unconditional)

    def _run(self, latents: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
        return self.network(latents.to(self.dtype or latents.dtype), time, **conditions).to(latents.dtype)


@dataclass(frozen=True)
class GuidanceInterval:
    """Steps that are guided, as shares of all steps (Kynkaanniemi et al. 2024); the others cost one forward."""

    start: float = 0.0
    """Share of the steps before the first guided one, 0 to 1."""
    stop: float = 1.0
    """Share of the steps before the first one that is no longer guided, 0 to 1."""

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        if not 0 <= self.start <= self.stop <= 1:
            raise ValueError(f"a guidance interval needs 0 <= start <= stop <= 1, got {self.start} and {self.stop}")

    def holds(self, index: int, count: int) -> bool:
        """Return whether step `index` of `count` is guided."""
        return self.start <= index / count < self.stop


ALWAYS = GuidanceInterval()
"""Guided from the first step to the last."""


def linear_scale(first: float, last: float, n: int) -> Float[Tensor, " n"]:
    """Return a guidance scale for each view, growing evenly: views far from the input picture need more (Hi3D)."""
    return torch.linspace(first, last, n)


def combine(branches: Branches, scale: Scale) -> Float[Tensor, "b n c h w"]:
    """Return the guided prediction; the conditional one where there is no other."""
    if branches.unconditional is None:
        return branches.conditional
    if isinstance(scale, Tensor):
        scale = scale.to(branches.conditional).view(1, -1, 1, 1, 1)
    return branches.unconditional + scale * (branches.conditional - branches.unconditional)


def branches_needed(scale: Scale, guided: bool, plan: RefinementPlan | None) -> BranchChoice:
    """Return which branches a step asks of the network; `plan` is None where the step is not refined."""
    without_effect = not isinstance(scale, Tensor) and scale == 1
    alone = plan is not None and plan.branches == "conditional"
    return "both" if guided and not without_effect and not alone else "conditional"


def clean_latents(
    branches: Branches, to_x0: Callable[[Tensor], Tensor], scale: Scale, plan: RefinementPlan | None
) -> Float[Tensor, "b n c h w"]:
    """Return the guided x0 of a step, refined in 3D where there is a plan (VideoMV section 3.4, "reconstructed z0").

    Branches hold the network's predictions, `to_x0` turns one into clean latents. The release refines each branch's x0
    and guides between the refined ones; the conditional branch goes first, since refinement may draw noise.
    """
    if plan is None:
        return to_x0(combine(branches, scale))
    conditional = plan.refine(to_x0(branches.conditional))
    if branches.unconditional is None:
        return conditional
    return combine(Branches(conditional, plan.refine(to_x0(branches.unconditional))), scale)


def plan_at(plan: RefinementPlan | None, index: int) -> RefinementPlan | None:
    """Return the plan if it refines step `index`, else None."""
    return plan if plan is not None and index in plan.steps else None


def refinement_steps(count: int, first_share: float = 0.4, every: int = 10) -> tuple[int, ...]:
    """Return the steps to refine in 3D: 20, 30 and 40 of 50, as VideoMV's release.

    Never the last: nothing would take the reconstruction's blur away again.

    Args:
        count: steps of the walk.
        first_share: share of them before the first refinement, 0 to 1.
        every: steps from one refinement to the next, at least 1.

    Raises:
        ValueError: a share or a stride out of range.
    """
    if every < 1 or not 0 <= first_share <= 1:
        raise ValueError(f"every must be at least 1 and first_share from 0 to 1, got {every} and {first_share:g}")
    return tuple(range(round(first_share * count), count - 1, every))


def zeroed(conditions: Conditions, names: Collection[str]) -> Conditions:
    """Return the conditions with the named ones zero: an unconditional branch where training dropped them so."""
    return {name: torch.zeros_like(value) if name in names else value for name, value in conditions.items()}


def _in_dtype(conditions: Conditions, dtype: torch.dtype | None) -> Conditions:
    """Return the conditions, floating ones in dtype."""
    return {
        name: value.to(dtype) if dtype is not None and value.is_floating_point() else value
        for name, value in conditions.items()
    }


def _check_match(conditional: Conditions, unconditional: Conditions, batched: bool) -> None:
    """Raise ValueError unless one network call can serve both branches."""
    if set(conditional) != set(unconditional):
        raise ValueError(
            f"the unconditional branch must hold the conditions {sorted(conditional)}, got {sorted(unconditional)}"
        )
    for name, value in conditional.items():
        if batched and value.shape != unconditional[name].shape:
            raise ValueError(
                f"condition {name} is {tuple(value.shape)} with and {tuple(unconditional[name].shape)} without guidance;"
                " make them alike or pass batched=False"
            )
