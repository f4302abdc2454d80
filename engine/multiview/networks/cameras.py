"""How a camera enters a video U-Net (VideoMV section 3.2): 16 numbers a view, added to the view's time embedding.

The 16 numbers are `engine.geometry.to_videomv(T_world_camera)`. The last layer starts at zero, so that a video network
to which cameras are given does at first what it did without them.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from engine.errors import CheckpointError, named

PREFIX = "camera_embedding."
"""Of its tensors in a network's state dict."""

log = logging.getLogger(__name__)


class CameraEmbedding(nn.Module):
    """Linear, SiLU, Linear; the last one zero at first."""

    def __init__(self, camera_dim: int, width: int, harmonics: int = 0) -> None:
        """Make it for cameras of `camera_dim` numbers, to which so many harmonics of the azimuth are added."""
        super().__init__()
        self.harmonics = harmonics
        self.linear_1 = nn.Linear(camera_dim + 2 * harmonics, width)
        self.linear_2 = nn.Linear(width, width)
        nn.init.zeros_(self.linear_2.weight)
        nn.init.zeros_(self.linear_2.bias)

    def forward(self, cameras: Float[Tensor, "*n camera"]) -> Float[Tensor, "*n width"]:
        """Embed flattened cameras."""
        if self.harmonics:
            cameras = torch.cat([cameras, harmonics(azimuth_of(cameras), self.harmonics)], dim=-1)
        return self.linear_2(nn.functional.silu(self.linear_1(cameras)))


def azimuth_of(cameras: Float[Tensor, "*n 16"]) -> Float[Tensor, "*n"]:
    """Return where flattened cameras stand, radians around +Z from +X on."""
    return torch.atan2(cameras[..., 7], cameras[..., 3])


def harmonics(angle: Float[Tensor, "*n"], count: int) -> Float[Tensor, "*n twice_count"]:
    """Return cosines, then sines, of 1 to `count` times angles in radians.

    What is right for one view alone (from behind, the outline is often the mirrored front) takes high frequencies, as
    positions do (Tancik et al. 2020); a camera's own numbers have only the first. 12 are all that 24 views on a ring can
    tell.
    """
    angles = angle[..., None] * torch.arange(1, count + 1, device=angle.device)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class CameraConditioned:
    """Mixin for diffusers' video U-Nets: cameras in, and base checkpoints that know none. Before the network's class.

    The network sets `camera_embedding` and has a config with `camera_dim` and `block_out_channels`.
    """

    camera_embedding: CameraEmbedding
    config: Any  # diffusers', by the network's class

    def embed_views(
        self, embedding: Float[Tensor, "b e"], cameras: Float[Tensor, "b n camera"] | None, views: int
    ) -> Float[Tensor, "bn e"]:
        """Repeat the objects' embedding for each view and add the views' cameras. Raises ValueError for a wrong size."""
        repeated = embedding.repeat_interleave(views, dim=0)
        if cameras is None:
            return repeated
        expected = (embedding.shape[0], views, self.config.camera_dim)
        if tuple(cameras.shape) != expected:
            raise ValueError(
                f"cameras must have shape {expected} (objects, views, 4x4 camera to world flattened row by row), "
                f"got {tuple(cameras.shape)}; make them with engine.geometry.to_videomv"
            )
        return repeated + self.camera_embedding(cameras.to(embedding.dtype)).flatten(0, 1)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Any:
        """Load as diffusers does (same arguments), of ourselves or of a base network without cameras.

        Base networks (ali-vilab/text-to-video-ms-1.7b, ali-vilab/i2vgen-xl) get a camera embedding that starts at
        zero, so that they do what they did.

        Raises:
            CheckpointError: the weights are another network's: tensors missing, left over or of other shapes.
        """
        asked_for_info = kwargs.pop("output_loading_info", False)
        where = pretrained_model_name_or_path
        try:
            # mypy looks in object, the mixin's own base; at run time the network's class comes next.
            network, info = super().from_pretrained(where, output_loading_info=True, **kwargs)  # type: ignore[misc]
        except (RuntimeError, ValueError) as error:  # diffusers' words for tensors of other shapes
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"{where}: does not load as {cls.__name__}: {reason}; is it another network?"
            ) from error
        _check_loaded(f"{where} as {cls.__name__}", set(info["missing_keys"]), set(info["unexpected_keys"]))
        if info["missing_keys"]:
            network.camera_embedding = _like(network.conv_out.weight, network.camera_embedding)
            log.info("%s knows no cameras: their embedding starts at zero", where)
        return (network, info) if asked_for_info else network


def _check_loaded(what: str, missing: set[str], left_over: set[str]) -> None:
    """Only the camera embedding may be missing, and then all of it."""
    cameras = {PREFIX + name for name in CameraEmbedding(1, 1).state_dict()}
    if missing - cameras or left_over or missing not in (set(), cameras):
        parts = [f"lacks {named(missing)}"] if missing else []
        parts += [f"has unknown keys {named(left_over)}"] if left_over else []
        raise CheckpointError(f"{what}: {' and '.join(parts)}; is it a checkpoint of another network?")


def _like(weight: Tensor, embedding: CameraEmbedding) -> CameraEmbedding:
    """A fresh embedding of the same size: diffusers leaves missing tensors without values."""
    with torch.device("cpu"):
        numbers, width = embedding.linear_1.in_features, embedding.linear_1.out_features
        fresh = CameraEmbedding(numbers - 2 * embedding.harmonics, width, embedding.harmonics)
    return fresh.to(device=weight.device, dtype=weight.dtype).train(embedding.training)
