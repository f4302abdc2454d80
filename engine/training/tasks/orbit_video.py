"""What both of Hi3D's stages learn in the same way: the loss, what is measured, turntables for the log.

batch --VAE, drawn--> x0 --noise level, noise--> student(c_in x, c_noise, conditions) --> weighted error
      --given: the picture, or low-quality views--> conditions, as Hi3DPipeline makes them, some of them dropped
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from engine.checkpoints.layout import WeightsIndex, plain
from engine.errors import TrainingError
from engine.multiview.edm import LowResolutionInjection
from engine.multiview.hi3d_conditions import sample_stage
from engine.multiview.networks.encoders import ImageEncoder
from engine.multiview.networks.latents import LatentCodec
from engine.multiview.networks.orbit_video import OrbitVideoUNet
from engine.multiview.settings import Hi3DSettings
from engine.training.latents import LatentCache
from engine.training.tasks.components import index_of
from engine.training.tasks.edm import drawn, quantiles, v_errors
from engine.training.tasks.hi3d_settings import BaseSettings, Diffusion, RefinerSettings
from engine.training.tasks.previews import at_rest, turntables
from engine.training.tasks.weighing import weighed
from engine.training.types import Batch, Draws, Losses

STAGE_ONE = "stage_one"
"""Name of a frozen first stage's networks, which are no part of the weights."""
MEASURED_LEVELS = 4
"""Noise levels at which a held-out batch is measured: a random one a clip would drown what was learned."""


