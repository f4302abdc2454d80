"""What weights were made for (saved beside them) and how a user samples. Plain data: no torch here."""

from dataclasses import dataclass, field, replace
from typing import Literal

from engine.multiview.orbits import KnownViews

NEGATIVE_PROMPT = "Distorted, discontinuous, Ugly, blurry, low resolution, disfigured, disconnected limbs, Ugly faces, incomplete arms"
"""What VideoMV's release guides away from; also what text was replaced by in its training (not the empty text)."""
SD_SCALING = 0.18215
"""Brings Stable Diffusion's latents to about unit variance (Rombach et al. 2022, appendix G)."""
GREY_128 = 128 / 255
"""VideoMV's text training images stand before this grey."""


@dataclass(frozen=True)
class VideoMVSettings:
    """What VideoMV weights were trained for; the defaults are the text release's."""

    kind: Literal["text", "picture"] = "text"
    """What the orbit is made from."""
    views: KnownViews = field(default_factory=KnownViews)
    """Orbits seen in training."""
    size_px: int = 256
    """Side of the views in pixels."""
    schedule: Literal["linear_sd", "cosine_zero_snr"] = "linear_sd"
    """Noise schedule; the first comes with eps prediction, the second with v."""
    latent_scaling: float = SD_SCALING
    """Factor on the VAE's latents."""
    background: float = GREY_128
    """Grey level behind the object in the training images, sRGB, 0 to 1."""
    steps: int = 50
    """Default number of DDIM steps."""
    spacing: Literal["leading", "trailing", "leap"] = "leading"
    """Which times they visit, see `ddim.ddim_timesteps`."""
    guidance_scale: float = 9.0
    """Default classifier-free guidance."""
    prompt_suffix: str = ", 3d asset"
    """Appended to every prompt, as in training."""
    negative_prompt: str = NEGATIVE_PROMPT
    """Text of the unconditional branch."""
    object_share: float = 200 / 256
    """Longest side of the object in the given picture after recentring, as a share of the canvas."""
    refinement_background: float = 0.5
    """Grey level behind the splats in 3D-aware sampling (text release 0.5, picture release 0.7)."""
    refine_first: float = 0.4
    """Default share of the steps before the first refinement."""
    refine_every: int = 10
    """Default number of steps from one refinement to the next."""
    refine_share: float = 1.0
    """Default share of the rendered views in what 3D-aware sampling goes on with, see `aware.GaussianRefinement`."""
    edge_px: float = 3.0
    """Width of the edges in its views, from background to full colour: antialiasing and a decoder's blur; those of a small
    network, which is not sure where the object ends, are wider."""
    keeps_picture: bool = False
    """The first view becomes the given picture itself, which its camera sees; not so in the release."""


VIDEOMV_TEXT = VideoMVSettings(
    views=KnownViews((24,), 39.6, 2.0, (1.4, 2.4), 15.0, (0.0, 35.0)),
)
"""ModelScopeT2V fine-tuned (VideoMV section 3.2); G-Objaverse's cameras stand at 5 to 30 degrees, a little is allowed."""
VIDEOMV_PICTURE = VideoMVSettings(
    kind="picture",
    views=KnownViews((24,), 39.6, 1.7, (1.4, 2.4), 5.0, (0.0, 35.0)),
    schedule="cosine_zero_snr",
    background=1.0,
    guidance_scale=6.0,
    prompt_suffix="",
    refinement_background=1.0,
)
"""I2VGen-XL fine-tuned. The release renders splats over grey 0.7, its data and paper over white: white here."""


MINI_TEXT = VideoMVSettings(
    views=KnownViews((24,), 39.6, 2.0, (2.0, 2.0), 15.0, (5.0, 30.0)),
    size_px=128,
    schedule="cosine_zero_snr",
    background=1.0,
    latent_scaling=1.0,
    steps=3,
    spacing="leap",
    guidance_scale=2.0,
    prompt_suffix="",
    refinement_background=1.0,
    refine_first=0.34,
    refine_every=1,
    refine_share=0.5,
    edge_px=14.0,
    keeps_picture=True,
)
"""Our own small weights from text. White and v, unlike the release: they begin as a copy of those from pictures."""
MINI_PICTURE = replace(MINI_TEXT, kind="picture", guidance_scale=1.0, object_share=0.71)
"""Our own small weights from pictures; 0.71: the object's median share of the frame in ring24. More steps guess more and
are right less often: 50 held-out objects 22.7 dB with 1, 22.3 with these 3, 21.6 with 10 that do not leap. 3D is asked at the
second: at the first, a reconstruction of the blur cost 0.9 dB (20 objects). Half of what is rendered: all of it was no better.
With a leap to 0.4 of the noise 3D is worth 0.53 dB of the views' agreement (50 objects), to 0.25 0.18 (17) and 22.4 dB."""


