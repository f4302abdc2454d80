"""CLIP as OpenCLIP 2.0 and OpenAI publish it: their parameter names, plain torch, any size. Written for comparison."""

from collections import OrderedDict

import torch
from torch import Tensor, nn


class QuickGelu(nn.Module):
    """OpenAI's approximation."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """Pre-norm transformer block, tokens first."""

    def __init__(self, width: int, heads: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        layers = [("c_fc", nn.Linear(width, 4 * width)), ("act", activation()), ("c_proj", nn.Linear(4 * width, width))]
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[t b d] in and out."""
        inner = self.ln_1(x)
        x = x + self.attn(inner, inner, inner, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Tower(nn.Module):
    """Blocks in a row."""

    def __init__(self, width: int, layers: int, heads: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, activation) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None, skipped: int = 0) -> Tensor:
        """[b t d] in and out."""
        x = x.transpose(0, 1)
        for block in self.resblocks[: len(self.resblocks) - skipped]:
            x = block(x, mask)
        return x.transpose(0, 1)


class Vision(nn.Module):
    """The vision tower: embedding of the class token, projected."""

    def __init__(
        self, size: int, patch: int, width: int, layers: int, heads: int, embedding: int, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((size // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Tower(width, layers, heads, activation)
        self.proj = nn.Parameter(torch.zeros(width, embedding))

    def forward(self, pixels: Tensor) -> Tensor:
        """[b 3 s s] normalised in, [b e] out."""
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(patches), 1, -1), patches], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class ReleasedClip(nn.Module):
    """Both towers. Defaults are small; `openclip_h()` has the released sizes."""

    def __init__(
        self,
        *,
        size: int = 28,
        patch: int = 14,
        vision_width: int = 48,
        vision_layers: int = 2,
        vision_heads: int = 3,
        text_width: int = 32,
        text_layers: int = 3,
        text_heads: int = 2,
        vocabulary: int = 50,
        embedding: int = 24,
        activation: type[nn.Module] = nn.GELU,
    ) -> None:
        super().__init__()
        self.visual = Vision(size, patch, vision_width, vision_layers, vision_heads, embedding, activation)
        self.transformer = Tower(text_width, text_layers, text_heads, activation)
        self.token_embedding = nn.Embedding(vocabulary, text_width)
        self.positional_embedding = nn.Parameter(torch.zeros(77, text_width))
        self.ln_final = nn.LayerNorm(text_width)
        self.text_projection = nn.Parameter(torch.zeros(text_width, embedding))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def penultimate(self, tokens: Tensor) -> Tensor:
        """Tokens behind the last block but one, normalised: VideoMV's `layer="penultimate"`."""
        mask = torch.full((77, 77), float("-inf")).triu(1)
        x = self.token_embedding(tokens) + self.positional_embedding
        return self.ln_final(self.transformer(x, mask, skipped=1))


def openclip_h() -> ReleasedClip:
    """ViT-H-14 at its size; build it on the meta device."""
    return ReleasedClip(
        size=224, patch=14, vision_width=1280, vision_layers=32, vision_heads=16, text_width=1024, text_layers=24,
        text_heads=16, vocabulary=49408, embedding=1024,
    )  # fmt: skip


def openai_l() -> ReleasedClip:
    """OpenAI's ViT-L/14 at its size; build it on the meta device."""
    return ReleasedClip(
        size=224, patch=14, vision_width=1024, vision_layers=24, vision_heads=16, text_width=768, text_layers=12,
        text_heads=12, vocabulary=49408, embedding=768, activation=QuickGelu,
    )  # fmt: skip


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter a random value of a size that keeps signals alive, also those that start at 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            else:  # norms stay around 1
                parameter.copy_(noise * 0.2 + float(name.endswith("weight")))
    return module.eval()
