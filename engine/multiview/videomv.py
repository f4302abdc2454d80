"""VideoMV: a sentence or a picture in, 24 views around the object out (Zuo et al. 2024).

    sentence --text encoder--> tokens ----------------------\\
    picture --recentre--> image encoder, VAE --------------- > conditions --+
    orbit --16 numbers a view--> cameras --------------------/              |
                                                                            v
    noise --DDIM, guidance (every k steps: VAE -> reconstructor -> splats -> views -> VAE)--> latents --VAE--> views
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from engine.errors import CheckpointError, TurntableError
from engine.geometry import Orbit
from engine.multiview.aware import GaussianRefinement, evenly_spaced_views
from engine.multiview.components import Components
from engine.multiview.conditions import cameras_told, picture_told, text_told, unconditional
from engine.multiview.ddim import Spacing, ddim_timesteps, sample_ddim
from engine.multiview.denoiser import Conditions, RefinementPlan
from engine.multiview.generation import (
    Generation,
    GenerationProgress,
    OnProgress,
    as_tensor,
    generated,
    reporter,
    silent,
)
from engine.multiview.guidance import GuidanceInterval, Guided, refinement_steps
from engine.multiview.networks.latents import LatentCodec
from engine.multiview.orbits import OrbitRequest, orbit_for
from engine.multiview.pictures import Framed, Picture, ensure_alpha, kept, recentred
from engine.multiview.schedules import NoiseSchedule, cosine_zero_snr, draw_noise, linear_sd
from engine.multiview.settings import Sampling, VideoMVSettings
from engine.splats import Gaussians
from engine.splats.reconstructor import Reconstructor, without_transparent

SCHEDULES: Mapping[str, Callable[[], NoiseSchedule]] = {"linear_sd": linear_sd, "cosine_zero_snr": cosine_zero_snr}
SEED_OF_ENCODING, SEED_OF_REFINEMENT = 1, 2
"""Added to the seed, so that no two draws are the same numbers."""


class VideoMVPipeline(Components):
    """The text and the picture variant; which of the two its weights are, their settings say."""

    system = "videomv"
    required = ("unet", "vae", "text_encoder")
    optional = ("image_encoder", "reconstructor")
    order = ("text_encoder", "image_encoder", "unet", "reconstructor", "vae")
    settings: VideoMVSettings

    def __init__(self, settings: VideoMVSettings, components: Mapping[str, Any]) -> None:
        super().__init__(settings, components)
        if settings.kind == "picture" and "image_encoder" not in self.components:
            self._lacks("image_encoder", "picture-to-orbit weights need one")
        self.unet = self.components["unet"]
        if getattr(self.unet, "expectation", None) is not None and settings.schedule != "cosine_zero_snr":
            raise CheckpointError(
                f"the U-Net starts from the picture on the schedule cosine_zero_snr, the weights' index says "
                f"{settings.schedule}; convert or train them again"
            )
        self.text_encoder = self.components["text_encoder"]
        self.image_encoder = self.components.get("image_encoder")
        network = self.components.get("reconstructor")
        self.reconstructor = None if network is None else Reconstructor(network)
        self.schedule = SCHEDULES[settings.schedule]()

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
        """Generate an orbit.

        Args:
            picture: the object, for picture weights; seen by the first view.
            prompt: a sentence, for text weights.
            uid: name of the result.
            orbit: which views; None: as the weights were trained.
            sampling: how; None: as the release.
            seed: of all noise; the same seed gives the same views on one device.
            on_progress: called often; raises to cancel.

        Raises TurntableError: text for picture weights or the other way round, views that the weights do not know.
        """
        settings, sampling = self.settings, sampling or Sampling()
        self._check_source(picture, prompt)
        request = orbit or OrbitRequest()
        cameras = orbit_for(request, settings.views, settings.size_px)
        on_progress(GenerationProgress("encode", 0, 1))
        codec = LatentCodec(self.components["vae"], settings.latent_scaling, sampling.vae_chunk, self.device)
        # The network is told the orbit from azimuth 0 on: made anew, another start changes no bit of its pictures.
        from_front = replace(request, start_azimuth_deg=0.0) if settings.kind == "picture" else request
        orbit_told = orbit_for(from_front, settings.views, settings.size_px)
        framed = self._framed(picture, sampling)
        told, told_nothing = self._conditions(framed, prompt, orbit_told, codec, seed)
        guided = Guided(self.unet, told, told_nothing, batched=sampling.batched_guidance, dtype=self.dtype)
        on_progress(GenerationProgress("encode", 1, 1))
        plan = self._plan(cameras, codec, sampling, seed)
        side = settings.size_px // codec.factor
        noise = draw_noise((1, len(cameras), codec.vae.config.latent_channels, side, side), seed, self.device)
        scale = settings.guidance_scale if sampling.guidance_scale is None else sampling.guidance_scale
        latents = sample_ddim(
            guided, noise, self.schedule, steps=self._steps(sampling), spacing=self._spacing(sampling), guidance_scale=scale,
            interval=GuidanceInterval(*sampling.guidance_interval), refinement=plan,
            on_step=reporter("denoise", codec, on_progress),
        )  # fmt: skip
        on_progress(GenerationProgress("decode", 0, 1))
        pictures = codec.decode(latents[0])
        gaussians = self._reconstruct(pictures, cameras)
        record = {
            "system": self.system, "kind": settings.kind, "prompt": prompt, "seed": seed, "steps": self._steps(sampling),
            "guidance_scale": scale, "refined_steps": sorted(plan.steps) if plan else [], "sampling": asdict(sampling),
        }  # fmt: skip
        images = generated(uid, cameras, pictures, settings, record, framed)
        on_progress(GenerationProgress("decode", 1, 1))
        return Generation(images, gaussians, record)

    def _check_source(self, picture: Picture | None, prompt: str | None) -> None:
        if self.settings.kind == "picture" and picture is None:
            raise TurntableError("these weights make orbits from pictures: give --image FILE instead of --text")
        if self.settings.kind == "text" and not (prompt and prompt.strip()):
            raise TurntableError("these weights make orbits from text: give --text SENTENCE instead of --image")

    def _steps(self, sampling: Sampling) -> int:
        return self.settings.steps if sampling.steps is None else sampling.steps

    def _spacing(self, sampling: Sampling) -> Spacing:
        return sampling.spacing or self.settings.spacing

    def _framed(self, picture: Picture | None, sampling: Sampling) -> Framed | None:
        settings = self.settings
        if settings.kind == "text" or picture is None:
            return None
        if sampling.framing == "kept":
            return kept(picture, settings.size_px, settings.background)
        return recentred(ensure_alpha(picture), settings.size_px, settings.object_share, settings.background)

    def _conditions(
        self, framed: Framed | None, prompt: str | None, orbit: Orbit, codec: LatentCodec, seed: int
    ) -> tuple[Conditions, Conditions]:
        """What the network is told with and without guidance; cameras and the picture's latents are told in both."""
        settings = self.settings
        said = with_suffix(prompt or "", settings.prompt_suffix) if settings.kind == "text" else settings.prompt_suffix
        text, negative = self.text_encoder.encode([said, settings.negative_prompt])[:, None].to(self.device)
        cameras = cameras_told([orbit], settings.kind, self.device)
        if settings.kind == "text":
            conditions = text_told(text, cameras)
            return conditions, unconditional(conditions, negative)
        assert framed is not None
        assert self.image_encoder is not None
        image = as_tensor(framed.rgb).to(self.device)[None]
        generator = torch.Generator().manual_seed(seed + SEED_OF_ENCODING)
        latents = codec.encode(image, generator)
        embedding = self.image_encoder.encode(image).to(self.device)
        conditions = picture_told(text, embedding, latents, cameras)
        return conditions, unconditional(conditions, negative)

    def _plan(self, orbit: Orbit, codec: LatentCodec, sampling: Sampling, seed: int) -> RefinementPlan | None:
        if sampling.refinement == "off" or self.reconstructor is None:
            return None
        refinement = GaussianRefinement(
            codec,
            self.reconstructor,
            orbit.cameras,
            generator=torch.Generator().manual_seed(seed + SEED_OF_REFINEMENT),
            background=self.settings.refinement_background,
            camera_rule=sampling.cameras,
            share=self.settings.refine_share if sampling.refine_share is None else sampling.refine_share,
        )
        settings = self.settings
        count = len(ddim_timesteps(self.schedule.count, self._steps(sampling), self._spacing(sampling)))
        first = settings.refine_first if sampling.refine_first is None else sampling.refine_first
        steps = refinement_steps(count, first, sampling.refine_every or settings.refine_every)
        return RefinementPlan(refinement, steps, sampling.refinement)

    def _reconstruct(self, pictures: Float[Tensor, "n 3 h w"], orbit: Orbit) -> Gaussians | None:
        if self.reconstructor is None:
            return None
        chosen = evenly_spaced_views(len(orbit), self.reconstructor.views)
        images = ((pictures[chosen] + 1) / 2).clamp(0, 1)
        shown = without_transparent(self.reconstructor(images, [orbit.camera(i) for i in chosen]))
        return shown.to("cpu") if len(shown) else None


def with_suffix(prompt: str, suffix: str) -> str:
    """Append what every training caption ends in, unless the prompt says it already (as the release)."""
    words = suffix.strip(", ")
    return prompt if words and words in prompt else prompt + suffix
