"""VideoMV's recipes (Zuo et al. 2024), its reconstructor's and its autoencoder's: full as published, tiny for tests.

"Release" is the published code, commit c434922 for VideoMV, fe8d12c for LGM. Where it and the paper differ the paper
holds, unless the code shows it to be wrong; `sources` says both. Marked "ours": neither says.
"""

from dataclasses import replace

from engine.multiview.orbits import KnownViews
from engine.multiview.settings import GREY_128, VIDEOMV_PICTURE, VIDEOMV_TEXT, VideoMVSettings
from engine.multiview.sizes import TINY_UNET, tiny_vae
from engine.training.plans import DataPlan, Optimisation, Recipe
from engine.training.tasks.settings import (
    ImageEncoderSize,
    ReconstructorTask,
    TextEncoderSize,
    VaeTask,
    VideoMVNetworks,
    VideoMVTask,
)

GREY, WHITE = (GREY_128,) * 3, (1.0, 1.0, 1.0)
ENCODED = ("text_encoder", "vae")

_VIDEOMV = Optimisation(
    steps=875,
    batch_size=32,
    learning_rate=3e-5,
    schedule="cosine",
    warmup_steps=10,
    schedule_steps=1_000_000,
    precision="fp16",
    slowed=0.5,
    gradient_checkpointing=True,
)
_VIDEOMV_SOURCES = (
    "learning rate 3e-5, batch 32, AdamW without weight decay, FP16: paper section 8 (release: 8 clips a GPU)",
    "cosine over 1,000,000 steps after 10 of warm-up, no clipping: release's configuration",
    "gradients of parameters that Stable Diffusion has as well x 0.5: release (its list names 682 of those 686)",
    "times uniform in 0 to 999, posterior sampled, dropout 0.1: release",
    "24 views at 256 px, one elevation of 5 to 30 degrees an object: paper section 3.2",
    "gradient checkpointing of every layer: release",
)

TEXT = Recipe(
    "videomv-text", "full", "a sentence to 24 views at 256 px, from ModelScopeT2V",
    DataPlan(background=GREY, caption="object", caption_suffix=", 3d asset"),
    _VIDEOMV,
    (
        *_VIDEOMV_SOURCES,
        "steps 875: one pass over the paper's 28K samples; its half an hour on 8 A100 (section 8) leaves 2 s a step",
        "background 128: release, and paper section 7; suffix ', 3d asset': release",
        "text replaced by the negative prompt in 0.1 of the clips: release",
        "no EMA: release",
        "start view and cameras rolled together: ours (the release tells text networks azimuth 0 only)",
    ),
    VideoMVTask(VIDEOMV_TEXT, pretrained=("unet", *ENCODED)),
)  # fmt: skip
IMAGE = Recipe(
    "videomv-image", "full", "a picture to 24 views at 256 px, from I2VGen-XL",
    DataPlan(background=WHITE, rebase=True),
    replace(_VIDEOMV, steps=27_500, ema_decay=0.9999),
    (
        *_VIDEOMV_SOURCES,
        "steps 27,500: the released file's number (882,000) less that of its base (854,500); 24 hours on 8 A100 "
        "(section 8) then are 3 s a step",
        "white background, empty text, EMA 0.9999, offset noise 0.1, v prediction on the cosine schedule: release",
        "nothing is dropped (p_zero 0): release; what guidance subtracts is inherited from I2VGen-XL",
        "start view and cameras rolled together, the world turned so that the picture is azimuth 0: ours. The release "
        "rolls the views but neither cameras nor the picture, so that they disagree",
    ),
    VideoMVTask(
        VIDEOMV_PICTURE, pretrained=("unet", "image_encoder", *ENCODED), drop=0.0, offset_noise=0.1,
    ),
)  # fmt: skip
JOINT = Recipe(
    "videomv-2d-joint", "full", "videomv-text with 2D pictures among the orbits, so that it forgets less",
    replace(TEXT.data, picture_share=1 / 8),
    replace(_VIDEOMV, steps=32_000),
    (
        *_VIDEOMV_SOURCES,
        "pictures as orbits of one view without cameras: paper section 3.2",
        "an eighth of the steps: release (1 of 8 ranks; filters: aesthetic >= 4.0, watermark <= 0.3, unsafe <= 0.2, "
        "aspect <= 3). As released it does not run",
        "steps 32,000: the released file's number (365,000) less that of the text weights (333,000)",
        "text replaced by the negative prompt in 0.1 of the clips: release",
    ),
    VideoMVTask(VIDEOMV_TEXT, pretrained=("unet", *ENCODED)),
)  # fmt: skip
RECONSTRUCTOR = Recipe(
    "reconstructor", "full", "4 views as a generator predicts them to Gaussians, from LGM",
    DataPlan(background=WHITE, rebase=True),
    Optimisation(
        steps=5_300, batch_size=32, learning_rate=3e-5, schedule="cosine", warmup_steps=10, schedule_steps=1_000_000,
        clip_norm=1.0, precision="fp16", gradient_checkpointing=True,
    ),
    (
        "one denoising step at t in 0 to 700, decoded: paper section 3.3 (release: 0 to 999)",
        "4 random views in, all 24 rendered and compared: paper section 7 (release: those 4 and 4 more)",
        "white background for picture generators, 128 for text: paper section 7 (release: random while training)",
        "squared errors of colours and alpha and 1.0 x LPIPS (VGG, 256 px): LGM section 3.4 and release",
        "LPIPS from 0.3 of the run on: ours (with it from the start LGM may collapse to white, its issues 35 and 46)",
        "learning rate 3e-5, batch 32, AdamW without weight decay, FP16: paper section 8; gradients clipped at 1: LGM. "
        "LGM itself: 4e-4, decay 0.05, betas 0.9 and 0.95, OneCycle, bf16, 30 epochs",
        "steps 5,300: ours, one pass over the paper's 170K samples",
        "the generator's dropout off: ours (release: on, by oversight)",
    ),
    ReconstructorTask(
        network={"radius_m": None},
        pretrained=("unet", "image_encoder", "reconstructor", *ENCODED),
        generator=VideoMVTask(VIDEOMV_PICTURE),
        perceptual_from=0.3,
    ),
)  # fmt: skip
VAE = Recipe(
    "vae", "full", "pictures to latents and back, Stable Diffusion's autoencoder",
    DataPlan(orbit="*", views=4, background="random"),
    Optimisation(steps=246_803, batch_size=3, learning_rate=5.4e-5, betas=(0.5, 0.9), precision="bf16"),
    (
        "neither paper trains one: both take Stable Diffusion's (f = 8, 4 channels)",
        "L1 + LPIPS, KL x 1e-6, betas 0.5 and 0.9, 4.5e-6 x 12 pictures a step: Rombach et al. 2022, their "
        "configuration autoencoder_kl_32x32x4; its adversarial term, from step 50,001 on, is left out",
        "steps 246,803: the card of Stable Diffusion's autoencoder (kl-f8)",
        "random backgrounds, 4 views of 3 objects: ours",
    ),
    VaeTask(pretrained=("vae",)),
)  # fmt: skip

