"""What VideoMV's networks are told: the same for a pipeline that makes an orbit and for training that learns one.

orbits --(picture weights: turned, the picture is azimuth 0)--> 16 numbers a view -> cameras
tokens, a picture's embedding and latents -----------------------------------------> conditions --> unconditional
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from engine.geometry import Orbit, rotation_about
from engine.geometry.frames import to_videomv
from engine.multiview.denoiser import Conditions

Kind = Literal["text", "picture"]
"""What an orbit is made from."""


def facing_front(orbit: Orbit) -> Orbit:
    """Return the orbit in a world turned about +Z so that its first view stands at azimuth 0.

    A picture is always the view at azimuth 0 to its network: where that is in the world, the picture does not say.
    """
    first = float(orbit.azimuth_deg[0])
    if first == 0:
        return orbit
    turn = np.eye(4)
    turn[:3, :3] = rotation_about("z", -first)
    return replace(orbit, T_world_camera=turn @ orbit.T_world_camera, azimuth_deg=(orbit.azimuth_deg - first) % 360.0)


def cameras_told(orbits: Sequence[Orbit], kind: Kind, device: torch.device | str = "cpu") -> Float[Tensor, "b n 16"]:
    """Return the numbers that stand for the orbits' cameras; orbits have equally many views."""
    told = [facing_front(orbit) if kind == "picture" else orbit for orbit in orbits]
    numbers = np.stack([to_videomv(orbit.T_world_camera) for orbit in told])
    return torch.from_numpy(numbers).to(device, torch.float32)


def text_told(text: Num[Tensor, "b t *d"], cameras: Float[Tensor, "b n 16"] | None) -> Conditions:
    """Return what the text network is told: the sentence's tokens, and cameras unless it is a 2D picture.

    Here and below: training hands over ids in place of tokens, and a picture [b 3 h w] in place of its embedding, where
    the encoder learns as well and runs as a part of the network.
    """
    return {"text": text} if cameras is None else {"text": text, "cameras": cameras}


def picture_told(
    text: Num[Tensor, "b t *d"],
    image_embedding: Float[Tensor, "b _ *picture"],
    image_latents: Float[Tensor, "b c h w"],
    cameras: Float[Tensor, "b n 16"] | None,
) -> Conditions:
    """Return what the picture network is told: the empty sentence's tokens, the picture twice, and cameras."""
    return {**text_told(text, cameras), "image_embedding": image_embedding, "image_latents": image_latents}


def unconditional(conditions: Conditions, negative: Num[Tensor, "b t *d"]) -> Conditions:
    """Return the same without what guidance amplifies: the negative prompt's tokens (the release's choice, not the
    empty sentence's) and no image embedding, which is zeros; cameras and the picture's latents stay."""
    dropped = {**conditions, "text": negative}
    if "image_embedding" in conditions:
        dropped["image_embedding"] = torch.zeros_like(conditions["image_embedding"])
    return dropped
