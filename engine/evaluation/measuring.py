"""What is measured of one object: which subjects (variants, baselines, the true views), which parts of each, and how.

A part's key holds everything that its figures depend on. Views are made, and splats fitted, when the first part asks.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from engine.errors import EvaluationError, OrbitError
from engine.evaluation.baselines import Nearest, input_repeated
from engine.evaluation.consistency import cross_view
from engine.evaluation.making import Made, Maker
from engine.evaluation.objects import mesh_error, splats_error
from engine.evaluation.samples import at_size, resized
from engine.evaluation.views import Perceptual, measure_views
from engine.files import OrbitImages
from engine.meshing import MeshSettings
from engine.meshing.views import MeshingError
from engine.multiview.generation import GenerationProgress
from engine.multiview.settings import Sampling
from engine.reconstruct import sha256_bytes
from engine.results import fingerprint, sha256_of
from engine.splats import Gaussians
from engine.splats.fitting import FitProgress, FitSettings, fit

REPEATED, NEAREST, TRUE = "input view repeated", "nearest training object", "true views"
log = logging.getLogger(__name__)
SplatKind = Literal["fitted", "feed-forward"]
KINDS: tuple[SplatKind, ...] = ("fitted", "feed-forward")
"""Fitted to all views, or the reconstructor's from a few."""
Words = Callable[[str], None]
"""Told often what is being done."""


@dataclass(frozen=True)
class Bench:
    """What measuring needs beside an object."""

    size_px: int
    """Side at which pictures are compared."""
    cross_view: FitSettings
    """Of splats that half of the views become."""
    fit: FitSettings
    """Of splats that all views become."""
    mesh: MeshSettings
    """Of their meshes."""
    device: str
    """Where fits run."""
    perceptual: Perceptual | None = None
    """LPIPS."""
    perceptual_key: str | None = None
    """Hash of its weights."""

    def key(self, part: str, subject: str, **depends: Any) -> str:
        """Return the key of a part: the subject's, the size, LPIPS, the device, and what else it depends on."""
        return fingerprint(
            {
                "part": part,
                "of": subject,
                "size": self.size_px,
                "lpips": self.perceptual_key,
                "on": self.device,
                **depends,
            }
        )


class Subject:
    """One orbit of one object that is measured."""

    def __init__(self, name: str, key: str, make: Callable[[Words], Made], bench: Bench) -> None:
        """Name it; `make` brings its views when they are needed, `key` stands for them."""
        self.name, self.key, self._make, self.bench = name, key, make, bench
        self.words: Words = lambda words: None

    @cached_property
    def made(self) -> Made:
        """The views, made now if they are not there yet."""
        return self._make(self.words)

    @cached_property
    def fitted(self) -> Gaussians:
        """Splats of all views. Raises OrbitError if the views show nothing."""
        return fit(self.made.images, self.bench.fit, device=self.bench.device, progress=self.fitting)

    def splats(self, kind: SplatKind) -> Gaussians:
        """Return splats of all views; raises OrbitError or EvaluationError where there are none."""
        if kind == "fitted":
            return self.fitted
        if self.made.gaussians is None:
            raise EvaluationError("the weights hold no reconstructor")
        return self.made.gaussians

    def fitting(self, at: FitProgress) -> None:
        """Say how far a fit is."""
        self.words(f"splats {at.step}/{at.steps}")


@dataclass(frozen=True)
class Task:
    """One measurement to make."""

    part: str
    """Which figures."""
    key: str
    """Of everything that they depend on."""
    measure: Callable[[], dict[str, Any]]
    """Makes the figures; raises OrbitError, MeshingError or EvaluationError where nothing can be measured."""


def figures_of(uid: str, subject: Subject, task: Task) -> dict[str, Any]:
    """Return a task's figures, or why there are none; ask for `subject.made` before, whose errors end the run."""
    try:
        return task.measure()
    except (OrbitError, MeshingError, EvaluationError) as error:
        log.warning("%s, %s: %s cannot be measured: %s", uid, subject.name, task.part, error)
        return {"failed": str(error)}


