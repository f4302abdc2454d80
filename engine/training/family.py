"""The small family in the tree: which stage trains which of its networks, what it starts from, how it comes back.

engine/checkpoints/mini/vae/  reconstructor/  ...        the networks, half precision, each once
engine/checkpoints/mini/videomv-image/model_index.json   a pipeline: which of them it is made of
engine/checkpoints/mini/training.json                    what each stage was trained on, for how long, how good

start_folder(stage) --> `train` --> RUN/weights --promote--> the tree
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from engine import checkpoints
from engine.checkpoints.layout import WeightsIndex, load_component, plain, write_index
from engine.errors import TrainingError
from engine.files import write_bytes
from engine.multiview.networks.image_orbit import ImageOrbitUNet
from engine.multiview.networks.latents import LatentCodec, normalise_latents
from engine.multiview.networks.orbit_video import OrbitVideoUNet
from engine.multiview.networks.text_orbit import TextOrbitUNet
from engine.multiview.settings import MINI_HI3D, MINI_PICTURE, MINI_TEXT, Hi3DSettings, VideoMVSettings
from engine.training.loop.export import BEST
from engine.training.loop.journal import MEASURES
from engine.training.loop.state import PROGRESS, RUN
from engine.training.loop.state import checkpoints as checkpoints_of
from engine.training.plans import RecipeName
from engine.training.recipes.mini import NETWORKS, TEXT_NETWORKS, VIDEO_UNET
from engine.training.tasks.components import fresh_text_encoder
from engine.training.types import Batch

TREE = Path(checkpoints.__file__).parent / "mini"
"""Where the weights that ship with Turntable lie."""
HISTORY = "training.json"
STORED = torch.float16
"""Half the size; a network's numbers are read back as float32."""
EMPTY_TEXT = "empty-text"
"""What the picture network is told for the empty sentence: random, fixed, and so small that it may as well have its own."""


CLASSES: Mapping[str, str] = {
    "vae": "AutoencoderKL", "reconstructor": "GaussianUNet", "depth": "DepthEstimator",
    "image-unet": "ImageOrbitUNet", "image-encoder": "ImageEncoder", "empty-text": "TextEncoder",
    "text-unet": "TextOrbitUNet", "text-encoder": "TextEncoder",
    "hi3d-unet": "OrbitVideoUNet", "hi3d-encoder": "ImageEncoder", "hi3d-refiner": "OrbitVideoUNet",
}  # fmt: skip
"""Folder of a network in the tree -> its class."""


@dataclass(frozen=True)
class Stage:
    """One training of the family."""

    recipe: RecipeName
    """Its recipe, in the size mini."""
    orbit: str
    """Orbits that it learns from."""
    trains: Mapping[str, str]
    """Component that the recipe trains -> its folder in the tree."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Component that must be there -> its folder in the tree."""
    begins_as: str | None = None
    """The picture network's folder, where a U-Net begins with what that one has learned; see `begun`."""
    settings: VideoMVSettings | Hi3DSettings = MINI_PICTURE
    """What the networks that it starts from are trained for."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Name of a whole pipeline that runs along -> its folder in the tree."""


STAGES: Mapping[str, Stage] = {
    "vae": Stage("vae", "ring*", {"vae": "vae"}),
    "expectation-image": Stage("expectation-image", "ring24", {"unet": "image-unet"}, {"vae": "vae"}),
    "image": Stage(
        "videomv-image", "ring24", {"unet": "image-unet", "image_encoder": "image-encoder"},
        {"vae": "vae", "text_encoder": "empty-text"},
    ),
    "expectation-text": Stage(
        "expectation-text", "ring24", {"unet": "text-unet", "text_encoder": "text-encoder"}, {"vae": "vae"}, "image-unet",
        MINI_TEXT,
    ),
    "text": Stage(
        "videomv-text", "ring24", {"unet": "text-unet"}, {"vae": "vae", "text_encoder": "text-encoder"}, "image-unet",
        MINI_TEXT,
    ),
    "reconstructor": Stage(
        "reconstructor", "ring24", {"reconstructor": "reconstructor"},
        {"vae": "vae", "unet": "image-unet", "image_encoder": "image-encoder", "text_encoder": "empty-text"},
    ),
    "depth": Stage("depth", "ring*", {"depth": "depth"}, settings=MINI_HI3D),
    "expectation-hi3d": Stage(
        "expectation-hi3d", "ring16", {"unet": "hi3d-unet"}, {"vae": "vae"}, "image-unet", MINI_HI3D
    ),
    "hi3d-base": Stage(
        "hi3d-base", "ring16", {"unet": "hi3d-unet", "image_encoder": "hi3d-encoder"}, {"vae": "vae"}, "image-unet",
        MINI_HI3D,
    ),
    "hi3d-refiner": Stage(
        "hi3d-refiner", "ring16", {"refiner": "hi3d-refiner"},
        {"vae": "vae", "image_encoder": "hi3d-encoder", "depth": "depth"}, settings=MINI_HI3D,
        parts={"stage_one": "hi3d"},
    ),
}  # fmt: skip
"""By the name that is typed, in the order in which they are trained."""


