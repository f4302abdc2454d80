"""Materials and textures as they are: what is recorded, what each policy does, what the passes hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.render_farm.worker.quad import FRONT, middle, png, scalar, scalars, textured_glb

pytestmark = pytest.mark.blender


# ------------------------------------------------------------------------------------------------ passes
def test_roughness_and_metallic_of_a_packed_texture(worker: Any, tmp_path: Path, make_cameras: Any) -> None:
    """glTF: roughness in green, metalness in blue, times the factors."""
    image = png(tmp_path / "orm.png", (10, 128, 64))
    path = textured_glb(tmp_path / "orm.glb", image, kind="metallicRoughnessTexture",
                        pbr={"metallicFactor": 1.0, "roughnessFactor": 0.5})  # fmt: skip
    outcome = worker.run(path, make_cameras(**FRONT))
    assert scalar(outcome, "Roughness") == pytest.approx(128 / 255 / 2, abs=0.003)  # 8 bits
    assert scalar(outcome, "Metallic") == pytest.approx(64 / 255, abs=0.003)
    assert outcome.facts["textured"] == "plain"  # its colour is


def test_passes_of_node_groups_and_mixes(worker: Any, moving: Path, make_cameras: Any) -> None:
    """Cubes from left to right: a metal in a node group, glass, half-transparent blue, hair."""
    outcome = worker.run(moving / "shaders.blend", make_cameras((0.0,), 0.0, 2.0))
    assert outcome.facts["refracts"]  # so that OIDN does not trust its guides (worker/cycles.py)
    view = outcome.channels()[0]
    focal = 48 / 2 / np.tan(np.radians(20))
    columns = [round(24 + focal * x / 5.5 / (2 - 0.5 / 5.5)) for x in (-2.25, -0.75, 0.75, 2.25)]
    planes = {name: view[name] for name in ("BaseColour.R", "BaseColour.G")}
    planes |= {name: scalars(view, name) for name in ("Roughness", "Metallic", "BaseWeight")}
    found = {name: [float(plane[24, u]) for u in columns] for name, plane in planes.items()}
    assert found["BaseWeight"][0] == pytest.approx(1, abs=0.01)
    assert (found["BaseColour.R"][0], found["BaseColour.G"][0]) == pytest.approx((1, 0.5), abs=0.01)
    assert (found["Roughness"][0], found["Metallic"][0]) == pytest.approx((0.25, 1.0), abs=0.01)
    # what one sees through glass, or a veil, adds to it; a diffuse one is rough
    weight = found["BaseWeight"][2]
    assert found["Roughness"][2] / weight == pytest.approx(1, abs=0.01)
    assert found["Metallic"][2] / weight == pytest.approx(0, abs=0.01)
    assert found["BaseWeight"][3] == 0
    assert outcome.facts["warnings"] == [
        "material 'hair' has a shader that cannot be read: albedo is taken from Blender's passes, roughness 0.5, metallic 0"
    ]


# ------------------------------------------------------------------------------------------------ transparency
@pytest.mark.parametrize(("alpha", "clear"), [(255, False), (100, True)])
def test_blended_materials_are_transparent_only_if_their_image_is(
    worker: Any, tmp_path: Path, make_cameras: Any, alpha: int, clear: bool
) -> None:
    path = textured_glb(tmp_path / "a.glb", png(tmp_path / "a.png", (200, 10, 10, alpha)), alphaMode="BLEND")
    kept = worker.run(path, make_cameras(**FRONT), samples=64)
    assert kept.facts["transparent"] is clear
    assert kept.facts["textured"] == "image"
    assert middle(kept, "Combined.A", False) == pytest.approx(alpha / 255, abs=0.05)  # 64 paths decide
    opaque = worker.run(path, make_cameras(**FRONT), policy={"transparent": "opaque"})
    assert opaque.facts["transparent"] is clear
    assert middle(opaque, "Combined.A", False) == pytest.approx(1)
    assert len(opaque.facts["warnings"]) == int(clear)
    refused = worker.run(path, make_cameras(**FRONT), policy={"transparent": "refuse"})
    assert (refused.events[-1].get("reason") == "transparent") is clear
    assert not opaque.facts["refracts"]  # leaves and veils are no glass


def test_glass_and_veils_become_opaque(worker: Any, moving: Path, make_cameras: Any) -> None:
    outcome = worker.run(moving / "shaders.blend", make_cameras((0.0,), 0.0, 2.0), policy={"transparent": "opaque"})
    assert not outcome.facts["refracts"]
    view = outcome.channels()[0]
    row = view["Combined.A"][24]
    assert set(np.round(row[8:40][row[8:40] > 0.9], 3)) == {1.0}
    focal = 48 / 2 / np.tan(np.radians(20))
    veil = round(24 + focal * 0.75 / 5.5 / (2 - 0.5 / 5.5))
    assert view["Combined.A"][24, veil] == pytest.approx(1)
    assert view["BaseColour.B"][24, veil] == pytest.approx(1, abs=0.01)
    assert view["BaseColour.R"][24, veil] == pytest.approx(0, abs=0.01)


# ------------------------------------------------------------------------------------------------ textures
def test_large_textures_are_halved(worker: Any, tmp_path: Path, make_cameras: Any) -> None:
    path = textured_glb(tmp_path / "big.glb", png(tmp_path / "big.png", (0, 200, 0), (300, 128)))
    outcome = worker.run(path, make_cameras(**FRONT), policy={"max_texture_px": 100})
    facts = outcome.facts
    assert (facts["images"], facts["largest_image_px"], facts["textures_resized"]) == (1, 300, 1)
    assert len(facts["warnings"]) == 1
    assert "was made smaller: 300 x 128 to 75 x 32 pixels" in facts["warnings"][0]
    assert middle(outcome, "BaseColour.G") == pytest.approx(((200 / 255 + 0.055) / 1.055) ** 2.4, abs=0.005)
    untouched = worker.run(path, make_cameras(**FRONT), policy={"max_texture_px": 300})
    assert untouched.facts["textures_resized"] == 0


def test_missing_textures(worker: Any, tmp_path: Path, make_cameras: Any) -> None:
    path = textured_glb(tmp_path / "gone.glb", None, uri="gone.png")
    outcome = worker.run(path, make_cameras(**FRONT))
    assert outcome.facts["warnings"] == ["texture 'gone.png' is missing: rendered with a neutral colour"]
    assert middle(outcome, "BaseColour.G") == pytest.approx(0.8, abs=0.005)
    error = worker.run(path, make_cameras(**FRONT), policy={"missing_textures": "refuse"}).error
    assert error["reason"] == "missing-textures"
    assert error["message"] == "texture 'gone.png' is missing; put the file beside it, or allow neutral colours"


# ------------------------------------------------------------------------------------------------ appearance
def test_how_textured_it_is(worker: Any, tmp_path: Path, make_glb: Any, make_box: Any) -> None:
    red, blue = make_box(baseColorFactor=[1, 0, 0, 1]), make_box(at=(2, 0, 0), baseColorFactor=[0, 0, 1, 1])
    again = make_box(at=(4, 0, 0), baseColorFactor=[1, 0, 0, 1])
    plain = worker.run(make_glb(tmp_path / "plain.glb", red, again)).facts
    assert (plain["textured"], plain["base_colours"], plain["materials"], plain["objects"]) == ("plain", 1, 2, 2)
    colours = worker.run(make_glb(tmp_path / "colours.glb", red, blue, again)).facts
    assert (colours["textured"], colours["base_colours"], colours["materials"]) == ("colours", 2, 3)
    coloured = tmp_path / "coloured.ply"
    coloured.write_text(
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\nproperty uchar red\n"
        "property uchar green\nproperty uchar blue\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
        "0 0 0 255 0 0\n1 0 0 0 255 0\n0 0 1 0 0 255\n3 0 1 2\n"
    )
    assert worker.run(coloured).facts["textured"] == "vertex"
    bare = tmp_path / "bare.obj"
    bare.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert worker.run(bare).facts["textured"] == "plain"
