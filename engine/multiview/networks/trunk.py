"""What VideoMV's two U-Nets share: time in, down, middle, up, prediction out; the layers are diffusers'.

The forward passes are ours: diffusers' embed one time for all views of an object, here each view has its own camera.
"""

from typing import Any

from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from jaxtyping import Float
from torch import Tensor, nn

LAYERS: tuple[type[nn.Module], ...] = (ResnetBlock2D, TemporalConvLayer, Transformer2DModel, TransformerTemporalModel)
"""What gradient checkpointing forgets, as in the release: one layer at a time, since whole blocks would keep less but
need many times the memory when they are computed again."""
RELEASED_HEADS = 8
"""Of the first temporal transformer in the release and in diffusers, whatever its width."""


def set_first_transformer(unet: Any, heads: int) -> None:
    """Give the first temporal transformer its number of heads; diffusers always takes 8."""
    if heads != RELEASED_HEADS:
        unet.transformer_in = TransformerTemporalModel(
            num_attention_heads=heads,
            attention_head_dim=unet.config.attention_head_dim,
            in_channels=unet.config.block_out_channels[0],
            num_layers=1,
            norm_num_groups=unet.config.norm_num_groups,
        )


def set_dropout(unet: nn.Module, share: float) -> None:
    """Set the dropout of residual blocks and of the convolutions over views after them; the release's is 0.1.

    diffusers offers none for the former and fixes 0.1 for the latter. Attention has none, there as here.
    """
    for module in unet.modules():
        if isinstance(module, (ResnetBlock2D, TemporalConvLayer)):
            for layer in module.modules():
                if isinstance(layer, nn.Dropout):
                    layer.p = share


def check_latents(unet: Any, latents: Float[Tensor, "b n c h w"], text: Float[Tensor, "b t d"]) -> None:
    """Raise ValueError unless channels and text width are the network's."""
    channels, width = unet.config.in_channels, unet.config.cross_attention_dim
    if latents.shape[2] != channels:
        raise ValueError(
            f"latents must have shape (objects, views, {channels}, height, width), got {tuple(latents.shape)}"
        )
    if text.shape[-1] != width:
        raise ValueError(
            f"text must be {width} numbers a token, got {text.shape[-1]}; it comes from another text encoder"
        )


def run_trunk(
    unet: Any,
    pictures: Float[Tensor, "bn k h w"],
    embedding: Float[Tensor, "bn e"],
    context: Float[Tensor, "bn t d"],
    views: int,
) -> Float[Tensor, "bn c h w"]:
    """Run everything from the first convolution to the prediction.

    Temporal layers run for one view as well, as in the release. Sides that do not halve evenly are met on the way up.

    Args:
        unet: a UNet3DConditionModel or I2VGenXLUNet.
        pictures: noisy latents, with what is concatenated to them; an object's views one after another.
        embedding: of time and camera.
        context: tokens for cross-attention.
        views: number of views of an object.
    """
    given = {"encoder_hidden_states": context, "num_frames": views}
    hidden = unet.conv_in(pictures)
    hidden = unet.transformer_in(hidden, num_frames=views, return_dict=False)[0]
    skips = [hidden]
    for block in unet.down_blocks:
        hidden, more = block(hidden, embedding, **_wanted(block, given))
        skips += more
    hidden = unet.mid_block(hidden, embedding, **given)
    for block in unet.up_blocks:
        count = len(block.resnets)
        taken, skips = tuple(skips[-count:]), skips[:-count]
        size = tuple(skips[-1].shape[-2:]) if skips else None
        hidden = block(hidden, taken, embedding, upsample_size=size, **_wanted(block, given))
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))


def _wanted(block: nn.Module, given: dict[str, Any]) -> dict[str, Any]:
    """Blocks without attention take no context."""
    return given if getattr(block, "has_cross_attention", False) else {"num_frames": given["num_frames"]}
