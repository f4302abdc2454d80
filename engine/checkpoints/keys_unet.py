"""What VideoMV's and Hi3D's released U-Nets share: the names of guided-diffusion (openai/guided-diffusion, unet.py).

input_blocks.0            convolution [, first temporal transformer]
input_blocks.1 ...        residual block [, attention layers] | downsampling
middle_block.0 ...        residual block, attention layers, residual block
output_blocks.0 ...       as the input blocks, upsampling last in the list
"""

from collections.abc import Callable, Collection

from engine.checkpoints.renaming import ANOTHER, count_children
from engine.errors import CheckpointError, named

AROUND = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
Levels = list[tuple[int, bool]]
"""Of each level, the finest first: the number of residual blocks on the way down, and whether it attends."""
Layer = Callable[[str, int, str], dict[str, str]]
"""Names of one layer: our block, the layer's number in it, the released place."""


def is_released(names: Collection[str]) -> bool:
    """Whether these are a release's names, not those of diffusers (and ours)."""
    return "conv_in.weight" not in names


def levels_of(what: str, names: Collection[str], downsampling: str) -> Levels:
    """Read the levels from the names; raises CheckpointError if a level has no residual block.

    Args:
        what: names the network in the error.
        names: the release's, or ours.
        downsampling: what the release calls one inside its block.
    """
    levels = _released_levels(names, downsampling) if is_released(names) else _our_levels(names)
    if not levels or not all(count for count, _ in levels):
        found = named(names) if names else "nothing"
        raise CheckpointError(f"{what}: a level has no residual block, found {found}; {ANOTHER}")
    return levels


def _our_levels(names: Collection[str]) -> Levels:
    blocks = [f"down_blocks.{level}" for level in range(count_children(names, "down_blocks"))]
    return [(count_children(names, f"{b}.resnets"), count_children(names, f"{b}.attentions") > 0) for b in blocks]


def _released_levels(names: Collection[str], downsampling: str) -> Levels:
    levels: Levels = [(0, False)]
    for index in range(1, count_children(names, "input_blocks")):
        if any(name.startswith(f"input_blocks.{index}.{downsampling}.") for name in names):
            levels.append((0, False))
        else:
            levels[-1] = (levels[-1][0] + 1, f"input_blocks.{index}.1.proj_in.weight" in names)
    return levels


def block_names(
    levels: Levels, *, downsampling: str, residual: Layer, attention: Layer, attention_layers: int
) -> dict[str, str]:
    """Return our prefixes -> the release's, of everything that repeats.

    Args:
        levels: of the network.
        downsampling: what the release calls one inside its block.
        residual: names of a residual block.
        attention: names of the attention layers behind it; they are told the block in which these are 1, 2 ...
        attention_layers: how many these are.
    """
    names = residual("mid_block", 0, "middle_block.0") | attention("mid_block", 0, "middle_block")
    names |= residual("mid_block", 1, f"middle_block.{1 + attention_layers}")
    index = 1
    for level, (count, attends) in enumerate(levels):
        for layer in range(count):
            names |= residual(f"down_blocks.{level}", layer, f"input_blocks.{index}.0")
            names |= attention(f"down_blocks.{level}", layer, f"input_blocks.{index}") if attends else {}
            index += 1
        names[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{index}.{downsampling}"
        index += 1
    index = 0
    for level, (count, attends) in enumerate(reversed(levels)):
        for layer in range(count + 1):
            names |= residual(f"up_blocks.{level}", layer, f"output_blocks.{index}.0")
            names |= attention(f"up_blocks.{level}", layer, f"output_blocks.{index}") if attends else {}
            index += 1
        place = 1 + attention_layers if attends else 1
        names[f"up_blocks.{level}.upsamplers.0"] = f"output_blocks.{index - 1}.{place}"
    return names
