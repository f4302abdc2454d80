"""Hi3D's recipes: both stages and the depth network between them, as published and tiny. Plain data."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.multiview.settings import Hi3DSettings
from engine.multiview.sizes import RELEASED_VAE, TINY_VIDEO_UNET, TINY_WIDTH, tiny_vae
from engine.training.plans import DataPlan, Optimisation, Recipe
from engine.training.tasks.hi3d_settings import BaseSettings, DepthSettings, RefinerSettings
from engine.training.tasks.settings import ImageEncoderSize

VIT_H_14 = ImageEncoderSize(width=1280, layers=32, head_width=80, size_px=224, patch_px=14, embedding=1024)
"""OpenCLIP's."""
REFINER_UNET: Mapping[str, Any] = {"in_channels": 17, "projection_class_embeddings_input_dim": 512}
"""What tells the second stage's U-Net from the first's: 4 noisy + 9 depth + 4 latents, no aesthetic score."""
MIDAS_HYBRID: Mapping[str, Any] = {
    "is_hybrid": True,
    "backbone_out_indices": (0, 1, 8, 11),
    "neck_hidden_sizes": (256, 512, 768, 768),
    "image_size": 384,
}
"""DPT hybrid's (dpt_hybrid_384.pt)."""

BOTH_STAGES = (
    "AdamW with betas 0.9, 0.999 and weight decay 0.01, constant rate, no warm-up, no clipping, no EMA: the release's "
    "configurations and torch's defaults, which they leave alone",
    "bf16 autocast: the release trains in fp16 (DeepSpeed stage 2); the range of bf16 needs no loss scaling",
    "gradient checkpoints: use_checkpoint in the release's configurations",
    "16 views, one elevation, white background: paper 4.2; any first view: the release's loader",
    "noise level exp(1.0 + 1.6 n), weight (s^2 + 1) / s^2, augmentation exp(-3 + 0.5 n): the release's configurations",
    "tokens dropped 0.1, latents dropped 0.1, independent: the release's ucg_rate",
    "latents are dropped for whole clips: the release's first stage drops views one by one (n_copies 16), so that it "
    "never sees the unconditional branch that it is guided with",
)
BASE_SOURCES = (
    "80,000 steps, batch 16, rate 1e-5: paper 5.1 (the release's 1e-5 is multiplied by devices and batch to 1.6e-4 by "
    "--scale_lr's default)",
    "views at 512 px: paper 4.2 and 5.1",
    "starts from Stable Video Diffusion XT with an image decoder: the release's configuration",
    "aesthetic score of the target's middle view: the release; the paper has none",
    *BOTH_STAGES,
)
REFINER_SOURCES = (
    "20,000 steps, batch 8, rate 5e-5: paper 5.1 (the release's configuration says 1e-5, with --scale_lr 8e-5)",
    "views at 1024 px: paper 4.3",
    "starts from a first stage with zeros for depth: the release starts from Stable Video Diffusion in the same way",
    "9 channels of depth in 3 x 3 neighbours: the release (the paper resizes depth to the latents' size, 1 channel)",
    "degraded views mixed with a first stage's: paper 4.3 and 5.1; half of each is ours, as the paper gives no share and "
    "the release knows degraded ones alone",
    "depth is dropped with the latents, as the guided sampler sees it: ours; the release never drops it in training",
    *BOTH_STAGES,
)
DEPTH_SOURCES = (
    "ours: Hi3D takes MiDaS' DPT hybrid as it is, no paper trains one for it",
    "scale- and shift-invariant error with gradient matching, weight 0.5, 4 sizes: Ranftl et al. 2020, equations 7 to 12",
    "nothing trimmed: rendered depth has no outliers (MiDaS: 0.2)",
    "rate 1e-5, Adam's betas 0.9, 0.999: Ranftl et al. 2020, section 5, for pretrained layers",
    "384 px: MiDaS' size, at which Hi3D's second stage looks at 1024 px",
    "noise exp(-3 + 0.5 n) on the views: the refiner's depth is that of noised views (the release)",
    "batch 16, 20,000 steps, 4 views of an orbit, random backgrounds, mirrored in half: ours",
)

