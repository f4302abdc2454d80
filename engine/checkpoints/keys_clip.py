"""CLIP's published weights, text or vision: tensors by OpenCLIP's (and OpenAI's) names in, transformers' names out.

Found in `open_clip_pytorch_model.bin`, in OpenAI's `ViT-L-14.pt`, and inside Hi3D's checkpoints behind HI3D_PREFIX.
Copies under transformers' names (Stable Diffusion 2's text encoder, the hub's CLIPModel) are taken too.
"""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from engine.checkpoints.converted import Converted, check_keys
from engine.checkpoints.links import Link, count_blocks, parameters, shape_of, to_ours, to_release, under
from engine.errors import CheckpointError

HI3D_PREFIX = "conditioner.embedders.0.open_clip.model."
"""In front of the vision tower (and what is left of the text tower) in Hi3D's checkpoints."""
Activation = Literal["gelu", "quick_gelu"]
"""OpenCLIP's LAION weights were trained with the first, OpenAI's with the second."""

TEXT, VISION = "CLIP's text encoder", "CLIP's vision encoder"
TEXT_BLOCKS, VISION_BLOCKS = "transformer.resblocks.", "visual.transformer.resblocks."
HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}
"""Width of OpenCLIP's vision towers -> of their heads (H, g and bigG); all others have 64."""
WHOLE_MODEL = {"logit_scale", "text_projection", "attn_mask", "input_resolution", "context_length", "vocab_size"}
"""Of the two towers together; neither encoder needs them."""
TEXT_FRAME = {"token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias"}
"""The text tower but for its blocks: stays in Hi3D's checkpoints when the blocks were deleted."""
TEXT_PARTS, VISION_PARTS = ("text_model.",), ("vision_model.", "visual_projection.")
"""What belongs to either tower under transformers' names."""
CUT_LAYERS = 23
"""A text tower under transformers' names that has so many layers lost the last one of ViT-H-14 already."""


def text_from_release(
    tensors: Mapping[str, Tensor],
    *,
    prefix: str = "",
    layers_skipped: int | None = None,
    head_width: int = 64,
    activation: Activation = "gelu",
) -> Converted:
    """Return CLIPTextModel's config and tensors.

    Args:
        tensors: the whole model, or its text tower; of any type, also on meta.
        prefix: only names behind it are looked at, without it.
        layers_skipped: blocks left away at the end. None: one, since VideoMV takes the tokens behind the penultimate
            block, except where the tower has been cut to 23 layers before.
        head_width: channels of an attention head, which shapes do not tell.
        activation: of the feed-forward layers, which shapes do not tell either.

    Raises:
        CheckpointError: missing, unknown or misshapen tensors, named.
    """
    own = under(tensors, prefix)
    if any("embeddings.position_embedding." in key for key in own):
        named = _in_transformers(own, VISION_PARTS)  # a text model alone is saved with or without its prefix
        ours = {key.removeprefix("text_model."): tensor for key, tensor in named.items()}
        cut = count_blocks(ours, "encoder.layers.") == CUT_LAYERS
    else:
        text = {key: tensor for key, tensor in own.items() if not key.startswith("visual.") and key not in WHOLE_MODEL}
        blocks = count_blocks(text, TEXT_BLOCKS)
        ours, cut = to_ours(TEXT, text_links(blocks), text), False
    layers = count_blocks(ours, "encoder.layers.")
    kept = layers - ((0 if cut else 1) if layers_skipped is None else layers_skipped)
    if not 0 < kept <= layers:
        raise CheckpointError(f"{TEXT}: has {layers} layers, cannot keep {kept} of them; is the tower complete?")
    skipped = tuple(f"encoder.layers.{index}." for index in range(kept, layers))
    ours = {key: tensor for key, tensor in ours.items() if not key.startswith(skipped)}
    check_keys(TEXT, ours, {name for link in text_links(kept) for name in link.ours})
    vocabulary, width = shape_of(TEXT, ours, "embeddings.token_embedding.weight", 2)
    return Converted(
        {
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": shape_of(TEXT, ours, "encoder.layers.0.mlp.fc1.weight", 2)[0],
            "projection_dim": width,
            "num_hidden_layers": kept,
            "num_attention_heads": _heads(TEXT, width, head_width),
            "max_position_embeddings": shape_of(TEXT, ours, "embeddings.position_embedding.weight", 2)[0],
            "hidden_act": activation,
            # CLIP's vocabulary ends with the start and the end token.
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            "pad_token_id": 0,
        },
        ours,
    )


