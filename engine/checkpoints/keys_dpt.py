"""MiDaS' published DPT hybrid: tensors by MiDaS' (and timm's) names in, transformers' DPTForDepthEstimation out.

Found in `dpt_hybrid_384.pt`, inside Hi3D's second stage behind HI3D_PREFIX, and under transformers' names in
Intel/dpt-hybrid-midas, which is taken too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from engine.checkpoints.converted import Converted, check_keys
from engine.checkpoints.links import Link, count_blocks, parameters, shape_of, to_ours, to_release, under
from engine.errors import CheckpointError

HI3D_PREFIX = "conditioner.embedders.2.model.model."
"""In front of every name in Hi3D's second stage."""
WHAT = "MiDaS' DPT hybrid"
STAGES = 3
"""Of the residual network; its last one feeds the transformer, the first two the decoder."""
PATCH_PX = 16
"""Pixels of a patch: the residual network's stride."""
CLASSIFIER = {"pretrained.model.head.weight", "pretrained.model.head.bias"}
"""timm's ImageNet head, which MiDaS saves and never uses."""
BACKBONE = "dpt.embeddings.backbone.bit"


def dpt_from_release(
    tensors: Mapping[str, Tensor],
    *,
    prefix: str = "",
    head_width: int = 64,
    groups: int = 32,
    transformer_hooks: Sequence[int] | None = None,
) -> Converted:
    """Return DPTForDepthEstimation's config and tensors.

    Args:
        tensors: the whole network, of any type, also on meta.
        prefix: only names behind it are looked at, without it.
        head_width: channels of an attention head, which shapes do not tell.
        groups: of the residual network's group norms, the same.
        transformer_hooks: the two blocks whose tokens feed the decoder; None: the last one and the one that three
            quarters of the blocks end with, which are 8 and 11 of the released 12.

    Raises:
        CheckpointError: missing, unknown or misshapen tensors, named.
    """
    own = {key: tensor for key, tensor in under(tensors, prefix).items() if key not in CLASSIFIER}
    if any(key.startswith("dpt.") for key in own):
        depths = [count_blocks(own, f"{BACKBONE}.encoder.stages.{stage}.layers.") for stage in range(STAGES)]
        links, ours = dpt_links(depths, count_blocks(own, "dpt.encoder.layer.")), own
        check_keys(WHAT, ours, {name for link in links for name in link.ours})
    else:
        backbone = "pretrained.model.patch_embed.backbone.stages"
        depths = [count_blocks(own, f"{backbone}.{stage}.blocks.") for stage in range(STAGES)]
        links = dpt_links(depths, count_blocks(own, "pretrained.model.blocks."))
        ours = to_ours(WHAT, links, own)
    return Converted(_config(ours, depths, head_width, groups, transformer_hooks), ours)


