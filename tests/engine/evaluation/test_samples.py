"""Which stored orbits a preset can be measured on, and what is said of the others."""

import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import EvaluationError, TrainingError
from engine.evaluation.samples import OrbitKind, at_size, check_captions, each_sample, read_samples, resized
from engine.files import OrbitImages, write_shard
from engine.geometry import RING16, Orbit
from engine.multiview.orbits import KnownViews, orbit_for
from tests.engine.balls import ball_orbit

RING24_KIND = OrbitKind(KnownViews())


@pytest.fixture(scope="module")
def stored() -> OrbitImages:
    return ball_orbit(size=16, views=24, elevation_deg=20.0)


def test_orbits_of_the_kind_are_read_in_order_without_their_depth(stored: OrbitImages, tmp_path: Path) -> None:
    other = replace(
        stored, uid="other", orbit=RING16.orbit(0.0, 16, 16), rgba=stored.rgba[:16], depth_m=None, normal=None
    )
    write_shard(tmp_path / "a.tar", [stored, replace(stored, uid="apple"), other])
    found = read_samples([str(tmp_path)], RING24_KIND)
    assert [images.uid for images in found] == ["apple", "ball"]
    assert found[0].depth_m is None
    assert [images.uid for images in read_samples([str(tmp_path)], RING24_KIND, limit=1)] == ["apple"]
    assert [images.uid for images in each_sample([str(tmp_path)], RING24_KIND)] == ["apple", "ball"]


def test_the_request_makes_the_stored_cameras(stored: OrbitImages) -> None:
    turned = replace(stored, orbit=stored.orbit.subset([*range(5, 24), *range(5)]))
    made = orbit_for(RING24_KIND.request(turned.orbit), KnownViews(), 16)
    np.testing.assert_allclose(made.T_world_camera, turned.orbit.T_world_camera, atol=1e-12)
    assert RING24_KIND.misfit(turned.orbit) is None


def test_misfits_are_told_apart(stored: OrbitImages) -> None:
    orbit = stored.orbit
    assert RING24_KIND.misfit(RING16.orbit(0.0, 16, 16)) == "ring16: 16 views, 49.13 degrees wide"
    backwards = orbit.subset(list(range(23, -1, -1)))
    assert RING24_KIND.misfit(backwards) == "ring24: not one even circle counter-clockwise around the origin"
    wide = Orbit.around_origin(
        "ring24", orbit.azimuth_deg, orbit.elevation_deg, orbit.distance_m, 39.6, width=32, height=16
    )
    assert RING24_KIND.misfit(wide) == "ring24: 32 x 16 pixels, not square"


def test_shards_of_another_kind_say_what_they_hold(stored: OrbitImages, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_shard(path, [stored])
    with pytest.raises(EvaluationError) as raised:
        read_samples([str(path)], OrbitKind(KnownViews((16,), 49.13, 1.5)))
    assert str(raised.value) == (
        f"{path}: holds no orbit of 16 views, 49.13 degrees wide, which is what these weights make, but 1 of ring24: 24 "
        "views, 39.6 degrees wide; give shards of the preset's orbit, or take the preset that makes these"
    )


def test_empty_shards_and_none_at_all(tmp_path: Path) -> None:
    tarfile.open(tmp_path / "a.tar", "w").close()
    with pytest.raises(EvaluationError, match=r"a.tar: holds no orbit; render some with `turntable-farm`"):
        read_samples([str(tmp_path / "a.tar")], RING24_KIND)
    with pytest.raises(TrainingError, match=r"b-\*.tar: no shard found"):
        read_samples([str(tmp_path / "b-*.tar")], RING24_KIND)


def test_sentences_are_needed_by_those_who_start_from_them(stored: OrbitImages) -> None:
    check_captions([replace(stored, caption="a ball")], "tiny")
    with pytest.raises(
        EvaluationError, match="--preset tiny starts from sentences, and 1 of 2 orbits have no caption: b"
    ):
        check_captions([replace(stored, caption="a ball"), stored], "tiny")


def test_other_sizes(stored: OrbitImages) -> None:
    assert at_size(stored.rgba, 16) is stored.rgba
    small = resized(stored, 8)
    assert small.rgba.shape == (24, 8, 8, 4)
    assert (small.orbit.width, small.orbit.focal_px) == (8, stored.orbit.focal_px / 2)
    assert at_size(small.rgba, 16).shape == stored.rgba.shape
