"""The CUDA renderer: gsplat projects, sorts and blends; the features are ours, so that all backends agree."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from engine.errors import MissingDependencyError
from engine.geometry import Camera
from engine.splats.gaussians import Gaussians
from engine.splats.limits import BLUR_PX2, NEAR_M
from engine.splats.projection import CameraTensors, features_seen_from


def rasterize(
    gaussians: Gaussians, cameras: Sequence[Camera], *, geometry: bool
) -> tuple[Float[Tensor, "c f h w"], Float[Tensor, "c h w"]]:
    """Blend features (3 colour; with geometry also z and 3 normal) on CUDA: features and alpha for each camera."""
    if not gaussians.means.is_cuda:
        raise MissingDependencyError("gsplat runs on CUDA only: move the Gaussians with .to('cuda'), or take numba")
    try:
        from gsplat import rasterization
    except ImportError as error:
        raise MissingDependencyError(f"gsplat is not usable ({error}): pip install 'turntable3d[cuda]'") from error
    means = gaussians.means
    views = [CameraTensors.of(camera, means) for camera in cameras]
    features = []
    for camera, view in zip(cameras, views, strict=True):
        depth_m = means @ view.rotation[2] + view.translation[2]
        features.append(features_seen_from(gaussians, camera, depth_m, geometry=geometry))
    blended, alpha, _ = rasterization(
        means=means,
        quats=torch.nn.functional.normalize(gaussians.quaternions, dim=-1),
        scales=gaussians.log_scales.exp(),
        opacities=gaussians.opacity_logits.sigmoid(),
        colors=torch.stack(features),  # [c, n, f]: any number of channels is blended alike
        viewmats=torch.stack([torch.as_tensor(camera.T_camera_world).to(means) for camera in cameras]),
        Ks=torch.stack([torch.as_tensor(camera.K).to(means) for camera in cameras]),
        width=cameras[0].width,
        height=cameras[0].height,
        near_plane=NEAR_M,
        eps2d=BLUR_PX2,
        packed=False,  # objects are small and wholly seen: packing costs time there
        rasterize_mode="classic",
    )
    return blended.permute(0, 3, 1, 2), alpha[..., 0]
