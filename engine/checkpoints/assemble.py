"""Networks as they were found, made into the components of one of our systems.

One table says which kind of network becomes which component; what each still needs is said by WHERE.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from engine.checkpoints.converted import Converted
from engine.checkpoints.pieces import Piece, Sources
from engine.checkpoints.releases import RELEASES
from engine.errors import CheckpointError

System = Literal["videomv", "hi3d", "reconstructor"]
SYSTEMS: Mapping[str, tuple[str, ...]] = {
    "videomv": ("unet", "vae", "text_encoder", "image_encoder", "reconstructor"),
    "hi3d": ("unet", "vae", "image_encoder", "aesthetic", "refiner", "depth"),
    "reconstructor": ("reconstructor",),
}
"""Components of each system, as its pipeline names them."""
VIDEOMV_UNETS = {
    "text-orbit-unet": "TextOrbitUNet", "text-video-unet": "TextOrbitUNet", "diffusers-text-unet": "TextOrbitUNet",
    "image-orbit-unet": "ImageOrbitUNet", "image-video-unet": "ImageOrbitUNet", "diffusers-image-unet": "ImageOrbitUNet",
}  # fmt: skip
VAES = ("vae", "diffusers-vae")
TEXTS = ("open-clip", "open-clip-text", "transformers-clip", "transformers-clip-text")
VISIONS = ("open-clip", "transformers-clip", "transformers-clip-vision")
ROLES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "videomv": {
        "unet": tuple(VIDEOMV_UNETS), "vae": VAES, "text_encoder": TEXTS, "image_encoder": VISIONS, "reconstructor": ("lgm",)
    },
    "hi3d": {
        "unet": ("orbit-video-unet", "diffusers-video-unet"), "refiner": ("orbit-refiner-unet",), "vae": VAES,
        "image_encoder": VISIONS, "aesthetic": ("aesthetic",), "depth": ("midas", "transformers-dpt"),
    },
    "reconstructor": {"reconstructor": ("lgm",)},
}  # fmt: skip
"""System -> component -> kinds of network that it is made of."""
DENOISERS = ("unet", "refiner")
"""Components of which two must not be given: they would be different ones. Of the others all files hold the same."""
TEXT_TOWER = ("transformer.resblocks.", "text_model.encoder.", "encoder.layers.")
"""What a CLIP with a text tower has; of Hi3D's its blocks were deleted."""
VISION_TOWER = ("visual.", "vision_model.")


@dataclass(frozen=True)
class Choices:
    """What shapes and names do not tell."""

    head_dim: int = 64
    """Channels of an attention head of the U-Nets; 64 in all releases."""
    clip_head_dim: int | None = None
    """The same of CLIP's and MiDaS' transformers; None: as in the released models of their width."""
    depth_groups: int = 32
    """Groups of the normalisation in MiDaS' residual network."""
    quaternion_norm: Literal["per_gaussian", "over_gaussians"] | None = None
    """How the reconstructor normalises quaternions; None: as the file's name and place tell."""


@dataclass(frozen=True)
class Component:
    """One component, ready to be written."""

    name: str
    """Its folder."""
    class_name: str
    """Of layout.CLASSES."""
    converted: Converted
    """Config and tensors."""
    pieces: tuple[Piece, ...]
    """What it was made of."""
    extra: Any = None
    """The text encoder's tokenizer, the image encoder's preprocessing."""


@dataclass(frozen=True)
class Missing:
    """A component that a folder does not have."""

    component: str
    """Its name."""
    required: bool
    """Whether the system cannot run without it."""
    get: str
    """What to convert into the folder, and from where."""


def system_of(sources: Sources) -> str | None:
    """Return the system whose denoiser or reconstructor is among the sources; None if there is neither."""
    kinds = {piece.kind for piece in sources.pieces}
    return next((name for name in ("videomv", "hi3d") if kinds & _denoisers(name)), None) or (
        "reconstructor" if "lgm" in kinds else "hi3d" if kinds & {"aesthetic", "midas", "transformers-dpt"} else None
    )


def _denoisers(system: str) -> set[str]:
    return {kind for name in DENOISERS for kind in ROLES[system].get(name, ())}