def vision_from_release(
    tensors: Mapping[str, Tensor],
    *,
    prefix: str = "",
    head_width: int | None = None,
    activation: Activation = "gelu",
) -> Converted:
    """Return CLIPVisionModelWithProjection's config and tensors; arguments as in text_from_release.

    head_width None: what OpenCLIP's models of that width have.
    """
    own = under(tensors, prefix)
    if any(key.startswith("vision_model.") for key in own):
        ours = _in_transformers(own, TEXT_PARTS)
    else:
        vision = {key: tensor for key, tensor in own.items() if not _of_text_tower(key)}
        ours = to_ours(VISION, vision_links(count_blocks(vision, VISION_BLOCKS)), vision)
    layers = count_blocks(ours, "vision_model.encoder.layers.")
    check_keys(VISION, ours, {name for link in vision_links(layers) for name in link.ours})
    width, channels, patch, _ = shape_of(VISION, ours, "vision_model.embeddings.patch_embedding.weight", 4)
    patches = shape_of(VISION, ours, "vision_model.embeddings.position_embedding.weight", 2)[0] - 1
    side = round(patches**0.5)
    if side * side != patches:
        raise CheckpointError(f"{VISION}: holds positions of {patches} patches, expected a square number")
    return Converted(
        {
            "hidden_size": width,
            "intermediate_size": shape_of(VISION, ours, "vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
            "projection_dim": shape_of(VISION, ours, "visual_projection.weight", 2)[0],
            "num_hidden_layers": layers,
            "num_attention_heads": _heads(VISION, width, head_width or HEAD_WIDTHS.get(width, 64)),
            "num_channels": channels,
            "image_size": side * patch,
            "patch_size": patch,
            "hidden_act": activation,
        },
        ours,
    )


def text_to_release(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Return CLIPTextModel's tensors under OpenCLIP's names; blocks that were left away stay away."""
    links = text_links(count_blocks(tensors, "encoder.layers."))
    return {prefix + key: tensor for key, tensor in to_release(TEXT, links, tensors).items()}


def vision_to_release(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Return CLIPVisionModelWithProjection's tensors under OpenCLIP's names."""
    links = vision_links(count_blocks(tensors, "vision_model.encoder.layers."))
    return {prefix + key: tensor for key, tensor in to_release(VISION, links, tensors).items()}


def text_links(layers: int) -> list[Link]:
    """Link the text tower."""
    return [
        Link("token_embedding.weight", ("embeddings.token_embedding.weight",)),
        Link("positional_embedding", ("embeddings.position_embedding.weight",)),
        *(link for index in range(layers) for link in _block(f"{TEXT_BLOCKS}{index}", f"encoder.layers.{index}")),
        *parameters("ln_final", "final_layer_norm"),
    ]


def vision_links(layers: int) -> list[Link]:
    """Link the vision tower with its projection."""
    model = "vision_model"
    blocks = ((f"{VISION_BLOCKS}{index}", f"{model}.encoder.layers.{index}") for index in range(layers))
    return [
        Link("visual.class_embedding", (f"{model}.embeddings.class_embedding",)),
        Link("visual.positional_embedding", (f"{model}.embeddings.position_embedding.weight",)),
        Link("visual.conv1.weight", (f"{model}.embeddings.patch_embedding.weight",)),
        *parameters("visual.ln_pre", f"{model}.pre_layrnorm"),  # transformers spells it so
        *(link for release, ours in blocks for link in _block(release, ours)),
        *parameters("visual.ln_post", f"{model}.post_layernorm"),
        Link("visual.proj", ("visual_projection.weight",), transposed=True),
    ]


def _block(release: str, ours: str) -> list[Link]:
    """Link one transformer block; nn.MultiheadAttention stacks queries, keys and values."""
    attention = tuple(f"{ours}.self_attn.{part}_proj" for part in "qkv")
    return [
        *parameters(f"{release}.ln_1", f"{ours}.layer_norm1"),
        Link(f"{release}.attn.in_proj_weight", tuple(f"{name}.weight" for name in attention)),
        Link(f"{release}.attn.in_proj_bias", tuple(f"{name}.bias" for name in attention)),
        *parameters(f"{release}.attn.out_proj", f"{ours}.self_attn.out_proj"),
        *parameters(f"{release}.ln_2", f"{ours}.layer_norm2"),
        *parameters(f"{release}.mlp.c_fc", f"{ours}.mlp.fc1"),
        *parameters(f"{release}.mlp.c_proj", f"{ours}.mlp.fc2"),
    ]


def _of_text_tower(key: str) -> bool:
    return key in WHOLE_MODEL or key in TEXT_FRAME or key.startswith(TEXT_BLOCKS)


def _in_transformers(tensors: Mapping[str, Tensor], others: tuple[str, ...]) -> dict[str, Tensor]:
    """Return one tower of a model that is under transformers' names, without what belongs to the other or to both."""
    left_away = (*others, "text_projection.", "logit_scale")
    return {
        key: tensor
        for key, tensor in tensors.items()
        if not key.startswith(left_away) and not key.endswith("position_ids")  # old files hold those as a buffer
    }


def _heads(what: str, width: int, head_width: int) -> int:
    if width % head_width:
        raise CheckpointError(
            f"{what}: is {width} wide, which does not divide into heads of {head_width}; pass the right head_width"
        )
    return width // head_width