def dpt_to_release(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Return DPTForDepthEstimation's tensors under MiDaS' names, without timm's unused ImageNet head."""
    depths = [count_blocks(tensors, f"{BACKBONE}.encoder.stages.{stage}.layers.") for stage in range(STAGES)]
    links = dpt_links(depths, count_blocks(tensors, "dpt.encoder.layer."))
    return {prefix + key: tensor for key, tensor in to_release(WHAT, links, tensors).items()}


def dpt_links(depths: Sequence[int], layers: int) -> list[Link]:
    """Link the whole network: blocks in each stage of the residual network, blocks of the transformer."""
    vit = "pretrained.model"
    return [
        Link(f"{vit}.cls_token", ("dpt.embeddings.cls_token",)),
        Link(f"{vit}.pos_embed", ("dpt.embeddings.position_embeddings",)),
        *_residual_network(f"{vit}.patch_embed.backbone", depths),
        *parameters(f"{vit}.patch_embed.proj", "dpt.embeddings.projection"),
        *(link for index in range(layers) for link in _block(f"{vit}.blocks.{index}", f"dpt.encoder.layer.{index}")),
        *parameters(f"{vit}.norm", "dpt.layernorm"),
        *_reassembly(),
        *_decoder(),
    ]


def _residual_network(release: str, depths: Sequence[int]) -> list[Link]:
    links = [
        Link(f"{release}.stem.conv.weight", (f"{BACKBONE}.embedder.convolution.weight",)),
        *parameters(f"{release}.stem.norm", f"{BACKBONE}.embedder.norm"),
    ]
    for stage, depth in enumerate(depths):
        for block in range(depth):
            theirs = f"{release}.stages.{stage}.blocks.{block}"
            ours = f"{BACKBONE}.encoder.stages.{stage}.layers.{block}"
            pairs = [(f"conv{number}", f"norm{number}") for number in (1, 2, 3)]
            pairs += [("downsample.conv", "downsample.norm")] if block == 0 else []
            for conv, norm in pairs:
                links += [
                    Link(f"{theirs}.{conv}.weight", (f"{ours}.{conv}.weight",)),
                    *parameters(f"{theirs}.{norm}", f"{ours}.{norm}"),
                ]
    return links


def _block(release: str, ours: str) -> list[Link]:
    """Link one transformer block; timm stacks queries, keys and values."""
    attention = [f"{ours}.attention.attention.{part}" for part in ("query", "key", "value")]
    return [
        *parameters(f"{release}.norm1", f"{ours}.layernorm_before"),
        *(Link(f"{release}.attn.qkv.{kind}", tuple(f"{a}.{kind}" for a in attention)) for kind in ("weight", "bias")),
        *parameters(f"{release}.attn.proj", f"{ours}.attention.output.dense"),
        *parameters(f"{release}.norm2", f"{ours}.layernorm_after"),
        *parameters(f"{release}.mlp.fc1", f"{ours}.intermediate.dense"),
        *parameters(f"{release}.mlp.fc2", f"{ours}.output.dense"),
    ]


def _reassembly() -> list[Link]:
    """Link what turns tokens into maps; MiDaS counts maps from 1, and the first two need nothing."""
    stage = "neck.reassemble_stage"
    links = []
    for index in (2, 3):
        theirs = f"pretrained.act_postprocess{index + 1}"
        links += parameters(f"{theirs}.0.project.0", f"{stage}.readout_projects.{index}.0")
        links += parameters(f"{theirs}.3", f"{stage}.layers.{index}.projection")
    return [*links, *parameters("pretrained.act_postprocess4.4", f"{stage}.layers.3.resize")]


def _decoder() -> list[Link]:
    """Link the fusion blocks, which MiDaS counts from the finest, transformers from the coarsest, and the head."""
    links = [Link(f"scratch.layer{index + 1}_rn.weight", (f"neck.convs.{index}.weight",)) for index in range(4)]
    for number in (1, 2, 3, 4):
        theirs, ours = f"scratch.refinenet{number}", f"neck.fusion_stage.layers.{4 - number}"
        links += parameters(f"{theirs}.out_conv", f"{ours}.projection")
        for unit in (1, 2):
            for conv in (1, 2):
                links += parameters(
                    f"{theirs}.resConfUnit{unit}.conv{conv}", f"{ours}.residual_layer{unit}.convolution{conv}"
                )
    return links + [
        link for index in (0, 2, 4) for link in parameters(f"scratch.output_conv.{index}", f"head.head.{index}")
    ]


def _config(
    ours: Mapping[str, Tensor], depths: Sequence[int], head_width: int, groups: int, hooks: Sequence[int] | None
) -> dict[str, Any]:
    """Infer DPTConfig's arguments from the shapes."""
    layers = count_blocks(ours, "dpt.encoder.layer.")
    widths = [
        shape_of(WHAT, ours, f"{BACKBONE}.encoder.stages.{stage}.layers.0.conv3.weight", 4)[0]
        for stage in range(STAGES)
    ]
    _, positions, width = shape_of(WHAT, ours, "dpt.embeddings.position_embeddings", 3)
    side = round((positions - 1) ** 0.5)
    if side * side != positions - 1 or width % head_width:
        raise CheckpointError(
            f"{WHAT}: holds {positions - 1} positions of {width} channels, expected a square number of positions and "
            f"channels that divide into heads of {head_width}; pass the right head_width"
        )
    if hooks is None:
        hooks = (max(0, layers * 3 // 4 - 1), layers - 1)
    return {
        "is_hybrid": True,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // head_width,
        "intermediate_size": shape_of(WHAT, ours, "dpt.encoder.layer.0.intermediate.dense.weight", 2)[0],
        "layer_norm_eps": 1e-6,  # timm's; Intel's config says 1e-12, which was never trained
        "image_size": side * PATCH_PX,
        "patch_size": PATCH_PX,
        "backbone_out_indices": [0, 1, *hooks],
        "backbone_featmap_shape": [1, widths[-1], side, side],
        "reassemble_factors": [1, 1, 1, 0.5],
        "neck_hidden_sizes": [shape_of(WHAT, ours, f"neck.convs.{index}.weight", 4)[1] for index in range(4)],
        "fusion_hidden_size": shape_of(WHAT, ours, "neck.convs.0.weight", 4)[0],
        "backbone_config": {
            "model_type": "bit",
            "embedding_size": shape_of(WHAT, ours, f"{BACKBONE}.embedder.convolution.weight", 4)[0],
            "hidden_sizes": widths,
            "depths": list(depths),
            "layer_type": "bottleneck",
            "global_padding": "SAME",
            "embedding_dynamic_padding": True,
            "num_groups": groups,
            "out_features": [f"stage{stage + 1}" for stage in range(STAGES)],
        },
    }
