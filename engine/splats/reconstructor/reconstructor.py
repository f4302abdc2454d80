"""Posed pictures of an object in, its Gaussians in our world out.

pictures, cameras --normalise, rays--> [b v 9 h w] --GaussianUNet--> raw numbers --heads--> Gaussians in its frame
                                                                                  --InputFrame.to_world--> ours
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from engine.geometry import Camera
from engine.splats.gaussians import Gaussians
from engine.splats.reconstructor.cameras import InputFrame, input_frame
from engine.splats.reconstructor.heads import gaussians_from_raw
from engine.splats.reconstructor.network import GaussianUNet

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Reconstructor:
    """LGM with its cameras: views of an object to Gaussians."""

    def __init__(self, network: GaussianUNet) -> None:
        self.network = network

    @property
    def views(self) -> int:
        """How many views the network was trained with; any number may be given."""
        return self.network.config.views

    @property
    def output_size(self) -> int:
        """Pixels a side at which its Gaussians should be rendered."""
        return self.network.config.output_size

    def __call__(self, images: Float[Tensor, "v 3 h w"], cameras: Sequence[Camera]) -> Gaussians:
        """Reconstruct one object; see `batch`."""
        return self.batch(images[None], [cameras])[0]

    def batch(self, images: Float[Tensor, "b v 3 h w"], cameras: Sequence[Sequence[Camera]]) -> list[Gaussians]:
        """Reconstruct several objects at once; differentiable in images and weights.

        Args:
            images: sRGB in [0, 1], on the background that the network knows (LGM: white).
            cameras: of every object, one a view, of any size with the pictures' aspect; the first one of each object
                sets the network's frame.

        Returns:
            Gaussians in our world, raw parameters in float32, on the network's device.

        Raises:
            ValueError: numbers of pictures and cameras that differ, cameras at the origin, or of another aspect than
                the network's square.
        """
        frames = self.frames(images, cameras)
        raw = self.network(self.inputs(images, frames))
        in_frames = gaussians_from_raw(raw, self.network.config.quaternion_norm)
        return [frame.to_world(gaussians) for frame, gaussians in zip(frames, in_frames, strict=True)]

    def frames(self, images: Float[Tensor, "b v 3 h w"], cameras: Sequence[Sequence[Camera]]) -> list[InputFrame]:
        """Return every object's frame with rays at the network's size."""
        counts = [len(views) for views in cameras]
        if counts != [images.shape[1]] * len(images):
            raise ValueError(f"images hold {len(images)} objects of {images.shape[1]} views, cameras have {counts}")
        size, radius_m = self.network.config.input_size, self.network.config.radius_m
        return [input_frame([camera.resized(size, size) for camera in views], radius_m) for views in cameras]

    def inputs(self, images: Float[Tensor, "b v 3 h w"], frames: Sequence[InputFrame]) -> Float[Tensor, "b v 9 s s"]:
        """Return what the network is given: pictures at its size, normalised as for ImageNet, then rays."""
        size, weight = self.network.config.input_size, next(self.network.parameters())
        pictures = images.flatten(0, 1).to(weight.device, torch.float32)
        if pictures.shape[-2:] != (size, size):
            pictures = functional.interpolate(pictures, (size, size), mode="bilinear", antialias=True)
        mean, std = (
            torch.tensor(values, device=weight.device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        rays = torch.from_numpy(np.stack([frame.rays for frame in frames])).to(pictures)
        normalised = ((pictures - mean) / std).unflatten(0, images.shape[:2])
        return torch.cat([normalised, rays], 2).to(weight.dtype)
