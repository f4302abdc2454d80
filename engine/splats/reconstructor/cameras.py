"""The frame that LGM's network thinks in: our cameras in, its rays out, and the way back into our world.

Its world is +Y up, its first camera stands at (0, 0, d) without rotation and the object is around the origin
(LGM section 3.2; `engine.geometry.frames.lgm_input_poses`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from engine.geometry import Camera
from engine.geometry.frames import FLIP_YZ, invert_pose, lgm_input_poses, lgm_rays
from engine.geometry.harmonics import sh_rotation
from engine.geometry.rotations import quaternion_from_matrix
from engine.splats.gaussians import Gaussians


@dataclass(frozen=True)
class InputFrame:
    """An object's input cameras in the network's frame."""

    poses: Float[np.ndarray, "v 4 4"]
    """OpenGL camera to the network's world, as the release has them."""
    rays: Float[np.ndarray, "v 6 h w"]
    """Moment o x d and unit direction d of the pixels' rays, network's world."""
    rotation: Float[np.ndarray, "3 3"]
    """Network's world to ours."""
    translation: Float[np.ndarray, "3"]
    """Network's origin in our world, metres."""
    scale: float
    """Our metres in one of the network's."""

    def to_world(self, gaussians: Gaussians) -> Gaussians:
        """Move Gaussians from the network's frame into our world; differentiable."""
        means = gaussians.means
        rotation = torch.as_tensor(self.rotation).to(means)
        w, x, y, z = quaternion_from_matrix(self.rotation).tolist()
        left = torch.tensor([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]]).to(means)
        sh = gaussians.sh
        if gaussians.sh_degree:
            sh = torch.einsum(
                "kj,njc->nkc", torch.as_tensor(sh_rotation(self.rotation, gaussians.sh_degree)).to(sh), sh
            )
        return Gaussians(
            self.scale * means @ rotation.T + torch.as_tensor(self.translation).to(means),
            gaussians.log_scales + float(np.log(self.scale)),
            gaussians.quaternions @ left.T,
            gaussians.opacity_logits,
            sh,
        )


def input_frame(cameras: Sequence[Camera], radius_m: float | None = None) -> InputFrame:
    """Return the network's frame for an object's input views, rays at the cameras' own size.

    Args:
        cameras: ours, the first one sets the frame; all of one size, looking at the world's origin.
        radius_m: the whole world is scaled so that the first camera stands this far from the origin; None keeps its
            distance, as VideoMV does.

    Raises ValueError if there is no camera, or the first one stands at the origin.
    """
    if not cameras:
        raise ValueError("cameras must hold at least one camera")
    ours = np.stack([camera.T_world_camera for camera in cameras])
    distance_m = float(np.linalg.norm(ours[0, :3, 3]))
    if not distance_m > 0:
        raise ValueError("the first camera must stand away from the origin, where the object is")
    poses = lgm_input_poses(ours)
    back = ours[0] @ FLIP_YZ @ invert_pose(poses[0])  # network's world, still in our metres, to ours
    scale = 1.0 if radius_m is None else distance_m / radius_m
    poses[:, :3, 3] /= scale
    return InputFrame(poses, lgm_rays(poses, cameras), back[:3, :3], back[:3, 3], scale)


def released_cameras(cameras: Sequence[Camera]) -> list[Camera]:
    """Return the cameras that VideoMV's inference scripts reconstruct and render with: turned to look backwards.

    The scripts negate the camera's y and z axes once more than its training loader does, before rays and view matrices
    are made from them. Reconstructing with these cameras and rendering into them is what the release does; the object
    then lies behind all cameras but the first, for comparison only.
    """
    return [replace(camera, T_world_camera=camera.T_world_camera @ FLIP_YZ) for camera in cameras]
