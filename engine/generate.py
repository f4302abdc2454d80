"""From a picture or a sentence to splats and a textured mesh: the second walk of the design.

    picture --> picture.png ----> views (multiview, through splats and back every k steps) --> splats --> mesh --> ...
    sentence -- (text to image) --^                                                            engine.reconstruct

Every stage leaves files in the result folder and is not run again if they are whole (see results.py). Weights are
loaded only if views have to be made.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from engine.errors import TurntableError
from engine.files import read_orbit, write_orbit, write_png, write_splats
from engine.multiview.generation import Generation, GenerationProgress
from engine.multiview.orbits import OrbitRequest, orbit_for
from engine.multiview.pictures import ensure_alpha, read_picture
from engine.multiview.settings import Sampling
from engine.multiview.weights import check_reconstructor, describe_weights, settings_asked, weights_for, weights_key
from engine.presets import PRESETS, Preset, Source
from engine.reconstruct import Progress, Reconstruction, ReconstructSettings, Stage, resolved_device, silent
from engine.results import ResultFolder, open_result, sha256_of
from engine.versions import versions

if TYPE_CHECKING:
    from engine.multiview.hi3d import Hi3DPipeline
    from engine.multiview.videomv import VideoMVPipeline

STAGES = ("picture", "views", "splats", "mesh", "turntable", "quality")
GenerateStage = Literal["picture", "views", "splats", "mesh", "turntable", "quality"]
PICTURE, FEED_FORWARD = "picture.png", "feed_forward.ply"
MAX_UID = 60

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GenerateSettings:
    """What `turntable generate` does between the picture or sentence and the files."""

    orbit: OrbitRequest = field(default_factory=OrbitRequest)
    """The orbit that is asked for."""
    sampling: Sampling = field(default_factory=Sampling)
    """How the views are sampled."""
    seed: int = 0
    """Of the noise; the same seed gives the same views on one device."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the networks; auto: float32 on a CPU, bfloat16 on CUDA."""
    offload: bool = False
    """Bring each network to the device only while it runs."""
    compile: bool = False
    """Compile the denoisers first."""
    splats: Literal["fit", "feed-forward"] = "fit"
    """Splats fitted to all views, or the reconstructor's from a few (seconds, coarser; needs one in the weights)."""
    text_to_image: str | None = None
    """Folder or hub id of a diffusers text-to-image pipeline that paints the picture (Hi3D section 5.5)."""
    reconstruct: ReconstructSettings = field(default_factory=ReconstructSettings)
    """Splats and mesh; its device is where everything runs."""


@dataclass(frozen=True)
class Asked:
    """What an asset is made from: exactly one of the two."""

    image: Path | None = None
    """A picture's file."""
    text: str | None = None
    """A sentence."""

    def __post_init__(self) -> None:
        if (self.image is None) == (self.text is None):
            raise ValueError("give exactly one of --image FILE and --text SENTENCE")
        if self.text is not None and not self.text.strip():
            raise ValueError('--text is empty: describe the object in a few words, such as --text "a red lighthouse"')

    @property
    def uid(self) -> str:
        """A name for the result's files, from the picture's name or the first words."""
        words = self.image.stem if self.image else str(self.text)
        return re.sub(r"[^A-Za-z0-9]+", "_", words).strip("_")[:MAX_UID].strip("_").lower() or "object"


