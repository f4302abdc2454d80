"""Animated, skinned and repeated objects under each policy: boxes are known, so scale and centre tell the pose."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.blender

CLOSE = 1e-4
"""Coordinates through file formats: six digits of numbers around 10."""


def box(outcome: Any) -> tuple[tuple[float, ...], float]:
    """Centre and longest side in the asset's units."""
    return tuple(outcome.facts["centre"]), 1 / outcome.facts["scale"]


def expect(outcome: Any, centre: tuple[float, float, float], side: float) -> None:
    found_centre, found_side = box(outcome)
    assert found_centre == pytest.approx(centre, abs=CLOSE)
    assert found_side == pytest.approx(side, abs=CLOSE)


@pytest.mark.parametrize("suffix", ["glb", "fbx", "blend", "usdc"])
def test_skinned(worker: Any, moving: Path, suffix: str) -> None:
    """The upper half stands at x = 2 in frame 1 and at 10 in frame 21, at 0 in the rest pose."""
    path = moving / f"skinned.{suffix}"
    first = worker.run(path)
    expect(first, (1, 0, 2), 4)
    facts = first.facts
    assert (facts["animated"], facts["skinned"], facts["frame"], facts["frames"]) == (True, True, 1, [1, 21])
    assert (facts["lights_dropped"], facts["cameras_dropped"]) == (1, 1)
    assert facts["triangles"] == 12  # the bone's shape is not an object
    expect(worker.run(path, policy={"frame": 21}), (5, 0, 2), 11)
    rest = worker.run(path, policy={"frame": "rest"})
    expect(rest, (0, 0, 2), 4)
    assert (rest.facts["pose"], first.facts["pose"]) == ("rest", "frame")
    assert rest.facts["animated"]
    expect(worker.run(path, policy={"bounds": "all-frames"}), (5, 0, 2), 11)


def test_pose_is_what_is_rendered(worker: Any, moving: Path, make_cameras: Any) -> None:
    """With the box of all frames the object stands at the left in frame 1 and in the middle on average."""
    places = []
    for frame in (1, 21):
        outcome = worker.run(
            moving / "skinned.glb", make_cameras((0.0,), 0.0), policy={"frame": frame, "bounds": "all-frames"}
        )
        alpha = outcome.channels()[0]["Combined.A"]
        places.append((np.arange(alpha.shape[1]) * alpha.sum(0)).sum() / alpha.sum())
    assert places[0] < places[1] - 3


def test_frame_outside_the_animation_is_reported(worker: Any, moving: Path) -> None:
    outcome = worker.run(moving / "skinned.glb", policy={"frame": 50})
    assert "frame 50 lies outside its animation (1 to 21)" in outcome.facts["warnings"]
    expect(outcome, (5, 0, 2), 11)


def test_animated_can_be_refused(worker: Any, moving: Path, box_glb: Path) -> None:
    error = worker.run(moving / "skinned.glb", policy={"animated": "refuse"}).error
    assert error["reason"] == "animated"
    assert error["message"] == "it is animated (frames 1 to 21): allow it with the policy render"
    assert not worker.run(box_glb, policy={"animated": "refuse"}).facts["animated"]


@pytest.mark.parametrize("suffix", ["glb", "blend"])
def test_shape_keys(worker: Any, moving: Path, tmp_path: Path, suffix: str) -> None:
    """The lifted top is at 2.5 in frame 1, at 0.5 in frame 11, and stored halfway."""
    path = moving / f"key.{suffix}"
    if suffix == "glb":  # Blender's exporter writes the value of the first frame
        path = _with_weight(path, tmp_path / "key.glb", 0.5)
    expect(worker.run(path), (0, 0, 1), 3)
    expect(worker.run(path, policy={"frame": 11}), (0, 0, 0), 1)
    expect(worker.run(path, policy={"frame": "rest"}), (0, 0, 0.5), 2)


def _with_weight(source: Path, target: Path, weight: float) -> Path:
    """The GLB with another default weight of its only shape key."""
    data = source.read_bytes()
    length = struct.unpack("<I", data[12:16])[0]
    document = json.loads(data[20 : 20 + length])
    document["meshes"][0]["weights"] = [weight]
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + data[20 + length :]
    target.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body)
    return target


