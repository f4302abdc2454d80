"""What samplers and networks agree on: latents of several views, predictions of one or two branches, steps, refinement.

Latents are `[b, n, c, h, w]`: objects, views, channels. A network is called with latents, a time for each object, and
its conditions by name; samplers know neither the names nor what a time means to the network.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

Conditions = Mapping[str, Tensor]
"""What a network is told besides the noisy latents: its forward's arguments by name, objects first."""
BranchChoice = Literal["both", "conditional"]


@runtime_checkable
class Denoiser(Protocol):
    """A network: noisy latents in, its prediction (eps, v or F) of the same shape out."""

    def __call__(
        self, latents: Float[Tensor, "b n c h w"], timestep: Float[Tensor, " b"], **conditions: Tensor
    ) -> Float[Tensor, "b n c h w"]:
        """Predict."""


@dataclass(frozen=True)
class Branches:
    """What classifier-free guidance combines (Ho and Salimans 2022)."""

    conditional: Float[Tensor, "b n c h w"]
    """With the conditions."""
    unconditional: Float[Tensor, "b n c h w"] | None
    """Without them; None where there is no guidance."""


@dataclass(frozen=True)
class Step:
    """Where a sampler stands after a step."""

    index: int
    """Steps done before this one."""
    count: int
    """Steps in all."""
    latents: Float[Tensor, "b n c h w"]
    """Latents after the step."""
    x0: Float[Tensor, "b n c h w"]
    """The clean latents as the network sees them now; decode them for a preview."""


OnStep = Callable[[Step], None]
"""Called after every step; raises to stop."""


@dataclass(frozen=True)
class RefinementPlan:
    """3D-aware denoising (VideoMV section 3.4): predicted clean latents go through 3D and back at some steps."""

    refine: Callable[[Float[Tensor, "b n c h w"]], Float[Tensor, "b n c h w"]]
    """Clean latents in, clean latents that are consistent in 3D out."""
    steps: Collection[int]
    """Indices of the steps at which it happens."""
    branches: BranchChoice = "both"
    """both: refine each branch's x0 and combine the two with the guidance (the release); conditional: one alone."""
