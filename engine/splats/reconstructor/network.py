"""LGM's network (Tang et al. 2024, section 3.2): pictures with rays in, 14 raw numbers of a Gaussian a pixel out.

    RGB + rays [b v 9 h w] --down, middle, up (asymmetric: stops early)--> [b v 14 h' w'] --1x1--> raw numbers
                                  attention across all views at the small sizes

Any number of views goes through the same weights. `heads.py` says what the 14 numbers mean.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from engine.splats.reconstructor.anchors import anchored_numbers
from engine.splats.reconstructor.blocks import DownBlock, MiddleBlock, UpBlock, group_norm
from engine.splats.reconstructor.heads import NUMBERS, QuaternionNorm

PICTURE_CHANNELS = 9
"""ImageNet-normalised RGB and six numbers of the ray."""


class AsymmetricUNet(nn.Module):
    """A U-Net whose way up may end at a smaller size than its way down began with."""

    def __init__(
        self,
        channels: tuple[int, int],
        down: tuple[Sequence[int], Sequence[bool]],
        up: tuple[Sequence[int], Sequence[bool]],
        layers: int,
        heads: int,
        *,
        mid_attention: bool,
    ) -> None:
        """Build.

        Args:
            channels: in and out.
            down: width and presence of attention of every level on the way down.
            up: likewise on the way up, from the smallest size.
            layers: residual blocks a level on the way down; one more on the way up.
            heads: attention heads.
            mid_attention: whether the middle has attention.
        """
        super().__init__()
        widths, wider = list(down[0]), list(up[0])
        self.skips = layers + 1
        self.gradient_checkpointing = False
        self._gradient_checkpointing_func: Any = None
        self.conv_in = nn.Conv2d(channels[0], widths[0], 3, padding=1)
        self.down_blocks = _down_blocks(widths, down[1], layers, heads)
        self.mid_block = MiddleBlock(widths[-1], heads, attention=mid_attention)
        self.up_blocks = _up_blocks(widths, wider, up[1], layers, heads)
        self.norm_out = group_norm(wider[-1])
        self.conv_out = nn.Conv2d(wider[-1], channels[1], 3, padding=1)

    def forward(self, x: Float[Tensor, "bv c h w"], views: int) -> Float[Tensor, "bv d p q"]:
        """Run; views of an object lie one after the other on the first axis."""
        x = self.conv_in(x)
        kept = [x]
        for block in self.down_blocks:
            kept += self._run(block, kept[-1], views)
        x = self._run(self.mid_block, kept[-1], views)
        for block in self.up_blocks:
            x, kept = self._run(block, x, views, *kept[-self.skips :]), kept[: -self.skips]
        return self.conv_out(functional.silu(self.norm_out(x)))

    def _run(self, block: nn.Module, *inputs: Any) -> Any:
        if self.gradient_checkpointing and self.training:
            return self._gradient_checkpointing_func(block, *inputs)
        return block(*inputs)


def _down_blocks(widths: list[int], attentions: Sequence[bool], layers: int, heads: int) -> nn.ModuleList:
    levels = zip([widths[0], *widths[:-1]], widths, attentions, strict=True)
    return nn.ModuleList(
        DownBlock(before, width, layers, heads, attention=attention, downsample=level != len(widths) - 1)
        for level, (before, width, attention) in enumerate(levels)
    )


def _up_blocks(
    down: list[int], widths: list[int], attentions: Sequence[bool], layers: int, heads: int
) -> nn.ModuleList:
    """What the way down keeps, from the last to the first: the last level's blocks, the convolution that led there and
    the blocks before it, and so on. A level up takes layers + 1 of them."""
    levels = zip([down[-1], *widths[:-1]], widths, attentions, strict=True)
    return nn.ModuleList(
        UpBlock(
            before,
            [down[-1 - level]] * layers + [down[max(-2 - level, -len(down))]],
            width,
            heads,
            attention=attention,
            upsample=level != len(widths) - 1,
        )
        for level, (before, width, attention) in enumerate(levels)
    )


class GaussianUNet(ModelMixin, ConfigMixin):
    """LGM: its U-Net and the 1x1 convolution after it, with what its checkpoints were trained with in the config."""

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        in_channels: int = PICTURE_CHANNELS,
        out_channels: int = NUMBERS,
        down_channels: Sequence[int] = (64, 128, 256, 512, 1024, 1024),
        down_attention: Sequence[bool] = (False, False, False, True, True, True),
        mid_attention: bool = True,
        up_channels: Sequence[int] = (1024, 1024, 512, 256, 128),
        up_attention: Sequence[bool] = (True, True, True, False, False),
        layers_per_block: int = 2,
        attention_heads: int = 16,
        views: int = 4,
        input_size: int = 256,
        output_size: int = 512,
        radius_m: float | None = 1.5,
        quaternion_norm: QuaternionNorm = "per_gaussian",
        anchored: bool = False,
    ) -> None:
        """Build; the defaults are LGM's "big", 415 M parameters.

        Args:
            in_channels: RGB and rays.
            out_channels: raw numbers a Gaussian.
            down_channels: widths on the way down; each level but the last halves the size.
            down_attention: whether a level attends across views.
            mid_attention: whether the middle does.
            up_channels: widths on the way up; each level but the last doubles the size.
            up_attention: whether a level attends across views.
            layers_per_block: residual blocks a level on the way down; one more on the way up.
            attention_heads: of every attention.
            views: how many views it was trained with; forward takes any number.
            input_size: pixels a side of the pictures it was trained with.
            output_size: pixels a side at which its Gaussians were rendered in training.
            radius_m: distance at which its world wants the first camera, metres; None keeps the true one (VideoMV).
            quaternion_norm: see `heads.published_numbers`.
            anchored: raw numbers start from what a Gaussian's pixel says itself, see `anchors.anchored_numbers`; LGM
                learns all of it. A small network has its first likeness after minutes so.
        """
        super().__init__()
        self.unet = AsymmetricUNet(
            (in_channels, out_channels),
            (down_channels, down_attention),
            (up_channels, up_attention),
            layers_per_block,
            attention_heads,
            mid_attention=mid_attention,
        )
        self.conv = nn.Conv2d(out_channels, out_channels, 1)

    @property
    def splat_size(self) -> int:
        """Gaussians along a side of each view at the training size."""
        config = self.config
        return config.input_size >> (len(config.down_channels) - 1) << (len(config.up_channels) - 1)

    def forward(self, inputs: Float[Tensor, "b v c h w"]) -> Float[Tensor, "b v d p q"]:
        """Return raw numbers for the pixels of smaller pictures.

        Args:
            inputs: ImageNet-normalised RGB, then moment and direction of the rays (`Reconstructor.inputs` makes them);
                height and width multiples of two to the power of the levels down less one.
        """
        b, v, _, height, width = inputs.shape
        step = 2 ** (len(self.config.down_channels) - 1)
        if height % step or width % step:
            raise ValueError(f"pictures must be multiples of {step} pixels a side, got {width} x {height}: resize them")
        given = inputs.flatten(0, 1).to(self.device, self.dtype)  # offloaded weights come just before forward
        raw = self.conv(self.unet(given, v))
        if self.config.anchored:
            raw = anchored_numbers(raw, given)
        return raw.unflatten(0, (b, v))


CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "small": {"up_channels": (1024, 1024, 512, 256), "up_attention": (True, True, True, False), "output_size": 256},
    "big": {},
    "tiny": {
        "down_channels": (32, 64, 128, 256, 512),
        "down_attention": (False, False, False, False, True),
        "up_channels": (512, 256, 128),
        "up_attention": (True, False, False),
        "output_size": 256,
    },
    "test": {
        "down_channels": (32, 32, 64),
        "down_attention": (False, False, True),
        "up_channels": (64, 32),
        "up_attention": (True, False),
        "attention_heads": 4,
        "input_size": 32,
        "output_size": 64,
    },
}
"""Arguments of GaussianUNet: LGM's three published sizes, and one for tests only."""
