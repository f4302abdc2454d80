"""The small family that ships with the project: the published classes, small, trained by us on orbits at 128 px.

They are sized for a CPU: 64 MB together in half precision, a step of training about a second on 4 cores. One
autoencoder (f = 8, 8 channels) serves all; the text network begins as a copy of the picture network.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.multiview.settings import MINI_HI3D, MINI_PICTURE, MINI_TEXT
from engine.training.plans import DataPlan, Optimisation, Recipe
from engine.training.tasks.hi3d_settings import BaseSettings, DepthSettings, Diffusion, LogNormal, RefinerSettings
from engine.training.tasks.settings import (
    ImageEncoderSize,
    ReconstructorTask,
    TextEncoderSize,
    VaeTask,
    VideoMVNetworks,
    VideoMVTask,
)

WIDTH = 64
"""Of tokens and embeddings."""
CHANNELS = 8
"""Of the latents: twice Stable Diffusion's, since a small autoencoder packs less into each."""
WORDS = (
    "a an the of with and on in its small large old tall flat round low poly wooden metal stone glass plastic leather",
    "red green blue yellow orange brown black white grey golden pink purple dark light bright coloured striped",
    "car taxi truck bus train tank plane boat ship rocket bicycle wheel police sports racing tractor ambulance",
    "chair table sofa bed lamp desk shelf cabinet bench stool door window house tower castle bridge lighthouse",
    "cat dog horse cow pig sheep bird fish dinosaur dragon bear fox rabbit frog shark spider bee lion elephant",
    "tree bush flower plant cactus mushroom rock crystal mountain log fence barrel crate chest sword shield axe",
    "apple banana burger pizza cake bread cup mug bottle plate bowl knife fork can box bag book ball toy robot",
    "man woman character knight helmet hat boot gun camera phone computer screen guitar piano drum clock statue",
)
"""What the tokenizer learns its merges from."""
UNET: Mapping[str, Any] = {
    "sample_size": None,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "down_block_types": ("DownBlock3D", "CrossAttnDownBlock3D", "CrossAttnDownBlock3D"),
    "up_block_types": ("CrossAttnUpBlock3D", "CrossAttnUpBlock3D", "UpBlock3D"),
    "block_out_channels": (48, 96, 96),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 16,
    "temporal_in_heads": 2,
    "azimuth_harmonics": 12,
    "dropout": 0.0,
}
"""6.6 M parameters, 16 GFLOP for an orbit of 16 x 16 latents."""
VAE: Mapping[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (16, 32, 64, 128),
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "latent_channels": CHANNELS,
    "mid_block_add_attention": False,
}
"""2.6 M parameters. Without attention it takes pictures of any size. Few groups: a norm over two channels alone takes
away how bright they are."""
IMAGE_ENCODER = ImageEncoderSize(width=64, layers=2, head_width=16, size_px=64, patch_px=8, embedding=WIDTH)
NETWORKS = VideoMVNetworks(
    UNET, VAE, TextEncoderSize(width=WIDTH, layers=2, head_width=16, merges=400, corpus=WORDS), IMAGE_ENCODER
)
PICTURE_NETWORKS = replace(
    NETWORKS, unet={**UNET, "picture_copies": 1, "token_positions": True, "prior": (0.75, 0.5), "prior_pictures": 192}
)
"""In the channels that show, another view of the held-out orbits correlates with the first by 0.6 to 0.95."""
TEXT_NETWORKS = replace(NETWORKS, unet={**UNET, "prior": (0.0, 1.0), "prior_pictures": 192})
GAUSSIANS: Mapping[str, Any] = {
    "down_channels": (32, 64, 96, 128),
    "down_attention": (False, False, False, True),
    "up_channels": (128, 96, 64),
    "up_attention": (True, False, False),
    "layers_per_block": 1,
    "attention_heads": 4,
    "input_size": 128,
    "output_size": 128,
    "radius_m": None,
    "anchored": True,
}
"""4 views at 128 px to 16,384 Gaussians."""
VIDEO_UNET: Mapping[str, Any] = {
    "in_channels": 2 * CHANNELS,
    "out_channels": CHANNELS,
    "down_block_types": (
        "DownBlockSpatioTemporal",
        "CrossAttnDownBlockSpatioTemporal",
        "CrossAttnDownBlockSpatioTemporal",
    ),
    "up_block_types": ("CrossAttnUpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"),
    "block_out_channels": (32, 64, 64),
    "layers_per_block": 1,
    "cross_attention_dim": WIDTH,
    "num_attention_heads": (2, 4, 4),
    "projection_class_embeddings_input_dim": 512,
    "view_harmonics": 8,
    "prior": (0.75, 0.5),
    "prior_pictures": 192,
}
"""3.2 M parameters, and 2.1 M of the expectation. No aesthetic score."""
REFINER_UNET: Mapping[str, Any] = {
    **VIDEO_UNET,
    "in_channels": 2 * CHANNELS + 9,
    "down_block_types": (
        "DownBlockSpatioTemporal",
        "DownBlockSpatioTemporal",
        "CrossAttnDownBlockSpatioTemporal",
    ),
    "up_block_types": ("CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal", "UpBlockSpatioTemporal"),
    "block_out_channels": (32, 64, 64),
    "num_attention_heads": (2, 4, 4),
    "prior": (1.0, 0.1),
    "prior_pictures": 0,
    "prior_width": 64,
}
"""2.5 M parameters, 11 GFLOP at 32 x 32 latents. The first stage's views enlarged are what is expected: weights that
began from 0.95 of them and a variance of 0.3 made them worse (270 updates)."""
DEPTH: Mapping[str, Any] = {
    "is_hybrid": True,
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 192,
    "layer_norm_eps": 1e-6,
    "image_size": 96,
    "backbone_out_indices": (0, 1, 2, 3),
    "backbone_featmap_shape": (1, 128, 6, 6),
    "reassemble_factors": (1, 1, 1, 0.5),
    "neck_hidden_sizes": (32, 64, 48, 48),
    "fusion_hidden_size": 32,
    "backbone_config": {
        "model_type": "bit",
        "embedding_size": 16,
        "hidden_sizes": (32, 64, 128),
        "depths": (1, 1, 1),
        "layer_type": "bottleneck",
        "global_padding": "SAME",
        "embedding_dynamic_padding": True,
        "num_groups": 8,
        "out_features": ["stage1", "stage2", "stage3"],
    },
}

