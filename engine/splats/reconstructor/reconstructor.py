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
from engine.splats.reconstructor.anchors import IMAGENET_MEAN, IMAGENET_STD
from engine.splats.reconstructor.cameras import InputFrame, input_frame
from engine.splats.reconstructor.heads import gaussians_from_raw
from engine.splats.reconstructor.network import GaussianUNet


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

        It is `frames`, `inputs`, the network and `gaussians` one after another: call these to run the network by way of
        a wrapper (DistributedDataParallel), or to make frames and inputs in a data loader.

        Args:
            images: sRGB in [0, 1], square, on the background that the network knows (LGM: white).
            cameras: of every object, one a view, square, of any size; the first one of each object sets the network's
                frame.

        Returns:
            Gaussians in our world, raw parameters in float32, on the network's device.

        Raises:
            ValueError: numbers of pictures and cameras that differ, pictures or cameras that are not square, a first
                camera at the origin.
        """
        frames = self.frames(images, cameras)
        return self.gaussians(self.network(self.inputs(images, frames)), frames)

    def frames(self, images: Float[Tensor, "b v 3 h w"], cameras: Sequence[Sequence[Camera]]) -> list[InputFrame]:
        """Return every object's frame with rays at the network's size. Raises ValueError, as `batch`."""
        height, width = images.shape[-2:]
        if height != width:
            raise ValueError(f"pictures must be square, got {width} x {height}: pad or crop them and their cameras")
        counts = [len(views) for views in cameras]
        if counts != [images.shape[1]] * len(images):
            raise ValueError(f"images hold {len(images)} objects of {images.shape[1]} views, cameras have {counts}")
        size, radius_m = self.network.config.input_size, self.network.config.radius_m
        return [input_frame([camera.resized(size, size) for camera in views], radius_m) for views in cameras]

    def inputs(self, images: Float[Tensor, "b v 3 h w"], frames: Sequence[InputFrame]) -> Float[Tensor, "b v 9 s s"]:
        """Return what the network is given: pictures at its size, normalised as for ImageNet, then rays.

        In float32 and where the pictures are; the network takes it to its own device and type.
        """
        size = self.network.config.input_size
        pictures = images.flatten(0, 1).float()
        if pictures.shape[-2:] != (size, size):
            pictures = functional.interpolate(pictures, (size, size), mode="bilinear", antialias=True)
        mean, std = (pictures.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        rays = torch.from_numpy(np.stack([frame.rays for frame in frames])).to(pictures)
        normalised = ((pictures - mean) / std).unflatten(0, images.shape[:2])
        return torch.cat([normalised, rays], 2)

    def gaussians(self, raw: Float[Tensor, "b v 14 p q"], frames: Sequence[InputFrame]) -> list[Gaussians]:
        """Return every object's Gaussians in our world from the network's raw numbers, in float32.

        Training's autocast ends here: products in bfloat16 would round places to 4 mm once more, and quaternions too.
        """
        with torch.autocast(raw.device.type, enabled=False):
            in_frames = gaussians_from_raw(raw, self.network.config.quaternion_norm)
            return [frame.to_world(gaussians) for frame, gaussians in zip(frames, in_frames, strict=True)]
