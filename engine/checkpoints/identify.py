"""What a file of weights is, told from the names and shapes of its tensors.

A file holds one network, or several behind prefixes. Each is recognised by a few names that only it has, whatever its
size; the set of them tells the release. Names alone do not tell everything: Hi3D's first stage and SVD, VideoMV with
and without LAION, LGM before and after its fix are equal in every name and shape; there the file's name decides.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from engine.checkpoints.prefixes import (
    AESTHETIC_CLIP,
    AESTHETIC_MLP,
    AUTOENCODER,
    CONDITION_AUTOENCODER,
    HI3D_AESTHETIC,
    HI3D_CLIP,
    HI3D_DEPTH,
    HI3D_UNET,
    RECONSTRUCTOR,
    STABLE_DIFFUSION_CLIP,
)
from engine.checkpoints.releases import RELEASES, Release
from engine.errors import CheckpointError, named


@dataclass(frozen=True)
class Part:
    """One network in a file."""

    kind: str
    """What it is: a key of KINDS."""
    prefix: str
    """What its names begin with."""
    count: int
    """How many tensors it has."""


@dataclass(frozen=True)
class Found:
    """What a file is."""

    release: Release
    """Title, use, presets, licence."""
    parts: tuple[Part, ...]
    """The networks in it, in the file's order."""
    unused: tuple[str, ...]
    """Names that belong to no known network."""

    @property
    def words(self) -> str:
        """For an error or a log."""
        return f"{self.release.title} ({', '.join(part.kind for part in self.parts)})"


Tensors = Mapping[str, Tensor]


def _width(tensors: Tensors, name: str, axis: int) -> int:
    return tensors[name].shape[axis] if name in tensors else 0


def _has(*names: str) -> Callable[[Tensors], bool]:
    return lambda tensors: all(name in tensors for name in names)


def _temporal_vae(tensors: Tensors) -> bool:
    return any(".time_" in name or ".temporal_res_block." in name for name in tensors if name.startswith("decoder."))


def _sgm_unet(tensors: Tensors) -> bool:
    return "label_emb.0.0.weight" in tensors and any(".time_stack." in name for name in tensors)


def _extra_channels(tensors: Tensors) -> bool:
    """Whether the first convolution sees more than noisy and condition latents: Hi3D's second stage adds depth."""
    first = "input_blocks.0.0.weight" if "input_blocks.0.0.weight" in tensors else "conv_in.weight"
    last = "out.2.weight" if "out.2.weight" in tensors else "conv_out.weight"
    return _width(tensors, first, 1) > 2 * _width(tensors, last, 0)


def _ends_in_one_number(tensors: Tensors) -> bool:
    """Whether these are the layers of a perceptron that gives one number."""
    if not all(name.startswith("layers.") and name.count(".") == 2 for name in tensors):
        return False
    last = max(tensors, key=lambda name: int(name.split(".")[1]) if name.split(".")[1].isdecimal() else -1)
    return tensors[last].shape[0] == 1


def _vgen_unet(tensors: Tensors) -> bool:
    return "input_blocks.0.1.proj_in.weight" in tensors and any(".temopral_conv." in name for name in tensors)


