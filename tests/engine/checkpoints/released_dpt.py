"""MiDaS' DPT hybrid as published: MiDaS' and timm's parameter names, plain torch, any size. Written for comparison.

Sources: isl-org/MiDaS midas/{dpt_depth,vit,blocks}.py, timm's resnetv2.py (vit_base_resnet50_384) of that time.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Sizes:
    """Defaults are small; RELEASED has those of dpt_hybrid_384.pt."""

    stem: int = 8
    stages: tuple[int, ...] = (32, 64, 96)
    depths: tuple[int, ...] = (2, 1, 2)
    groups: int = 4
    width: int = 32
    heads: int = 2
    layers: int = 4
    hooks: tuple[int, int] = (2, 3)
    grid: int = 4
    maps: tuple[int, ...] = (32, 64, 40, 48)
    features: int = 16
    classes: int = 10


RELEASED = Sizes(64, (256, 512, 1024), (3, 4, 9), 32, 768, 12, 12, (8, 11), 24, (256, 512, 768, 768), 256, 1000)


def padded_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad as TensorFlow's SAME: the larger half at the end."""
    needed = [max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:]]
    (top, bottom), (left, right) = ((n // 2, n - n // 2) for n in needed)
    return functional.pad(x, (left, right, top, bottom), value=value)


class StandardisedConv(nn.Conv2d):
    """Convolution with weights of zero mean and unit variance for each filter, SAME padding."""

    def __init__(self, taken: int, given: int, kernel: int, stride: int = 1) -> None:
        super().__init__(taken, given, kernel, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, unbiased=False)
        x = padded_same(x, self.kernel_size[0], self.stride[0])
        return functional.conv2d(x, (self.weight - mean) / torch.sqrt(variance + 1e-8), stride=self.stride)


class Bottleneck(nn.Module):
    """timm's non-pre-activation bottleneck."""

    def __init__(self, taken: int, given: int, stride: int, groups: int, first: bool) -> None:
        super().__init__()
        middle = given // 4
        self.conv1, self.norm1 = StandardisedConv(taken, middle, 1), nn.GroupNorm(groups, middle)
        self.conv2, self.norm2 = StandardisedConv(middle, middle, 3, stride), nn.GroupNorm(groups, middle)
        self.conv3, self.norm3 = StandardisedConv(middle, given, 1), nn.GroupNorm(groups, given)
        self.downsample = nn.Module() if first else None
        if self.downsample is not None:
            self.downsample.conv = StandardisedConv(taken, given, 1, stride)
            self.downsample.norm = nn.GroupNorm(groups, given)

    def forward(self, x: Tensor) -> Tensor:
        """[b c h w]."""
        shortcut = x if self.downsample is None else self.downsample.norm(self.downsample.conv(x))
        x = self.norm1(self.conv1(x)).relu()
        x = self.norm2(self.conv2(x)).relu()
        return (self.norm3(self.conv3(x)) + shortcut).relu()


class Stage(nn.Module):
    """Bottlenecks of one resolution."""

    def __init__(self, taken: int, given: int, depth: int, stride: int, groups: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(Bottleneck(given if i else taken, given, 1 if i else stride, groups, i == 0) for i in range(depth))
        )

    def forward(self, x: Tensor) -> Tensor:
        """[b c h w]."""
        return self.blocks(x)


class Backbone(nn.Module):
    """timm's ResNetV2 as the hybrid ViT uses it."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.stem = nn.Module()
        self.stem.conv = StandardisedConv(3, sizes.stem, 7, 2)
        self.stem.norm = nn.GroupNorm(sizes.groups, sizes.stem)
        widths = (sizes.stem, *sizes.stages)
        self.stages = nn.ModuleList(
            Stage(widths[i], widths[i + 1], depth, 1 if i == 0 else 2, sizes.groups)
            for i, depth in enumerate(sizes.depths)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return all stages' maps."""
        x = self.stem.norm(self.stem.conv(x)).relu()
        x = functional.max_pool2d(padded_same(x, 3, 2, -float("inf")), 3, stride=2)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Attention(nn.Module):
    """timm's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x: Tensor) -> Tensor:
        """[b t d]."""
        b, t, d = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (d // self.heads) ** -0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, t, d))


class VitBlock(nn.Module):
    """timm's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = Attention(width, heads), nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[b t d]."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp.fc2(functional.gelu(self.mlp.fc1(self.norm2(x))))


class Vit(nn.Module):
    """The hybrid ViT, returning what MiDaS hooks."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.patch_embed = nn.Module()
        self.patch_embed.backbone = Backbone(sizes)
        self.patch_embed.proj = nn.Conv2d(sizes.stages[-1], sizes.width, 1)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, sizes.grid**2 + 1, sizes.width))
        self.blocks = nn.ModuleList(VitBlock(sizes.width, sizes.heads) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(sizes.width, eps=1e-6)
        self.head = nn.Linear(sizes.width, sizes.classes)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Resize the grid of positions."""
        first, grid = self.pos_embed[:, :1], self.pos_embed[0, 1:]
        grid = grid.reshape(1, self.sizes.grid, self.sizes.grid, -1).permute(0, 3, 1, 2)
        grid = functional.interpolate(grid, size=(rows, columns), mode="bilinear")
        return torch.cat([first, grid.flatten(2).transpose(1, 2)], 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return two maps and two lists of tokens."""
        rows, columns = x.shape[2] // 16, x.shape[3] // 16
        maps = self.patch_embed.backbone(x)
        tokens = self.patch_embed.proj(maps[-1]).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1) + self.positions(rows, columns)
        hooked = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.sizes.hooks:
                hooked.append(tokens)
        return [*maps[:2], *hooked]


class ProjectReadout(nn.Module):
    """Mix the class token into all others."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(2 * width, width), nn.GELU())

    def forward(self, tokens: Tensor) -> Tensor:
        """[b 1+t d] -> [b t d]."""
        others = tokens[:, 1:]
        return self.project(torch.cat([others, tokens[:, :1].expand_as(others)], -1))


class Unit(nn.Module):
    """MiDaS' residual convolution unit."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(features, features, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """[b c h w]."""
        return self.conv2(self.conv1(x.relu()).relu()) + x


class Fusion(nn.Module):
    """MiDaS' feature fusion block; the coarsest never uses its first unit, but has it."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(features, features, 1)
        self.resConfUnit1, self.resConfUnit2 = Unit(features), Unit(features)

    def forward(self, x: Tensor, finer: Tensor | None = None) -> Tensor:
        """Add the finer map and double the size."""
        x = self.resConfUnit2(x if finer is None else x + self.resConfUnit1(finer))
        return self.out_conv(functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))


class ReleasedDpt(nn.Module):
    """DPTDepthModel(backbone="vitb_rn50_384", readout="project", non_negative=True)."""

    def __init__(self, sizes: Sizes | None = None) -> None:
        super().__init__()
        sizes = sizes or Sizes()
        blank = nn.Identity
        self.pretrained, self.scratch = nn.Module(), nn.Module()
        self.pretrained.model = Vit(sizes)
        third, fourth = (
            [ProjectReadout(sizes.width), blank(), blank(), nn.Conv2d(sizes.width, maps, 1)] for maps in sizes.maps[2:]
        )
        self.pretrained.act_postprocess3 = nn.Sequential(*third)
        fourth.append(nn.Conv2d(sizes.maps[3], sizes.maps[3], 3, stride=2, padding=1))
        self.pretrained.act_postprocess4 = nn.Sequential(*fourth)
        features = sizes.features
        for index, maps in enumerate(sizes.maps):
            self.scratch.add_module(f"layer{index + 1}_rn", nn.Conv2d(maps, features, 3, padding=1, bias=False))
            self.scratch.add_module(f"refinenet{index + 1}", Fusion(features))
        self.scratch.output_conv = nn.Sequential(
            nn.Conv2d(features, features // 2, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(features // 2, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 1, 1),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[b 3 h w] in [-1, 1] -> inverse depth [b h w]."""
        rows, columns = x.shape[2] // 16, x.shape[3] // 16
        maps = self.pretrained.model(x)
        for index, steps in ((2, self.pretrained.act_postprocess3), (3, self.pretrained.act_postprocess4)):
            grid = steps[0](maps[index]).transpose(1, 2).unflatten(2, (rows, columns))
            maps[index] = steps[3:](grid)
        scratch = self.scratch
        first, second, third, fourth = (getattr(scratch, f"layer{i + 1}_rn")(m) for i, m in enumerate(maps))
        path = scratch.refinenet3(scratch.refinenet4(fourth), third)
        path = scratch.refinenet1(scratch.refinenet2(path, second), first)
        return scratch.output_conv(path).squeeze(1)
