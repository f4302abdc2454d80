"""Small VideoMV U-Nets whose every weight matters: what starts at zero is drawn too."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from engine.multiview.networks.image_orbit import ImageOrbitUNet
from engine.multiview.networks.text_orbit import TextOrbitUNet

N = TypeVar("N", bound=nn.Module)
CONTEXT = 24
SIZES = {
    "down_block_types": ["CrossAttnDownBlock3D", "DownBlock3D"],
    "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D"],
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "cross_attention_dim": CONTEXT,
    "attention_head_dim": 8,
}
"""What diffusers' classes take as well: 8 heads in the first temporal transformer, 64 wide on 32 channels."""


def randomised(network: N, seed: int = 0) -> N:
    """Draw the layers that start at zero, so that no part of the network is silent."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def small_text_orbit(seed: int = 0, **changes: object) -> TextOrbitUNet:
    """A text U-Net of 0.6 M parameters."""
    torch.manual_seed(seed)
    return randomised(TextOrbitUNet(**{**SIZES, **changes}), seed)


def small_image_orbit(seed: int = 0, **changes: object) -> ImageOrbitUNet:
    """An image U-Net of 0.7 M parameters."""
    torch.manual_seed(seed)
    return randomised(ImageOrbitUNet(**{**SIZES, **changes}), seed)


def inputs(views: int = 3, objects: int = 2, side: int = 8, seed: int = 1) -> dict[str, Tensor]:
    """What both networks are called with, and the picture's conditions."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    return {
        "latents": normal(objects, views, 4, side, side),
        "timestep": torch.tensor([981, 21][:objects]),
        "text": normal(objects, 7, CONTEXT),
        "cameras": normal(objects, views, 16),
        "image_embedding": normal(objects, 1, CONTEXT),
        "image_latents": normal(objects, 4, side, side),
    }


def text_inputs(views: int = 3, **more: int) -> dict[str, Tensor]:
    """What the text U-Net is called with."""
    return {key: value for key, value in inputs(views, **more).items() if not key.startswith("image_")}
