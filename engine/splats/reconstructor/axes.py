"""Ellipsoids given by any 3x3 matrix M (covariance M M^T): their principal axes, and quaternions of those.

Needed because the published rasterizer takes quaternions of any length, where ours are rotations.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

SWEEPS = 6
"""Of Jacobi rotations: 3x3 converges quadratically, in four even from random matrices."""
NEARLY_ROUND = 1e-4
"""Relative difference of two squared axes below which their plane's gradient is faded out: it is a quotient of two
numbers that vanish together."""


def quaternions_of(rotations: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 4"]:
    """Return unit quaternions w x y z of rotation matrices; differentiable.

    As `engine.geometry.quaternion_from_matrix`: of four ways to divide, each takes the largest divisor (Shepperd 1978).
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in rotations.unbind(-2))
    ways = [
        torch.stack([1 + xx + yy + zz, zy - yz, xz - zx, yx - xy], -1),
        torch.stack([zy - yz, 1 + xx - yy - zz, xy + yx, xz + zx], -1),
        torch.stack([xz - zx, xy + yx, 1 - xx + yy - zz, yz + zy], -1),
        torch.stack([yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz], -1),
    ]
    candidates = torch.stack(ways, -2)  # [*n, 4 ways, 4]
    best = candidates.diagonal(dim1=-2, dim2=-1).argmax(-1)
    chosen = candidates.take_along_dim(best[..., None, None], -2)[..., 0, :]
    return torch.nn.functional.normalize(chosen, dim=-1)


def principal_axes(matrices: Float[Tensor, "*n 3 3"]) -> tuple[Float[Tensor, "*n 3 3"], Float[Tensor, "*n 3"]]:
    """Return U (rotations) and s > 0 with M M^T = U diag(s)^2 U^T; M must be of full rank.

    Axes keep their order as far as they can: a nearly diagonal M gives U near the identity. Gradients are right for
    losses that depend on M M^T alone, as pictures do.
    """
    return _PrincipalAxes.apply(matrices)  # type: ignore[no-untyped-call]  # torch leaves Function.apply untyped


def _orthogonal_columns(matrices: Tensor) -> list[Tensor]:
    """Rotate columns in pairs until they are orthogonal (Hestenes 1958): M V, three vectors [*n, 3].

    Unlike the eigenvectors of M M^T this never squares the scales, and so holds float32's precision for thin splats.
    """
    columns = list(matrices.unbind(-1))
    for _ in range(SWEEPS):
        for i, j in ((0, 1), (0, 2), (1, 2)):
            a, b = columns[i], columns[j]
            overlap = (a * b).sum(-1, keepdim=True)
            slope = ((b * b).sum(-1, keepdim=True) - (a * a).sum(-1, keepdim=True)) / (2 * overlap)
            tangent = torch.where(slope < 0, -1.0, 1.0).to(slope) / (
                slope.abs() + torch.hypot(slope, slope.new_ones(()))
            )
            tangent = torch.where(overlap == 0, 0.0, tangent)
            cosine = 1 / torch.hypot(tangent, tangent.new_ones(()))
            columns[i], columns[j] = cosine * (a - tangent * b), cosine * (tangent * a + b)
    return columns


class _PrincipalAxes(torch.autograd.Function):
    """Left singular vectors and singular values."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        (matrices,) = inputs
        columns = torch.stack(_orthogonal_columns(matrices), -1)  # [*n, 3, 3]
        lengths = columns.norm(dim=-2).clamp_min(torch.finfo(columns.dtype).tiny)
        axes = columns / lengths[..., None, :]
        mirrored = torch.linalg.det(axes)[..., None] < 0
        axes = torch.cat([axes[..., :2], torch.where(mirrored, -axes[..., 2], axes[..., 2])[..., None]], -1)
        ctx.save_for_backward(matrices, axes, lengths)
        return axes, lengths

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        """With C = M M^T: dL/dC in the axes' own frame, then dL/dM = 2 dL/dC M (symmetric eigenvectors' derivative)."""
        matrices, axes, lengths = ctx.saved_tensors
        d_axes, d_lengths = gradients
        squares = lengths**2
        turn = axes.mT @ d_axes
        gap = squares[..., None, :] - squares[..., :, None]
        fade = NEARLY_ROUND * (squares[..., None, :] + squares[..., :, None])
        twist = 0.5 * (turn - turn.mT) * gap / (gap**2 + fade**2).clamp_min(torch.finfo(gap.dtype).tiny)
        d_covariance = twist + torch.diag_embed(d_lengths / (2 * lengths))
        return 2 * axes @ d_covariance @ (axes.mT @ matrices)
