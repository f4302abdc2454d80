"""Colours of Gaussians seen from a place, in torch. The basis itself lives in engine.geometry.harmonics."""

import torch
from jaxtyping import Float
from torch import Tensor

from engine.geometry.harmonics import SH_C0, degree_of, sh_terms


def colours_seen_from(
    means: Float[Tensor, "n 3"], sh: Float[Tensor, "n k 3"], camera_centre: Float[Tensor, "3"]
) -> Float[Tensor, "n 3"]:
    """Return sRGB colours, not below 0, of Gaussians seen from a place (3DGS section 4)."""
    if sh.shape[1] == 1:
        return (0.5 + SH_C0 * sh[:, 0]).clamp_min(0)
    x, y, z = torch.nn.functional.normalize(means - camera_centre, dim=-1).unbind(-1)
    basis = torch.stack(sh_terms(x, y, z, degree_of(sh.shape[1])), -1)  # [n, k]
    return (0.5 + torch.einsum("nk,nkc->nc", basis, sh)).clamp_min(0)