@dataclass(frozen=True)
class Pipeline:
    """One of the family's ways to generate."""

    system: str
    """videomv or hi3d."""
    settings: VideoMVSettings | Hi3DSettings
    """What its weights are trained for."""
    parts: Mapping[str, str]
    """Component -> its folder in the tree."""
    optional: tuple[str, ...] = ()
    """Those it runs without, until they are trained."""

    @property
    def needed(self) -> list[str]:
        """Folders of the others."""
        return [place for part, place in self.parts.items() if part not in self.optional]


PIPELINES: Mapping[str, Pipeline] = {
    "videomv-image": Pipeline(
        "videomv", MINI_PICTURE,
        {"unet": "image-unet", "vae": "vae", "text_encoder": "empty-text", "image_encoder": "image-encoder",
         "reconstructor": "reconstructor"}, ("reconstructor",),
    ),
    "videomv-text": Pipeline(
        "videomv", MINI_TEXT,
        {"unet": "text-unet", "vae": "vae", "text_encoder": "text-encoder", "reconstructor": "reconstructor"},
        ("reconstructor",),
    ),
    "hi3d": Pipeline(
        "hi3d", MINI_HI3D,
        {"unet": "hi3d-unet", "vae": "vae", "image_encoder": "hi3d-encoder", "refiner": "hi3d-refiner", "depth": "depth"},
        ("refiner", "depth"),
    ),
}  # fmt: skip
"""Folder in the tree -> what it is made of; the presets `mini` and `mini-hi3d` name them."""


def start_folder(stage: Stage, folder: Path, tree: Path = TREE) -> Path:
    """Fill `folder` with what is in the tree of all that a stage trains or needs, in our layout; return it.

    The indices of pipelines that run along are brought up to date: networks may have been taken out of the tree.

    Raises TrainingError, naming the stage that makes it, for something that it needs and that is not there.
    """
    makers: dict[str, str] = {}
    for name, other in STAGES.items():
        for place in other.trains.values():
            makers.setdefault(place, name)  # the first that makes it
    needed = [*stage.needs.values(), *(place for name in stage.parts.values() for place in PIPELINES[name].needed)]
    for place in needed:
        if place in makers and not (tree / place).is_dir():
            raise TrainingError(
                f"{stage.recipe} needs {place}, which {tree} does not hold; train it first: make train-mini "
                f"STAGE={makers[place]}"
            )
    if stage.parts:
        write_pipelines(tree)
    places = {**stage.needs, **stage.trains}
    parts = {component: tree / place for component, place in places.items() if (tree / place).is_dir()}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for component, source in parts.items():
        shutil.copytree(source, folder / component)
    names = {component: CLASSES[source.name] for component, source in parts.items()}
    if stage.needs.get("text_encoder") == EMPTY_TEXT and "text_encoder" not in parts:
        fresh_text_encoder(NETWORKS.text_encoder, seed=0).save_pretrained(folder / "text_encoder")
        names["text_encoder"] = CLASSES[EMPTY_TEXT]
    if stage.begins_as is not None and "unet" not in parts and (tree / stage.begins_as).is_dir():
        unet = begun(tree / stage.begins_as, CLASSES[stage.trains["unet"]])
        unet.save_pretrained(folder / "unet")
        names["unet"] = type(unet).__name__
    system = "hi3d" if isinstance(stage.settings, Hi3DSettings) else "videomv"
    write_index(folder, WeightsIndex(system, names, plain(stage.settings)))
    return folder


def begun(picture_unet: Path, name: str) -> TextOrbitUNet | OrbitVideoUNet:
    """Return a network of the class `name` that begins with what the picture network has learned, where it fits.

    TextOrbitUNet: all tensors of the same shape, and of the expectation its pictures; not the last convolution, so that it
    begins with what it expects alone.
    Of the channels that the picture network's first convolution sees, the noisy latents' are the first and the expected
    ones' the last, as here. OrbitVideoUNet, which is built otherwise: what is expected of the views.
    """
    picture = ImageOrbitUNet.from_pretrained(picture_unet)
    if name == "OrbitVideoUNet":
        video = OrbitVideoUNet(**VIDEO_UNET)
        assert video.expectation is not None
        assert picture.expectation is not None
        video.expectation.load_state_dict(picture.expectation.state_dict())
        return video
    state, unet = picture.state_dict(), TextOrbitUNet(**TEXT_NETWORKS.unet)
    own = unet.state_dict()
    taken = {
        name: tensor for name, tensor in state.items()
        if name in own and own[name].shape == tensor.shape and not name.startswith(("expectation.", "conv_out."))
    }  # fmt: skip
    seen, half = state["conv_in.weight"], own["conv_in.weight"].shape[1] // 2
    taken["conv_in.weight"] = torch.cat([seen[:, :half], seen[:, -half:]], dim=1)
    taken["expectation.pictures"] = state["expectation.pictures"]
    unet.load_state_dict(taken, strict=False)
    return unet


