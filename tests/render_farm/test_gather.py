"""From planned orbits to a job, and from a fake's EXRs to images that agree with their own cameras."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.files import Normalisation, OrbitImages
from engine.geometry import frames, project, rays_world
from render_farm.blender import Blender, JobResult
from render_farm.cameras import PlannedOrbit, plan_orbits
from render_farm.checks.pictures import ALPHA_SEEN
from render_farm.errors import FarmError
from render_farm.gather import border_warnings, gather, make_job
from render_farm.job import Job
from render_farm.records import Provenance
from render_farm.spec import PASSES, AssetPolicy, CameraSpec, Condition, Execution, RenderSpec

RADIUS_M = 0.4
SPEC = RenderSpec(
    cameras=CameraSpec("hammersley", views=6), condition=Condition(), assets=AssetPolicy(frame=3), width=48, height=32,
    samples=2, passes=PASSES, seed=7,
)  # fmt: skip
SEED = 2**31 + 7
PROVENANCE = Provenance("A ball.", "ball", "CC0-1.0", "Somebody", "https://example.org/ball")


@dataclass(frozen=True)
class Done:
    job: Job
    planned: tuple[PlannedOrbit, ...]
    result: JobResult

    def gather(self) -> tuple[OrbitImages, ...]:
        return gather(
            "ball", PROVENANCE, SPEC, planned=self.planned, seed=SEED, key="K", sha256="S", result=self.result
        )


@pytest.fixture
def done(tmp_path: Path, fake_worker: Callable[[str], tuple[str, ...]], write_ply: Callable[[Path], Path]) -> Done:
    execution = Execution(threads=1, hdri_folder="/hdris")
    planned = plan_orbits(SEED, SPEC)
    job = make_job(
        "K", write_ply(tmp_path / "ball.ply"), ".ply", planned=planned, seed=SEED, spec=SPEC, execution=execution,
        folder=tmp_path,
    )  # fmt: skip
    with Blender(execution, tmp_path / "scratch", command=fake_worker("well")) as blender:
        return Done(job, planned, blender.run(job))


def test_the_job_says_everything(done: Done, tmp_path: Path) -> None:
    job = done.job
    assert (job.key, job.width, job.height, job.samples, job.seed) == ("K", 48, 32, 2, 7)  # the seed modulo 2^31
    assert (job.passes, job.device, job.threads, job.hdri_folder) == (PASSES, "cpu", 1, "/hdris")
    assert job.policy["frame"] == 3
    assert [orbit.name for orbit in job.orbits] == ["hammersley", "condition"]
    for orbit, item in zip(job.orbits, done.planned, strict=True):
        assert orbit.light == item.light
        assert (orbit.focal_px, orbit.principal_px) == (item.orbit.focal_px, item.orbit.principal_px)
        poses = frames.from_blender(np.array([view.matrix_world for view in orbit.views]))
        np.testing.assert_array_equal(poses, item.orbit.T_world_camera)
    job.save(tmp_path / "job.json")
    assert Job.load(tmp_path / "job.json") == job


def test_facts_of_the_json(done: Done) -> None:
    for images, item in zip(done.gather(), done.planned, strict=True):
        assert images.orbit is item.orbit
        assert images.normalisation == Normalisation(0.5, (1.0, 2.0, 3.0))
        assert (images.uid, images.seed, images.caption, images.source) == ("ball", SEED, "A ball.", PROVENANCE.source)
        assert (images.label, images.license, images.attribution) == ("ball", "CC0-1.0", "Somebody")
        renderer = dict(images.renderer)
        assert renderer.pop("light") == item.light
        assert renderer.pop("policy")["frame"] == 3
        facts = renderer.pop("asset")
        assert (facts["textured"], facts["animated"], facts["frames"], len(facts["mesh_hash"])) == (
            "image",
            False,
            [1, 1],
            64,
        )
        assert renderer == {
            "engine": "cycles", "blender": "0.0 fake", "device": "CPU", "samples": 2, "denoise": "none",
            "view_transform": "Standard", "triangles": 12, "objects": 1, "asset_sha256": "S",
            "spec": SPEC.canonical_json(), "task_key": "K", "warnings": ["texture 'a.png' is missing"],
        }  # fmt: skip


def test_results_travel_between_processes(done: Done) -> None:
    again = pickle.loads(pickle.dumps(done.result))
    assert again == done.result


def test_facts_hold_no_times(done: Done) -> None:
    """What the clock or the machine's load says would make the same work give other bytes."""
    imported = dict(done.result.imported) | {"import_s": 1.23, "rss_bytes": 4}
    slow = replace(done, result=replace(done.result, imported=imported, wall_s=99.0))
    assert [dict(i.renderer) for i in slow.gather()] == [dict(i.renderer) for i in done.gather()]


