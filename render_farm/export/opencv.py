"""OpenCV: TARGET/UID.ORBIT/cameras.json and cameras.npz, world to camera, with all pictures beside them.

x_camera = R @ x_world + t, pixels = K @ x_camera / z. OpenCV camera axes, +Z-up world, pixel centres at (0.5, 0.5) from
the corner, as K's principal point says.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from engine.files.orbit_codec import EXTENSIONS
from engine.geometry import Orbit, frames
from render_farm.export.folders import ImageFormat, write_images
from render_farm.export.selection import Selected
from render_farm.shards import Sample

CAMERAS_NAME, ARRAYS_NAME = "cameras.json", "cameras.npz"
Arrays = dict[str, Float[np.ndarray, "..."]]


def write_sample(
    folder: Path, selected: Selected, sample: Sample, parts: Mapping[str, bytes], image_format: ImageFormat
) -> None:
    """Fill a folder with a sample."""
    document = sample.checked()
    orbit, arrays = document.orbit, cameras_of(document.orbit)
    files = {kind: write_images(folder, sample, parts, kind, image_format) for kind in EXTENSIONS}
    np.savez(folder / ARRAYS_NAME, **arrays)
    views = [
        {
            **{kind: names[view] for kind, names in files.items() if names is not None},
            **{name: array[view].tolist() for name, array in arrays.items()},
        }
        for view in range(len(orbit))
    ]
    cameras = {
        "convention": "x_camera = R @ x_world + t, pixels = K @ x_camera / z; OpenCV axes, +Z-up world, metres; the centre of "
        "the first pixel is (0.5, 0.5): take 0.5 off cx and cy for cv2, which counts from pixel centres", "width": orbit.width,
        "height": orbit.height, "depth_scale_m": document.depth_scale_m, "views": views,
        **{key: selected.row[key] for key in ("uid", "caption", "license", "attribution", "source")},
    }  # fmt: skip
    (folder / CAMERAS_NAME).write_text(json.dumps(cameras, indent=1), encoding="utf-8")


def cameras_of(orbit: Orbit) -> Arrays:
    """Return K [n, 3, 3], R [n, 3, 3] and t [n, 3], world to camera, metres."""
    intrinsics = np.tile(np.diag([orbit.focal_px, orbit.focal_px, 1.0]), (len(orbit), 1, 1))
    intrinsics[:, :2, 2] = orbit.principal_px
    world_to_camera = frames.invert_pose(orbit.T_world_camera)
    return {"K": intrinsics, "R": world_to_camera[:, :3, :3], "t": world_to_camera[:, :3, 3]}
