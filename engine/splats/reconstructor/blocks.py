"""The blocks of LGM's U-Net (Tang et al. 2024, section 3.2): residual, attention across views, down, middle, up.

Views are stacked on the batch axis, `[b * v, c, h, w]`; only attention looks across them and is told their number.
Module names are the release's.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

GROUPS = 32
EPSILON = 1e-5
RESIDUAL_GAIN = math.sqrt(0.5)
"""Every sum of two branches is multiplied with this, so that its variance stays (skip_scale)."""


def group_norm(channels: int) -> nn.GroupNorm:
    """Return the normalisation that all layers use; channels must be a multiple of 32."""
    return nn.GroupNorm(GROUPS, channels, eps=EPSILON)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice; a 1x1 convolution beside them where the width changes."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "bv c h w"]) -> Float[Tensor, "bv d h w"]:
        """Keep the size, change the width."""
        inner = self.conv1(functional.silu(self.norm1(x)))
        inner = self.conv2(functional.silu(self.norm2(inner)))
        return (inner + self.shortcut(x)) * RESIDUAL_GAIN


class SelfAttention(nn.Module):
    """Multi-head self-attention over tokens; no bias on queries, keys and values."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: Float[Tensor, "b t c"]) -> Float[Tensor, "b t c"]:
        """Attend."""
        b, t, c = tokens.shape
        query, key, value = self.qkv(tokens).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)  # [b, heads, t, c / heads]
        return self.proj(attended.transpose(1, 2).reshape(b, t, c))


class CrossViewAttention(nn.Module):
    """Every pixel of every view of an object attends to all of them."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.attn = SelfAttention(channels, heads)

    def forward(self, x: Float[Tensor, "bv c h w"], views: int) -> Float[Tensor, "bv c h w"]:
        """Attend across the `views` pictures of each object."""
        bv, c, h, w = x.shape
        tokens = self.norm(x).view(bv // views, views, c, h * w).transpose(2, 3).reshape(bv // views, -1, c)
        attended = self.attn(tokens).view(bv, h * w, c).transpose(1, 2).reshape(bv, c, h, w)
        return (attended + x) * RESIDUAL_GAIN


def _attentions(layers: int, channels: int, heads: int, *, present: bool) -> nn.ModuleList:
    return nn.ModuleList(CrossViewAttention(channels, heads) for _ in range(layers if present else 0))


class DownBlock(nn.Module):
    """Residual blocks, each followed by attention where the level has it, then a strided convolution."""

    def __init__(
        self, in_channels: int, out_channels: int, layers: int, heads: int, *, attention: bool, downsample: bool
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * (layers - 1)
        self.nets = nn.ModuleList(ResidualBlock(width, out_channels) for width in widths)
        self.attns = _attentions(layers, out_channels, heads, present=attention)
        self.downsample = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1) if downsample else None

    def forward(self, x: Tensor, views: int) -> list[Tensor]:
        """Return everything that the way up may look at; the last is the block's output."""
        kept = []
        for index, net in enumerate(self.nets):
            x = net(x)
            if len(self.attns):
                x = self.attns[index](x, views)
            kept.append(x)
        if self.downsample is not None:
            kept.append(self.downsample(x))
        return kept


class MiddleBlock(nn.Module):
    """Residual, attention, residual."""

    def __init__(self, channels: int, heads: int, *, attention: bool) -> None:
        super().__init__()
        self.nets = nn.ModuleList([ResidualBlock(channels, channels), ResidualBlock(channels, channels)])
        self.attns = _attentions(1, channels, heads, present=attention)

    def forward(self, x: Tensor, views: int) -> Tensor:
        """Keep size and width."""
        x = self.nets[0](x)
        for attention in self.attns:
            x = attention(x, views)
        return self.nets[1](x)


class UpBlock(nn.Module):
    """Residual blocks that also see what the way down kept, attention, then twice the size by the nearest pixel."""

    def __init__(
        self, in_channels: int, skips: list[int], out_channels: int, heads: int, *, attention: bool, upsample: bool
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * (len(skips) - 1)
        self.nets = nn.ModuleList(
            ResidualBlock(width + skip, out_channels) for width, skip in zip(widths, skips, strict=True)
        )
        self.attns = _attentions(len(skips), out_channels, heads, present=attention)
        self.upsample = nn.Conv2d(out_channels, out_channels, 3, padding=1) if upsample else None

    def forward(self, x: Tensor, views: int, *kept: Tensor) -> Tensor:
        """Take the kept tensors from the last to the first."""
        for index, (net, skip) in enumerate(zip(self.nets, reversed(kept), strict=True)):
            x = net(torch.cat([x, skip], 1))
            if len(self.attns):
                x = self.attns[index](x, views)
        if self.upsample is not None:
            x = self.upsample(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x