TINY_GAUSSIANS = {
    "down_channels": (32, 32, 64),
    "down_attention": (False, False, True),
    "up_channels": (64, 32),
    "up_attention": (True, False),
    "attention_heads": 4,
    "input_size": 32,
    "output_size": 32,
    "radius_m": None,
}
_TINY_VIEWS = KnownViews((24,), 39.6, 2.0, (1.5, 2.5), 15.0, (-30.0, 60.0))
_TINY_TEXT = VideoMVSettings(views=_TINY_VIEWS, size_px=32, steps=5, guidance_scale=3.0)
_TINY_PICTURE = replace(
    _TINY_TEXT, kind="picture", schedule="cosine_zero_snr", background=1.0, prompt_suffix="", refinement_background=1.0
)
_TINY_NETWORKS = VideoMVNetworks({**TINY_UNET, "dropout": 0.0}, tiny_vae(3), TextEncoderSize(), ImageEncoderSize())
_TINY_PRIOR = {"dropout": 0.0, "prior": (0.75, 0.5), "prior_pictures": 16}
_TINY = Optimisation(steps=200, batch_size=2, learning_rate=2e-3, warmup_steps=10, clip_norm=1.0, precision="no")
_FOR_TESTS = ("ours, for tests: random weights, a few seconds",)


def _tiny(full: Recipe, task: object) -> Recipe:
    data = replace(full.data, size_px=32)
    return replace(full, size="tiny", data=data, optimisation=_TINY, sources=_FOR_TESTS, task=task)


RECIPES = (
    TEXT,
    IMAGE,
    JOINT,
    RECONSTRUCTOR,
    VAE,
    _tiny(TEXT, VideoMVTask(_TINY_TEXT, _TINY_NETWORKS, preview_steps=3)),
    _tiny(IMAGE, VideoMVTask(_TINY_PICTURE, _TINY_NETWORKS, drop=0.1, offset_noise=0.1, preview_steps=3)),
    _tiny(JOINT, VideoMVTask(_TINY_TEXT, _TINY_NETWORKS, preview_steps=3)),
    _tiny(
        RECONSTRUCTOR,
        ReconstructorTask(TINY_GAUSSIANS, generator=VideoMVTask(_TINY_PICTURE, _TINY_NETWORKS), supervised=6),
    ),
    _tiny(VAE, VaeTask(tiny_vae(3), latent_scaling=1.0)),
    replace(
        _tiny(IMAGE, VideoMVTask(_TINY_PICTURE, replace(_TINY_NETWORKS, unet={**TINY_UNET, **_TINY_PRIOR}))),
        name="expectation-image", summary="what a picture lets expect of its views",
    ),
    replace(
        _tiny(TEXT, VideoMVTask(
            replace(_TINY_TEXT, schedule="cosine_zero_snr"),
            replace(_TINY_NETWORKS, unet={**TINY_UNET, **_TINY_PRIOR, "prior": (0.0, 1.0)}),
        )),
        name="expectation-text", summary="what a sentence lets expect of its views",
    ),
)  # fmt: skip
"""Rows of the table, see `table.py`."""
