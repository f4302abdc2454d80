"""The picture that networks are shown when its camera is known: where the object is, there it stays."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import EvaluationError
from engine.evaluation.making import Loading, Maker
from engine.evaluation.record import Record
from engine.evaluation.samples import OrbitKind
from engine.evaluation.variants import variants_named
from engine.files import OrbitImages
from engine.multiview.pictures import Picture, hi3d_framing, kept
from engine.multiview.settings import Sampling
from engine.presets import PRESETS
from tests.engine.balls import ball_orbit


@pytest.fixture(scope="module")
def stored() -> OrbitImages:
    return ball_orbit(size=32, views=24)


def off_centre(width: int, height: int) -> Picture:
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[4:12, 2:10] = (200, 30, 60, 255)
    return Picture(rgba)


def test_a_square_picture_of_the_right_size_is_what_it_was() -> None:
    picture = off_centre(32, 32)
    framed = kept(picture, 32)
    assert (framed.rgba == picture.rgba).all()
    assert (framed.rgb[0, 0], framed.rgb[5, 5, 0]) == (pytest.approx([255] * 3), 200)
    assert (hi3d_framing(picture, 32, "kept").rgb == framed.rgb).all()


@pytest.mark.parametrize(("width", "height"), [(32, 32), (32, 20), (20, 32)])
def test_another_size_and_shape_keeps_places(width: int, height: int) -> None:
    framed = kept(off_centre(width, height), 64, 0.5)
    corners = framed.placement.to_canvas(np.array([[2.0, 4.0], [10.0, 12.0]]))
    (left, top), (right, bottom) = corners.round().astype(int)
    assert (right - left, bottom - top) == (16, 16)
    middle = framed.rgba[top + 2 : bottom - 2, left + 2 : right - 2]
    assert (middle[..., 3] == 255).all()
    assert framed.rgba[..., 3].astype(float).sum() / 255 == pytest.approx(256, rel=0.02)  # the kernel's soft edge
    assert (framed.rgb[-1, -1] == 128).all()


def maker(folder: Path) -> Maker:
    preset = PRESETS["tiny"]
    settings = preset.settings["picture"]
    return Maker(
        Loading(preset, "picture", None, "cpu", "float32"), OrbitKind(settings.views), 0, folder, Record(folder)
    )


def test_an_orbit_is_made_once_and_as_the_true_one_stands(
    stored: OrbitImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = replace(stored, orbit=stored.orbit.subset([*range(6, 24), *range(6)]))
    sampling = Sampling(steps=1, refinement="off", framing="kept")
    made = maker(tmp_path).make(turned, "plain", sampling, lambda at: None)
    np.testing.assert_allclose(made.images.orbit.T_world_camera, turned.orbit.T_world_camera, atol=1e-9)
    assert made.gaussians is not None

    again = maker(tmp_path)
    monkeypatch.setattr(again, "_loaded", lambda: pytest.fail("networks were loaded"))
    found = again.make(turned, "plain", sampling, lambda at: None)
    assert (found.images.rgba == made.images.rgba).all()
    assert found.gaussians is not None
    assert len(found.gaussians) == len(made.gaussians)


def test_orbits_of_other_settings_are_never_taken_for_these(stored: OrbitImages, tmp_path: Path) -> None:
    one, two = (Sampling(steps=steps, refinement="off", framing="kept") for steps in (1, 2))
    first = maker(tmp_path).make(stored, "plain", one, lambda at: None).images.rgba
    second = maker(tmp_path).make(stored, "plain", two, lambda at: None).images.rgba
    assert (first != second).any()
    assert (maker(tmp_path).make(stored, "plain", one, lambda at: None).images.rgba == first).all()


def test_objects_draw_their_own_noise_whatever_their_order(stored: OrbitImages, tmp_path: Path) -> None:
    own = maker(tmp_path)
    assert own.seed_of("a") == maker(tmp_path).seed_of("a") != own.seed_of("b")
    dark = replace(stored, rgba=stored.rgba // 2)
    assert own.key(stored, Sampling()) != own.key(dark, Sampling())
    assert own.key(stored, Sampling()) != own.key(stored, Sampling(refinement="off"))


def test_variants_are_told_from_each_other() -> None:
    plain, aware = variants_named(["plain", "3d-aware"], PRESETS["tiny"], None)
    asked = Sampling(steps=7, refine_every=3)
    assert plain.sampling(asked) == Sampling(steps=7, refine_every=3, refinement="off")
    assert aware.sampling(asked) == Sampling(steps=7, refine_every=3, refinement="both")
    assert variants_named([], PRESETS["tiny"], None) == []
    with pytest.raises(
        EvaluationError, match=r"--compare refined: --preset tiny has plain \(without 3D-aware sampling\), "
    ):
        variants_named(["refined"], PRESETS["tiny"], None)
    with pytest.raises(EvaluationError, match="--compare plain plain: names one twice"):
        variants_named(["plain", "plain"], PRESETS["tiny"], None)
