"""How good a preset is on stored orbits: views, their agreement, splats and meshes, beside two baselines.

    shards --samples--> true orbits --making (first view or caption in)--> generated orbits
                             |                                                   |
                             +--baselines--> input repeated, nearest             |
                             v                     v                             v
      views (PSNR, SSIM, LPIPS against truth), cross-view agreement, splats and meshes against truth
                             |
                             v
      OUT/measurements.jsonl, a line as each is made --> report --> evaluation.json, table, examples.png

A rerun makes only what is missing.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from engine.errors import EvaluationError, named
from engine.evaluation.baselines import Starts, Training, search_training
from engine.evaluation.consistency import CROSS_VIEW_FIT
from engine.evaluation.making import VIEWS, Loading, Maker
from engine.evaluation.measuring import (
    NEAREST,
    REPEATED,
    TRUE,
    Bench,
    Part,
    Subject,
    Task,
    baseline_subjects,
    figures_of,
    tasks_of,
    true_subject,
    variant_subject,
)
from engine.evaluation.objects import find_truth
from engine.evaluation.record import FILE, Measurement, Record
from engine.evaluation.report import ALL, SEEN, UNSEEN, Results, summarised, table_of
from engine.evaluation.samples import OrbitKind, at_size, check_captions, each_sample, read_samples, resized
from engine.evaluation.sheet import spread, write_sheet
from engine.evaluation.variants import AS_ASKED, variants_named
from engine.evaluation.views import Perceptual
from engine.files import OrbitImages, clear_partials, write_bytes
from engine.meshing import MeshSettings
from engine.multiview.settings import Hi3DSettings, Sampling, VideoMVSettings
from engine.multiview.weights import describe_weights, settings_asked, weights_for
from engine.presets import Preset, Source
from engine.reconstruct import Progress, resolved_device, silent
from engine.results import locked, sha256_of
from engine.splats.fitting import FitSettings
from engine.versions import commit, device_name, versions

FORMAT = "turntable-evaluation/1"
REPORT, SHEET = "evaluation.json", "examples.png"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Given:
    """What an evaluation reads."""

    orbits: tuple[str, ...]
    """Shards of the true orbits; see engine.training.data.sources."""
    training: tuple[str, ...] = ()
    """Shards of the training objects, for the baseline and to tell which labels were seen; none: no such baseline."""
    truth: Path | None = None
    """Folder of true meshes, KEY.glb."""
    lpips: Path | None = None
    """Backbone's weights (.pth); None: no LPIPS."""
    weights: str | None = None
    """Of the preset."""


@dataclass(frozen=True)
class EvaluateSettings:
    """What is made and measured."""

    sampling: Sampling = field(default_factory=lambda: Sampling(framing="kept"))
    """How views are sampled, but for what variants change."""
    compare: tuple[str, ...] = ()
    """Variants to compare, see engine.evaluation.variants; none: as `sampling` says."""
    source: Source | None = None
    """What the preset starts from; None: from a picture if it can."""
    seed: int = 0
    """Of all noise."""
    limit: int | None = None
    """So many objects, the first ones of the shards."""
    size_px: int | None = None
    """Side at which views are compared; None: that of the true ones or of the preset's, whichever is smaller."""
    starts: Starts = "stored"
    """Which views of training objects may come first."""
    cross_view_every: int = 1
    """Cross-view agreement of every n-th object; 0: of none."""
    splats_every: int = 5
    """Splats against the true views, of every n-th object; 0: of none."""
    mesh_every: int = 10
    """Meshes against the true ones, of every n-th object, where these are given; 0: of none."""
    ceiling: bool = True
    """Measure the true views as well, where they can be measured: the best that any generator could reach."""
    fit: FitSettings = field(default_factory=FitSettings)
    """Of splats that are compared with the truth."""
    mesh: MeshSettings = field(default_factory=MeshSettings)
    """Of meshes."""
    examples: int = 6
    """Objects on the contact sheet."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the networks; auto: float32 on a CPU, bfloat16 on CUDA."""
    offload: bool = False
    """Bring each network to the device only while it runs."""
    compile: bool = False
    """Compile the denoisers first."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit must be at least 1, got {self.limit}")
        if self.size_px is not None and self.size_px < 16:
            raise ValueError(f"--size-px must be at least 16, got {self.size_px}")
        for name in ("cross_view_every", "splats_every", "mesh_every", "examples"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name.replace('_', '-')} must be 0 (none) or more, got {getattr(self, name)}")


def evaluate(
    given: Given, preset: Preset, out: Path, settings: EvaluateSettings, *, progress: Progress | None = None
) -> tuple[dict[str, Any], str]:
    """Evaluate a preset into a folder; return the report, which is written there as well, and its table.

    Raises TurntableError: shards that are empty or of another kind, objects without caption or true mesh, weights of
    another system, a folder of something else, ...: all before anything is made. What was measured stays.
    """
    source: Source = settings.source or ("picture" if "picture" in preset.settings else "text")
    weights = weights_for(preset, source, given.weights)
    trained = settings_asked(preset, source, weights)
    variants = variants_named(settings.compare, preset, weights)
    kind = OrbitKind(trained.views)
    truths = read_samples(given.orbits, kind, limit=settings.limit)
    if source == "text":
        check_captions(truths, preset.name)
    meshes = find_truth(given.truth, [one.uid for one in truths]) if given.truth else {}
    device = resolved_device(settings.device)
    perceptual = None if given.lpips is None else _perceptual(given.lpips)
    dtype = settings.dtype if settings.dtype != "auto" else "bfloat16" if device.startswith("cuda") else "float32"
    bench = Bench(
        size_px=settings.size_px or min(truths[0].orbit.width, _made_px(trained)),
        cross_view=CROSS_VIEW_FIT,
        fit=settings.fit,
        mesh=settings.mesh,
        device=device,
        perceptual=perceptual,
        perceptual_key=None if given.lpips is None else sha256_of(given.lpips),
    )
    samplings = {v.name: v.sampling(settings.sampling) for v in variants} or {AS_ASKED: settings.sampling}
    loading = Loading(preset, source, weights, device, dtype, settings.offload, settings.compile)
    with _opened(out) as record:
        maker = Maker(loading, kind, settings.seed, out, record)
        run = _Evaluation(given, settings, samplings, truths, meshes, maker, bench, record, progress or silent)
        report = run.run()
        write_bytes(out / REPORT, (json.dumps(report, indent=1, default=str) + "\n").encode())
        run.show(out / SHEET)
    return report, table_of(report)


def _perceptual(backbone: Path) -> Perceptual:
    from engine.evaluation.perceptual import Perceptual as Lpips

    return Lpips.from_files(backbone)


def _made_px(trained: VideoMVSettings | Hi3DSettings) -> int:
    return trained.refined_px if isinstance(trained, Hi3DSettings) else trained.size_px


@contextmanager
def _opened(out: Path) -> Iterator[Record]:
    """Begin or continue an evaluation's folder and hold it."""
    if out.exists() and not out.is_dir():
        raise EvaluationError(f"{out} is a file; --out must name a folder")
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        clear_partials(out)
        others = sorted({path.name for path in out.iterdir()} - {FILE, REPORT, SHEET, VIEWS})
        if others:
            raise EvaluationError(
                f"{out} holds {others[0]}, which is no evaluation's: give --out an empty or a new folder"
            )
        yield Record(out)


