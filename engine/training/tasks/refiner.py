"""Hi3D's second stage learns to refine orbits (section 4.3), told the depth of what it refines.

low-quality views: degraded ones (Batch.degraded), or what a frozen first stage makes of the clean picture (the paper's
mixture), enlarged, the first one clean  --noise--> latents, depth --> the refiner's conditions
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import TrainingError
from engine.multiview.edm import LowResolutionInjection
from engine.multiview.hi3d import Hi3DPipeline
from engine.multiview.hi3d_conditions import (
    DEPTH_CHANNELS,
    first_stage_conditions,
    low_quality_views,
    sample_stage,
    second_stage_conditions,
)
from engine.multiview.networks.latents import LatentCodec
from engine.multiview.settings import Hi3DSettings
from engine.training.tasks.components import Start
from engine.training.tasks.hi3d_networks import (
    check_widths,
    system_of,
    taken_depth,
    taken_image_encoder,
    taken_refiner,
    taken_vae,
)
from engine.training.tasks.hi3d_settings import RefinerSettings
from engine.training.tasks.orbit_video import STAGE_ONE, Hi3DStudent, Kept, OrbitVideoTask, elevations
from engine.training.types import Batch, Draws, seed_from


class RefinerTask(OrbitVideoTask):
    """Views of low quality in, the same views of high quality out."""

    network = "refiner"

    def __init__(
        self,
        student: Hi3DStudent,
        frozen: Mapping[str, nn.Module],
        system: Hi3DSettings,
        settings: RefinerSettings,
        latents: Path | None = None,
        stage_one: Hi3DPipeline | None = None,
    ) -> None:
        """Join the networks; see OrbitVideoTask.

        Args:
            student: what is trained.
            frozen: vae, image_encoder and, unless the settings are without it, depth.
            system: what the weights will be used as.
            settings: what is drawn.
            latents: where the targets' latents are cached; None: in memory.
            stage_one: makes the low-quality views of a share of the clips.
        """
        made = {} if stage_one is None else {STAGE_ONE: nn.ModuleDict(stage_one.components)}
        super().__init__(student, {**frozen, **made}, system, settings, latents)
        self.settings, self.stage_one = settings, stage_one

    def given(self, batch: Batch) -> Float[Tensor, "b *views 3 h w"]:
        """Return the low-quality views. Raises TrainingError where there are none."""
        if batch.degraded is None:
            raise TrainingError(
                f"{batch.uids[0]}: comes without low-quality views; the data plan of hi3d-refiner says degrade"
            )
        if self.stage_one is None:
            return batch.degraded
        draws = Draws([seed_from(seed, STAGE_ONE) for seed in batch.seeds], batch.pixels.device)
        vae, size = self.stage_one.components["vae"], self.stage_one.settings.size_px
        side = size // LatentCodec(vae).factor
        # Drawn for all clips: what one of them is given does not depend on the others.
        chosen = draws.uniform() < self.settings.stage_one_share
        augmentation = draws.normal(3, size, size)
        noise = draws.normal(batch.pixels.shape[1], vae.config.latent_channels, side, side)
        low = batch.degraded.clone()
        if bool(chosen.any()):
            picture, told = batch.pixels[chosen, 0], elevations(batch)[chosen]
            low[chosen] = self._of_stage_one(picture, told, augmentation[chosen], noise[chosen]).to(low)
        return low

    def conditions(
        self,
        given: Float[Tensor, "b *views 3 h w"],
        batch: Batch,
        draws: Draws,
        augmentation: Float[Tensor, " b"],
        kept: Kept | None,
    ) -> dict[str, Tensor]:
        """Return what `Hi3DPipeline` tells its refiner of low-quality views, dropped where `kept` says so."""
        depth: Any = None if "depth" in self.settings.without else self.frozen["depth"]
        told = second_stage_conditions(
            given, draws.normal(*given.shape[1:]), augmentation, elevation_deg=elevations(batch), codec=self.codec,
            depth=depth,
        )  # fmt: skip
        if kept is not None:
            share = kept.latents[:, :, None, None, None]
            near, latents = told["concatenated"].split([DEPTH_CHANNELS, self._latent_shape(batch)[1]], dim=2)
            near = near * share if self.settings.drop_depth else near
            told["concatenated"] = torch.cat([near, latents * share], 2)
        return told | self._tokens(given[:, 0], kept)

    @property
    def guidance(self) -> tuple[float, float]:
        """The second stage's."""
        return self.system.refined_guidance

    def injection(self, given: Float[Tensor, "b *views 3 h w"], draws: Draws) -> LowResolutionInjection:
        """Return the low-quality views' latents, which the release's sampler starts from."""
        return LowResolutionInjection(self.latents.drawn(*self.codec.posterior(given), draws))

    def _of_stage_one(
        self,
        picture: Float[Tensor, "b 3 h w"],
        elevation_deg: Float[Tensor, " b"],
        augmentation: Float[Tensor, "b 3 s s"],
        noise: Float[Tensor, "b n c t t"],
    ) -> Float[Tensor, "b n 3 h w"]:
        """Return what the first stage makes of clean pictures, as the refiner is given it in use."""
        assert self.stage_one is not None
        parts, settings = self.stage_one.components, self.stage_one.settings
        size = settings.size_px
        small = functional.interpolate(picture, (size, size), mode="area")
        codec = LatentCodec(parts["vae"], settings.latent_scaling)
        told = first_stage_conditions(
            small, augmentation, torch.full_like(elevation_deg, settings.noise_augmentation), views=noise.shape[1],
            elevation_deg=elevation_deg, codec=codec,
            aesthetic=parts["aesthetic"].score(small).float() if "aesthetic" in parts else None,
        )  # fmt: skip
        told["tokens"] = parts["image_encoder"].encode(small).to(small)
        made = sample_stage(
            parts["unet"], told, noise, steps=self.settings.stage_one_steps or settings.steps,
            sigma_range=settings.sigma_range, guidance=settings.guidance, dtype=self.stage_one.dtype,
        )  # fmt: skip
        return low_quality_views(codec.decode(made), picture)


