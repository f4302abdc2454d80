"""A frozen first stage of Hi3D, which makes the low-quality views that its refiner learns from (sections 4.3, 5.1)."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from engine.multiview.hi3d import Hi3DPipeline
from engine.multiview.hi3d_conditions import first_stage_conditions, low_quality_views, sample_stage
from engine.multiview.networks.latents import LatentCodec
from engine.training.types import Draws


class FirstStage:
    """Pictures to views, as `Hi3DPipeline` makes them."""

    def __init__(self, pipeline: Hi3DPipeline, steps: int | None = None) -> None:
        """Take the first stage of a pipeline; its refiner and depth network would only take memory.

        Args:
            pipeline: Hi3D's.
            steps: of its sampler; None: its default.
        """
        needed = {name: part for name, part in pipeline.components.items() if name not in ("refiner", "depth")}
        self._pipeline = Hi3DPipeline(pipeline.settings, needed)
        self.settings, self.networks = self._pipeline.settings, self._pipeline.components
        self.steps = steps or pipeline.settings.steps
        self._codec = LatentCodec(self.networks["vae"], self.settings.latent_scaling)

    @classmethod
    def load(cls, folder: Path, steps: int | None) -> "FirstStage":
        """Load it from a folder of weights. Raises CheckpointError."""
        return cls(Hi3DPipeline.from_pretrained(folder), steps)

    def drawn(self, draws: Draws, views: int) -> tuple[Float[Tensor, "b 3 s s"], Float[Tensor, "b {views} c t t"]]:
        """Draw the noise on the pictures and that of the latents that the sampler begins with."""
        size, channels = self.settings.size_px, self.networks["vae"].config.latent_channels
        side = size // self._codec.factor
        return draws.normal(3, size, size), draws.normal(views, channels, side, side)

    def __call__(
        self,
        picture: Float[Tensor, "b 3 h w"],
        elevation_deg: Float[Tensor, " b"],
        on_picture: Float[Tensor, "b 3 s s"],
        noise: Float[Tensor, "b n c t t"],
    ) -> Float[Tensor, "b n 3 h w"]:
        """Return the views enlarged to the picture's size, the first one being the picture, as a refiner is given them.

        Args:
            picture: clean, in [-1, 1].
            elevation_deg: of its camera.
            on_picture: see `drawn`.
            noise: see `drawn`.
        """
        parts, settings = self.networks, self.settings
        small = functional.interpolate(picture, (settings.size_px, settings.size_px), mode="area")
        told = first_stage_conditions(
            small, on_picture, torch.full_like(elevation_deg, settings.noise_augmentation), views=noise.shape[1],
            elevation_deg=elevation_deg, codec=self._codec,
            aesthetic=parts["aesthetic"].score(small).float() if "aesthetic" in parts else None,
        )  # fmt: skip
        told["tokens"] = parts["image_encoder"].encode(small).to(small)
        made = sample_stage(
            parts["unet"], told, noise, steps=self.steps, sigma_range=settings.sigma_range, guidance=settings.guidance,
            dtype=self._pipeline.dtype,
        )  # fmt: skip
        return low_quality_views(self._codec.decode(made), picture)
