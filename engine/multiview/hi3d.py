"""Hi3D: a picture in, 16 views at high resolution out, in two stages (Yang et al. 2024).

picture + noise --VAE, CLIP, elevation, aesthetic score--> [stage 1: SVD over views] --> 16 views at 512
those views, enlarged, the first one replaced by the picture, + noise --VAE, depth--> [stage 2] --> 16 views at 1024
                                                         \\--mixed into the first steps--/
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from engine.errors import TurntableError
from engine.multiview.components import Components
from engine.multiview.denoiser import Conditions
from engine.multiview.edm import LowResolutionInjection
from engine.multiview.generation import (
    Generation,
    GenerationProgress,
    OnProgress,
    as_tensor,
    generated,
    reporter,
    silent,
)
from engine.multiview.guidance import GuidanceInterval
from engine.multiview.hi3d_conditions import (
    first_stage_conditions,
    low_quality_views,
    sample_stage,
    second_stage_conditions,
)
from engine.multiview.networks.latents import LatentCodec
from engine.multiview.networks.orbit_video import SINUSOID_WIDTH
from engine.multiview.orbits import OrbitRequest, orbit_for
from engine.multiview.pictures import Framed, Hi3DFraming, Picture, ensure_alpha, hi3d_framing
from engine.multiview.schedules import draw_noise, normal_like
from engine.multiview.settings import Hi3DSettings, Sampling

SEED_OF_CONDITION, SEED_OF_REFINER, SEED_OF_ENCODING = 1, 2, 3
"""Added to the seed, so that no two draws are the same numbers."""


class Hi3DPipeline(Components):
    """Both stages; without the refiner and its depth network it ends after the first."""

    system = "hi3d"
    required = ("unet", "vae", "image_encoder")
    optional = ("aesthetic", "refiner", "depth")
    order = ("image_encoder", "aesthetic", "unet", "depth", "refiner", "vae")
    denoisers = ("unet", "refiner")
    settings: Hi3DSettings

    def __init__(self, settings: Hi3DSettings, components: Mapping[str, Any]) -> None:
        super().__init__(settings, components)
        self.unet = self.components["unet"]
        self.refiner = self.components.get("refiner")
        if self.refiner is not None and settings.refiner_depth and "depth" not in self.components:
            self._lacks("depth", "the refiner is told the views' depth")
        self._scored = self.unet.config.projection_class_embeddings_input_dim == 3 * SINUSOID_WIDTH
        if self._scored and "aesthetic" not in self.components:
            self._lacks("aesthetic", "this first stage is told the picture's aesthetic score")

    @torch.no_grad()
    def __call__(
        self,
        *,
        picture: Picture | None = None,
        prompt: str | None = None,
        uid: str = "object",
        orbit: OrbitRequest | None = None,
        sampling: Sampling | None = None,
        seed: int = 0,
        on_progress: OnProgress = silent,
    ) -> Generation:
        """Generate an orbit; its elevation is the picture's (both stages are told it).

        Args:
            picture: the object; the first view shows it.
            prompt: refused: paint a picture first (engine.multiview.text_to_image).
            uid: name of the result.
            orbit: which views; None: as the weights were trained.
            sampling: how; None: as the release.
            seed: of all noise; the same seed gives the same views on one device.
            on_progress: called often; raises to cancel.

        Raises TurntableError: text, views that the weights do not know.
        """
        if picture is None:
            raise TurntableError(
                f'Hi3D makes orbits from pictures: give --image FILE, or with --text "{prompt}" also --text-to-image MODEL'
            )
        settings, sampling = self.settings, sampling or Sampling()
        request = orbit or OrbitRequest()
        refined = self.refiner is not None and sampling.second_stage
        size_px = settings.refined_px if refined else settings.size_px
        cameras = orbit_for(request, settings.views, size_px)
        codec = LatentCodec(self.components["vae"], settings.latent_scaling, sampling.vae_chunk, self.device)
        run = _Run(self, picture, float(cameras.elevation_deg[0]), len(cameras), codec, sampling, seed, on_progress)
        views = run.first_stage()
        if refined:
            views = run.second_stage(views)
        record = {
            "system": self.system, "seed": seed, "steps": run.steps, "guidance": settings.guidance,
            "refined": refined, "second_stage_steps": run.refined_steps if refined else 0, "elevation_deg": run.elevation_deg,
            "aesthetic": run.aesthetic, "sampling": asdict(sampling),
        }  # fmt: skip
        given = run.framed(size_px, "released_stage2" if refined else "released_stage1")
        return Generation(generated(uid, cameras, views, settings, record, given), None, record)


class _Run:
    """One generation: what both stages share."""

    def __init__(
        self,
        pipeline: Hi3DPipeline,
        picture: Picture,
        elevation_deg: float,
        views: int,
        codec: LatentCodec,
        sampling: Sampling,
        seed: int,
        on_progress: OnProgress,
    ) -> None:
        self.pipeline, self.settings, self.codec, self.sampling = pipeline, pipeline.settings, codec, sampling
        self.picture = picture if sampling.framing == "kept" else ensure_alpha(picture)
        self.elevation_deg, self.views, self.seed = elevation_deg, views, seed
        self.on_progress = on_progress
        self.steps = self.settings.steps if sampling.steps is None else sampling.steps
        self.refined_steps = sampling.steps or self.settings.refined_steps or self.steps
        self.aesthetic: float | None = None

    def first_stage(self) -> Float[Tensor, "n 3 h w"]:
        """Return 16 views in [-1, 1] (section 4.2)."""
        self.on_progress(GenerationProgress("encode", 0, 1))
        image = self._shown(self.framed(self.settings.size_px, "released_stage1"))
        generator = torch.Generator().manual_seed(self.seed + SEED_OF_CONDITION)
        conditions = first_stage_conditions(
            image, normal_like(image, generator), self._augmentation(), views=self.views,
            elevation_deg=self._elevation(), aesthetic=self._score(image), codec=self.codec,
        )  # fmt: skip
        conditions["tokens"] = self._tokens(image)
        self.on_progress(GenerationProgress("encode", 1, 1))
        noise = self._noise(conditions["concatenated"], self.seed)
        made = self._sample(self.pipeline.unet, conditions, noise, self.settings.guidance, self.steps, "denoise")
        return self._decoded(made)

    def second_stage(self, views: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 H W"]:
        """Return the views refined (section 4.3; the mixing of low-resolution latents is the release's)."""
        image = self._shown(self.framed(self.settings.refined_px, "released_stage2"))
        low = low_quality_views(views[None], image)
        generator = torch.Generator().manual_seed(self.seed + SEED_OF_ENCODING)
        noise = normal_like(low, generator)
        self.on_progress(GenerationProgress("depth", 0, 1))
        conditions = second_stage_conditions(
            low, noise, self._augmentation(), elevation_deg=self._elevation(), codec=self.codec,
            depth=self.pipeline.components["depth"] if self.settings.refiner_depth else None,
        )  # fmt: skip
        self.on_progress(GenerationProgress("depth", 1, 1))
        conditions["tokens"] = self._tokens(image)
        injection = LowResolutionInjection(self.codec.encode(low, generator))
        start = self._noise(injection.latents, self.seed + SEED_OF_REFINER)
        guidance, steps = self.settings.refined_guidance, self.refined_steps
        made = self._sample(self.pipeline.refiner, conditions, start, guidance, steps, "refine", injection)
        return self._decoded(made)

    def framed(self, size: int, as_released: Hi3DFraming) -> Framed:
        """Return the picture as a stage is shown it."""
        asked = self.sampling.framing
        return hi3d_framing(self.picture, size, as_released if asked == "released" else asked)

    def _shown(self, framed: Framed) -> Float[Tensor, "1 3 h w"]:
        return as_tensor(framed.rgb).to(self.pipeline.device)[None]

    def _score(self, image: Float[Tensor, "1 3 h w"]) -> Float[Tensor, " 1"] | None:
        if not self.pipeline._scored:
            return None
        score: Tensor = self.pipeline.components["aesthetic"].score(image).float().to(image.device)
        self.aesthetic = round(float(score), 4)
        return score

    def _tokens(self, image: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 t d"]:
        return self.pipeline.components["image_encoder"].encode(image).to(image)

    def _elevation(self) -> Float[Tensor, " 1"]:
        return torch.tensor([self.elevation_deg], device=self.pipeline.device)

    def _augmentation(self) -> Float[Tensor, " 1"]:
        return torch.tensor([self.settings.noise_augmentation], device=self.pipeline.device)

    def _noise(self, like: Float[Tensor, "1 n k h w"], seed: int) -> Float[Tensor, "1 n c h w"]:
        """Unit normal noise for all views, of the latents' size."""
        channels = self.codec.vae.config.latent_channels
        return draw_noise((1, self.views, channels, *like.shape[3:]), seed, self.pipeline.device)

    def _sample(
        self,
        network: Any,
        conditions: Conditions,
        noise: Float[Tensor, "1 n c h w"],
        guidance: tuple[float, float],
        steps: int,
        stage: str,
        injection: LowResolutionInjection | None = None,
    ) -> Float[Tensor, "1 n c h w"]:
        asked = self.sampling.guidance_scale
        return sample_stage(
            network, conditions, noise, steps=steps, sigma_range=self.settings.sigma_range,
            guidance=(guidance[0], guidance[1] if asked is None else asked),
            interval=GuidanceInterval(*self.sampling.guidance_interval), batched=self.sampling.batched_guidance,
            dtype=self.pipeline.dtype, injection=injection, on_step=reporter(stage, self.codec, self.on_progress),
        )  # fmt: skip

    def _decoded(self, latents: Float[Tensor, "1 n c h w"]) -> Float[Tensor, "n 3 H W"]:
        self.on_progress(GenerationProgress("decode", 0, 1))
        pictures = self.codec.decode(latents[0])
        self.on_progress(GenerationProgress("decode", 1, 1))
        return pictures