class Hi3DStudent(nn.Module):
    """A stage's U-Net, and the image encoder where it is trained along."""

    def __init__(self, unet: OrbitVideoUNet, image_encoder: ImageEncoder | None = None) -> None:
        super().__init__()
        self.unet = unet
        self.image_encoder = image_encoder

    def forward(
        self,
        latents: Float[Tensor, "b n c h w"],
        timestep: Float[Tensor, " b"],
        *,
        concatenated: Float[Tensor, "b n k h w"],
        vector: Float[Tensor, "b a"],
        tokens: Float[Tensor, "b t d"] | None = None,
        pixels: Float[Tensor, "b 3 s s"] | None = None,
        told: Float[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b n c h w"]:
        """Predict v.

        Args:
            latents: noisy, scaled by c_in.
            timestep: c_noise.
            concatenated: see OrbitVideoUNet.
            vector: see OrbitVideoUNet.
            tokens: of the picture, where the image encoder is frozen.
            pixels: else the picture as the encoder wants it,
            told: and 1 where its tokens are told, 0 where they are dropped.
        """
        if self.image_encoder is not None:
            assert pixels is not None
            assert told is not None
            tokens = self.image_encoder.model(pixel_values=pixels).image_embeds[:, None] * told[:, None, None]
        return self.unet(latents, timestep, tokens=tokens, concatenated=concatenated, vector=vector)


@dataclass(frozen=True)
class Kept:
    """What is not dropped: 1 where a condition is told, 0 where it is not."""

    tokens: Float[Tensor, " b"]
    """CLIP tokens."""
    latents: Float[Tensor, "b n"]
    """Latents of each view."""


def drawn_kept(rule: Diffusion, draws: Draws, views: int) -> Kept:
    """Draw what is told; tokens and latents by themselves."""
    chance = draws.uniform(1 + views)  # [b, 1 + n]
    latents = chance[:, 1:] if rule.drop_by == "view" else chance[:, 1:2].expand(-1, views)
    return Kept((chance[:, 0] >= rule.drop_tokens).float(), (latents >= rule.drop_latents).float())


class OrbitVideoTask(ABC):
    """Either stage; subclasses say what it is told."""

    network: str
    """Name of the U-Net in the weights' index."""
    unused_parameters = False

    def __init__(
        self,
        student: Hi3DStudent,
        frozen: Mapping[str, nn.Module],
        system: Hi3DSettings,
        settings: BaseSettings | RefinerSettings,
        latents: Path | None = None,
    ) -> None:
        """Join the networks.

        Args:
            student: what is trained.
            frozen: what is not, by the names in the weights' index: vae and, unless it is trained, image_encoder.
            system: what the weights will be used as.
            settings: what is drawn.
            latents: where the targets' latents are cached; None: in memory.
        """
        self.student, self.system, self.diffusion = student, system, settings.diffusion
        self.frozen = {name: part.eval().requires_grad_(False) for name, part in frozen.items()}
        vae: Any = self.frozen["vae"]
        self.codec = LatentCodec(vae, system.latent_scaling)
        self.latents = LatentCache(self.codec, latents)
        self.preview_steps = settings.preview_steps

    @abstractmethod
    def given(self, batch: Batch) -> Float[Tensor, "b *views 3 h w"]:
        """Return the pictures that the conditions are made of, without noise."""

    @abstractmethod
    def conditions(
        self,
        given: Float[Tensor, "b *views 3 h w"],
        batch: Batch,
        draws: Draws,
        augmentation: Float[Tensor, " b"],
        kept: Kept | None,
    ) -> dict[str, Tensor]:
        """Return what the student is told besides latents and time; kept None: nothing is dropped."""

    def told(
        self, batch: Batch, draws: Draws, augmentation: Float[Tensor, " b"], kept: Kept | None
    ) -> dict[str, Tensor]:
        """Return the conditions of what is given."""
        return self.conditions(self.given(batch), batch, draws, augmentation, kept)

    def augmentation(self, batch: Batch, draws: Draws) -> Float[Tensor, " b"]:
        """Draw the standard deviation of the noise on what is given, in [-1, 1]."""
        return drawn(self.diffusion.augmentation, draws.normal())

    def loss(self, student: nn.Module, batch: Batch, *, share: float) -> Losses:
        """Return the weighted error at one noise level a clip (Hi3D equations 4 and 5). Raises TrainingError."""
        draws = Draws(batch.seeds, batch.pixels.device)
        sigma = drawn(self.diffusion.sigma, draws.normal())
        augmentation = self.augmentation(batch, draws)
        kept = drawn_kept(self.diffusion, draws, batch.pixels.shape[1])
        with undisturbed(batch):
            x0 = self.latents.sampled(batch, draws)
            eps = draws.normal(*x0.shape[1:])
            conditions = self.told(batch, draws, augmentation, kept)
        losses = self._weighed(v_errors(student, x0, eps, sigma, conditions), x0)
        clean = (losses.detach() * sigma**2 / (sigma**2 + 1)).mean()
        return Losses(losses.mean(), {"clean_mse": clean})

    def measure(self, student: nn.Module, batch: Batch) -> Mapping[str, float]:
        """Return the loss, the mean over noise levels that stand for equal shares of those trained with; all is told."""
        draws = Draws(batch.seeds, batch.pixels.device)
        with undisturbed(batch):
            x0 = self.latents.sampled(batch, draws)
            eps = draws.normal(*x0.shape[1:])
            conditions = self.told(batch, draws, self._usual_augmentation(batch), None)
        found = {}
        with at_rest(student):
            for sigma in quantiles(self.diffusion.sigma, MEASURED_LEVELS).tolist():
                level = torch.full((len(batch),), sigma, device=batch.pixels.device)
                errors = v_errors(student, x0, eps, level, conditions)
                found[f"loss_at_{sigma:.2g}"] = float(self._weighed(errors, x0).mean())
        return {"loss": sum(found.values()) / len(found), **found}

    def preview(self, student: nn.Module, batch: Batch) -> Mapping[str, UInt8[np.ndarray, "n h w 3"]]:
        """Return turntables, the truth beside what is made as in use; the refiner's also beside what it was given."""
        draws = Draws(batch.seeds, batch.pixels.device)
        with undisturbed(batch):
            given = self.given(batch)
            conditions = self.conditions(given, batch, draws, self._usual_augmentation(batch), None)
            injection = self.injection(given, draws)
            noise = draws.normal(*self._latent_shape(batch))
        with at_rest(student):
            made = sample_stage(
                student, conditions, noise, steps=self.preview_steps, sigma_range=self.system.sigma_range,
                guidance=self.guidance, dropped=("told" if "told" in conditions else "tokens", "concatenated"),
                injection=injection,
            )  # fmt: skip
        with undisturbed(batch):
            views = self.codec.decode(made.float())
            shown = {"turntable": turntables(batch.pixels, views)}
            if given.shape == batch.pixels.shape:
                shown["given"] = turntables(batch.pixels, given)
        return shown

    @property
    @abstractmethod
    def guidance(self) -> tuple[float, float]:
        """Of the first and the last view."""

    def injection(self, given: Float[Tensor, "b *views 3 h w"], draws: Draws) -> LowResolutionInjection | None:
        """Return what is mixed into the sampler's first steps."""
        return None

    def components(self) -> Mapping[str, Any]:
        """Return what is trained: the U-Net, and the image encoder where it is trained along."""
        trained: dict[str, Any] = {self.network: self.student.unet}
        if self.student.image_encoder is not None:
            trained["image_encoder"] = self.student.image_encoder
        return trained

    def index(self) -> WeightsIndex:
        """Return the index of weights that hold `components()` and `frozen`."""
        parts = {**self.components(), **{name: part for name, part in self.frozen.items() if name != STAGE_ONE}}
        return index_of("hi3d", parts, plain(self.system))

    def _weighed(self, errors: Float[Tensor, "b n c h w"], x0: Float[Tensor, "b n c h w"]) -> Float[Tensor, " b"]:
        return weighed(errors, x0, self.latents, visible=self.diffusion.visible, alike=self.diffusion.alike)

    def _latent_shape(self, batch: Batch) -> tuple[int, int, int, int]:
        views, height, width = batch.pixels.shape[1], *batch.pixels.shape[3:]
        return views, self.codec.vae.config.latent_channels, height // self.codec.factor, width // self.codec.factor

    def _usual_augmentation(self, batch: Batch) -> Float[Tensor, " b"]:
        return torch.full((len(batch),), self.system.noise_augmentation, device=batch.pixels.device)

    def _tokens(self, picture: Float[Tensor, "b 3 h w"], kept: Kept | None) -> dict[str, Tensor]:
        """Return the clean picture's tokens, or what the student makes them of."""
        told = picture.new_ones(len(picture)) if kept is None else kept.tokens
        if self.student.image_encoder is not None:
            return {"pixels": self.student.image_encoder.prepared(picture), "told": told}
        encoder = self.frozen["image_encoder"]
        return {"tokens": encoder(picture).to(picture) * told[:, None, None]}


@contextmanager
def undisturbed(batch: Batch) -> Iterator[None]:
    """Without gradients and without autocast: frozen networks compute in the type that they have.

    The release's configurations say so of the autoencoder (disable_first_stage_autocast).
    """
    with torch.no_grad(), torch.autocast(batch.pixels.device.type, enabled=False):
        yield


def elevations(batch: Batch) -> Float[Tensor, " b"]:
    """Return the elevation of each clip's first camera, degrees. Raises TrainingError for pictures without cameras."""
    if batch.orbits is None:
        raise TrainingError(
            f"{batch.uids[0]}: is a 2D picture, Hi3D learns from orbits; leave --pictures and pass orbit shards"
        )
    return torch.tensor([float(orbit.elevation_deg[0]) for orbit in batch.orbits], device=batch.pixels.device)