def generate(
    asked: Asked,
    preset: Preset,
    out: Path,
    settings: GenerateSettings,
    *,
    weights: str | None = None,
    redo_from: GenerateStage | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Generate an asset into a result folder and return its report; a rerun does only what is missing.

    Args:
        asked: picture or sentence.
        preset: see engine.presets.
        out: the result folder, made if it is not there.
        settings: see GenerateSettings.
        weights: a folder of Turntable's weights or a hub id of one; needed where the preset has none of its own.
        redo_from: redo this stage and those after it.
        progress: called often; raises to cancel.

    Raises TurntableError: a picture without an object, weights of another system, views that the weights do not
    know, folder of something else, disk full, ...; nothing half-written is left as whole.
    """
    source = _source(asked, preset, settings.text_to_image)  # complain before anything is written
    weights = weights_for(preset, source, weights)
    trained = settings_asked(preset, source, weights)
    orbit_for(settings.orbit, trained.views, trained.size_px)
    if settings.splats == "feed-forward":
        check_reconstructor(preset, weights)
    if asked.image is not None:
        read_picture(asked.image)
    with open_result(out) as result:
        return _Generation(asked, preset, settings, weights, redo_from, progress or silent, result, source).run()


def _source(asked: Asked, preset: Preset, text_to_image: str | None) -> Source:
    """What the system starts from: a sentence that is painted first is a picture to it."""
    if not text_to_image:
        return "text" if asked.image is None else "picture"
    if asked.image is not None:
        raise ValueError(
            f"--text-to-image paints the picture for a --text, got --image {asked.image}; leave one of the two"
        )
    if "picture" not in preset.settings:
        fits = [p.name for p in PRESETS.values() if "picture" in p.settings]
        raise TurntableError(
            f"--text-to-image needs a preset that starts from a picture, got --preset {preset.name}, which starts from "
            f"text alone; leave --text-to-image, or take --preset {' or '.join(fits)}"
        )
    return "picture"


@dataclass(frozen=True)
class _Generation:
    """One run: what the stages share."""

    asked: Asked
    preset: Preset
    settings: GenerateSettings
    weights: str | None
    redo_from: GenerateStage | None
    progress: Progress
    result: ResultFolder
    source: Source
    """See `_source`."""

    def run(self) -> dict[str, Any]:
        self.result.report |= self._header()
        picture = self._stage("picture", self._picture_inputs(), self._write_picture) if self._has_picture else None
        views = self._stage("views", self._view_inputs(picture), self._write_views)
        images = read_orbit(self.result.folder / "orbit.json")
        given = self._feed_forward_splats()
        stage: Stage | None = "views" if self.redo_from == "picture" else self.redo_from
        return Reconstruction(
            images, self.result, self.settings.reconstruct, None, stage, self.progress, given
        ).after(views)  # fmt: skip

    @property
    def _has_picture(self) -> bool:
        return self.source == "picture"

    def _stage(self, name: GenerateStage, inputs: dict[str, Any], action: Callable[[], list[str]]) -> str:
        again = self.redo_from is not None and STAGES.index(name) >= STAGES.index(self.redo_from)
        return self.result.stage(name, inputs, action, again=again)

    def _header(self) -> dict[str, Any]:
        return {
            "preset": self.preset.name,
            "uid": self.asked.uid,
            "text": self.asked.text,
            "image": self.asked.image.name if self.asked.image else None,
            "seed": self.settings.seed,
            "settings": asdict(self.settings),
            "held_out_views": [],
            "versions": versions(),
            "normalisation": {"scale": 1.0, "centre": [0.0, 0.0, 0.0]},
        }

    # ------------------------------------------------------------------------------------------------ stages
    def _picture_inputs(self) -> dict[str, Any]:
        if self.asked.image is not None:
            return {"image": sha256_of(self.asked.image) if self.asked.image.is_file() else None}
        return {"text": self.asked.text, "by": self.settings.text_to_image, "seed": self.settings.seed}

    def _write_picture(self) -> list[str]:
        self.progress("picture", 0, 1, "")
        if self.asked.image is not None:
            picture = read_picture(self.asked.image)
        else:
            from engine.multiview.text_to_image import paint

            picture = paint(str(self.asked.text), str(self.settings.text_to_image), self.settings.seed, self._device)
        picture = ensure_alpha(picture)
        write_png(self.result.folder / PICTURE, picture.rgba)
        self.result.report["picture"] = {"notes": list(picture.notes)}
        self.progress("picture", 1, 1, "")
        return [PICTURE]

    def _view_inputs(self, picture: str | None) -> dict[str, Any]:
        own = self.settings
        return {
            "picture": picture, "text": None if picture else self.asked.text, "weights": weights_key(self.preset, self.weights),
            "orbit": asdict(own.orbit), "sampling": asdict(own.sampling), "seed": own.seed, "dtype": self._dtype_name,
            "device": self._device,
        }  # fmt: skip

    def _write_views(self) -> list[str]:
        from engine.multiview.load import load_pipeline  # transformers takes seconds, which a rerun need not wait

        pipeline = load_pipeline(
            self.preset, self.source, self.weights, dtype=getattr(torch, self._dtype_name),
            device="cpu" if self.settings.offload else self._device,
        )  # fmt: skip
        if self.settings.offload:
            pipeline.enable_model_cpu_offload(self._device)
        if self.settings.compile:
            pipeline.compile()
        self.result.report["weights"], self.result.report["licences"] = describe_weights(self.preset, self.weights)
        made = self._call(pipeline)
        self.result.report["generation"] = dict(made.record)
        path = write_orbit(self.result.folder, made.images, json_name="orbit.json")
        prefix = f"{made.images.uid}.{made.images.orbit.name}."
        names = [path.name, *sorted(p.name for p in self.result.folder.iterdir() if p.name.startswith(prefix))]
        if made.gaussians is not None:
            write_splats(self.result.folder / FEED_FORWARD, made.gaussians.to_arrays())
            names.append(FEED_FORWARD)
        else:  # those of other views are no splats of these
            (self.result.folder / FEED_FORWARD).unlink(missing_ok=True)
        return names

    def _call(self, pipeline: "VideoMVPipeline | Hi3DPipeline") -> Generation:
        picture = read_picture(self.result.folder / PICTURE) if self._has_picture else None
        return pipeline(
            picture=picture,
            prompt=self.asked.text if picture is None else None,
            uid=self.asked.uid,
            orbit=self.settings.orbit,
            sampling=self.settings.sampling,
            seed=self.settings.seed,
            on_progress=self._report,
        )

    def _report(self, at: GenerationProgress) -> None:
        self.progress(at.stage, at.done, at.steps, "")

    def _feed_forward_splats(self) -> str | None:
        if self.settings.splats == "fit":
            return None
        if not (self.result.folder / FEED_FORWARD).is_file():
            raise TurntableError(
                "--splats feed-forward: expected splats of the reconstructor, found all of them transparent; take --splats "
                "fit, or another --seed"
            )
        return FEED_FORWARD

    @property
    def _device(self) -> str:
        return resolved_device(self.settings.reconstruct.device)

    @property
    def _dtype_name(self) -> str:
        if self.settings.dtype != "auto":
            return self.settings.dtype
        return "bfloat16" if self._device.startswith("cuda") else "float32"