OURS = ("ours: sized for a CPU; what came of it stands in engine/checkpoints/mini/README.md",)
STEPS = Optimisation(
    steps=20_000,
    batch_size=4,
    learning_rate=1e-3,
    betas=(0.9, 0.99),
    weight_decay=0.01,
    schedule="cosine",
    warmup_steps=200,
    clip_norm=1.0,
    ema_decay=0.998,
    precision="no",
)
REGRESSION = replace(STEPS, batch_size=32, learning_rate=2e-3, weight_decay=0.05)
RING24 = DataPlan(size_px=128, roll=0.5, rebase=True, mirror=0.5, colour=0.5, variants=4)
TOLD24 = replace(RING24, rebase=False, colour=0.0, variants=2, caption="object")
RING16 = replace(RING24, orbit="ring16", views=16)
NOISE = Diffusion(
    LogNormal(3.0, 1.2), LogNormal(-4.0, 0.5), drop_tokens=0.0, drop_latents=0.0, visible=True, alike=True
)
"""The noise levels that the few steps go through, 5 to 80; less noise on the condition than the release. Nothing is dropped:
without its picture a clip errs so much more that a tenth of the clips would be most of the gradient, and these weights are
used without guidance."""
BASE = BaseSettings(MINI_HI3D, VIDEO_UNET, VAE, IMAGE_ENCODER, None, ("vae",), NOISE, train_image_encoder=True)

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "vae", "mini", "pictures to latents, f = 8, 8 channels",
        DataPlan(orbit="*", views=4, size_px=128, background="random", mirror=0.5, colour=0.5),
        replace(STEPS, steps=40_000, learning_rate=2e-3, weight_decay=0.0),
        OURS, VaeTask(VAE, error="l2", kl_weight=1e-6, crop_px=64, latent_scaling=1.0),
    ),
    Recipe(
        "videomv-image", "mini", "a picture to 24 views at 128 px", RING24, STEPS, OURS,
        VideoMVTask(
            MINI_PICTURE, PICTURE_NETWORKS, ("vae",), ("unet", "image_encoder"), late=0.5, visible=True, alike=True
        ),
    ),
    Recipe(
        "expectation-image", "mini", "what a picture lets expect of its 24 views: the denoiser works on from there",
        RING24, REGRESSION, OURS, VideoMVTask(MINI_PICTURE, PICTURE_NETWORKS, ("vae",), visible=True, alike=True),
    ),
    Recipe(
        "expectation-text", "mini", "what a sentence lets expect of 24 views, and the sentences' encoder",
        TOLD24, REGRESSION, OURS, VideoMVTask(MINI_TEXT, TEXT_NETWORKS, ("vae",), visible=True),
    ),
    Recipe(
        "videomv-text", "mini", "a sentence to 24 views at 128 px", TOLD24, STEPS, OURS,
        VideoMVTask(MINI_TEXT, TEXT_NETWORKS, ("vae", "text_encoder"), late=0.4, visible=True),
    ),
    Recipe(
        "reconstructor", "mini", "4 generated views at 128 px to 16,384 Gaussians", RING24,
        replace(STEPS, learning_rate=6e-4, weight_decay=0.05), OURS,
        ReconstructorTask(
            GAUSSIANS, ("unet", "vae"), generator=VideoMVTask(MINI_PICTURE, PICTURE_NETWORKS), guessed=0.75, supervised=8
        ),
    ),
    Recipe(
        "depth", "mini", "relative inverse depth of single views",
        DataPlan(orbit="*", views=2, size_px=128, background=(1.0, 1.0, 1.0), mirror=0.5, colour=0.5, depth=True),
        replace(STEPS, batch_size=8), OURS, DepthSettings(DEPTH),
    ),
    Recipe(
        "expectation-hi3d", "mini", "what a picture lets expect of its 16 views: the first stage works on from there",
        RING16, REGRESSION, OURS, BASE,
    ),
    Recipe("hi3d-base", "mini", "a picture to 16 views at 128 px", RING16, STEPS, OURS, BASE),
    Recipe(
        "hi3d-refiner", "mini", "16 views refined from 128 to 256 px", replace(RING16, size_px=256, roll=0.0, variants=2),
        STEPS, OURS,
        RefinerSettings(
            MINI_HI3D, REFINER_UNET, VAE, IMAGE_ENCODER, DEPTH, ("vae", "image_encoder", "depth"), NOISE,
            stage_one_share=1.0, lasting=True,
        ),
    ),
)  # fmt: skip
"""Rows of the table, see `table.py`."""
