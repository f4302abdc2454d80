"""Small orbits of the project's own making, and shards of them, for the tests of training data."""

import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from engine.files import OrbitImages, write_shard
from engine.geometry import Ring

VIEWS = 6


def small_orbit(
    number: int, *, views: int = VIEWS, size: int = 16, depth: bool = False, caption: str | None = None,
    orbit: str | None = None,
) -> OrbitImages:  # fmt: skip
    """A coloured disc before nothing, each object and view with colours of its own; alpha has soft edges."""
    rng = np.random.default_rng(number)
    ring = Ring(orbit or f"ring{views}", views, 39.6, 2.0, (5.0, 30.0))
    centre = (np.arange(size) + 0.5) / size - 0.5
    x, y = np.meshgrid(centre, centre)
    alpha = np.clip((0.35 - np.hypot(x, y)) * size + 0.5, 0, 1)
    rgba = np.empty((views, size, size, 4), np.uint8)
    rgba[..., :3] = np.clip(rng.uniform(40, 215, (views, 1, 1, 3)) + 200 * x[..., None] * rng.uniform(-1, 1, 3), 0, 255)
    rgba[..., 3] = np.rint(255 * alpha)
    there = (rgba[..., 3] > 127).astype(np.float32)
    return OrbitImages(
        uid=f"object-{number:03d}", orbit=ring.orbit(ring.draw_elevation_deg(rng), size, size), rgba=rgba,
        depth_m=there * (1.7 + 0.1 * x.astype(np.float32)) if depth else None,
        caption=f"a thing called {number}" if caption is None else caption, label="", license="CC0-1.0",
    )  # fmt: skip


def small_shards(folder: Path, counts: Iterable[int], **options) -> list[Path]:
    """Shards of so many objects each, numbered through: orbits-000.tar, ..."""
    paths, number = [], 0
    for index, count in enumerate(counts):
        path = folder / f"orbits-{index:03d}.tar"
        write_shard(path, [small_orbit(number + place, **options) for place in range(count)])
        paths.append(path)
        number += count
    return paths


def rewrite(path: Path, change) -> None:
    """Rewrite a tar; `change(name, data)` gives each file's new bytes, None leaves it out."""
    with tarfile.open(path) as tar:
        files = [(member.name, tar.extractfile(member).read()) for member in tar]
    write_tar(path, [(name, new) for name, data in files if (new := change(name, data)) is not None])


def write_tar(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write a plain tar."""
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def picture_files(
    number: int, *, width: int = 40, height: int = 24, kind: str = "jpg", **facts
) -> list[tuple[str, bytes]]:
    """KEY.jpg, KEY.txt and KEY.json as img2dataset writes them; left half red, right half blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0], pixels[:, width // 2 :, 2] = 250, 250
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[kind], quality=95)
    key = f"{number:09d}"
    told = {"caption": f"picture {number}", "width": width, "height": height, **facts}
    return [
        (f"{key}.{kind}", buffer.getvalue()), (f"{key}.json", json.dumps(told).encode()),
        (f"{key}.txt", f"picture {number}\n".encode()),
    ]  # fmt: skip


def without_views(images: OrbitImages, count: int) -> OrbitImages:
    """The first views alone."""
    return replace(images.subset(range(count)), uid=images.uid)
