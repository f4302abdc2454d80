"""One `orbit/1` sample as named pieces of bytes, the same for a folder and for a tar: images in, parts out, and back."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from engine.errors import OrbitError
from engine.files.images import (
    MAX_DEPTH,
    ImageProblem,
    Quality,
    decode_depth,
    decode_material,
    decode_normal,
    decode_webp,
    encode_depth,
    encode_material,
    encode_normal,
    encode_webp,
)
from engine.files.orbit_json import OrbitDocument, document_from_images, encode_document
from engine.files.types import OrbitImages

EXTENSIONS = {
    "rgba": "webp", "depth": "png", "normal": "webp", "albedo": "webp", "camera_normal": "webp", "material": "webp",
}  # fmt: skip
"""Kinds of images and how they are stored; only rgba is required."""
FAR_FACTOR = 100
"""Depths beyond this many orbit distances are a renderer's "nothing" (1e10 in Blender), which must be 0: one such
value would spread the 65,535 steps over it and flatten the object."""

FILLS_THE_FRAME = 0.5
"""Share of a view's pixels; see `_Reader.rgba`. The box in the project's shards covers 0.88 beside its opaque views."""


@dataclass(frozen=True)
class EncodedOrbit:
    """A sample ready to be stored."""

    sample: str
    """KEY.ORBIT."""
    json: bytes
    """The document."""
    images: Mapping[str, bytes]
    """File name to bytes, in the order of their names."""


def image_name(sample: str, kind: str, view: int) -> str:
    """Return the file name of one view: KEY.ORBIT.rgba_00.webp."""
    return f"{sample}.{kind}_{view:02d}.{EXTENSIONS[kind]}"


def encode_orbit(images: OrbitImages, quality: Quality = "lossless") -> EncodedOrbit:
    """Encode a sample after checking it. All but rgba and albedo is always lossless. Raises OrbitError."""
    if quality != "lossless" and not 1 <= quality <= 100:
        raise ValueError(f"quality must be 'lossless' or 1 to 100, got {quality}")
    _check_shapes(images)
    scale_m = None if images.depth_m is None else _depth_scale_m(images, images.depth_m)
    json_bytes = encode_document(document_from_images(images, scale_m))
    sample = f"{images.uid}.{images.orbit.name}"
    named = ((image_name(sample, kind, view), data) for kind, view, data in _encoded(images, quality, scale_m))
    return EncodedOrbit(sample, json_bytes, dict(sorted(named)))


def _encoded(images: OrbitImages, quality: Quality, scale_m: float | None) -> Iterator[tuple[str, int, bytes]]:
    for view in range(len(images.orbit)):
        yield "rgba", view, encode_webp(images.rgba[view], quality)
        if images.depth_m is not None and scale_m is not None:
            depth = images.depth_m[view].astype(np.float64)
            steps = np.clip(np.rint(depth / scale_m), 1, MAX_DEPTH)  # at least 1: 0 says that nothing is there
            yield "depth", view, encode_depth(np.where(depth > 0, steps, 0).astype(np.uint16))
        if images.normal is not None:
            yield "normal", view, encode_normal(images.normal[view])
        if images.albedo is not None:
            yield "albedo", view, encode_webp(images.albedo[view], quality)
        if images.camera_normal is not None:
            yield "camera_normal", view, encode_normal(images.camera_normal[view])
        if images.material is not None:
            yield "material", view, encode_material(images.material[view])


def _check_shapes(images: OrbitImages) -> None:
    expected = (len(images.orbit), images.orbit.height, images.orbit.width)
    for kind, array in (
        ("rgba", images.rgba), ("depth_m", images.depth_m), ("normal", images.normal), ("albedo", images.albedo),
        ("camera_normal", images.camera_normal), ("material", images.material),
    ):  # fmt: skip
        if array is not None and array.shape[:3] != expected:
            raise OrbitError(
                f"orbit {images.uid}: {kind} must be views x height x width = {expected} like its cameras, "
                f"found {array.shape[:3]}"
            )
    for kind, normal in (("normal", images.normal), ("camera_normal", images.camera_normal)):
        if normal is not None and not np.isfinite(normal).all():
            raise OrbitError(f"orbit {images.uid}: {kind} must be finite; write 0 where nothing is")


def _depth_scale_m(images: OrbitImages, depth_m: Float[np.ndarray, "n h w"]) -> float:
    """Metres a step, so that the farthest depth is exactly the last step; reading and writing again changes nothing."""
    limit_m = FAR_FACTOR * float(images.orbit.distance_m.max())
    for view, depth in enumerate(depth_m):
        if not (np.isfinite(depth).all() and depth.min() >= 0 and depth.max() <= limit_m):
            raise OrbitError(
                f"orbit {images.uid}: depth_m of view {view} must lie between 0 and {limit_m:g} m, found "
                f"{depth.min():g} to {depth.max():g}; write 0 where nothing is"
            )
    farthest_m = float(depth_m.max())
    return farthest_m / MAX_DEPTH if farthest_m > 0 else 1 / MAX_DEPTH


def decode_orbit(document: OrbitDocument, fetch: Callable[[str], bytes | None], where: str) -> OrbitImages:
    """Decode a sample's images.

    Args:
        document: its checked json.
        fetch: gives the bytes of a file name, None where there is no such file.
        where: the folder or the tar, for messages.

    Raises:
        OrbitError: an image is missing, broken, of another size or mode; the message names the file.
    """
    reader = _Reader(document, fetch, where)
    depth = reader.stack("depth", decode_depth, required=document.depth_scale_m is not None)
    depth_m = None
    if depth is not None:
        if document.depth_scale_m is None:
            raise OrbitError(f"{where}: {document.sample} has depth images, but its json no depth_scale_m; write it")
        depth_m = (depth * document.depth_scale_m).astype(np.float32)
    return OrbitImages(
        uid=document.uid,
        orbit=document.orbit,
        rgba=reader.rgba(),
        depth_m=depth_m,
        normal=reader.stack("normal", decode_normal),
        albedo=reader.stack("albedo", lambda data: decode_webp(data)[..., :3]),
        camera_normal=reader.stack("camera_normal", decode_normal),
        material=reader.stack("material", decode_material),
        **document.facts,
    )


@dataclass(frozen=True)
class _Reader:
    document: OrbitDocument
    fetch: Callable[[str], bytes | None]
    where: str

    def stack(self, kind: str, decode: Callable[[bytes], np.ndarray], *, required: bool = False) -> np.ndarray | None:
        """All views of a kind; None where an optional kind has no file at all. Every view or none."""
        views = self.views(kind, decode, required=required)
        return np.stack(views) if views else None

    def views(self, kind: str, decode: Callable[[bytes], np.ndarray], *, required: bool) -> list[np.ndarray]:
        orbit = self.document.orbit
        names = [self.name(kind, view) for view in range(len(orbit))]
        found = {name: data for name in names if (data := self.fetch(name)) is not None}
        if not found and not required:
            return []
        missing = [name for name in names if name not in found]
        if missing:
            raise OrbitError(
                f"{self.where}: {missing[0]} is missing ({len(found)} of {len(orbit)} {kind} images are there); "
                "render or copy it again"
            )
        return [self._decode(name, found[name], decode) for name in names]

    def name(self, kind: str, view: int) -> str:
        return image_name(self.document.sample, kind, view)

    def rgba(self) -> np.ndarray:
        """WebP encoders drop an alpha that is 255 everywhere, as where a box fills the frame: such views are opaque.

        A view that was rendered without a transparent film looks the same to a decoder. It is told apart by its
        orbit: what fills the frame from one side fills most of it from another, whose alpha shows that.
        """
        views = self.views("rgba", decode_webp, required=True)
        bare = [index for index, view in enumerate(views) if view.shape[-1] == 3]
        covered = max((float((view[..., 3] >= 128).mean()) for view in views if view.shape[-1] == 4), default=0.0)
        if bare and covered < FILLS_THE_FRAME:
            raise OrbitError(
                f"{self.where}: {self.name('rgba', bare[0])} must have an alpha channel (RGBA, straight), found RGB; "
                "render it with a transparent film"
            )
        opaque = np.full((*views[0].shape[:2], 1), 255, np.uint8)
        return np.stack([view if view.shape[-1] == 4 else np.concatenate([view, opaque], -1) for view in views])

    def _decode(self, name: str, data: bytes, decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
        try:
            image = decode(data)
        except ImageProblem as problem:
            raise OrbitError(f"{self.where}: {name} {problem}") from problem
        height, width = image.shape[:2]
        orbit = self.document.orbit
        if (width, height) != (orbit.width, orbit.height):
            raise OrbitError(
                f"{self.where}: {name} must be {orbit.width} x {orbit.height} pixels as its json says, "
                f"found {width} x {height}"
            )
        return image