TOKENS = "embeddings.token_embedding.weight"
PATCHES = "vision_model.embeddings.patch_embedding.weight"
KINDS: Mapping[str, Callable[[Tensors], bool]] = {
    # VideoMV, ModelScopeT2V, I2VGen-XL in VGen's names
    "image-orbit-unet": lambda t: _vgen_unet(t) and _has("local_image_concat.0.weight", "camera_embedding.0.weight")(t),
    "image-video-unet": lambda t: _vgen_unet(t) and "local_image_concat.0.weight" in t,
    "text-orbit-unet": lambda t: _vgen_unet(t) and "camera_embedding.0.weight" in t,
    "text-video-unet": _vgen_unet,
    # Hi3D and SVD in sgm's names
    "orbit-refiner-unet": lambda t: _sgm_unet(t) and _extra_channels(t),
    "orbit-video-unet": _sgm_unet,
    # the same networks as diffusers names them, and as we save them
    "diffusers-image-unet": _has("image_latents_proj_in.0.weight", "transformer_in.norm.weight"),
    "diffusers-text-unet": _has("transformer_in.norm.weight", "conv_in.weight"),
    "diffusers-refiner-unet": lambda t: _has("add_embedding.linear_1.weight")(t) and _extra_channels(t),
    "diffusers-video-unet": _has("add_embedding.linear_1.weight", "conv_in.weight"),
    "lgm": lambda t: _has("unet.conv_in.weight", "conv.weight")(t) and _width(t, "unet.conv_in.weight", 1) == 9,
    # autoencoders
    "video-vae": lambda t: _has("encoder.conv_in.weight", "decoder.conv_in.weight")(t) and _temporal_vae(t),
    "vae": _has("encoder.down.0.block.0.norm1.weight", "decoder.conv_in.weight"),
    "diffusers-vae": _has("encoder.down_blocks.0.resnets.0.norm1.weight", "decoder.conv_in.weight"),
    # encoders and judges
    "clip-l": lambda t: 1024 in (_width(t, "visual.conv1.weight", 0), _width(t, PATCHES, 0)),
    "open-clip": _has("visual.conv1.weight"),
    "open-clip-text": _has("token_embedding.weight", "transformer.resblocks.0.attn.in_proj_weight"),
    "transformers-clip": _has("text_model." + TOKENS, PATCHES),
    "transformers-clip-text": lambda t: any(
        _has(p + TOKENS, p + "final_layer_norm.weight")(t) for p in ("text_model.", "")
    ),
    "transformers-clip-vision": _has(PATCHES),
    "aesthetic": lambda t: "layers.0.weight" in t and _ends_in_one_number(t),
    "midas": _has("pretrained.model.patch_embed.proj.weight", "scratch.layer1_rn.weight"),
    "transformers-dpt": _has("neck.convs.0.weight", "head.head.0.weight"),
}
"""Networks by what only they have, the more particular before the more general."""

PREFIXES = (
    RECONSTRUCTOR,
    HI3D_UNET,
    AUTOENCODER,
    HI3D_CLIP,
    HI3D_AESTHETIC + AESTHETIC_CLIP,
    HI3D_AESTHETIC + AESTHETIC_MLP,
    HI3D_DEPTH,
    CONDITION_AUTOENCODER,
    STABLE_DIFFUSION_CLIP,
)
"""Where published files keep a network of several; what begins with none of them is a network of its own."""
SECOND_COPIES = (CONDITION_AUTOENCODER,)
"""Networks that sgm's files hold twice: the condition's autoencoder is the first stage's."""
KIND_BY_PREFIX = {HI3D_AESTHETIC + AESTHETIC_CLIP: "clip-l"}
"""Where the place says it and the network alone, but for its size, would not."""


def kind_of(tensors: Tensors) -> str | None:
    """Return which network of KINDS these are the tensors of, None if of none."""
    return next((kind for kind, is_it in KINDS.items() if is_it(tensors)), None)