def history(tree: Path = TREE) -> dict[str, Any]:
    """Return what is known of each stage's training."""
    path = tree / HISTORY
    return dict(json.loads(path.read_text())) if path.is_file() else {}


@dataclass(frozen=True)
class Trained:
    """What a run brings."""

    weights: Path
    """RUN/weights or RUN/best."""
    measured: Mapping[str, float]
    """On held-out objects."""
    steps: int
    """Updates of this run."""
    minutes: float
    """It took."""
    device: str
    """It ran on."""
    data: str
    """It learned from, in words."""
    commit: str
    """Of the code."""


def finished(run: Path, data: str) -> Trained:
    """Return the best that a run brought. Raises TrainingError if it measured nothing."""
    path = run / MEASURES
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    if not lines:
        raise TrainingError(f"{run}: has no held-out measures; run it again with shards of held-out objects")
    best = min(lines, key=lambda line: line["loss"])
    record = json.loads((run / RUN).read_text())
    progress = json.loads((checkpoints_of(run)[-1] / PROGRESS).read_text())["progress"]
    measured = {name: value for name, value in best.items() if name != "step"}
    return Trained(
        run / BEST,
        measured,
        int(best["step"]),
        round(progress["seconds"] / 60, 1),
        record["device"],
        data,
        record["commit"],
    )


def is_better(stage_name: str, trained: Trained, tree: Path = TREE) -> bool:
    """Whether a run's held-out loss is below that of what is in the tree; always if none is known."""
    before = history(tree).get(stage_name, {}).get("measured", {}).get("loss")
    return before is None or trained.measured["loss"] < before


def latents_are_learned(tree: Path = TREE) -> bool:
    """Whether some network in the tree knows the autoencoder's latents, so that they must not change any more."""
    return any((tree / name).is_dir() for name in ("image-unet", "text-unet", "hi3d-unet"))


def normalise(weights: Path, batches: Iterable[Batch]) -> None:
    """Give a fresh autoencoder's latents zero mean and unit variance in every channel, as measured on some clips."""
    place = weights / "vae"
    vae = load_component(place, "AutoencoderKL", torch.float32)
    codec = LatentCodec(vae, scaling=1.0)
    with torch.no_grad():
        found = torch.cat([codec.posterior(batch.pixels)[0].flatten(0, 1) for batch in batches])
    normalise_latents(vae, found.mean((0, 2, 3)), found.std((0, 2, 3)))
    vae.save_pretrained(place)


def promote(stage_name: str, trained: Trained, tree: Path = TREE) -> None:
    """Bring a run's networks into the tree in half precision, and the pipelines and the history up to date."""
    stage = STAGES[stage_name]
    for component, place in stage.trains.items():
        _store(trained.weights / component, tree / place)
    if EMPTY_TEXT in stage.needs.values() and not (tree / EMPTY_TEXT).is_dir():
        _store(trained.weights / "text_encoder", tree / EMPTY_TEXT)
    told = history(tree)
    before = told.get(stage_name, {"runs": []})
    run = {key: value for key, value in asdict(trained).items() if key not in ("weights", "measured")}
    told[stage_name] = {"measured": dict(trained.measured), "runs": [*before["runs"], run]}
    for name in list(STAGES)[list(STAGES).index(stage_name) + 1 :]:
        if name in told and set(STAGES[name].trains.values()) & set(stage.trains.values()):
            told[name]["measured"] = {}  # it works on from what has changed: what it was measured as, it is no more
    write_bytes(tree / HISTORY, (json.dumps(told, indent=1) + "\n").encode())
    write_pipelines(tree)


def write_pipelines(tree: Path = TREE) -> None:
    """Write the index of every pipeline whose networks are all there."""
    for name, pipeline in PIPELINES.items():
        there = {part: place for part, place in pipeline.parts.items() if (tree / place).is_dir()}
        if not set(pipeline.needed) <= set(there.values()):
            continue
        if "depth" not in there:
            there.pop("refiner", None)
        index = WeightsIndex(
            pipeline.system,
            {part: CLASSES[place] for part, place in there.items()},
            plain(pipeline.settings),
            {part: f"../{place}" for part, place in there.items()},
        )
        (tree / name).mkdir(parents=True, exist_ok=True)
        write_index(tree / name, index)


def _store(source: Path, target: Path) -> None:
    """Copy a network in half precision, all or nothing."""
    network = load_component(source, CLASSES[target.name], torch.float32)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    network.to(STORED).save_pretrained(partial)
    if not (partial / "config.json").is_file():
        raise TrainingError(f"{source}: wrote no config.json; is it whole?")
    config = json.loads((partial / "config.json").read_text())
    config.pop("_name_or_path", None)  # where it lay on the machine that trained it
    (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for path in partial.iterdir():
        path.chmod(0o644)  # safetensors come readable by their writer alone
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