def variant_subject(name: str, truth: OrbitImages, sampling: Sampling, maker: Maker, bench: Bench) -> Subject:
    """Return the orbit that a preset makes of an object in one way."""

    def make(words: Words) -> Made:
        def report(at: GenerationProgress) -> None:
            words(f"{at.stage} {at.done}/{at.steps}")

        return maker.make(truth, name, sampling, report)

    return Subject(name, maker.key(truth, sampling), make, bench)


def true_subject(truth: OrbitImages, bench: Bench) -> Subject:
    """Return the true orbit itself, at the size of the comparison."""
    return Subject(TRUE, _content(truth), lambda words: Made(resized(truth, bench.size_px), None), bench)


def baseline_subjects(truth: OrbitImages, nearest: Nearest | None, bench: Bench) -> list[Subject]:
    """Return what stands beside the preset: the input repeated, and the nearest training object where there is one."""

    def instead(rgba: UInt8[np.ndarray, "n h w 4"]) -> Made:
        return Made(replace(resized(truth, bench.size_px), rgba=at_size(rgba, bench.size_px)), None)

    subjects = [Subject(REPEATED, _content(truth), lambda words: instead(input_repeated(truth.rgba)), bench)]
    if nearest is not None:
        subjects.append(Subject(NEAREST, sha256_bytes(nearest.rgba), lambda words: instead(nearest.rgba), bench))
    return subjects


Part = Literal["views", "cross-view", "splats", "mesh"]
"""Groups of parts that are asked for together."""


def tasks_of(
    subject: Subject, truth: OrbitImages, parts: Mapping[Part, bool], mesh: Path | None, *, feed_forward: bool
) -> list[Task]:
    """Return what is measured of a subject.

    Args:
        subject: whose orbit.
        truth: the stored orbit.
        parts: which groups are wanted.
        mesh: the true mesh, for "mesh".
        feed_forward: whether there are splats of a reconstructor as well.
    """
    bench, content = subject.bench, _content(truth)
    tasks = []

    @cache
    def seen() -> OrbitImages:
        return resized(truth, bench.size_px)

    def add(part: str, measure: Callable[[], dict[str, Any]], **depends: Any) -> None:
        tasks.append(Task(part, bench.key(part, subject.key, **depends), measure))

    if parts.get("views"):
        add("views", lambda: asdict(measure_views(at_size(subject.made.images.rgba, bench.size_px), seen().rgba,
                                                  bench.perceptual)), truth=content)  # fmt: skip
    if parts.get("cross-view"):
        add("cross-view", lambda: asdict(cross_view(subject.made.images, bench.cross_view, perceptual=bench.perceptual,
                                                    device=bench.device, progress=subject.fitting)),
            fit=asdict(bench.cross_view))  # fmt: skip
    for kind in KINDS if feed_forward else KINDS[:1]:
        how = {"fit": asdict(bench.fit) if kind == "fitted" else None}
        if parts.get("splats"):
            add(f"splats {kind}", partial(_splats_figures, subject, kind, seen), truth=content, **how)
        if parts.get("mesh") and mesh is not None:
            add(f"mesh {kind}", partial(_mesh_figures, subject, kind, mesh), truth=sha256_of(mesh),
                mesh=asdict(bench.mesh), **how)  # fmt: skip
    return tasks


def _splats_figures(subject: Subject, kind: SplatKind, seen: Callable[[], OrbitImages]) -> dict[str, Any]:
    return asdict(splats_error(subject.splats(kind), seen(), subject.bench.perceptual))


def _mesh_figures(subject: Subject, kind: SplatKind, truth: Path) -> dict[str, Any]:
    subject.words(f"mesh of {kind} splats")
    return mesh_error(subject.splats(kind), subject.made.images, subject.bench.mesh, truth)


def _content(truth: OrbitImages) -> str:
    """What a stored orbit shows and from where."""
    return fingerprint({"views": sha256_bytes(truth.rgba), "from": sha256_bytes(truth.orbit.T_world_camera)})
