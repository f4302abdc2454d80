"""Objects as the finisher stages them, without Blender: balls of different size and colour, drawn by numpy."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.files import Normalisation, OrbitImages, write_bytes, write_orbit
from engine.geometry import Orbit
from render_farm.cameras import plan_orbits
from render_farm.records import RECORD_NAME, ObjectRecord, Provenance, Refusal, Task
from render_farm.shards import Output, Receipt, run_context, seal_shard
from render_farm.spec import CameraSpec, Condition, RenderSpec, task_key, task_seed

SPEC = RenderSpec(
    CameraSpec("ring24", views=3), condition=Condition(CameraSpec("random", fit="sphere", views=2)), width=20, height=16,
    passes=("depth", "normal", "camera_normal", "albedo", "material"),
)  # fmt: skip
VERSIONS = {"program": "0.1.0", "blender": "4.5.0"}


def draw_ball(orbit: Orbit, radius_m: float, colour: tuple[int, int, int]) -> dict[str, Any]:
    """Every kind of picture of a ball around the origin, by ray and sphere."""
    v, u = np.mgrid[0.5 : orbit.height, 0.5 : orbit.width]
    rays = np.stack([(u - orbit.principal_px[0]) / orbit.focal_px, (v - orbit.principal_px[1]) / orbit.focal_px,
                     np.ones_like(u)], -1)  # fmt: skip
    found: dict[str, list[Any]] = {
        name: [] for name in ("rgba", "depth_m", "normal", "camera_normal", "albedo", "material")
    }
    for pose in orbit.T_world_camera:
        centre = -pose[:3, :3].T @ pose[:3, 3]
        a, b, c = (rays**2).sum(-1), rays @ centre, centre @ centre - radius_m**2
        root = b**2 - a * c
        there = root > 0
        depth = np.where(there, (b - np.sqrt(np.maximum(root, 0))) / a, 0)
        normal = np.where(there[..., None], (rays * depth[..., None] - centre) / radius_m, 0)
        shade = np.clip(0.3 - 0.7 * normal[..., 2], 0, 1)[..., None] * there[..., None]
        rgb = np.rint(shade * np.array(colour)).astype(np.uint8)
        found["rgba"].append(np.concatenate([rgb, (255 * there[..., None]).astype(np.uint8)], -1))
        found["depth_m"].append(depth.astype(np.float32))
        found["normal"].append((normal @ pose[:3, :3].T).astype(np.float32))
        found["camera_normal"].append(normal.astype(np.float32))
        found["albedo"].append((np.array(colour) * there[..., None]).astype(np.uint8))
        found["material"].append((np.array([128, 255]) * there[..., None]).astype(np.uint8))
    return {name: np.stack(values) for name, values in found.items()}


@dataclass(frozen=True)
class Ball:
    """One object of a test run."""

    uid: str
    shard: str = "000-000000"
    asset: str = ""
    """What its file is: the uid unless given, so that two may be the same."""
    radius_m: float = 0.4
    colour: tuple[int, int, int] = (200, 120, 40)
    refusal: Refusal | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    picture_hash: str = ""
    spec: RenderSpec = SPEC

    @property
    def sha256(self) -> str:
        return hashlib.sha256((self.asset or self.uid).encode()).hexdigest()

    @property
    def provenance(self) -> Provenance:
        return Provenance(f"a ball, {self.uid}", "ball", "CC0-1.0", "the tests", f"https://example.org/{self.uid}")

    @property
    def task(self) -> Task:
        """As the catalogue freezes it; two balls of one asset would share a key, which batches do not allow."""
        key = task_key(self.sha256, self.spec)
        return Task(self.uid, f"/assets/{self.uid}.glb", ".glb", self.sha256, 100, key, self.shard, self.provenance)

    def images(self) -> tuple[OrbitImages, ...]:
        seed = task_seed(self.sha256, self.spec)
        return tuple(
            OrbitImages(
                uid=self.uid, orbit=item.orbit, **draw_ball(item.orbit, self.radius_m, self.colour),
                normalisation=Normalisation(0.5, (1.0, 2.0, 3.0)), seed=seed,
                renderer={"engine": "numpy", "light": item.light}, **vars(self.provenance),
            )
            for item in plan_orbits(seed, self.spec)
        )  # fmt: skip

    def record(self) -> ObjectRecord:
        seed = task_seed(self.sha256, self.spec)
        names = tuple(item.orbit.name for item in plan_orbits(seed, self.spec))
        facts = {
            "triangles": 12,
            "objects": 1,
            "mesh_hash": f"mesh of {self.uid}",
            "textured": "image",
            "animated": False,
        }
        quality: dict[str, Any] = {name: {"coverage": {"mean": 0.25}, "border": {"views": 0}} for name in names} | {
            "picture_hash": self.picture_hash or hashlib.sha256(f"picture {self.uid}".encode()).hexdigest()[:63]
        }
        record = ObjectRecord(
            self.uid, self.task.key, self.shard, self.sha256, self.provenance, "done", attempts=1, seed=seed, orbits=names,
            facts=facts | self.facts, quality=quality, flags=("cropped",), stages={"render_s": 1.5}, wall_s=2.0,
            cpu_s=3.0, peak_bytes=4, worker="Blender 4.5, CPU",
        )  # fmt: skip
        if self.refusal is None:
            return record
        return replace(record, outcome="failed", refusal=self.refusal, orbits=(), facts={}, quality={}, flags=())

    def stage(self, folder: Path) -> Path:
        """Write it as the finisher does and return its folder."""
        place = folder / self.shard / self.uid
        if self.refusal is None:
            for images in self.images():
                write_orbit(place, images)
        write_bytes(place / RECORD_NAME, self.record().to_json().encode())
        return place


def seal(output: Output, folder: Path, *balls: Ball) -> list[Receipt]:
    """Stage balls and seal their shards."""
    receipts = []
    for shard in sorted({ball.shard for ball in balls}):
        members = [ball for ball in balls if ball.shard == shard]
        staged = {ball.uid: ball.stage(folder) for ball in members}
        records = [ball.record() for ball in members]
        context = run_context(members[0].spec, VERSIONS)
        receipts.append(seal_shard(output, shard, records, staged, context=context))
    return receipts
