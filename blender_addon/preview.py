"""The preview picture: the lit mesh on the left, the splats on the right, through the same camera."""

import logging
import os
import tempfile
from pathlib import Path

import bpy
import numpy as np

from .errors import FixItError
from .scene import ImportedResult, Show, show_only

logger = logging.getLogger(__name__)
VEIL = 0.02
"""The catcher's darkness where no shadow falls: what three lamps' noise leaves."""
FADE = 0.08
"""Share of the picture over which shadows fade at each side."""


def render_preview(scene: bpy.types.Scene, imported: ImportedResult, floor: bpy.types.Object, path: Path) -> list[str]:
    """Render what the result has, side by side, into one PNG; returns what is shown, left to right.

    Leaves the mesh switched on and the splats off, or what there is.
    """
    kinds: list[Show] = []
    if imported.mesh:
        kinds.append("MESH")
    if imported.splats is not None:
        kinds.append("SPLATS")
    if not kinds:
        raise FixItError(f"{imported.name} has neither mesh nor splats", "Generate again (--from splats).")
    pictures = []
    for kind in kinds:
        show_only(imported, kind)
        pictures.append(_picture(scene, imported.mesh if kind == "MESH" else (imported.splats,), floor, kind))
        logger.info("rendered the %s", kind.lower())
    show_only(imported, kinds[0])
    _write(np.concatenate(pictures, 1), path)
    return [kind.lower() for kind in kinds]


def _picture(
    scene: bpy.types.Scene, asset: tuple[bpy.types.Object, ...], floor: bpy.types.Object, kind: Show
) -> np.ndarray:
    """Return [h, w, 3]: backdrop, then the shadow alone, then the asset alone.

    The soft shadow is most of the work and has no detail: it is rendered at half the size.
    """
    size, samples = scene.render.resolution_x, scene.cycles.samples
    steady = kind == "SPLATS"  # they shine by themselves: samples only smooth edges
    floor.is_shadow_catcher, floor.visible_camera = False, False
    front = _render(scene, size, max(samples // 4, 1) if steady else samples)
    floor.is_shadow_catcher, floor.visible_camera = True, True
    for part in asset:
        part.visible_camera = False
    shadow = _render(scene, (size + 1) // 2, max(samples // 4, 1))
    for part in asset:
        part.visible_camera = True
    scene.render.resolution_x = scene.render.resolution_y = size
    scene.cycles.samples = samples
    shade = np.clip((_doubled(shadow[..., 3:])[:size, :size] - VEIL) / (1 - VEIL), 0, 1) * vignette(size)
    alpha = front[..., 3:]
    return front[..., :3] * alpha + backdrop(size) * (1 - shade) * (1 - alpha)


def vignette(size: int) -> np.ndarray:
    """Return [size, size, 1]: 1 inside, smoothly 0 at the frame, so that no shadow ends at the seam of two pictures.

    The denoiser also leaves smudges in the corners of a shadow catcher; they go with it.
    """
    inward = np.minimum(np.arange(size) + 0.5, size - np.arange(size) - 0.5) / (FADE * size)
    ramp = np.clip(inward, 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return (ramp[:, None] * ramp)[..., None]


def _render(scene: bpy.types.Scene, size: int, samples: int) -> np.ndarray:
    """Return what the scene's camera sees: [size, size, 4], see `_read`."""
    scene.render.resolution_x = scene.render.resolution_y = size
    scene.cycles.samples = samples
    before = scene.render.filepath
    with tempfile.TemporaryDirectory(prefix="turntable-preview-") as folder:
        scene.render.filepath = str(Path(folder) / "picture.png")
        bpy.ops.render.render(write_still=True)
        picture = _read(Path(scene.render.filepath))
    scene.render.filepath = before
    return picture


def _doubled(picture: np.ndarray) -> np.ndarray:
    """Return [2h, 2w, c], interpolated linearly between the pixel centres."""
    for axis in (0, 1):
        ends = [slice(None)] * 2
        ends[axis] = slice(0, 1)
        first = picture[tuple(ends)]
        ends[axis] = slice(-1, None)
        padded = np.concatenate([first, picture, picture[tuple(ends)]], axis)
        before, here, after = (np.take(padded, range(k, k + picture.shape[axis]), axis) for k in range(3))
        pairs = np.stack([0.75 * here + 0.25 * before, 0.75 * here + 0.25 * after], axis + 1)
        shape = list(picture.shape)
        shape[axis] *= 2
        picture = pairs.reshape(shape)
    return picture


def backdrop(height: int) -> np.ndarray:
    """Return [height, 1, 3] sRGB, 0 to 1, first row at the BOTTOM: warm grey, darker to the top, no sides: no seam."""
    bottom, top = np.array([0.865, 0.85, 0.83]), np.array([0.70, 0.69, 0.68])
    ramp = np.linspace(0.0, 1.0, height)[:, None, None]
    return bottom * (1 - ramp) + top * ramp


def _read(path: Path) -> np.ndarray:
    """Return [h, w, 4] as stored (sRGB, straight alpha), 0 to 1, first row at the bottom as Blender keeps it."""
    image = bpy.data.images.load(str(path), check_existing=False)
    image.alpha_mode = "CHANNEL_PACKED"  # else Blender multiplies and divides by alpha
    width, height = image.size
    pixels = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    return pixels.reshape(height, width, 4)


def _write(rgb: np.ndarray, path: Path) -> None:
    """Write [h, w, 3] sRGB, first row at the bottom, as PNG; to a temporary name first."""
    height, width = rgb.shape[:2]
    image = bpy.data.images.new("Preview", width, height, alpha=False)
    partial = path.absolute().with_name(f".{path.stem}.partial.png")
    try:
        image.pixels.foreach_set(np.concatenate([rgb, np.ones((height, width, 1))], -1).astype(np.float32).ravel())
        image.filepath_raw, image.file_format = str(partial), "PNG"
        image.save()
        with partial.open("rb+") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    except RuntimeError as error:  # how Blender reports that it could not write
        raise OSError(f"{path}: {error}") from None
    finally:
        bpy.data.images.remove(image)
        partial.unlink(missing_ok=True)
