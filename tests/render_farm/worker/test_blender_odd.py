"""Assets that nobody makes on purpose: hidden by scale, far from the origin, with our own names, made for other renders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.render_farm.worker.quad import FRONT, middle, png, scalar, textured_glb

pytestmark = pytest.mark.blender

AREA = {
    "kind": "area", "strength": 1.0, "sky": 0.2, "lamps": [
        {"azimuth_deg": 0.0, "elevation_deg": 30.0, "distance_m": 3.0, "size_m": 1.0, "power_w": 200.0,
         "temperature_k": 3000.0}
    ],
}  # fmt: skip


def box(outcome: Any) -> tuple[tuple[float, ...], float]:
    """Centre and longest side in the asset's units."""
    return tuple(outcome.facts["centre"]), 1 / outcome.facts["scale"]


# ------------------------------------------------------------------------------------------------ glTF
def test_an_asset_may_have_names_like_ours(worker: Any, tmp_path: Path, make_glb: Any, make_box: Any) -> None:
    """Lights are cleared before every orbit; a record player's parts are none of them."""
    node = {"nodes": [{"mesh": 0, "name": "Turntable lamp"}]}
    path = make_glb(tmp_path / "player.glb", make_box(baseColorFactor=[1, 0, 0, 1]), extra=node)
    outcome = worker.run(path, lights=[AREA])
    (view,) = outcome.channels()
    assert view["Combined.A"][24, 24] == pytest.approx(1)
    assert view["BaseColour.R"][24, 24] == pytest.approx(1)


def test_far_from_the_origin(worker: Any, tmp_path: Path, make_glb: Any, make_box: Any, make_cameras: Any) -> None:
    """Two boxes of half a metre, 0.7 m apart, 300 km away: where they are is exact in 32 bits, products of it are not."""
    places = [[1e5, 2e5, -3e5], [1e5 + 0.703125, 2e5, -3e5]]  # glTF axes
    nodes = {"nodes": [{"mesh": i, "translation": place} for i, place in enumerate(places)]}
    parts = make_box(size=(0.5, 0.5, 0.5)), make_box(size=(0.5, 0.5, 0.5))
    orbit = make_cameras((0.0,), 0.0)
    outcome = worker.run(make_glb(tmp_path / "far.glb", *parts, extra=nodes), orbit)
    centre, side = box(outcome)
    assert side == pytest.approx(1.203125, abs=1e-6)
    assert centre == pytest.approx((1e5 + 0.3515625, 3e5, 2e5), abs=1e-6)
    depth = outcome.channels()[0]["Depth.V" if "Depth.V" in outcome.channels()[0] else "Depth.Z"]
    half = 0.25 / side
    # a shift by what 32 bits leave of 300 km (0.03 m) would be 0.025 here
    assert np.median(depth[depth < 1e9]) == pytest.approx(2.6 - half, abs=1e-4)
    columns = np.flatnonzero((depth < 1e9).any(0))
    assert columns[0] + columns[-1] == pytest.approx(47, abs=1)


def test_what_has_no_size_does_not_count(worker: Any, tmp_path: Path, make_glb: Any, make_box: Any) -> None:
    """Animations hide things by scaling them to nothing, wherever they are."""
    nodes = {"nodes": [{"mesh": 0}, {"mesh": 0, "translation": [50, 0, 0], "scale": [0, 0, 0]}]}
    facts = worker.run(make_glb(tmp_path / "hidden.glb", make_box(), make_box(), extra=nodes)).facts
    assert facts["centre"] == pytest.approx((0, 0, 0), abs=1e-6)
    assert facts["scale"] == pytest.approx(1, abs=1e-6)
    assert facts["triangles"] == 12


UNLIT = {"extensions": {"KHR_materials_unlit": {}}}


@pytest.mark.parametrize(
    ("mode", "alpha", "clear"), [("OPAQUE", 100, False), ("BLEND", 255, False), ("BLEND", 100, True)]
)
def test_unlit_is_not_transparent_by_itself(
    worker: Any, tmp_path: Path, make_cameras: Any, mode: str, alpha: int, clear: bool
) -> None:
    """glTF's importer makes it of a mix with transparency, for rays of light alone."""
    image = png(tmp_path / "a.png", (200, 100, 10, alpha))
    path = textured_glb(tmp_path / "a.glb", image, alphaMode=mode, extensionsUsed=["KHR_materials_unlit"], **UNLIT)
    kept = worker.run(path, make_cameras(**FRONT))
    assert kept.facts["transparent"] is clear
    refused = worker.run(path, make_cameras(**FRONT), policy={"transparent": "refuse"})
    assert (refused.events[-1].get("reason") == "transparent") is clear
    opaque = worker.run(path, make_cameras(**FRONT), policy={"transparent": "opaque"})
    assert middle(opaque, "Combined.A", False) == pytest.approx(1)
    linear = ((200 / 255 + 0.055) / 1.055) ** 2.4
    # half of an 8-bit step; what is unlit shows its colour whatever the light
    assert middle(opaque, "Combined.R", False) == pytest.approx(linear, abs=0.002)
    assert middle(kept, "BaseColour.R") == pytest.approx(linear, abs=0.002)