def test_pictures_agree_with_their_cameras(done: Done) -> None:
    """The ball's depth, normals and outline are those that engine.geometry predicts for each stored pose."""
    for images in done.gather():
        assert images.depth_m is not None
        assert images.normal is not None
        assert images.camera_normal is not None
        for index, camera in enumerate(images.orbit.cameras):
            seen = images.rgba[index, ..., 3] == 255
            assert seen.any()
            pixels, depth = project(camera, RADIUS_M * images.normal[index][seen].astype(float))
            v, u = np.nonzero(seen)
            # a normal of the ball is also a point on it: it lands on its own pixel; float32 of normals and depths
            np.testing.assert_allclose(pixels, np.stack([u, v], -1) + 0.5, atol=1e-3)
            np.testing.assert_allclose(depth, images.depth_m[index][seen], atol=1e-5)
            np.testing.assert_allclose(np.linalg.norm(images.camera_normal[index][seen], axis=-1), 1, atol=1e-5)
            # every visible normal faces its pixel's ray; in camera axes rays are ((u - cx) / f, (v - cy) / f, 1)
            rays = np.concatenate(
                [np.stack([u, v], -1) + 0.5 - camera.principal_px, np.full((len(u), 1), camera.focal_px)], 1
            )
            assert ((images.camera_normal[index][seen] * rays).sum(-1) < 1e-3).all()
            assert not images.depth_m[index][~seen].any()
            assert not images.camera_normal[index][~seen].any()


def test_albedo_and_material(done: Done) -> None:
    for images in done.gather():
        seen = images.rgba[..., 3] == 255
        assert images.albedo is not None
        assert images.material is not None
        assert np.unique(images.material[seen], axis=0).tolist() == [[191, 0]]  # 0.75 * 255
        assert not images.material[~seen].any()
        assert images.albedo[seen].std() > 5  # the pattern


def test_only_the_passes_asked_for(done: Done) -> None:
    (images, _) = gather(
        "ball",
        PROVENANCE,
        replace(SPEC, passes=()),
        planned=done.planned,
        seed=1,
        key="K",
        sha256="S",
        result=done.result,
    )
    assert (images.depth_m, images.normal, images.camera_normal, images.albedo, images.material) == (None,) * 5


def test_pictures_of_another_size(done: Done) -> None:
    path = done.result.views["hammersley"][2]
    other = replace(SPEC, width=24, height=16)
    with pytest.raises(FarmError, match=r"^hammersley\.000\.exr must be 16 x 24, got \(32, 48\) \[bad-output\]$"):
        gather(
            "b", PROVENANCE, other, planned=plan_orbits(SEED, other), seed=1, key="K", sha256="S", result=done.result
        )
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FarmError, match=r"^hammersley\.002\.exr: Blender's EXR cannot be read"):
        done.gather()


def test_a_full_disk_explains_a_cut_picture(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    path = done.result.views["condition"][0]
    path.write_bytes(b"")
    usage: Any = type("Usage", (), {"free": 12})
    monkeypatch.setattr("render_farm.blender.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(FarmError, match=r"^disk full: 12 bytes are free in .* \[disk-full\]$"):
        done.gather()


def test_border_warnings() -> None:
    rgba = np.zeros((3, 4, 4, 4), np.uint8)
    assert border_warnings(rgba) == []
    rgba[0, 0, 2, 3] = ALPHA_SEEN - 1  # the soft foot of the pixel filter: the checks do not call that cropped either
    rgba[1, 0, 2, 3] = ALPHA_SEEN
    rgba[2, 3, 0, 3] = 255
    assert border_warnings(rgba) == ["the object reaches the edge of 2 of 3 pictures (first: view 1)"]


def test_rays_and_pixels_share_a_convention(done: Done) -> None:
    """Guards the test above: rays of engine.geometry through seen pixels hit the ball."""
    images = done.gather()[0]
    camera = images.orbit.camera(1)
    origins, directions = rays_world(camera)
    along = -(origins * directions).sum(-1) / (directions**2).sum(-1)
    nearest = np.linalg.norm(origins + along[..., None] * directions, axis=-1)
    np.testing.assert_array_equal(nearest < RADIUS_M, images.rgba[1, ..., 3] == 255)
