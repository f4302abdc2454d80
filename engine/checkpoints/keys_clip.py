"""CLIP's published weights, text or vision: tensors by OpenCLIP's (and OpenAI's) names in, transformers' names out.

Found in `open_clip_pytorch_model.bin`, in OpenAI's `ViT-L-14.pt`, and inside Hi3D's checkpoints. Copies under
transformers' names (Stable Diffusion 2's text encoder, the hub's CLIPModel) are taken too.
"""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor
from transformers.models.clip.configuration_clip import CLIPTextConfig, CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPVisionModelWithProjection

from engine.checkpoints.converted import Converted
from engine.checkpoints.prefixes import HI3D_CLIP
from engine.checkpoints.renaming import Renaming, count_children, heads, own_part, square, without
from engine.errors import CheckpointError

Activation = Literal["gelu", "quick_gelu"]
"""OpenCLIP's LAION weights were trained with the first, OpenAI's with the second."""
TEXT, VISION = "CLIP's text encoder", "CLIP's vision encoder"
HEAD_DIMS = {1280: 80, 1408: 88, 1664: 104}
"""Width of OpenCLIP's vision towers -> of their heads (H, g and bigG); all others have 64."""
OF_BOTH = ("logit_scale", "text_projection", "attn_mask", "input_resolution", "context_length", "vocab_size")
"""Of the two towers together; neither encoder needs them."""
NOT_TEXT = (*OF_BOTH, "visual.", "vision_model.", "visual_projection.")
NOT_VISION = (*OF_BOTH, "transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_model.")
CUT_LAYERS = 23
"""A text tower under transformers' names that has so many layers lost the last one of ViT-H-14 already."""
BLOCK = {
    "layer_norm1": "ln_1",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def text_from_release(
    tensors: Mapping[str, Tensor],
    *,
    prefix: str = HI3D_CLIP,
    layers_skipped: int | None = None,
    head_dim: int = 64,
    activation: Activation = "gelu",
) -> Converted:
    """Return CLIPTextModel's config and tensors.

    Args:
        tensors: of the file, of the whole model or of its text tower; of any type, also on meta.
        prefix: of the model's names in the file.
        layers_skipped: blocks left away at the end. None: one, since VideoMV takes the tokens behind the penultimate
            block, except where the tower has been cut to 23 layers before.
        head_dim: channels of an attention head, which no shape tells.
        activation: of the feed-forward layers, which no shape tells either.

    Raises:
        CheckpointError: missing, unknown or misshapen tensors, named.
    """
    own = _tower(own_part(tensors, prefix), NOT_TEXT)
    if any("embeddings.position_embedding." in key for key in own):
        own = own_part(own, "text_model.")  # a text model alone is saved with or without it
        blocks, renaming = "encoder.layers", Renaming(TEXT)
        layers = count_children(own, blocks)
        cut = layers == CUT_LAYERS
    else:
        blocks, cut = "transformer.resblocks", False
        layers = count_children(own, blocks)
        renaming = _text_renaming(layers)
    renaming.shape(own, "embeddings.token_embedding.weight", 2)  # says what is missing of what is no text tower
    kept = layers - (int(not cut) if layers_skipped is None else layers_skipped)
    if not 0 < kept <= layers:
        raise CheckpointError(f"{TEXT}: has {layers} layers, cannot keep {kept} of them; is the tower complete?")
    own = without(own, tuple(f"{blocks}.{index}." for index in range(kept, layers)))
    config = _text_config(renaming, own, kept, head_dim) | {"hidden_act": activation}
    shapes = renaming.shapes_of(lambda: CLIPTextModel(CLIPTextConfig(**config)))
    return Converted(config, renaming.from_release(own, shapes))


def _text_config(renaming: Renaming, tensors: Mapping[str, Tensor], layers: int, head_dim: int) -> dict[str, Any]:
    """Infer CLIPTextConfig's arguments from the shapes, all but the activation."""
    vocabulary, width = renaming.shape(tensors, "embeddings.token_embedding.weight", 2)
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": renaming.shape(tensors, "encoder.layers.0.mlp.fc1.weight", 2)[0],
        "projection_dim": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads(TEXT, width, head_dim),
        "max_position_embeddings": renaming.shape(tensors, "embeddings.position_embedding.weight", 2)[0],
        # CLIP's vocabulary ends with the start and the end token.
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": 0,
    }