@pytest.mark.parametrize("data", ["metallicRoughnessTexture", "occlusionTexture"])
def test_one_picture_for_colour_and_for_data(worker: Any, tmp_path: Path, make_cameras: Any, data: str) -> None:
    """Blender's importer declares it data for both."""
    other = {"pbr": {data: {"index": 0}}} if data.startswith("metallic") else {data: {"index": 0}}
    path = textured_glb(tmp_path / "both.glb", png(tmp_path / "both.png", (200, 64, 17)), **other)
    outcome = worker.run(path, make_cameras(**FRONT))
    linear = [((value / 255 + 0.055) / 1.055) ** 2.4 for value in (200, 64, 17)]
    assert [middle(outcome, f"BaseColour.{c}") for c in "RGB"] == pytest.approx(linear, abs=2e-3)
    if data.startswith("metallic"):
        assert scalar(outcome, "Roughness") == pytest.approx(64 / 255, abs=0.003)  # 8 bits
    assert outcome.facts["images"] == 1


# ------------------------------------------------------------------------------------------------ PLY
PLY = """ply
format ascii 1.0
comment TextureFile skin.png
element vertex 4
property float x
property float y
property float z
property float s
property float t
element face 1
property list uchar int vertex_indices
end_header
-1 0 -1 0 0
1 0 -1 1 0
1 0 1 1 1
-1 0 1 0 1
4 0 1 2 3
"""


def test_a_scan_shows_its_texture(worker: Any, tmp_path: Path, make_cameras: Any) -> None:
    """MeshLab names it in a comment, which Blender passes over."""
    path = tmp_path / "scan.ply"
    path.write_text(PLY)
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:32], picture[32:] = (255, 0, 0), (0, 0, 255)  # its upper half is red
    Image.fromarray(picture).save(tmp_path / "skin.png")
    outcome = worker.run(path, make_cameras(**FRONT))
    assert outcome.facts["textured"] == "image"
    assert outcome.facts["warnings"] == []
    (view,) = outcome.channels()
    assert view["BaseColour.R"][16, 24] == pytest.approx(1, abs=0.01)
    assert view["BaseColour.B"][32, 24] == pytest.approx(1, abs=0.01)
    (tmp_path / "skin.png").unlink()
    outcome = worker.run(path, make_cameras(**FRONT))
    assert outcome.facts["warnings"] == ["texture 'skin.png' is missing: rendered with a neutral colour"]
    error = worker.run(path, policy={"missing_textures": "refuse"}).error
    assert error["reason"] == "missing-textures"


# ------------------------------------------------------------------------------------------------ .blend
@pytest.fixture(scope="module")
def odd(exported: Callable[[str], Path]) -> Path:
    return exported("odd")


@pytest.mark.parametrize(
    ("name", "centre", "side", "triangles"),
    [("render_only", (3, 0, 0), 8, 48), ("view_only", (0, 0, 0), 2, 12), ("helpers", (0, 0, 0), 2, 12)],
)
def test_what_renders_is_what_is_measured(
    worker: Any, odd: Path, name: str, centre: tuple[float, ...], side: float, triangles: int
) -> None:
    outcome = worker.run(odd / f"{name}.blend")
    assert outcome.facts["triangles"] == triangles
    assert box(outcome)[0] == pytest.approx(centre, abs=1e-5)
    assert box(outcome)[1] == pytest.approx(side, abs=1e-5)


def test_helpers_of_another_render_are_left_out_and_named(worker: Any, odd: Path) -> None:
    assert worker.run(odd / "helpers.blend").facts["warnings"] == [
        f"object {name!r} is left out: it is made not to be seen" for name in ("catcher", "holdout", "unseen")
    ]


def test_particles_are_counted_as_they_render(worker: Any, odd: Path) -> None:
    outcome = worker.run(odd / "scattered.blend")
    assert outcome.facts["warnings"] == []  # what is instanced is measured
    assert outcome.facts["triangles"] == 12 * 61
    assert 2.0 < box(outcome)[1] < 2.21  # the red cube and what stands on it
    (view,) = outcome.channels()
    assert ((view["DiffCol.G"] > 0.7) & (view["Combined.A"] > 0.9)).sum() > 20  # they show, in Blender's own grey


def test_hair_is_not_measured_and_said_not_to_be(worker: Any, odd: Path) -> None:
    facts = worker.run(odd / "hairy.blend").facts
    assert facts["warnings"] == ["its hair, points or volumes were not measured: they may reach beyond the unit box"]
    assert facts["scale"] == pytest.approx(0.5)


def test_base_colour_of_paint_that_also_glows(worker: Any, odd: Path, make_cameras: Any) -> None:
    outcome = worker.run(odd / "added.blend", make_cameras(**FRONT))
    assert [middle(outcome, f"BaseColour.{c}") for c in "RGB"] == pytest.approx([0.8, 0.1, 0.1], abs=1e-3)


def test_outputs_of_the_file_do_not_mix_with_ours(worker: Any, odd: Path, make_cameras: Any) -> None:
    outcome = worker.run(odd / "outputs.blend", make_cameras(**FRONT))
    assert [middle(outcome, f"BaseColour.{c}") for c in "RGB"] == pytest.approx([0.8, 0.1, 0.1], abs=1e-3)
    assert scalar(outcome, "Roughness") == pytest.approx(0.5, abs=1e-3)


def test_films_and_libraries_that_are_gone_are_named(worker: Any, odd: Path, make_cameras: Any) -> None:
    film = worker.run(odd / "movie.blend", make_cameras(**FRONT))
    assert film.facts["warnings"] == ["texture 'gone.mp4' is missing: rendered with a neutral colour"]
    assert [middle(film, f"BaseColour.{c}") for c in "RGB"] == pytest.approx([0.8] * 3, abs=1e-3)
    linked = worker.run(odd / "linked.blend")
    assert linked.facts["warnings"] == ["library 'library.blend' is missing: what it holds is left out"]
