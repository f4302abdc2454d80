"""A spec is a value: one text, one digest; what cannot be rendered is refused by name."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import jaxtyping
import pytest

from render_farm.spec import (
    AssetPolicy,
    CameraSpec,
    Condition,
    Execution,
    Hdri,
    LightSpec,
    RenderSpec,
    task_key,
    task_seed,
)

SHA_A, SHA_B = "a" * 64, "b" * 64
SPECS = [
    RenderSpec(),
    RenderSpec(CameraSpec("hi3d", fit="sphere", start="random"), condition=Condition(), quality=88),
    RenderSpec(CameraSpec("custom", places=((0.0, 10.0, 2.0), (90.0, -20.0, 3.0))), LightSpec("area", 2.0), seed=3),
    RenderSpec(
        CameraSpec("random", views=5, elevation_range_deg=(0.0, 30.0)),
        LightSpec("hdri", hdris=(Hdri("sky.exr", "c" * 64),)),
        assets=AssetPolicy(frame=12, bounds="all-frames"), passes=("depth",),
    ),
]  # fmt: skip


def test_canonical_json_is_fixed() -> None:
    # a change here changes every key that was ever recorded: raise SPEC_VERSION knowingly
    assert RenderSpec(light=LightSpec(hdris=())).canonical_json() == (
        '{"assets":{"animated":"render","bounds":"frame","frame":"first","max_file_bytes":2000000000,'
        '"max_texture_px":4096,"max_triangles":10000000,"missing_textures":"neutral","transparent":"keep"},'
        '"cameras":{"distance_m":null,"elevation_deg":null,"elevation_range_deg":null,"fit":"fixed","fov_deg":null,'
        '"layout":"ring24","places":[],"start":"front","views":null},"condition":null,"denoise":"none","height":256,'
        '"light":{"hdris":[],"kind":"uniform","strength":1.0},"passes":["depth","normal","albedo"],'
        '"quality":"lossless","samples":64,"seed":null,"version":3,"width":256}'
    )


@pytest.mark.parametrize("spec", SPECS)
def test_json_round_trip(spec: RenderSpec) -> None:
    back = RenderSpec.from_json(spec.canonical_json())
    assert back == spec
    assert back.digest == spec.digest


def test_every_field_has_its_own_digest() -> None:
    assert len({spec.digest for spec in SPECS}) == len(SPECS)
    # a whole number and a float, and the order of passes, are the same request
    assert (
        RenderSpec(CameraSpec(elevation_deg=20.0)).digest
        == RenderSpec(CameraSpec(elevation_deg=20.0), passes=("albedo", "normal", "depth")).digest
    )


def test_another_version_is_refused() -> None:
    document = json.loads(RenderSpec().canonical_json()) | {"version": 2}
    with pytest.raises(ValueError, match=r"^the spec is of version 2, this program writes 3: use the program"):
        RenderSpec.from_json(json.dumps(document))
    document = json.loads(RenderSpec().canonical_json()) | {"glow": 1}
    with pytest.raises(ValueError, match=r"^this is no render spec: .*'glow'"):
        RenderSpec.from_json(json.dumps(document))


def test_seed_follows_asset_and_layout_not_quality() -> None:
    spec = RenderSpec()
    other = RenderSpec(CameraSpec("ring16"))
    assert len({task_seed(SHA_A, spec), task_seed(SHA_B, spec), task_seed(SHA_A, other)}) == 3
    assert task_seed(SHA_A, RenderSpec(samples=16, width=512, height=512, denoise="fast")) == task_seed(SHA_A, spec)
    assert task_seed(SHA_A, RenderSpec(seed=7)) == task_seed(SHA_B, RenderSpec(seed=7)) == 7


def test_key_names_asset_and_spec() -> None:
    assert task_key(SHA_A, RenderSpec()) == task_key(SHA_A, RenderSpec())
    assert len({task_key(SHA_A, RenderSpec()), task_key(SHA_B, RenderSpec()), task_key(SHA_A, RenderSpec(seed=1))}) == 3


@pytest.fixture
def unchecked() -> Iterator[None]:
    """The program as it runs outside the tests: there, no type checker speaks first where a Literal is wrong."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CameraSpec("ring7"),
            "layout must be one of ring24, ring16, hi3d, hammersley, random, custom, got 'ring7'",
        ),
        (lambda: CameraSpec(fit="box"), "fit must be one of fixed, sphere, got 'box'"),
        (lambda: CameraSpec("custom"), "places belong to layout custom, got layout 'custom' with 0 places"),
        (
            lambda: CameraSpec(fit="sphere", distance_m=2.0),
            "distance_m must be None with fit sphere, which computes it",
        ),
        (lambda: CameraSpec(views=0), "views must lie between 1 and 1000, got 0"),
        (lambda: CameraSpec(fov_deg=170.0), "fov_deg must lie between 1 and 150, got 170.0"),
        (lambda: CameraSpec(elevation_deg=91.0), "elevation_deg must lie between -90 and 90, got 91.0"),
        (lambda: CameraSpec(start="back"), "start must be one of front, random, got 'back'"),
        (
            lambda: CameraSpec("custom", places=((0.0, 91.0, 2.0),)),
            "elevations of places must lie between -90 and 90, got 91.0",
        ),
        (
            lambda: CameraSpec("custom", places=((0.0, 0.0, -2.0),)),
            "distances of places must lie between 0.1 and 50, got -2.0",
        ),
        (lambda: CameraSpec("custom", places=((math.nan, 0.0, 2.0),)), "azimuths of places must be finite, got nan"),
        (lambda: AssetPolicy(transparent="glass"), "transparent must be one of keep, opaque, refuse, got 'glass'"),
        (lambda: AssetPolicy(bounds="all"), "bounds must be one of frame, all-frames, got 'all'"),
        (lambda: AssetPolicy(frame=1.5), "frame must be first, rest or a whole number, got 1.5"),
        (lambda: RenderSpec(denoise="best"), "denoise must be one of none, fast, got 'best'"),
        (lambda: Execution(device="tpu"), "device must be one of cpu, gpu, got 'tpu'"),
        (lambda: Execution(max_memory_bytes=-1), "max_memory_bytes must not be negative, got -1"),
        (lambda: CameraSpec(elevation_range_deg=(30.0, 5.0)), "elevation_range_deg must rise within -90 and 90"),
        (lambda: CameraSpec(distance_m=0.0), "distance_m must lie between 0.1 and 50, got 0.0"),
        (lambda: LightSpec("moon"), "light must be one of uniform, area, hdri, got 'moon'"),
        (lambda: LightSpec("hdri", hdris=()), "light hdri needs at least one HDR picture"),
        (lambda: LightSpec(strength=0.0), "strength must lie between 0 and 1000, got 0.0"),
        (lambda: AssetPolicy(frame="last"), "frame must be first, rest or a whole number, got 'last'"),
        (lambda: AssetPolicy(max_triangles=0), "max_triangles must be at least 1, got 0"),
        (lambda: RenderSpec(width=4), "width and height must lie between 8 and 8192, got 4 x 256"),
        (lambda: RenderSpec(samples=0), "samples must lie between 1 and 65536, got 0"),
        (lambda: RenderSpec(seed=-1), "seed must lie between 0 and 2^63 - 1, got -1"),
        (lambda: RenderSpec(quality=101), "quality must be 'lossless' or 1 to 100, got 101"),
        (
            lambda: RenderSpec(passes=("glow",)),
            "passes must be of depth, normal, camera_normal, albedo, material, got 'glow'",
        ),
        (lambda: Execution(threads=0), "threads must be at least 1, got 0"),
        (lambda: Execution(view_timeout_s=0.0), "view_timeout_s must be positive, got 0.0"),
    ],
)
def test_bad_values_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        make()
