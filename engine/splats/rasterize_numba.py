"""The CPU renderer: numba kernels for projection and blending, forward and backward, behind one autograd function."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from engine.geometry import Camera
from engine.splats.gaussians import Gaussians
from engine.splats.harmonics import colours_seen_from
from engine.splats.kernels_blend import add_rows, blend_backward, blend_forward, sort_into_tiles
from engine.splats.kernels_project import project_backward, project_forward, view_of


def rasterize(
    gaussians: Gaussians, cameras: Sequence[Camera], *, geometry: bool
) -> tuple[Float[Tensor, "c f h w"], Float[Tensor, "c h w"]]:
    """Blend features (3 colour; with geometry also z and 3 normal) on the CPU: features and alpha for each camera."""
    threads = torch.get_num_threads()
    pictures = [_one_view(gaussians, camera, geometry=geometry) for camera in cameras]
    if torch.get_num_threads() != threads:
        # numba's first kernel starts its threads and, where both are on OpenMP, gives torch as many: torch's sums
        # then come out in another order, so that the same seed would not give the same bytes.
        torch.set_num_threads(threads)
    return torch.stack([p[0] for p in pictures]), torch.stack([p[1] for p in pictures])


def _one_view(gaussians: Gaussians, camera: Camera, *, geometry: bool) -> tuple[Tensor, Tensor]:
    centre = torch.as_tensor(camera.T_world_camera[:3, 3]).to(gaussians.means)
    colours = colours_seen_from(gaussians.means, gaussians.sh, centre)
    picture, alpha = _Rasterize.apply(  # type: ignore[no-untyped-call]  # torch leaves Function.apply untyped
        gaussians.means,
        gaussians.log_scales,
        gaussians.quaternions,
        gaussians.opacity_logits.sigmoid(),
        colours,
        camera,
        geometry,
    )
    return picture.permute(2, 0, 1), alpha


def _array(tensor: Tensor) -> Any:
    return np.ascontiguousarray(tensor.detach().numpy(), np.float32)


class _Rasterize(torch.autograd.Function):
    """Kernels as one differentiable function of means, log scales, quaternions, opacities and colours."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        means, log_scales, quaternions, opacity, colours = (_array(tensor) for tensor in inputs[:5])
        camera, geometry = inputs[5:]
        n, scales, view = len(means), np.exp(log_scales), view_of(camera)
        pixels, conics, normals = (
            np.zeros((n, 2), np.float32),
            np.zeros((n, 3), np.float32),
            np.zeros((n, 3), np.float32),
        )
        depth, boxes = np.zeros(n, np.float32), np.zeros((n, 4), np.int32)
        project_forward(means, scales, quaternions, opacity, view, pixels, conics, depth, normals, boxes)
        order = np.argsort(depth, kind="stable")
        start, ids = sort_into_tiles(order, boxes, camera.width, camera.height)
        features = np.concatenate([colours, depth[:, None], normals], 1) if geometry else colours
        picture = np.zeros((camera.height, camera.width, features.shape[1]), np.float32)
        transmittance = np.ones((camera.height, camera.width), np.float32)
        last = np.zeros((camera.height, camera.width), np.int64)
        blend_forward(start, ids, pixels, conics, opacity, boxes, features, picture, transmittance, last)
        ctx.kept = (means, scales, quaternions, opacity, view, pixels, conics, boxes, features, start, ids)
        ctx.transmittance, ctx.last = transmittance, last
        return torch.from_numpy(picture), torch.from_numpy(1 - transmittance)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        means, scales, quaternions, opacity, view, pixels, conics, boxes, features, start, ids = ctx.kept
        d_picture, d_alpha = (_array(gradient) for gradient in gradients)
        n, channels = len(means), features.shape[1]
        rows, total = np.empty((len(ids), 6 + channels), np.float32), np.zeros((n, 6 + channels), np.float32)
        blend_backward(
            start, ids, pixels, conics, opacity, boxes, features, ctx.transmittance, ctx.last, d_picture, d_alpha, rows
        )
        add_rows(ids, rows, total)
        geometry = channels == 7
        d_depth = total[:, 9].copy() if geometry else np.zeros(n, np.float32)
        d_normals = total[:, 10:13].copy() if geometry else np.zeros((n, 3), np.float32)
        d_means, d_log_scales = np.zeros((n, 3), np.float32), np.zeros((n, 3), np.float32)
        d_quaternions = np.zeros((n, 4), np.float32)
        project_backward(
            means, scales, quaternions, view, conics, boxes, total[:, :5].copy(), d_depth, d_normals,
            d_means, d_log_scales, d_quaternions,
        )  # fmt: skip
        tensors = (d_means, d_log_scales, d_quaternions, total[:, 5].copy(), total[:, 6:9].copy())
        return (*(torch.from_numpy(array) for array in tensors), None, None)
