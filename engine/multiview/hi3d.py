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
from torch.nn import functional

from engine.errors import TurntableError
from engine.multiview.components import Components
from engine.multiview.denoiser import Conditions
from engine.multiview.edm import LowResolutionInjection, sample_euler_edm
from engine.multiview.generation import (
    Generation,
    GenerationProgress,
    OnProgress,
    as_tensor,
    generated,
    reporter,
    silent,
)
from engine.multiview.guidance import GuidanceInterval, Guided, linear_scale, zeroed
from engine.multiview.networks.latents import LatentCodec
from engine.multiview.networks.orbit_video import conditioning_vector
from engine.multiview.orbits import OrbitRequest, orbit_for
from engine.multiview.pictures import Hi3DFraming, Picture, ensure_alpha, hi3d_framing
from engine.multiview.schedules import draw_noise, edm_sigmas, normal_like
from engine.multiview.settings import Hi3DSettings, Sampling

SEED_OF_CONDITION, SEED_OF_REFINER, SEED_OF_ENCODING = 1, 2, 3
"""Added to the seed, so that no two draws are the same numbers."""
DROPPED = ("tokens", "concatenated")
"""What the unconditional branch does not see; the vector is told in both (as the release)."""


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
        if self.refiner is not None and "depth" not in self.components:
            self._lacks("depth", "the refiner is told the views' depth")
        self._scored = self.unet.config.projection_class_embeddings_input_dim == 3 * 256
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
        size_px = settings.size_px if self.refiner is None else settings.refined_px
        cameras = orbit_for(request, settings.views, size_px)
        codec = LatentCodec(self.components["vae"], settings.latent_scaling, sampling.vae_chunk, self.device)
        run = _Run(self, picture, float(cameras.elevation_deg[0]), len(cameras), codec, sampling, seed, on_progress)
        views = run.first_stage()
        if self.refiner is not None:
            views = run.second_stage(views)
        record = {
            "system": self.system, "seed": seed, "steps": run.steps, "guidance": settings.guidance,
            "refined": self.refiner is not None, "elevation_deg": run.elevation_deg, "aesthetic": run.aesthetic,
            "sampling": asdict(sampling),
        }  # fmt: skip
        return Generation(generated(uid, cameras, views, settings.background, record), None, record)


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
        self.picture, self.elevation_deg, self.views, self.seed = ensure_alpha(picture), elevation_deg, views, seed
        self.on_progress = on_progress
        self.steps = self.settings.steps if sampling.steps is None else sampling.steps
        self.aesthetic: float | None = None

    def first_stage(self) -> Float[Tensor, "n 3 h w"]:
        """Return 16 views in [-1, 1] (section 4.2)."""
        self.on_progress(GenerationProgress("encode", 0, 1))
        image = self._framed(self.settings.size_px, "released_stage1")
        generator = torch.Generator().manual_seed(self.seed + SEED_OF_CONDITION)
        noisy = image + self.settings.noise_augmentation * normal_like(image, generator)
        latents = self.codec.encode(noisy, scaled=False)
        score = self._score(image)
        conditions = {
            "tokens": self.pipeline.components["image_encoder"].encode(image).to(image),
            "concatenated": latents[:, None].expand(-1, self.views, -1, -1, -1),
            "vector": self._vector(score),
        }
        self.on_progress(GenerationProgress("encode", 1, 1))
        noise = self._noise(latents, self.seed)
        made = self._sample(self.pipeline.unet, conditions, noise, self._guidance(self.settings.guidance), "denoise")
        return self._decoded(made)

    def second_stage(self, views: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 H W"]:
        """Return the views refined (section 4.3; the mixing of low-resolution latents is the release's)."""
        size = self.settings.refined_px
        image = self._framed(size, "released_stage2")
        enlarged = functional.interpolate(views.clamp(-1, 1).to(image), (size, size), mode="bilinear")  # as the release
        low = torch.cat([image, enlarged[1:]]).clamp(-1, 1)
        generator = torch.Generator().manual_seed(self.seed + SEED_OF_ENCODING)
        noisy = low + self.settings.noise_augmentation * normal_like(low, generator)
        self.on_progress(GenerationProgress("depth", 0, 1))
        latents = self.codec.encode(noisy, scaled=False)[None]
        depth = self.pipeline.components["depth"].hi3d_channels(noisy, latents.shape[-2:]).to(latents)[None]
        self.on_progress(GenerationProgress("depth", 1, 1))
        conditions = {
            "tokens": self.pipeline.components["image_encoder"].encode(image).to(image),
            "concatenated": torch.cat([depth, latents], 2),
            "vector": self._vector(None),
        }
        injection = LowResolutionInjection(self.codec.encode(low, generator)[None])
        noise = self._noise(latents[:, 0], self.seed + SEED_OF_REFINER)
        scale = self._guidance(self.settings.refined_guidance)
        return self._decoded(self._sample(self.pipeline.refiner, conditions, noise, scale, "refine", injection))

    def _framed(self, size: int, as_released: Hi3DFraming) -> Float[Tensor, "1 3 h w"]:
        framing: Hi3DFraming = as_released if self.sampling.framing == "released" else "recentred"
        return as_tensor(hi3d_framing(self.picture, size, framing).rgb).to(self.pipeline.device)[None]

    def _score(self, image: Float[Tensor, "1 3 h w"]) -> Float[Tensor, " 1"] | None:
        if not self.pipeline._scored:
            return None
        score: Tensor = self.pipeline.components["aesthetic"].score(image).float().to(image.device)
        self.aesthetic = round(float(score), 4)
        return score

    def _vector(self, score: Float[Tensor, " 1"] | None) -> Float[Tensor, "1 a"]:
        device = self.pipeline.device
        elevation = torch.tensor([self.elevation_deg], device=device)
        augmentation = torch.tensor([self.settings.noise_augmentation], device=device)
        return conditioning_vector(elevation, augmentation, score)

    def _noise(self, like: Float[Tensor, "1 c h w"], seed: int) -> Float[Tensor, "1 n c h w"]:
        return draw_noise((1, self.views, *like.shape[1:]), seed, self.pipeline.device)

    def _guidance(self, first_and_last: tuple[float, float]) -> Float[Tensor, " n"]:
        first, last = first_and_last
        asked = self.sampling.guidance_scale
        return linear_scale(first, last if asked is None else asked, self.views)

    def _sample(
        self,
        network: Any,
        conditions: Conditions,
        noise: Float[Tensor, "1 n c h w"],
        scale: Float[Tensor, " n"],
        stage: str,
        injection: LowResolutionInjection | None = None,
    ) -> Float[Tensor, "1 n c h w"]:
        guided = Guided(
            network, conditions, zeroed(conditions, DROPPED), batched=self.sampling.batched_guidance,
            dtype=self.pipeline.dtype,
        )  # fmt: skip
        return sample_euler_edm(
            guided, noise, edm_sigmas(self.steps, *self.settings.sigma_range), guidance_scale=scale.to(noise.device),
            interval=GuidanceInterval(*self.sampling.guidance_interval), injection=injection,
            on_step=reporter(stage, self.codec, self.on_progress),
        )  # fmt: skip

    def _decoded(self, latents: Float[Tensor, "1 n c h w"]) -> Float[Tensor, "n 3 H W"]:
        self.on_progress(GenerationProgress("decode", 0, 1))
        pictures = self.codec.decode(latents[0])
        self.on_progress(GenerationProgress("decode", 1, 1))
        return pictures
