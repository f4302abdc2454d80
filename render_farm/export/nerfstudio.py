"""nerfstudio: TARGET/UID.ORBIT/transforms.json with rgba/, depth/ and normal/ beside it.

Camera to world, OpenGL camera axes (+X right, +Y up, +Z back), +Z-up world: nerfstudio's own. Depth is 16-bit PNG;
give `--depth-unit-scale-factor` the file's `depth_unit_scale_factor`, which is the metres of one step.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.geometry import Orbit, frames
from render_farm.export.folders import ImageFormat, write_images
from render_farm.export.selection import Selected
from render_farm.shards import Sample

TRANSFORMS_NAME = "transforms.json"


def write_sample(
    folder: Path, selected: Selected, sample: Sample, parts: Mapping[str, bytes], image_format: ImageFormat
) -> None:
    """Fill a folder with a sample."""
    document = sample.checked()
    files = {
        f"{key}_path": names
        for key, kind in (("file", "rgba"), ("depth_file", "depth"), ("normal_file", "normal"))
        if (names := write_images(folder, sample, parts, kind, image_format)) is not None
    }
    transforms = transforms_of(document.orbit, files)
    if document.depth_scale_m is not None:
        transforms["depth_unit_scale_factor"] = document.depth_scale_m
    transforms["turntable"] = {key: selected.row[key] for key in ("uid", "caption", "license", "attribution", "source")}
    (folder / TRANSFORMS_NAME).write_text(json.dumps(transforms, indent=1), encoding="utf-8")


def transforms_of(orbit: Orbit, files: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return the document of transforms.json.

    Args:
        orbit: the cameras.
        files: by nerfstudio's key (file_path, depth_file_path, ...), one name for each view.
    """
    poses = frames.to_opengl(orbit.T_world_camera)
    horizontal = 2 * np.arctan(orbit.width / 2 / orbit.focal_px)
    return {
        "camera_model": "OPENCV", "fl_x": orbit.focal_px, "fl_y": orbit.focal_px, "cx": orbit.principal_px[0],
        "cy": orbit.principal_px[1], "w": orbit.width, "h": orbit.height, "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0,
        "camera_angle_x": float(horizontal),
        "frames": [
            {**{key: names[view] for key, names in files.items()}, "transform_matrix": pose.tolist()}
            for view, pose in enumerate(poses)
        ],
    }  # fmt: skip
