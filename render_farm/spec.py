"""What to render: pure values. The same asset and spec give the same seed and the same cameras, byte for byte.

Two chains of pure functions::

    sha256 of the asset + RenderSpec  ->  task key (names the work)
    sha256 of the asset + its ring    ->  seed  ->  elevation  ->  engine.geometry.Orbit
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from engine.geometry import RINGS, Orbit

Light = Literal["uniform"]
Denoise = Literal["none", "fast"]
Pass = Literal["depth", "normal", "albedo"]
Device = Literal["cpu", "gpu"]

SPEC_VERSION = 1
"""Raised whenever the same spec would give other pixels or poses."""


@dataclass(frozen=True)
class RenderSpec:
    """The pictures of one object. Whatever changes them is here, and nothing else is."""

    ring: str = "ring24"
    """Which orbit: ring24 (VideoMV) or ring16 (Hi3D)."""
    width: int = 256
    """Pixels."""
    height: int = 256
    """Pixels."""
    samples: int = 64
    """Paths for each pixel, always all of them."""
    seed: int | None = None
    """What elevation and noise are drawn from; None derives it from the asset's bytes and the ring."""
    elevation_deg: float | None = None
    """Degrees above the horizon; None draws it from the ring's range."""
    light: Light = "uniform"
    """uniform: a white sky of strength 1 all around, fixed in the world, so that views agree."""
    denoise: Denoise = "none"
    """fast: Open Image Denoise, quality and prefilter FAST; meant for 16 samples."""
    passes: tuple[Pass, ...] = ("depth", "normal", "albedo")
    """What is rendered besides colour."""

    def __post_init__(self) -> None:
        if self.ring not in RINGS:
            raise ValueError(f"ring must be one of {', '.join(RINGS)}, got {self.ring!r}")
        if not (8 <= self.width <= 8192 and 8 <= self.height <= 8192):
            raise ValueError(f"width and height must lie between 8 and 8192, got {self.width} x {self.height}")
        if not 1 <= self.samples <= 65536:
            raise ValueError(f"samples must lie between 1 and 65536, got {self.samples}")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must lie between 0 and 2^63 - 1, got {self.seed}")
        if self.elevation_deg is not None and not -90 <= self.elevation_deg <= 90:
            raise ValueError(f"elevation_deg must lie between -90 and 90, got {self.elevation_deg}")

    def canonical_json(self) -> str:
        """Return the one JSON text of this spec: sorted keys, no spaces."""
        elevation_deg = None if self.elevation_deg is None else float(self.elevation_deg)
        fields = asdict(self) | {"elevation_deg": elevation_deg, "passes": sorted(self.passes)}
        return json.dumps({"version": SPEC_VERSION, **fields}, sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """Sixteen bytes, hexadecimal, that name this spec."""
        return hashlib.blake2b(self.canonical_json().encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Execution:
    """How to run the child: nothing here changes what is asked for."""

    threads: int = 4
    """Render threads."""
    device: Device = "cpu"
    """gpu fails where Blender finds none; it never falls back silently."""
    start_timeout_s: float = 120.0
    """Until Blender has come up."""
    import_timeout_s: float = 300.0
    """Until the asset is read and normalised."""
    first_view_timeout_s: float = 900.0
    """Until the first picture: building the BVH, compiling GPU kernels."""
    view_timeout_s: float = 300.0
    """From one picture to the next."""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        for name in ("start_timeout_s", "import_timeout_s", "first_view_timeout_s", "view_timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


def task_key(asset_sha256: str, spec: RenderSpec) -> str:
    """Return the name of one unit of work: this asset, rendered so."""
    return hashlib.blake2b(f"{asset_sha256}|{spec.digest}".encode(), digest_size=16).hexdigest()


def task_seed(asset_sha256: str, spec: RenderSpec) -> int:
    """Return the seed of one unit of work: the spec's own, or 32 bits of the asset's hash and the ring.

    Size, samples and denoising do not enter: the same object rendered larger has the same cameras.
    """
    if spec.seed is not None:
        return spec.seed
    name = f"{asset_sha256}|{spec.ring}|{spec.light}|{SPEC_VERSION}"
    return int(hashlib.blake2b(name.encode(), digest_size=4).hexdigest(), 16)


def task_orbit(seed: int, spec: RenderSpec) -> Orbit:
    """Return the cameras of one unit of work."""
    ring = RINGS[spec.ring]
    elevation_deg = spec.elevation_deg
    if elevation_deg is None:
        elevation_deg = ring.draw_elevation_deg(np.random.Generator(np.random.PCG64(seed)))
    return ring.orbit(float(elevation_deg), spec.width, spec.height)
