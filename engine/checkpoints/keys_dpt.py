"""MiDaS' published DPT hybrid: tensors by MiDaS' (and timm's) names in, transformers' DPTForDepthEstimation out.

Found in `dpt_hybrid_384.pt`, inside Hi3D's second stage, and under transformers' names in Intel/dpt-hybrid-midas,
which is taken too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers.models.dpt.configuration_dpt import DPTConfig
from transformers.models.dpt.modeling_dpt import DPTForDepthEstimation

from engine.checkpoints.converted import Converted
from engine.checkpoints.prefixes import HI3D_DEPTH
from engine.checkpoints.renaming import Renaming, count_children, heads, own_part, square, without

WHAT = "MiDaS' DPT hybrid"
STAGES = 3
"""Of the residual network; its last one feeds the transformer, the first two the decoder."""
PATCH_PX = 16
"""Pixels of a patch: the residual network's stride."""
CLASSIFIER = "pretrained.model.head."
"""timm's ImageNet head, which MiDaS saves and never uses."""
BACKBONE, RELEASED_BACKBONE = "dpt.embeddings.backbone.bit", "pretrained.model.patch_embed.backbone"
BLOCKS, RELEASED_BLOCKS = "dpt.encoder.layer", "pretrained.model.blocks"
BLOCK = {
    "layernorm_before": "norm1",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
AROUND = {
    "dpt.embeddings.cls_token": "pretrained.model.cls_token",
    "dpt.embeddings.position_embeddings": "pretrained.model.pos_embed",
    "dpt.embeddings.projection": "pretrained.model.patch_embed.proj",
    "dpt.layernorm": "pretrained.model.norm",
    f"{BACKBONE}.embedder.convolution": f"{RELEASED_BACKBONE}.stem.conv",
    f"{BACKBONE}.embedder.norm": f"{RELEASED_BACKBONE}.stem.norm",
    # What turns tokens into maps; MiDaS counts maps from 1, and the first two need nothing.
    "neck.reassemble_stage.readout_projects.2.0": "pretrained.act_postprocess3.0.project.0",
    "neck.reassemble_stage.layers.2.projection": "pretrained.act_postprocess3.3",
    "neck.reassemble_stage.readout_projects.3.0": "pretrained.act_postprocess4.0.project.0",
    "neck.reassemble_stage.layers.3.projection": "pretrained.act_postprocess4.3",
    "neck.reassemble_stage.layers.3.resize": "pretrained.act_postprocess4.4",
    "head.head": "scratch.output_conv",
}


def dpt_from_release(
    tensors: Mapping[str, Tensor],
    *,
    prefix: str = HI3D_DEPTH,
    head_dim: int = 64,
    groups: int = 32,
    transformer_hooks: Sequence[int] | None = None,
) -> Converted:
    """Return DPTForDepthEstimation's config and tensors.

    Args:
        tensors: of the file, or the network's alone; of any type, also on meta.
        prefix: of the network's names in the file.
        head_dim: channels of an attention head, which no shape tells.
        groups: of the residual network's group norms, the same.
        transformer_hooks: the two blocks whose tokens feed the decoder; None: the last one and the one that three
            quarters of the blocks end with, which are 8 and 11 of the released 12.

    Raises:
        CheckpointError: missing, unknown or misshapen tensors, named.
    """
    own = without(own_part(tensors, prefix), CLASSIFIER)
    ours = any(key.startswith("dpt.") for key in own)
    renaming = Renaming(WHAT) if ours else _renaming(count_children(own, RELEASED_BLOCKS))
    config = _config(renaming, own, count_children(own, BLOCKS if ours else RELEASED_BLOCKS), transformer_hooks)
    config["num_attention_heads"] = heads(WHAT, config["hidden_size"], head_dim)
    config["backbone_config"]["num_groups"] = groups
    shapes = renaming.shapes_of(lambda: DPTForDepthEstimation(DPTConfig(**config)))
    return Converted(config, renaming.from_release(own, shapes))


def dpt_to_release(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Return DPTForDepthEstimation's tensors under MiDaS' names, without timm's unused ImageNet head."""
    return _renaming(count_children(tensors, BLOCKS)).to_release(tensors, prefix)


def _renaming(layers: int) -> Renaming:
    """Names of a network with so many transformer blocks; timm stacks queries, keys and values."""
    prefixes, joined = dict(AROUND), {}
    for stage in range(STAGES):
        prefixes[f"{BACKBONE}.encoder.stages.{stage}.layers"] = f"{RELEASED_BACKBONE}.stages.{stage}.blocks"
    for layer in range(layers):
        ours, theirs = f"{BLOCKS}.{layer}", f"{RELEASED_BLOCKS}.{layer}"
        prefixes |= {f"{ours}.{new}": f"{theirs}.{old}" for new, old in BLOCK.items()}
        for kind in ("weight", "bias"):
            names = tuple(f"{ours}.attention.attention.{part}.{kind}" for part in ("query", "key", "value"))
            joined[f"{theirs}.attn.qkv.{kind}"] = names
    # MiDaS counts the decoder's blocks from the finest, transformers from the coarsest.
    for number in (1, 2, 3, 4):
        prefixes[f"neck.convs.{number - 1}"] = f"scratch.layer{number}_rn"
        ours, theirs = f"neck.fusion_stage.layers.{4 - number}", f"scratch.refinenet{number}"
        prefixes[f"{ours}.projection"] = f"{theirs}.out_conv"
        for unit in (1, 2):
            for conv in (1, 2):
                name = f"{ours}.residual_layer{unit}.convolution{conv}"
                prefixes[name] = f"{theirs}.resConfUnit{unit}.conv{conv}"
    return Renaming(WHAT, prefixes, joined)


def _config(
    renaming: Renaming, tensors: Mapping[str, Tensor], layers: int, hooks: Sequence[int] | None
) -> dict[str, Any]:
    """Infer DPTConfig's arguments from the shapes, all but heads and groups."""

    def shape(key: str, dimensions: int) -> tuple[int, ...]:
        return renaming.shape(tensors, key, dimensions)

    stages = [f"{BACKBONE}.encoder.stages.{stage}.layers" for stage in range(STAGES)]
    widths = [shape(f"{stage}.0.conv3.weight", 4)[0] for stage in stages]
    side = square(renaming, tensors, "dpt.embeddings.position_embeddings", 3)
    return {
        "is_hybrid": True,
        "hidden_size": shape("dpt.embeddings.cls_token", 3)[2],
        "num_hidden_layers": layers,
        "intermediate_size": shape(f"{BLOCKS}.0.intermediate.dense.weight", 2)[0],
        "layer_norm_eps": 1e-6,  # timm's; Intel's config says 1e-12, which was never trained
        "image_size": side * PATCH_PX,
        "patch_size": PATCH_PX,
        "backbone_out_indices": [0, 1, *((max(0, layers * 3 // 4 - 1), layers - 1) if hooks is None else hooks)],
        "backbone_featmap_shape": [1, widths[-1], side, side],
        "reassemble_factors": [1, 1, 1, 0.5],
        "neck_hidden_sizes": [shape(f"neck.convs.{index}.weight", 4)[1] for index in range(4)],
        "fusion_hidden_size": shape("neck.convs.0.weight", 4)[0],
        "backbone_config": {
            "model_type": "bit",
            "embedding_size": shape(f"{BACKBONE}.embedder.convolution.weight", 4)[0],
            "hidden_sizes": widths,
            "depths": [count_children(tensors, renaming.released(stage)) for stage in stages],
            "layer_type": "bottleneck",
            "global_padding": "SAME",
            "embedding_dynamic_padding": True,
            "out_features": [f"stage{stage + 1}" for stage in range(STAGES)],
        },
    }