def vision_from_release(
    tensors: Mapping[str, Tensor],
    *,
    prefix: str = HI3D_CLIP,
    head_dim: int | None = None,
    activation: Activation = "gelu",
) -> Converted:
    """Return CLIPVisionModelWithProjection's config and tensors; arguments as in text_from_release.

    head_dim None: what OpenCLIP's models of that width have.
    """
    own = _tower(own_part(tensors, prefix), NOT_VISION)
    if any(key.startswith("vision_model.") for key in own):
        renaming, layers = Renaming(VISION), count_children(own, "vision_model.encoder.layers")
    else:
        layers = count_children(own, "visual.transformer.resblocks")
        renaming = _vision_renaming(layers)
    width, channels, patch, _ = renaming.shape(own, "vision_model.embeddings.patch_embedding.weight", 4)
    side = square(renaming, own, "vision_model.embeddings.position_embedding.weight", 2)
    config = {
        "hidden_size": width,
        "intermediate_size": renaming.shape(own, "vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
        "projection_dim": renaming.shape(own, "visual_projection.weight", 2)[0],
        "num_hidden_layers": layers,
        "num_attention_heads": heads(VISION, width, head_dim or HEAD_DIMS.get(width, 64)),
        "num_channels": channels,
        "image_size": side * patch,
        "patch_size": patch,
        "hidden_act": activation,
    }
    shapes = renaming.shapes_of(lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**config)))
    return Converted(config, renaming.from_release(own, shapes))


def text_to_release(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Return CLIPTextModel's tensors under OpenCLIP's names; blocks that were left away stay away."""
    return _text_renaming(count_children(tensors, "encoder.layers")).to_release(tensors, prefix)


def vision_to_release(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Return CLIPVisionModelWithProjection's tensors under OpenCLIP's names."""
    return _vision_renaming(count_children(tensors, "vision_model.encoder.layers")).to_release(tensors, prefix)


def _tower(tensors: Mapping[str, Tensor], others: tuple[str, ...]) -> dict[str, Tensor]:
    """Return one tower of a model: without what belongs to the other or to both, and what old files hold as a buffer."""
    return {key: tensor for key, tensor in without(tensors, others).items() if not key.endswith("position_ids")}


def _text_renaming(layers: int) -> Renaming:
    frame = {
        "embeddings.token_embedding": "token_embedding",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm": "ln_final",
    }
    return _renaming(TEXT, frame, layers, "encoder.layers", "transformer.resblocks")


def _vision_renaming(layers: int) -> Renaming:
    frame = {
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "vision_model.embeddings.patch_embedding": "visual.conv1",
        "vision_model.pre_layrnorm": "visual.ln_pre",  # transformers spells it so
        "vision_model.post_layernorm": "visual.ln_post",
        "visual_projection.weight": "visual.proj",
    }
    return _renaming(
        VISION,
        frame,
        layers,
        "vision_model.encoder.layers",
        "visual.transformer.resblocks",
        ("visual_projection.weight",),
    )


def _renaming(
    what: str, frame: Mapping[str, str], layers: int, ours: str, theirs: str, transposed: tuple[str, ...] = ()
) -> Renaming:
    """Names of a tower; nn.MultiheadAttention stacks queries, keys and values."""
    prefixes, joined = dict(frame), {}
    for layer in range(layers):
        prefixes |= {f"{ours}.{layer}.{new}": f"{theirs}.{layer}.{old}" for new, old in BLOCK.items()}
        for kind in ("weight", "bias"):
            names = tuple(f"{ours}.{layer}.self_attn.{part}_proj.{kind}" for part in "qkv")
            joined[f"{theirs}.{layer}.attn.in_proj_{kind}"] = names
    return Renaming(what, prefixes, joined, transposed)