def test_nla(worker: Any, moving: Path) -> None:
    outcome = worker.run(moving / "nla.blend")  # saved at frame 12
    expect(outcome, (0, 2.5, 0), 6)
    assert outcome.facts["frames"] == [5, 15]
    expect(worker.run(moving / "nla.blend", policy={"frame": 15}), (4, 2.5, 0), 9)
    expect(worker.run(moving / "nla.blend", policy={"bounds": "all-frames"}), (4, 2.5, 0), 9)


def test_instances_and_drivers(worker: Any, moving: Path) -> None:
    """Cubes of side 1 at x = 0 to 8 by nodes, at 20 and 30 by collections, and one that a driver lifts to z = 6."""
    facts = worker.run(moving / "instancer.blend").facts
    assert facts["triangles"] == 12 * (5 + 2 + 1)
    assert facts["instances"]
    assert not facts["animated"]
    expect(worker.run(moving / "instancer.blend"), (15, 0, 3), 31)


def test_gpu_instancing(worker: Any, tmp_path: Path, make_glb: Any, make_box: Any) -> None:
    """EXT_mesh_gpu_instancing: the box's own eight corners are the places of eight boxes."""
    extension = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": 0}}}
    extra = {"nodes": [{"mesh": 0, "extensions": extension}], "extensionsUsed": ["EXT_mesh_gpu_instancing"],
             "extensionsRequired": ["EXT_mesh_gpu_instancing"]}  # fmt: skip
    outcome = worker.run(make_glb(tmp_path / "many.glb", make_box(size=(2, 2, 2), at=(5, 0, 0)), extra=extra))
    assert outcome.facts["triangles"] == 96
    assert outcome.facts["instances"]
    expect(outcome, (10, 0, 0), 4)


def test_too_many_triangles(worker: Any, moving: Path, tmp_path: Path, make_glb: Any, make_box: Any) -> None:
    error = worker.run(moving / "heavy.blend").error
    assert error["reason"] == "too-large"
    assert error["stages"]["measure_s"] < 1  # not evaluated: that would take the memory of the machine
    parts = make_box(), make_box(at=(2, 0, 0))
    path = make_glb(tmp_path / "two.glb", *parts)
    assert worker.run(path, policy={"max_triangles": 24}).only("done")
    error = worker.run(path, policy={"max_triangles": 23}).error
    assert error["message"] == (
        "it has 24 triangles, instances counted: expected at most 23; simplify it or raise max_triangles"
    )


def test_mesh_hash(worker: Any, tmp_path: Path, make_glb: Any, make_part: Any) -> None:
    """Order, scale, place, names, materials do not matter; shape and mirroring do."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (40, 3))
    points[:2] = [[-2, 0, 0], [2, 0.1, 0.2]]
    faces = rng.permuted(np.tile(np.arange(40), (60, 1)), axis=1)[:, :3]
    red, blue = ({"pbrMetallicRoughness": {"baseColorFactor": colour}} for colour in ([1, 0, 0, 1], [0, 0, 1, 1]))

    def fingerprint(name: str, *parts: Any) -> str:
        return str(worker.run(make_glb(tmp_path / f"{name}.glb", *parts)).facts["mesh_hash"])

    base = fingerprint("base", make_part(points, faces[:30], red), make_part(points, faces[30:], red))
    moved = 37.3 * points + [100, -20, 3]
    order = rng.permutation(60)
    assert (
        fingerprint("moved", make_part(moved, faces[order][:10], blue), make_part(moved, faces[order][10:], red))
        == base
    )
    bent = points.copy()
    bent[5] += 0.05
    assert fingerprint("bent", make_part(bent, faces[:30], red), make_part(bent, faces[30:], red)) != base
    mirrored = points * [1, -1, 1]
    assert fingerprint("mirrored", make_part(mirrored, faces[:30], red), make_part(mirrored, faces[30:], red)) != base
    assert fingerprint("less", make_part(points, faces[:59], red)) != base