FULL = (
    Recipe(
        name="hi3d-base",
        size="full",
        summary="Hi3D's first stage: a picture to 16 views at 512 px, from Stable Video Diffusion",
        data=DataPlan(orbit="ring16", views=16, size_px=512),
        optimisation=Optimisation(
            steps=80_000, batch_size=16, learning_rate=1e-5, weight_decay=0.01, gradient_checkpointing=True
        ),
        sources=BASE_SOURCES,
        task=BaseSettings(
            system=Hi3DSettings(),
            unet={},
            vae=RELEASED_VAE,
            image_encoder=VIT_H_14,
            aesthetic={},
            pretrained=("unet", "vae", "image_encoder", "aesthetic"),
        ),
    ),
    Recipe(
        name="hi3d-refiner",
        size="full",
        summary="Hi3D's second stage: 16 views refined to 1024 px, told their depth",
        data=DataPlan(orbit="ring16", views=16, size_px=1024, degrade=True),
        optimisation=Optimisation(
            steps=20_000, batch_size=8, learning_rate=5e-5, weight_decay=0.01, gradient_checkpointing=True
        ),
        sources=REFINER_SOURCES,
        task=RefinerSettings(
            system=Hi3DSettings(),
            unet=REFINER_UNET,
            vae=RELEASED_VAE,
            image_encoder=VIT_H_14,
            depth=MIDAS_HYBRID,
            pretrained=("refiner", "vae", "image_encoder", "depth"),
        ),
    ),
    Recipe(
        name="depth",
        size="full",
        summary="the depth network that Hi3D's second stage looks through, from MiDaS' DPT hybrid",
        data=DataPlan(orbit="*", views=4, size_px=384, background="random", mirror=0.5, colour=0.5, depth=True),
        optimisation=Optimisation(steps=20_000, batch_size=16, learning_rate=1e-5, warmup_steps=500, clip_norm=1.0),
        sources=DEPTH_SOURCES,
        task=DepthSettings(network=MIDAS_HYBRID, pretrained=("depth",)),
    ),
)

TINY_ENCODER = ImageEncoderSize(width=32, layers=2, head_width=16, size_px=56, patch_px=14, embedding=TINY_WIDTH)
TINY_SCORER: Mapping[str, Any] = {
    "vision": {
        "hidden_size": 32,
        "intermediate_size": 128,
        "projection_dim": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "hidden_act": "quick_gelu",
    },
    "widths": (16, 8),
}
TINY_DEPTH: Mapping[str, Any] = {
    "is_hybrid": True,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "layer_norm_eps": 1e-6,
    "image_size": 64,
    "backbone_out_indices": (0, 1, 1, 2),
    "backbone_featmap_shape": (1, 128, 4, 4),
    "reassemble_factors": (1, 1, 1, 0.5),
    "neck_hidden_sizes": (32, 64, 32, 32),
    "fusion_hidden_size": 16,
    "backbone_config": {
        "model_type": "bit",
        "embedding_size": 16,
        "hidden_sizes": (32, 64, 128),
        "depths": (1, 1, 1),
        "layer_type": "bottleneck",
        "global_padding": "SAME",
        "embedding_dynamic_padding": True,
        "num_groups": 8,
        "out_features": ("stage1", "stage2", "stage3"),
    },
}
TINY_SYSTEM = Hi3DSettings(size_px=64, refined_px=128, steps=3)
TINY_SOURCES = ("small enough for tests, nothing else",)
TINY_STEPS = Optimisation(steps=20, batch_size=2, learning_rate=2e-3, precision="no")

TINY_BASE = BaseSettings(
    system=TINY_SYSTEM, unet=TINY_VIDEO_UNET, vae=tiny_vae(4), image_encoder=TINY_ENCODER, aesthetic=TINY_SCORER,
    preview_steps=3,
)  # fmt: skip

TINY_FIRST = Recipe(
    name="hi3d-base",
    size="tiny",
    summary="the first stage, for tests",
    data=DataPlan(orbit="ring16", views=16, size_px=64),
    optimisation=TINY_STEPS,
    sources=TINY_SOURCES,
    task=TINY_BASE,
)

TINY = (
    TINY_FIRST,
    replace(
        TINY_FIRST,
        name="expectation-hi3d",
        summary="what a picture lets expect of its views, for tests",
        task=replace(TINY_BASE, unet={**TINY_VIDEO_UNET, "prior": (0.75, 0.5), "prior_pictures": 16}),
    ),
    Recipe(
        name="hi3d-refiner",
        size="tiny",
        summary="the second stage, for tests",
        data=DataPlan(orbit="ring16", views=16, size_px=128, degrade=True),
        optimisation=TINY_STEPS,
        sources=TINY_SOURCES,
        task=RefinerSettings(
            system=TINY_SYSTEM, unet={**TINY_VIDEO_UNET, **REFINER_UNET}, vae=tiny_vae(4), image_encoder=TINY_ENCODER,
            depth=TINY_DEPTH, preview_steps=3,
        ),
    ),
    Recipe(
        name="depth",
        size="tiny",
        summary="the depth network, for tests",
        data=DataPlan(orbit="*", views=2, size_px=64, depth=True),
        optimisation=TINY_STEPS,
        sources=TINY_SOURCES,
        task=DepthSettings(network=TINY_DEPTH),
    ),
)  # fmt: skip

RECIPES = (*FULL, *TINY)
"""All of them."""
