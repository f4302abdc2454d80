"""Hi3D's second stage learns to refine orbits (section 4.3), told the depth of what it refines.

low-quality views: degraded ones (Batch.degraded), or what a frozen first stage makes of the clean picture (the paper's
mixture), enlarged, the first one clean  --noise--> latents, depth --> the refiner's conditions
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from engine.errors import TrainingError
from engine.multiview.edm import LowResolutionInjection
from engine.multiview.hi3d_conditions import DEPTH_CHANNELS, second_stage_conditions
from engine.multiview.networks.orbit_video import conditioning_vector
from engine.multiview.settings import Hi3DSettings
from engine.training.kept import KeptTensors, weights_hash
from engine.training.tasks.components import Start
from engine.training.tasks.first_stage import FirstStage
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
        stage_one: FirstStage | None = None,
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
        made = {} if stage_one is None else {STAGE_ONE: nn.ModuleDict(stage_one.networks)}
        super().__init__(student, {**frozen, **made}, system, settings, latents)
        self.settings, self.stage_one = settings, stage_one
        self._low = KeptTensors(latents, lambda: self._name, "low-quality views")

    def given(self, batch: Batch) -> Float[Tensor, "b *views 3 h w"]:
        """Return the low-quality views. Raises TrainingError where there are none."""
        share = 0.0 if self.stage_one is None else self.settings.stage_one_share
        if share < 1 and batch.degraded is None:
            raise TrainingError(
                f"{batch.uids[0]}: comes without low-quality views, and nothing makes them: pass --part stage_one=FOLDER "
                "(weights with a first stage) where the recipe's stage_one_share is 1, as that of size mini, else let its "
                "data plan say degrade"
            )
        if self.stage_one is None:
            assert batch.degraded is not None
            return batch.degraded
        draws = Draws([seed_from(seed, STAGE_ONE) for seed in self._seeds(batch)], batch.pixels.device)
        # Drawn for all clips: what one of them is given does not depend on the others.
        chosen = draws.uniform() < share
        noises = self.stage_one.drawn(draws, batch.pixels.shape[1])
        low = (batch.pixels if batch.degraded is None else batch.degraded).clone()
        if bool(chosen.any()):
            picture, told = batch.pixels[chosen, 0], elevations(batch)[chosen]
            low[chosen] = self.stage_one(picture, told, *(noise[chosen] for noise in noises)).to(low)
        return low

    def told(
        self, batch: Batch, draws: Draws, augmentation: Float[Tensor, " b"], kept: Kept | None
    ) -> dict[str, Tensor]:
        """Return the conditions of the low-quality views: kept ones, where they last and the clips come again."""
        if not self._lasts(batch):
            return super().told(batch, draws, augmentation, kept)
        entries = [self._entry(batch.alone(index), augmentation[index : index + 1]) for index in range(len(batch))]
        told = {
            "concatenated": torch.stack(entries).to(batch.pixels),
            "vector": conditioning_vector(elevations(batch), augmentation, None),
        }
        return self._dropped(told, kept) | self._tokens(batch.pixels[:, 0], kept)

    def augmentation(self, batch: Batch, draws: Draws) -> Float[Tensor, " b"]:
        """Draw the noise's level; that of views that last lasts as well."""
        if not self._lasts(batch):
            return super().augmentation(batch, draws)
        return super().augmentation(
            batch, Draws([seed_from(seed, "level") for seed in self._seeds(batch)], draws.device)
        )

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
        return self._dropped(told, kept) | self._tokens(given[:, 0], kept)

    @property
    def guidance(self) -> tuple[float, float]:
        """The second stage's."""
        return self.system.refined_guidance

    def injection(self, given: Float[Tensor, "b *views 3 h w"], draws: Draws) -> LowResolutionInjection:
        """Return the low-quality views' latents, which the release's sampler starts from."""
        return LowResolutionInjection(self.latents.drawn(*self.codec.posterior(given), draws))

    def _lasts(self, batch: Batch) -> bool:
        coming_again = bool(batch.pixels_keys) and all(batch.pixels_keys)
        return self.settings.lasting and self.stage_one is not None and coming_again

    def _seeds(self, batch: Batch) -> list[int]:
        """Of what the low-quality views hang on: the clip's pass, or its pixels where these views last."""
        if not self._lasts(batch):
            return list(batch.seeds)
        return [seed_from(key, start) for key, start in zip(batch.pixels_keys, batch.starts, strict=True)]

    def _entry(self, clip: Batch, augmentation: Float[Tensor, " 1"]) -> Float[Tensor, "n k h w"]:
        """What is told of one clip's low-quality views: depth, then latents."""
        views = clip.pixels.shape[1]
        key = f"{clip.pixels_keys[0]} {clip.starts[0]} {float(augmentation):.6f}"

        def made() -> Tensor:
            draws = Draws([seed_from(seed, "noise") for seed in self._seeds(clip)], clip.pixels.device)
            return super(RefinerTask, self).told(clip, draws, augmentation, None)["concatenated"][0]

        return self._low.get(key, lambda found: found.ndim == 4 and len(found) == views, made)

    @cached_property
    def _name(self) -> str:
        """Of all that low-quality views hang on but the clip."""
        assert self.stage_one is not None
        said = (self.stage_one.settings, self.stage_one.steps, self.settings.without)
        return f"low-{weights_hash(*self.frozen.values())}-{seed_from(*said):x}"

    def _dropped(self, told: dict[str, Tensor], kept: Kept | None) -> dict[str, Tensor]:
        if kept is None:
            return told
        share = kept.latents[:, :, None, None, None]
        near, latents = told["concatenated"].split(
            [DEPTH_CHANNELS, told["concatenated"].shape[2] - DEPTH_CHANNELS], dim=2
        )
        near = near * share if self.settings.drop_depth else near
        return {**told, "concatenated": torch.cat([near, latents * share], 2)}


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
    folder = (start.parts or {}).get(STAGE_ONE)
    first = None if folder is None else FirstStage.load(folder, settings.stage_one_steps)
    return RefinerTask(Hi3DStudent(unet), frozen, system, settings, start.cache, first)