def parts_of(tensors: Tensors) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """Return the networks in a file, and the names that belong to none."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
        groups.setdefault(prefix, {})[name.removeprefix(prefix)] = tensor
    parts, unused = [], []
    for prefix, group in groups.items():
        kind = KIND_BY_PREFIX.get(prefix) or kind_of(group)
        if kind is None or prefix in SECOND_COPIES:
            unused += [prefix + name for name in group]
        else:
            parts.append(Part(kind, prefix, len(group)))
    return tuple(parts), tuple(unused)


def identify(tensors: Tensors, *, file_name: str = "") -> Found:
    """Tell what weights are.

    Args:
        tensors: by name, as `read_checkpoint` gives them; shapes are enough (meta tensors).
        file_name: of the file or folder; decides between releases that are equal in names and shapes.

    Raises:
        CheckpointError: no network that this project knows.
    """
    parts, unused = parts_of(tensors)
    kinds = {part.kind for part in parts}
    if not kinds:
        known = "VideoMV, ModelScopeT2V, I2VGen-XL, Hi3D, SVD, LGM, SD's autoencoder, OpenCLIP, CLIP, MiDaS DPT hybrid"
        raise CheckpointError(
            f"{file_name or 'these weights'}: {len(tensors)} tensors of no known network ({named(tensors)}); known: {known}"
        )
    return Found(RELEASES[_release(kinds, {part.prefix for part in parts}, file_name.lower())], parts, unused)


def _release(kinds: set[str], prefixes: Collection[str], file_name: str) -> str:
    """Return the name of the release whose networks these are; a file's denoiser counts before what stands beside it."""
    if kinds & {"orbit-video-unet", "diffusers-video-unet"}:
        return "svd" if _is_svd(prefixes, file_name) else "hi3d-stage1"
    by_kind = {
        "image-orbit-unet": "videomv-image",
        "image-video-unet": "i2vgen-xl",
        "text-orbit-unet": "videomv-text-laion" if "365000" in file_name or "laion" in file_name else "videomv-text",
        "text-video-unet": "modelscope-t2v",
        "orbit-refiner-unet": "hi3d-stage2",
        "diffusers-refiner-unet": "hi3d-stage2",
        "diffusers-image-unet": "i2vgen-xl",
        "diffusers-text-unet": "modelscope-t2v",
        "lgm": "lgm" if _before_the_fix(file_name) else "lgm-fixrot",
        "video-vae": "svd",
        "vae": "sd-vae",
        "diffusers-vae": "sd-vae",
        "midas": "midas-dpt-hybrid",
        "transformers-dpt": "midas-dpt-hybrid",
        "clip-l": "clip-l",
        "open-clip": "open-clip-h",
        "open-clip-text": "open-clip-h",
        "transformers-clip": "open-clip-h",
        "transformers-clip-text": "open-clip-h",
        "transformers-clip-vision": "open-clip-h",
        "aesthetic": "aesthetic",
    }
    return next(release for kind, release in by_kind.items() if kind in kinds)


def _is_svd(prefixes: Collection[str], file_name: str) -> bool:
    """Whether a network that Hi3D's first stage and SVD share is SVD's: whole files of Hi3D hold the aesthetic model."""
    aesthetic = any("aesthetic" in prefix for prefix in prefixes)
    whole = any(prefix.startswith("conditioner.") for prefix in prefixes)
    return not aesthetic and (whole or "svd" in file_name or "stable-video" in file_name)


def _before_the_fix(file_name: str) -> bool:
    """Whether a file of LGM is of the time when quaternions were normalised over the Gaussians (LGM's readme).

    `model_fp16.safetensors` is; `model_fp16_fixrot.safetensors` is not. Of other names the fixed version is assumed.
    """
    return "model_fp16" in file_name and "fixrot" not in file_name


def check_fits(found: Tensors, expected: Tensors, what: str) -> None:
    """Check weights against the network that they are for.

    Args:
        found: the weights.
        expected: the network's own state dict; meta tensors do.
        what: for the error: the preset and the component, such as "preset hi3d, unet".

    Raises:
        CheckpointError: names that are missing or unknown, shapes that differ, and which preset the weights fit.
    """
    missing, unknown = set(expected) - set(found), set(found) - set(expected)
    misshapen = {
        name: f"{name} has shape {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    }
    if not (missing or unknown or misshapen):
        return
    parts = [f"lack {named(missing)}"] if missing else []
    parts += [f"hold unknown {named(unknown)}"] if unknown else []
    parts += [f"{misshapen[min(misshapen)]} ({len(misshapen)} such)"] if misshapen else []
    raise CheckpointError(f"{what}: these weights do not fit: they {'; '.join(parts)}. {_better(found)}")


def check_preset(found: Found, preset: str, what: str) -> None:
    """Raise CheckpointError, naming the preset that does, unless weights are of use to a preset."""
    if preset not in found.release.presets:
        presets = " or ".join(found.release.presets)
        raise CheckpointError(f"{what}: is {found.words}, which preset {preset} has no use for; take preset {presets}")


def _better(tensors: Tensors) -> str:
    try:
        found = identify(tensors)
    except CheckpointError:
        return "They are of no network that this project knows"
    return f"They are of {found.words}: take preset {' or '.join(found.release.presets)}"
