"""Light: a generator and a `LightSpec` in, a plain JSON value out that Blender sets up and the orbit's json keeps.

Drawn outside Blender, so that a second attempt, another machine and `replay` have the same light.
"""

from typing import Any

import numpy as np

from render_farm.spec import LightSpec

Light = dict[str, Any]
"""JSON. Always `kind` and `strength`; hdri: `name`, `sha256`, `rotation_deg` (of the sky, about +Z, counter-clockwise
seen from above); area: `sky` (strength of the white sky) and `lamps`, each with `azimuth_deg`, `elevation_deg`,
`distance_m` (it faces the origin), `size_m` (side of a square), `power_w`, `temperature_k`."""

LAMPS = (1, 3)
LAMP_ELEVATIONS_DEG = (10.0, 80.0)
LAMP_DISTANCES_M = (2.5, 4.0)
LAMP_SIZES_M = (0.5, 2.5)
LAMP_TEMPERATURES_K = (3500.0, 8000.0)
LAMP_WATTS_PER_M2 = (15.0, 40.0)
"""Power at a distance of 1 m; it grows with the distance squared, so that a far lamp is no weaker on the object."""
SKIES = (0.15, 0.4)


def draw_light(rng: np.random.Generator, spec: LightSpec) -> Light:
    """Draw one object's light."""
    if spec.kind == "uniform":
        return {"kind": "uniform", "strength": float(spec.strength)}
    if spec.kind == "hdri":
        hdri = spec.hdris[int(rng.integers(len(spec.hdris)))]
        rotation_deg = float(rng.uniform(0.0, 360.0))
        return {
            "kind": "hdri", "strength": float(spec.strength), "name": hdri.name, "sha256": hdri.sha256,
            "rotation_deg": rotation_deg,
        }  # fmt: skip
    sky = float(rng.uniform(*SKIES))
    lamps = [_draw_lamp(rng) for _ in range(int(rng.integers(LAMPS[0], LAMPS[1] + 1)))]
    for lamp in lamps:  # three lamps together are as bright as one
        lamp["power_w"] /= len(lamps)
    return {"kind": "area", "strength": float(spec.strength), "sky": sky, "lamps": lamps}


def _draw_lamp(rng: np.random.Generator) -> dict[str, float]:
    distance_m = float(rng.uniform(*LAMP_DISTANCES_M))
    return {
        "azimuth_deg": float(rng.uniform(0.0, 360.0)),
        "elevation_deg": float(rng.uniform(*LAMP_ELEVATIONS_DEG)),
        "distance_m": distance_m,
        "size_m": float(rng.uniform(*LAMP_SIZES_M)),
        "power_w": float(rng.uniform(*LAMP_WATTS_PER_M2)) * distance_m**2,
        "temperature_k": float(rng.uniform(*LAMP_TEMPERATURES_K)),
    }
