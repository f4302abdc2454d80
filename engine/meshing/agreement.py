"""How well a mesh fits pictures of the object: silhouettes, and colours where both are."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from engine.files.types import MeshArrays
from engine.geometry import Orbit
from engine.meshing.rasterize import draw_mesh


@dataclass(frozen=True)
class Agreement:
    """A mesh against views; the mean over the views."""

    silhouette_iou: float
    """Intersection over union of the drawn mesh and alpha >= 0.5, 0 to 1."""
    psnr_db: float
    """Peak signal to noise ratio in dB of the unlit mesh on white against the views on white."""


def view_agreement(mesh: MeshArrays, orbit: Orbit, rgba: UInt8[np.ndarray, "n h w 4"]) -> Agreement:
    """Draw the mesh from the orbit's cameras and compare with the views (sRGB, straight alpha)."""
    drawn = draw_mesh(mesh, orbit)
    made, true = drawn[..., 3] > 0, rgba[..., 3] >= 128
    union = np.maximum((made | true).sum((1, 2)), 1)
    on_white = [
        image[..., :3] * (image[..., 3:] / 255.0) + 255.0 - image[..., 3:].astype(np.float64) for image in (drawn, rgba)
    ]
    error = ((on_white[0] - on_white[1]) ** 2).mean((1, 2, 3))
    psnr = 20 * np.log10(255) - 10 * np.log10(np.maximum(error, 1e-3))
    return Agreement(float(((made & true).sum((1, 2)) / union).mean()), float(psnr.mean()))