@dataclass
class _Evaluation:
    """One run: what its steps share."""

    given: Given
    settings: EvaluateSettings
    samplings: Mapping[str, Sampling]
    """Variant -> how it is sampled."""
    truths: Sequence[OrbitImages]
    meshes: Mapping[str, Path]
    maker: Maker
    bench: Bench
    record: Record
    progress: Progress
    training: Training = field(default_factory=Training)
    results: Results = field(default_factory=Results)

    def run(self) -> dict[str, Any]:
        """Measure every object and return the report."""
        if self.given.training:
            self.training = self._search()
        work = [
            (truth, [(s, tasks) for s in self._subjects(truth) if (tasks := self._tasks(index, truth, s))])
            for index, truth in enumerate(self.truths)
        ]
        missing = [
            sum(self._missing(truth, s, task) for s, tasks in subjects for task in tasks) for truth, subjects in work
        ]
        done, start = 0, time.perf_counter()
        for index, (truth, subjects) in enumerate(work):
            for subject, tasks in subjects:
                subject.words = partial(self._say, done, sum(missing), f"{truth.uid}, {subject.name}")
                for task in tasks:
                    done += self._measure(truth, subject, task)
                    self.progress("evaluate", done, sum(missing), truth.uid)
            subjects.clear()  # views and splats of an object go when it is done
            if missing[index]:
                left = (time.perf_counter() - start) / done * (sum(missing) - done)
                words = f"; about {_duration(left)} left" if done < sum(missing) else ""
                log.info("object %d of %d, %s: done%s", index + 1, len(work), truth.uid, words)
        return self._report()

    def _search(self) -> Training:
        firsts = {truth.uid: at_size(truth.rgba[:1], self.bench.size_px)[0] for truth in self.truths}
        found = 0

        def counted() -> Iterator[OrbitImages]:
            nonlocal found
            for images in each_sample(self.given.training, self.maker.kind):
                found += 1
                self.progress("training objects", found, 0, images.uid)
                yield images

        training = search_training(firsts, counted(), self.settings.starts)
        if not training.uids:
            raise EvaluationError(
                f"{' '.join(self.given.training)}: holds no orbit of {self.maker.kind}; give --baseline-orbits of the same "
                "kind as --orbits, or leave it"
            )
        shared = training.uids & set(firsts)
        if shared:
            log.warning("%d of the objects are in --baseline-orbits as well, %s: they were trained on", len(shared),
                        named(shared))  # fmt: skip
        return training

    # ------------------------------------------------------------------------------------------------ an object
    @property
    def _from_pictures(self) -> bool:
        """Sentences leave open what the object looks like: its views cannot be compared with the truth."""
        return self.maker.loading.source == "picture"

    def _subjects(self, truth: OrbitImages) -> list[Subject]:
        subjects = [
            variant_subject(name, truth, sampling, self.maker, self.bench) for name, sampling in self.samplings.items()
        ]
        if self._from_pictures:
            subjects += baseline_subjects(truth, self.training.nearest.get(truth.uid), self.bench)
        return [*subjects, true_subject(truth, self.bench)] if self.settings.ceiling else subjects

    def _tasks(self, index: int, truth: OrbitImages, subject: Subject) -> list[Task]:
        own = self.settings

        def due(every: int) -> bool:
            return every > 0 and index % every == 0

        if subject.name in (REPEATED, NEAREST):
            return tasks_of(subject, truth, {"views": True}, None, feed_forward=False)
        parts: dict[Part, bool] = {
            "views": self._from_pictures and subject.name != TRUE,
            "cross-view": due(own.cross_view_every),
            "splats": self._from_pictures and due(own.splats_every),
            "mesh": self._from_pictures and due(own.mesh_every),
        }
        feed_forward = subject.name != TRUE and self.maker.has_reconstructor
        return tasks_of(subject, truth, parts, self.meshes.get(truth.uid), feed_forward=feed_forward)

    def _missing(self, truth: OrbitImages, subject: Subject, task: Task) -> bool:
        return self.record.find(truth.uid, subject.name, task.part, task.key) is None

    def _measure(self, truth: OrbitImages, subject: Subject, task: Task) -> bool:
        """Bring a task's figures into the results; return whether they had to be made."""
        found = self.record.find(truth.uid, subject.name, task.part, task.key)
        made = found is None
        if found is None:
            _ = subject.made  # its time is recorded by itself
            start = time.perf_counter()
            figures = figures_of(truth.uid, subject, task)
            found = Measurement(truth.uid, subject.name, task.part, task.key, time.perf_counter() - start, figures)
            self.record.add(found)
        self.results.put(subject.name, task.part, truth.uid, found.figures)
        return made

    def _say(self, done: int, total: int, who: str, words: str) -> None:
        self.progress("evaluate", done, total, f"{who}: {words}")

    # ------------------------------------------------------------------------------------------------ the end
    def _groups(self) -> dict[str, list[str]]:
        groups = {ALL: [truth.uid for truth in self.truths]}
        if self.training.labels and all(truth.label for truth in self.truths):
            for name, seen in ((SEEN, True), (UNSEEN, False)):
                groups[name] = [t.uid for t in self.truths if (t.label in self.training.labels) == seen]
        return groups

    def _report(self) -> dict[str, Any]:
        loading, given = self.maker.loading, self.given
        weights, licences = describe_weights(loading.preset, loading.weights)
        return {
            "format": FORMAT,
            "preset": loading.preset.name,
            "source": loading.source,
            "count": len(self.truths),
            "size_px": self.bench.size_px,
            "seed": self.settings.seed,
            "command": sys.argv,
            "commit": commit(),
            "device": device_name(self.bench.device),
            "versions": versions(),
            "dtype": loading.dtype,
            "given": asdict(given),
            "settings": asdict(self.settings),
            "variants": {name: asdict(sampling) for name, sampling in self.samplings.items()},
            "cross_view_fit": asdict(self.bench.cross_view),
            "weights": weights,
            "licences": licences,
            "summary": summarised(self.results, self._groups(), list(self.samplings), (REPEATED, NEAREST)),
            "failures": self.results.failures(),
            "objects": {truth.uid: self._object(truth) for truth in self.truths},
        }

    def _object(self, truth: OrbitImages) -> dict[str, Any]:
        nearest = self.training.nearest.get(truth.uid)
        return {
            "label": truth.label,
            "label_seen": truth.label in self.training.labels if self.training.labels and truth.label else None,
            "caption": truth.caption,
            "license": truth.license,
            "elevation_deg": float(truth.orbit.elevation_deg[0]),
            "seed": self.maker.seed_of(truth.uid),
            "nearest": None if nearest is None else {"uid": nearest.uid, "start": nearest.start, "rms": nearest.rms},
            "figures": self.results.of(truth.uid),
        }

    def show(self, path: Path) -> None:
        """Write the contact sheet: of objects from the best to the worst, by the first figure of the first variant."""
        first = next(iter(self.samplings))
        scores = self.results.scores(first, "views" if self._from_pictures else "cross_view")
        truths = {truth.uid: truth for truth in self.truths}
        rows = []
        for uid in spread(scores, self.settings.examples):
            truth = truths[uid]
            rows.append(
                (f"{truth.label or uid}: true views, the first one given", resized(truth, self.bench.size_px).rgba)
            )
            for subject in self._subjects(truth):
                if subject.name not in (TRUE, REPEATED):
                    rows.append((self._title(uid, subject.name), at_size(subject.made.images.rgba, self.bench.size_px)))
        if rows:
            write_sheet(path, rows)

    def _title(self, uid: str, subject: str) -> str:
        score = self.results.scores(subject, "views").get(uid)
        return subject if score is None else f"{subject}, {score:.2f} dB"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else "a minute"