def build(start: Start) -> RefinerTask:
    """Gather the networks; see `build.make_task`.

    Weights without a refiner give their first stage, widened. parts["stage_one"] is a whole first stage that makes the
    low-quality views of a share of the clips; without it all of them are degraded ones.

    Raises:
        TrainingError: components are missing or do not fit each other.
        CheckpointError: the weights do not load.
    """
    settings = start.plan(RefinerSettings)
    unet = taken_refiner(start, settings.unet, settings.pretrained)
    vae = taken_vae(start, settings.vae, settings.pretrained)
    encoder = taken_image_encoder(start, settings.image_encoder, settings.pretrained)
    frozen: dict[str, nn.Module] = {"vae": vae, "image_encoder": encoder}
    told_depth = "depth" not in settings.without
    if told_depth:
        frozen["depth"] = taken_depth(start, settings.depth, settings.pretrained)
    check_widths(unet, vae, encoder, DEPTH_CHANNELS)
    if start.recipe.optimisation.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    system = replace(system_of(start, settings.system), refiner_depth=told_depth)
    first = _first_stage((start.parts or {}).get(STAGE_ONE))
    return RefinerTask(Hi3DStudent(unet), frozen, system, settings, start.cache, first)


def _first_stage(folder: Path | None) -> Hi3DPipeline | None:
    """Load a first stage; its own refiner and depth network would only take memory."""
    if folder is None:
        return None
    whole = Hi3DPipeline.from_pretrained(folder)
    needed = {name: part for name, part in whole.components.items() if name not in ("refiner", "depth")}
    return Hi3DPipeline(whole.settings, needed)