def assemble(sources: Sources, system: str, has: Sequence[str], choices: Choices) -> tuple[list[Component], list[str]]:
    """Make the components that the sources give.

    Args:
        sources: as read.
        system: of SYSTEMS.
        has: class names of what the folder holds already; says which variant of VideoMV it is.
        choices: see there.

    Returns:
        Components, and what was left out and why.

    Raises:
        CheckpointError: two different denoisers, a network of another system, or one that does not convert.
    """
    by_role = {role: _candidates(role, kinds, sources) for role, kinds in ROLES[system].items()}
    _refuse_two(by_role)
    reasons = dict.fromkeys(sources.pieces, "")
    if system == "videomv" and not _wants_pictures(by_role, has):
        reasons |= dict.fromkeys(by_role.pop("image_encoder"), " (pictures: of no use to a text model)")
    components: list[Component] = []
    lacking: list[str] = []
    for role in SYSTEMS[system]:
        for piece in by_role.get(role, ())[1:]:
            reasons[piece] = f" (the {role} was taken from {by_role[role][0].file.name})"
        if by_role.get(role):
            made = _make(role, by_role[role][0], sources, system, choices)
            if isinstance(made, Component):
                components.append(made)
            else:
                lacking.append(made)
    used = {piece for part in components for piece in part.pieces}
    return components, [*lacking, *(_words(piece) + why for piece, why in reasons.items() if piece not in used)]


def _candidates(role: str, kinds: Collection[str], sources: Sources) -> list[Piece]:
    """Return the networks that a component can be made of, the best first: as the files were given."""
    towers = {"text_encoder": TEXT_TOWER, "image_encoder": VISION_TOWER}.get(role, ("",))
    return [
        piece
        for piece in sources.pieces
        if piece.kind in kinds and any(name.startswith(towers) for name in piece.tensors)
    ]


def _words(piece: Piece) -> str:
    return f"{piece.file.name}: {piece.kind}" + (f" at {piece.prefix}" if piece.prefix else "")


def _refuse_two(by_role: Mapping[str, Sequence[Piece]]) -> None:
    for name in DENOISERS:
        files = list(dict.fromkeys(str(piece.file) for piece in by_role.get(name, ())))
        if len(files) > 1:
            raise CheckpointError(
                f"{files[0]} and {files[1]} both hold a {name}: name the files instead of their folder, and convert each "
                "into a folder of its own"
            )


def _wants_pictures(by_role: Mapping[str, Sequence[Piece]], has: Sequence[str]) -> bool:
    kinds = {VIDEOMV_UNETS[piece.kind] for piece in by_role["unet"]} | set(has)
    return "ImageOrbitUNet" in kinds or not kinds & {"TextOrbitUNet"}


def _make(role: str, piece: Piece, sources: Sources, system: str, choices: Choices) -> "Component | str":
    """Convert one network; a sentence where something that belongs to it was not given."""
    makers: Mapping[str, Callable[[Piece, Sources, str, Choices], Component | str]] = {
        "unet": _videomv_unet if system == "videomv" else _hi3d_unet,
        "refiner": _hi3d_unet,
        "vae": _vae,
        "text_encoder": _text_encoder,
        "image_encoder": _image_encoder,
        "reconstructor": _reconstructor,
        "aesthetic": _aesthetic,
        "depth": _depth,
    }
    try:
        return makers[role](piece, sources, system, choices)
    except CheckpointError as error:
        raise CheckpointError(f"{piece.file.name}: {error}") from error


def _videomv_unet(piece: Piece, sources: Sources, system: str, choices: Choices) -> Component:
    from engine.checkpoints.keys_videomv import image_orbit_from_release, text_orbit_from_release

    class_name = VIDEOMV_UNETS[piece.kind]
    convert = text_orbit_from_release if class_name == "TextOrbitUNet" else image_orbit_from_release
    return Component("unet", class_name, convert(piece.tensors, head_dim=choices.head_dim), (piece,))


def _hi3d_unet(piece: Piece, sources: Sources, system: str, choices: Choices) -> Component:
    from engine.checkpoints.keys_hi3d import orbit_video_from_release, stage1_from_svd

    convert = stage1_from_svd if piece.found.release.name == "svd" else orbit_video_from_release
    role = "refiner" if piece.kind == "orbit-refiner-unet" else "unet"
    return Component(role, "OrbitVideoUNet", convert(piece.tensors, head_dim=choices.head_dim), (piece,))


def _vae(piece: Piece, sources: Sources, system: str, choices: Choices) -> Component:
    from engine.checkpoints.keys_vae import vae_from_release
    from engine.multiview.settings import SD_SCALING

    scaling = (piece.config or {}).get("scaling_factor", SD_SCALING)
    return Component("vae", "AutoencoderKL", vae_from_release(piece.tensors, scaling=scaling), (piece,))


def _text_encoder(piece: Piece, sources: Sources, system: str, choices: Choices) -> "Component | str":
    from engine.checkpoints.keys_clip import text_from_release
    from engine.multiview.networks.tokenizer import read_tokenizer

    place = sources.tokenizer
    if place is None:
        return f"{_words(piece)} (the text encoder needs its tokenizer too: {WHERE['text_encoder']})"
    converted = text_from_release(piece.tensors, head_dim=choices.clip_head_dim or 64)
    return Component("text_encoder", "TextEncoder", converted, (piece,), read_tokenizer(place))


