"""How near things are in each view, as Hi3D's second stage is told: MiDaS' DPT hybrid and the release's arrangement.

views in [-1, 1] -> DPT hybrid at 3/8 of their size -> inverse depth -> 3 x the latents' size -> [0, 1] in each view
                 -> 3 x 3 neighbours side by side -> 9 channels of the latents' size
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.dpt.configuration_dpt import DPTConfig
from transformers.models.dpt.modeling_dpt import DPTForDepthEstimation

from engine.multiview.networks.encoders import filled, loaded, seeded

REDUCTION = 2.6666
"""Hi3D's scale_factor: 1024 pixels become the 384 that the network was trained with."""
MULTIPLE_PX = 32
"""Sides that the network takes are multiples of this."""
LATENT_STRIDE_PX = 8
"""Pixels of a latent."""
SHUFFLE = 3
"""Depth pixels along a side of a latent: 9 channels."""


class DepthEstimator(nn.Module):
    """MiDaS' DPT hybrid (Ranftl et al. 2021), whose picture range is [-1, 1] as well."""

    def __init__(self, model: DPTForDepthEstimation, chunk: int = 4) -> None:
        """Wrap the network; chunk views run at once."""
        super().__init__()
        self.model = model.eval()
        self.chunk = chunk

    def hi3d_channels(
        self, images: Float[Tensor, "n 3 H W"], size: tuple[int, int] | None = None
    ) -> Float[Tensor, "n 9 h w"]:
        """Return the second stage's depth channels of views in [-1, 1], each view in [0, 1], near is 1.

        Args:
            images: the views, as they go into the VAE.
            size: height and width of the latents; None: an eighth of the views'.
        """
        size = size or (images.shape[2] // LATENT_STRIDE_PX, images.shape[3] // LATENT_STRIDE_PX)
        return torch.cat([self._channels(part, size) for part in images.split(self.chunk)]).to(images.dtype)

    def _channels(self, images: Float[Tensor, "n 3 H W"], size: tuple[int, int]) -> Float[Tensor, "n 9 h w"]:
        small = functional.interpolate(images.float(), size=reduced(images.shape[2:]), mode="bilinear")
        depth = self(small).float().unsqueeze(1)
        fine = (SHUFFLE * size[0], SHUFFLE * size[1])
        depth = functional.interpolate(depth, size=fine, mode="bilinear")
        depth = depth - depth.amin(dim=(1, 2, 3), keepdim=True)
        depth = depth / depth.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
        return functional.pixel_unshuffle(depth, SHUFFLE)  # channel = row * 3 + column of the neighbour

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n h w"]:
        """Return inverse depth, up to scale and shift, of pictures in [-1, 1] whose sides are multiples of 32 pixels.

        transformers' own forward takes one square size alone; the parts take any, as MiDaS does.
        """
        height, width = images.shape[2:]
        if height % MULTIPLE_PX or width % MULTIPLE_PX:
            raise ValueError(f"sides must be multiples of {MULTIPLE_PX} pixels, got {width}x{height}; resize first")
        network, config = self.model.dpt, self.model.config
        pixels = images.to(device=self.model.device, dtype=self.model.dtype)
        embedded = network.embeddings(pixels, interpolate_pos_encoding=True)
        maps, tokens = list(embedded.intermediate_activations), embedded.last_hidden_states
        for index, layer in enumerate(network.encoder.layer):
            tokens = layer(tokens)
            if index in config.backbone_out_indices[2:]:
                maps.append(tokens)
        return self.model.head(self.model.neck(maps, height // config.patch_size, width // config.patch_size))

    @classmethod
    def fresh(cls, *, width: int = 32, layers: int = 3, head_width: int = 16, seed: int = 0) -> "DepthEstimator":
        """Return one with random weights; the defaults suit tests."""
        stages = [width, 2 * width, 4 * width]
        config = DPTConfig(
            is_hybrid=True,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // head_width,
            intermediate_size=4 * width,
            layer_norm_eps=1e-6,
            image_size=64,
            backbone_out_indices=[0, 1, layers - 2, layers - 1],
            backbone_featmap_shape=[1, stages[-1], 4, 4],
            reassemble_factors=[1, 1, 1, 0.5],
            neck_hidden_sizes=[*stages[:2], width, width],
            fusion_hidden_size=16,
            backbone_config={
                "model_type": "bit",
                "embedding_size": 16,
                "hidden_sizes": stages,
                "depths": [1, 1, 1],
                "layer_type": "bottleneck",
                "global_padding": "SAME",
                "embedding_dynamic_padding": True,
                "num_groups": 8,
                "out_features": ["stage1", "stage2", "stage3"],
            },
        )
        with seeded(seed):
            return cls(DPTForDepthEstimation(config))

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "DepthEstimator":
        """Build it from what a key map gives. Raises CheckpointError if the tensors do not fit."""
        return cls(filled("depth estimator", lambda: DPTForDepthEstimation(DPTConfig(**config)), tensors))

    @classmethod
    def from_pretrained(cls, folder: Path | str, torch_dtype: torch.dtype = torch.float32) -> "DepthEstimator":
        """Read what save_pretrained wrote. Raises CheckpointError if it is not whole."""
        return cls(loaded(DPTForDepthEstimation.from_pretrained, Path(folder), dtype=torch_dtype))

    def save_pretrained(self, folder: Path | str) -> None:
        """Write weights and config, as transformers does."""
        self.model.save_pretrained(folder)


def reduced(sides: tuple[int, ...]) -> tuple[int, int]:
    """Return the size at which the network looks at views of these sides; views under 86 pixels are looked at with 32."""
    height, width = (max(int(side / REDUCTION / MULTIPLE_PX), 1) * MULTIPLE_PX for side in sides)
    return height, width
