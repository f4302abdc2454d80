"""What files hold, as plain numpy: no torch here, so that the render farm can use it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from engine.geometry import Orbit


@dataclass(frozen=True)
class Normalisation:
    """How the asset was brought into the unit frame: p_normalised = scale * (p_asset - centre), both +Z up."""

    scale: float
    """Factor, asset units to normalised units (longest side 1)."""
    centre: tuple[float, float, float]
    """Centre of the asset's bounding box in asset units, +Z-up world."""


@dataclass(frozen=True)
class OrbitImages:
    """One object's orbit with its images: what `orbit/1` holds."""

    uid: str
    """The object's id; part of file names: letters, digits, '.', '_', '-'."""
    orbit: Orbit
    """The cameras, one for each image."""
    rgba: UInt8[np.ndarray, "n h w 4"]
    """sRGB, Standard view transform, straight alpha."""
    depth_m: Float[np.ndarray, "n h w"] | None = None
    """Planar camera z in metres, 0 where nothing is; float32."""
    normal: Float[np.ndarray, "n h w 3"] | None = None
    """World-space unit normals, 0 where nothing is; float32."""
    albedo: UInt8[np.ndarray, "n h w 3"] | None = None
    """Base colour, sRGB, black where nothing is."""
    camera_normal: Float[np.ndarray, "n h w 3"] | None = None
    """Unit normals in OpenCV camera axes (+X right, +Y down, +Z forward), 0 where nothing is; float32."""
    material: UInt8[np.ndarray, "n h w 2"] | None = None
    """Roughness and metallic, linear, 255 for 1; 0 where nothing is."""
    normalisation: Normalisation = field(default_factory=lambda: Normalisation(1.0, (0.0, 0.0, 0.0)))
    """Back to the asset's true size."""
    seed: int | None = None
    """What elevation and light were drawn from."""
    renderer: Mapping[str, Any] = field(default_factory=dict)
    """What made the images: engine, version, samples, light, warnings."""
    caption: str = ""
    """One sentence about the object."""
    label: str = ""
    """Its class."""
    license: str = ""
    """SPDX id of the object's licence."""
    attribution: str = ""
    """Who made it."""
    source: str = ""
    """Where it comes from."""
    given_view: int | None = None
    """Of a generated orbit: the view that is the given picture itself, and so surer than the others."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Unknown keys of the json, kept."""

    def subset(self, indices: Sequence[int]) -> "OrbitImages":
        """Return the sample of some of its views."""
        chosen = list(indices)
        return replace(
            self,
            given_view=chosen.index(self.given_view) if self.given_view in chosen else None,
            orbit=self.orbit.subset(chosen),
            rgba=self.rgba[chosen],
            depth_m=None if self.depth_m is None else self.depth_m[chosen],
            normal=None if self.normal is None else self.normal[chosen],
            albedo=None if self.albedo is None else self.albedo[chosen],
            camera_normal=None if self.camera_normal is None else self.camera_normal[chosen],
            material=None if self.material is None else self.material[chosen],
        )


@dataclass(frozen=True)
class SplatArrays:
    """3D Gaussians as they are stored: raw (not activated) parameters in our +Z-up world."""

    means: Float[np.ndarray, "n 3"]
    """Centres, metres."""
    log_scales: Float[np.ndarray, "n 3"]
    """Natural logarithm of the standard deviations, metres."""
    quaternions: Float[np.ndarray, "n 4"]
    """Rotations, w x y z, unit length."""
    opacity_logits: Float[np.ndarray, " n"]
    """Opacity before the sigmoid."""
    sh: Float[np.ndarray, "n k 3"]
    """Spherical harmonics, k = 1, 4, 9 or 16 coefficients (degree 0 to 3); colour = 0.5 + sum(basis * sh), sRGB."""

    def __len__(self) -> int:
        return len(self.means)


@dataclass(frozen=True)
class MeshArrays:
    """A triangle mesh in our +Z-up world; vertices are shared, texture seams live in `uv` (one per corner)."""

    vertices: Float[np.ndarray, "v 3"]
    """Metres."""
    faces: Int[np.ndarray, "f 3"]
    """Counter-clockwise seen from outside."""
    uv: Float[np.ndarray, "f 3 2"] | None = None
    """Per face corner, in [0, 1], origin at the texture's TOP left (glTF)."""
    texture: UInt8[np.ndarray, "h w 3"] | None = None
    """Base colour, sRGB, first row at the top."""
    vertex_colours: UInt8[np.ndarray, "v 3"] | None = None
    """Base colour, sRGB (written to glTF's COLOR_0 as linear)."""