@dataclass(frozen=True)
class Hi3DSettings:
    """What Hi3D weights were trained for; the defaults are the release's."""

    views: KnownViews = field(
        default_factory=lambda: KnownViews((16,), 49.13, 1.5, (1.5, 1.5), 0.0, (-10.0, 40.0)),
    )
    """Orbits seen in training."""
    size_px: int = 512
    """Side of the first stage's views in pixels."""
    refined_px: int = 1024
    """Side of the second stage's views in pixels."""
    latent_scaling: float = SD_SCALING
    """Factor on the VAE's latents where they are denoised; the condition's are not scaled."""
    background: float = 1.0
    """Grey level behind the object, sRGB, 0 to 1."""
    steps: int = 25
    """Default number of Euler steps in either stage."""
    refined_steps: int | None = None
    """Of the second stage, where that is another number."""
    guidance: tuple[float, float] = (1.0, 2.5)
    """First stage: guidance of the first and the last view, linear between."""
    refined_guidance: tuple[float, float] = (1.0, 2.0)
    """Second stage: the same."""
    noise_augmentation: float = 0.02
    """Standard deviation of the noise on the condition's pixels ([-1, 1])."""
    sigma_range: tuple[float, float] = (0.002, 700.0)
    """Smallest and largest noise level of the EDM schedule."""
    refiner_depth: bool = True
    """Second stage: told the views' depth; False: zeros in its place, as its weights were trained (the paper's Table 3)."""
    edge_px: float = 3.0
    """Width of the edges in its views, from background to full colour: antialiasing and a decoder's blur; those of a small
    network, which is not sure where the object ends, are wider."""
    keeps_picture: bool = False
    """The first view becomes the given picture itself, which its camera sees; not so in the release."""


MINI_HI3D = Hi3DSettings(
    size_px=128, refined_px=256, latent_scaling=1.0, guidance=(1.0, 1.0), refined_guidance=(1.0, 1.0), steps=3,
    refined_steps=1, sigma_range=(5.0, 80.0), edge_px=24.0, keeps_picture=True,
)  # fmt: skip
"""Our own small weights: they guess too little for guidance to help. The less noise they are shown, the more they guess and
the less often they are right: a first stage of 9 M parameters had 20.5 dB on 10 held-out objects with 1 step, 20.4 with these
3, 20.1 down to 2 instead of 5, 19.5 with 12 from 700 to 0.002. Of the edges' widths 24 px overlaps best with the true
silhouettes (8 held-out objects, 256 px: IoU 0.57; 0.52 with 6)."""
RefinementChoice = Literal["off", "both", "conditional"]


@dataclass(frozen=True)
class Sampling:
    """How a user samples; None takes the weights' default."""

    steps: int | None = None
    """Denoising steps."""
    spacing: Literal["leading", "trailing", "leap"] | None = None
    """VideoMV: which times the steps are at, see `ddim.Spacing`."""
    guidance_scale: float | None = None
    """Classifier-free guidance (Hi3D: of the last view)."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Share of the steps between which guidance works; outside of it only the conditional branch runs."""
    batched_guidance: bool = True
    """Both branches in one forward pass: faster, twice the activations."""
    refinement: RefinementChoice = "both"
    """3D-aware denoising (VideoMV section 3.4) where the weights hold a reconstructor: both branches as the release
    does, the conditional one alone (half the work), or off."""
    refine_every: int | None = None
    """Steps from one refinement to the next."""
    refine_first: float | None = None
    """Share of the steps before the first refinement."""
    refine_share: float | None = None
    """Of the splats' views in the refined ones, above 0 to 1; the rest are the denoiser's own."""
    cameras: Literal["consistent", "released"] = "consistent"
    """Cameras that the reconstructor is told; released repeats the release's additional flip of the camera axes."""
    framing: Literal["recentred", "kept", "released"] = "recentred"
    """The object in the middle of the frame; the picture's own frame, for one taken by a camera of the orbit that is asked
    for; or Hi3D's released way, which does not care."""
    second_stage: bool = True
    """Hi3D: refine the views to the higher resolution where the weights hold a refiner."""
    vae_chunk: int = 8
    """Pictures that the VAE works on at once."""

    def __post_init__(self) -> None:
        if self.steps is not None and not 1 <= self.steps <= 1000:
            raise ValueError(f"--steps must lie between 1 and 1000, got {self.steps}")
        start, stop = self.guidance_interval
        if not 0 <= start <= stop <= 1:
            raise ValueError(f"--guidance-interval must be two shares in order, 0 to 1, got {start:g} and {stop:g}")
        for flag, count in (("--refine-every", self.refine_every), ("--vae-chunk", self.vae_chunk)):
            if count is not None and count < 1:
                raise ValueError(f"{flag} must be at least 1, got {count}")
        if self.refine_share is not None and not 0 < self.refine_share <= 1:
            raise ValueError(f"--refine-share must be above 0, at most 1, got {self.refine_share:g}")
        if self.refine_first is not None and not 0 <= self.refine_first <= 1:
            raise ValueError(f"--refine-first must be a share, 0 to 1, got {self.refine_first:g}")
