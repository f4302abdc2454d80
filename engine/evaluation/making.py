"""Generated orbits of the objects that are evaluated, each made once and kept in the evaluation's folder.

    OUT/views/VARIANT/KEY.ORBIT.json, .rgba_00.webp ...   and KEY.ply, the reconstructor's splats, where there is one

The picture is the first true view in its own frame, the orbit asked for is the true one: what is measured is not
whether a camera was guessed. Sentences are the objects' captions.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from engine.checkpoints.layout import read_index
from engine.errors import FileFormatError
from engine.evaluation.record import Measurement, Record
from engine.evaluation.samples import OrbitKind
from engine.files import OrbitImages, read_orbit, read_splats, write_orbit, write_splats
from engine.multiview.generation import GenerationProgress
from engine.multiview.load import Pipeline, load_pipeline
from engine.multiview.pictures import Picture
from engine.multiview.settings import Sampling
from engine.multiview.weights import weights_folder, weights_key
from engine.presets import Preset, Source
from engine.reconstruct import sha256_bytes
from engine.results import fingerprint
from engine.splats import Gaussians

VIEWS = "views"
"""Folder of the generated orbits."""
PART = "made"
"""Of the record: that an orbit was generated."""
KEY = "evaluation_key"
"""Of an orbit's json: what it was made with, since another run with other settings writes over it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loading:
    """Which networks, and how they run."""

    preset: Preset
    """Which system."""
    source: Source
    """What it starts from."""
    weights: str | None
    """Folder or hub id; None for presets that have their own."""
    device: str
    """cpu or a CUDA device."""
    dtype: Literal["float32", "bfloat16", "float16"]
    """Of the networks."""
    offload: bool = False
    """Bring each network to the device only while it runs."""
    compile: bool = False
    """Compile the denoisers first."""


@dataclass(frozen=True)
class Made:
    """What a pipeline made of one object."""

    images: OrbitImages
    """The views."""
    gaussians: Gaussians | None
    """The feed-forward reconstructor's splats."""


class Maker:
    """Makes orbits, or finds those that are there; the networks are loaded when the first one is missing."""

    def __init__(self, loading: Loading, kind: OrbitKind, seed: int, folder: Path, record: Record) -> None:
        """Prepare to make orbits into folder/views; `seed` is the run's."""
        self.loading, self.kind, self.seed, self.folder, self.record = loading, kind, seed, folder / VIEWS, record
        self._pipeline: Pipeline | None = None
        self._weights = weights_key(loading.preset, loading.weights)

    @property
    def has_reconstructor(self) -> bool:
        """Whether the weights bring splats of their own."""
        preset = self.loading.preset
        if preset.weights == "random":
            return preset.system == "videomv"
        return "reconstructor" in read_index(weights_folder(preset, self.loading.weights)).components

    def seed_of(self, uid: str) -> int:
        """Return an object's seed: another for each, the same in any order and for any variant."""
        return int(fingerprint({"seed": self.seed, "uid": uid})[:7], 16)

    def key(self, truth: OrbitImages, sampling: Sampling) -> str:
        """Return the fingerprint of everything that a generation depends on."""
        loading = self.loading
        given = sha256_bytes(truth.rgba[0]) if loading.source == "picture" else truth.caption
        return fingerprint({
            "given": given, "orbit": asdict(self.kind.request(truth.orbit)), "seed": self.seed_of(truth.uid),
            "weights": self._weights, "sampling": asdict(sampling), "dtype": loading.dtype, "device": loading.device,
        })  # fmt: skip

    def make(
        self, truth: OrbitImages, variant: str, sampling: Sampling, on_progress: Callable[[GenerationProgress], None]
    ) -> Made:
        """Return an object's generated orbit.

        Args:
            truth: the stored orbit: first view or caption, cameras.
            variant: names the folder.
            sampling: how.
            on_progress: called often.
        """
        key, folder = self.key(truth, sampling), self.folder / variant
        before = self.record.find(truth.uid, variant, PART, key)
        if before is not None:
            try:
                return _read(folder, truth.uid, key, before.figures)
            except FileFormatError as error:
                log.info("%s: made before, but %s: making it again", truth.uid, error)
        start = time.perf_counter()
        made, notes = self._generate(truth, sampling, on_progress)
        write_orbit(folder, replace(made.images, extra={KEY: key}))
        if made.gaussians is not None:
            write_splats(folder / f"{truth.uid}.ply", made.gaussians.to_arrays())
        figures = notes | {"orbit": made.images.orbit.name, "splats": made.gaussians is not None}
        self.record.add(Measurement(truth.uid, variant, PART, key, time.perf_counter() - start, figures))
        return made

    def _generate(
        self, truth: OrbitImages, sampling: Sampling, on_progress: Callable[[GenerationProgress], None]
    ) -> tuple[Made, dict[str, Any]]:
        picture = self.loading.source == "picture"
        generation = self._loaded()(
            picture=Picture(truth.rgba[0], truth.uid) if picture else None,
            prompt=None if picture else truth.caption,
            uid=truth.uid,
            orbit=self.kind.request(truth.orbit),
            sampling=sampling,
            seed=self.seed_of(truth.uid),
            on_progress=on_progress,
        )
        return Made(generation.images, generation.gaussians), {"seed": self.seed_of(truth.uid)}

    def _loaded(self) -> Pipeline:
        if self._pipeline is None:
            own = self.loading
            self._pipeline = load_pipeline(
                own.preset, own.source, own.weights, dtype=getattr(torch, own.dtype),
                device="cpu" if own.offload else own.device,
            )  # fmt: skip
            if own.offload:
                self._pipeline.enable_model_cpu_offload(own.device)
            if own.compile:
                self._pipeline.compile()
        return self._pipeline


def _read(folder: Path, uid: str, key: str, notes: Mapping[str, Any]) -> Made:
    path = folder / f"{uid}.{notes['orbit']}.json"
    images = read_orbit(path)
    if images.extra.get(KEY) != key:
        raise FileFormatError(f"{path} is of another run's settings")
    if not notes["splats"]:
        return Made(images, None)
    return Made(images, Gaussians.from_arrays(read_splats(folder / f"{uid}.ply")))
