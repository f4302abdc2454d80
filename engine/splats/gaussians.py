"""The Gaussians type: what every renderer, the fit and the reconstructor share."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from engine.files.types import SplatArrays
from engine.geometry.harmonics import degree_of


@dataclass(frozen=True)
class Gaussians:
    """3D Gaussians with raw parameters, so that an optimiser may move them freely (3DGS section 4)."""

    means: Float[Tensor, "n 3"]
    """Centres in the +Z-up world, metres."""
    log_scales: Float[Tensor, "n 3"]
    """Natural logarithm of the standard deviations along the own axes, metres."""
    quaternions: Float[Tensor, "n 4"]
    """Rotations w x y z; renderers normalise them, so any length but zero will do."""
    opacity_logits: Float[Tensor, " n"]
    """Opacity before the sigmoid."""
    sh: Float[Tensor, "n k 3"]
    """Spherical harmonics, k = 1, 4, 9 or 16; colour = max(0, 0.5 + sum(basis(direction) * sh)), sRGB."""

    def __len__(self) -> int:
        return len(self.means)

    @property
    def sh_degree(self) -> int:
        """Degree 0 to 3 of the spherical harmonics."""
        return degree_of(self.sh.shape[1])

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The five parameters in the order of the fields."""
        return self.means, self.log_scales, self.quaternions, self.opacity_logits, self.sh

    def to(self, device: torch.device | str) -> "Gaussians":
        """Return the same Gaussians on a device."""
        return Gaussians(*(tensor.to(device) for tensor in self.tensors))

    def detach(self) -> "Gaussians":
        """Return them without gradient history."""
        return Gaussians(*(tensor.detach() for tensor in self.tensors))

    @staticmethod
    def from_arrays(arrays: SplatArrays) -> "Gaussians":
        """Return stored splats as float32 tensors on the CPU."""
        fields = (arrays.means, arrays.log_scales, arrays.quaternions, arrays.opacity_logits, arrays.sh)
        return Gaussians(*(torch.from_numpy(np.array(field, np.float32)) for field in fields))

    def to_arrays(self) -> SplatArrays:
        """Return them as float32 numpy arrays with unit quaternions, ready to be written."""
        quaternions = torch.nn.functional.normalize(self.quaternions, dim=-1)
        tensors = (self.means, self.log_scales, quaternions, self.opacity_logits, self.sh)
        return SplatArrays(*(tensor.detach().float().cpu().numpy() for tensor in tensors))