def _image_encoder(piece: Piece, sources: Sources, system: str, choices: Choices) -> Component:
    from engine.checkpoints.keys_clip import vision_from_release

    converted = vision_from_release(piece.tensors, head_dim=choices.clip_head_dim)
    return Component("image_encoder", "ImageEncoder", converted, (piece,), system)


def _reconstructor(piece: Piece, sources: Sources, system: str, choices: Choices) -> Component:
    from engine.checkpoints.keys_lgm import lgm_from_release

    norm = choices.quaternion_norm or ("over_gaussians" if piece.found.release.name == "lgm" else None)
    # Behind its prefix the key map sees that it is VideoMV's, which was trained otherwise than LGM's own.
    tensors = {piece.prefix + name: tensor for name, tensor in piece.tensors.items()}
    return Component("reconstructor", "GaussianUNet", lgm_from_release(tensors, quaternion_norm=norm), (piece,))


def _aesthetic(piece: Piece, sources: Sources, system: str, choices: Choices) -> "Component | str":
    from engine.checkpoints.keys_aesthetic import aesthetic_from_parts

    clips = sorted(
        (other for other in sources.pieces if other.kind == "clip-l"), key=lambda other: other.file != piece.file
    )
    if not clips:
        return f"{_words(piece)} (the aesthetic score needs CLIP ViT-L/14 too: {WHERE['aesthetic']})"
    converted = aesthetic_from_parts(clips[0].tensors, piece.tensors, head_dim=choices.clip_head_dim or 64)
    return Component("aesthetic", "AestheticScorer", converted, (piece, clips[0]))


def _depth(piece: Piece, sources: Sources, system: str, choices: Choices) -> Component:
    from engine.checkpoints.keys_dpt import dpt_from_release

    converted = dpt_from_release(piece.tensors, head_dim=choices.clip_head_dim or 64, groups=choices.depth_groups)
    return Component("depth", "DepthEstimator", converted, (piece,))


def _source(release: str, number: int = 0) -> str:
    return RELEASES[release].sources[number]


WHERE: Mapping[str, str] = {
    "videomv/unet": f"{_source('videomv-text')} (a zip: unpack it and give the folder)",
    "hi3d/unet": _source("hi3d-stage1"),
    "vae": f"{_source('sd-vae', 0)} or {_source('sd-vae', 1)}; Hi3D's own files hold it",
    "text_encoder": f"{_source('open-clip-h')} and, in the same call, {_source('modelscope-t2v')}:tokenizer",
    "image_encoder": f"{_source('open-clip-h')}; Hi3D's own files hold it",
    "reconstructor": _source("lgm-fixrot"),
    "aesthetic": f"{_source('aesthetic')} and, in the same call, {_source('clip-l')}; Hi3D's first stage holds both",
    "refiner": _source("hi3d-stage2"),
    "depth": f"{_source('midas-dpt-hybrid')}; Hi3D's second stage holds it",
}
"""Where each component is to be had; behind a system where it is another one in each."""


def missing_of(system: str, components: Mapping[str, str], unet_vector: int | None) -> tuple[Missing, ...]:
    """Return what a folder of a system does not have yet.

    Args:
        system: of SYSTEMS.
        components: name -> class, as in its index.
        unet_vector: numbers in the vector that Hi3D's first stage is told, which tell whether it is told a score.
    """
    from engine.multiview.networks.orbit_video import SINUSOID_WIDTH

    required = {"unet", "vae"} | ({"text_encoder"} if system == "videomv" else {"image_encoder"})
    if components.get("unet") == "ImageOrbitUNet":
        required.add("image_encoder")
    if unet_vector == 3 * SINUSOID_WIDTH:
        required.add("aesthetic")
    if "refiner" in components:
        required.add("depth")
    of_no_use = {"image_encoder"} if components.get("unet") == "TextOrbitUNet" else set()
    names = [name for name in SYSTEMS[system] if name not in components and name not in of_no_use]
    where = {name: WHERE.get(f"{system}/{name}") or WHERE[name] for name in names}
    return tuple(Missing(name, name in required or system == "reconstructor", where[name]) for name in names)


def settings_of(class_name: str) -> dict[str, Any]:
    """Return what released weights of a denoiser were trained for, as the index keeps it."""
    from engine.multiview.settings import VIDEOMV_PICTURE, VIDEOMV_TEXT, Hi3DSettings

    chosen = {"TextOrbitUNet": VIDEOMV_TEXT, "ImageOrbitUNet": VIDEOMV_PICTURE, "OrbitVideoUNet": Hi3DSettings()}
    return asdict(cast(Any, chosen[class_name])) if class_name in chosen else {}
