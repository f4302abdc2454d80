"""Colours of Gaussians seen from a place: real spherical harmonics of degree 0 to 3, in torch."""

import torch
from jaxtyping import Float
from torch import Tensor

C0 = 0.28209479177387814
"""Degree 0: colour = 0.5 + C0 * sh."""


def basis(directions: Float[Tensor, "n 3"], degree: int) -> Float[Tensor, "n k"]:
    """Return the real basis in the order and with the signs of 3DGS.

    Args:
        directions: unit vectors from the camera to the Gaussian.
        degree: 0 to 3, k = (degree + 1) ** 2.
    """
    x, y, z = directions.unbind(-1)
    terms = [torch.full_like(x, C0)]
    if degree >= 1:
        terms += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        terms += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * z * z - x * x - y * y),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ]
    if degree >= 3:
        terms += [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * z * z - x * x - y * y),
            0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y),
            -0.4570457994644658 * x * (4 * z * z - x * x - y * y),
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ]
    return torch.stack(terms, -1)


def colours_seen_from(
    means: Float[Tensor, "n 3"], sh: Float[Tensor, "n k 3"], camera_centre: Float[Tensor, "3"]
) -> Float[Tensor, "n 3"]:
    """Return sRGB colours, not below 0, of Gaussians seen from a place (3DGS section 4)."""
    if sh.shape[1] == 1:
        return (0.5 + C0 * sh[:, 0]).clamp_min(0)
    directions = torch.nn.functional.normalize(means - camera_centre, dim=-1)
    degree = {4: 1, 9: 2, 16: 3}[sh.shape[1]]
    return (0.5 + torch.einsum("nk,nkc->nc", basis(directions, degree), sh)).clamp_min(0)
