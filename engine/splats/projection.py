"""EWA projection of Gaussians in plain torch: for the oracle, and for the features that gsplat blends."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from engine.geometry import Camera
from engine.splats.gaussians import Gaussians
from engine.splats.harmonics import colours_seen_from
from engine.splats.limits import BLUR_PX2, GUARD_BAND


@dataclass(frozen=True)
class CameraTensors:
    """A camera as tensors on one device."""

    rotation: Float[Tensor, "3 3"]
    """World to camera."""
    translation: Float[Tensor, "3"]
    """World to camera, metres."""
    centre: Float[Tensor, "3"]
    """Camera centre in the world, metres."""

    @staticmethod
    def of(camera: Camera, like: Tensor) -> "CameraTensors":
        """Return a camera's tensors with the dtype and device of another tensor."""
        T = torch.as_tensor(camera.T_camera_world).to(like)
        return CameraTensors(T[:3, :3], T[:3, 3], torch.as_tensor(camera.T_world_camera[:3, 3]).to(like))


@dataclass(frozen=True)
class Ellipses:
    """Gaussians as one camera sees them."""

    pixels: Float[Tensor, "n 2"]
    """Centres (u, v)."""
    covariances: Float[Tensor, "n 2 2"]
    """Pixels squared, BLUR_PX2 included."""
    depth_m: Float[Tensor, " n"]
    """Planar z of the centres, metres."""


def rotations(quaternions: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """Return rotation matrices of quaternions w x y z of any length."""
    return unnormalised_rotations(torch.nn.functional.normalize(quaternions, dim=-1))


def unnormalised_rotations(quaternions: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 3 3"]:
    """Return R(q) by the formula for unit quaternions, whatever the length: with m = |q|^2, (1 - m) I + m R(q / |q|).

    So does the published rasterizer (diff-gaussian-rasterization, computeCov3D).
    """
    w, x, y, z = quaternions.unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)


def project_gaussians(gaussians: Gaussians, camera: Camera) -> Ellipses:
    """Project centres and covariances (3DGS equation 5, Zwicker et al. 2001)."""
    view = CameraTensors.of(camera, gaussians.means)
    x, y, z = (gaussians.means @ view.rotation.T + view.translation).unbind(-1)
    focal, (cu, cv) = camera.focal_px, camera.principal_px
    pixels = torch.stack([focal * x / z + cu, focal * y / z + cv], -1)
    slope_x = _guarded(x / z, cu, camera.width, focal)
    slope_y = _guarded(y / z, cv, camera.height, focal)
    zero = torch.zeros_like(z)
    jacobian = (
        focal
        / z[:, None, None]
        * torch.stack([torch.stack([zero + 1, zero, -slope_x], -1), torch.stack([zero, zero + 1, -slope_y], -1)], -2)
    )  # [n, 2, 3]
    axes = rotations(gaussians.quaternions) * gaussians.log_scales.exp()[:, None, :]  # columns: scaled axes
    spread = jacobian @ view.rotation @ axes  # [n, 2, 3]
    blur = BLUR_PX2 * torch.eye(2).to(spread)
    return Ellipses(pixels, spread @ spread.transpose(1, 2) + blur, z)


def _guarded(slope: Tensor, principal: float, size: int, focal: float) -> Tensor:
    """Clamp x / z to the guard band around the picture."""
    margin = GUARD_BAND - 1
    low = -(principal + margin * size / 2) / focal
    high = (size - principal + margin * size / 2) / focal
    return slope.clamp(low, high)


def facing_normals(gaussians: Gaussians, camera: Camera) -> Float[Tensor, "n 3"]:
    """Return each Gaussian's shortest axis in the world, turned towards the camera."""
    shortest = gaussians.log_scales.argmin(-1)
    matrices = rotations(gaussians.quaternions)
    normals = matrices.gather(2, shortest[:, None, None].expand(-1, 3, 1))[..., 0]
    centre = CameraTensors.of(camera, gaussians.means).centre
    away = ((gaussians.means - centre) * normals).sum(-1, keepdim=True) > 0
    return torch.where(away, -normals, normals)


def features_seen_from(
    gaussians: Gaussians, camera: Camera, depth_m: Float[Tensor, " n"], *, geometry: bool
) -> Float[Tensor, "n f"]:
    """Return what is blended for a camera: colour (f = 3), with geometry also z in metres and normal (f = 7)."""
    centre = CameraTensors.of(camera, gaussians.means).centre
    colours = colours_seen_from(gaussians.means, gaussians.sh, centre)
    if not geometry:
        return colours
    return torch.cat([colours, depth_m[:, None], facing_normals(gaussians, camera)], -1)
