"""Named ways to generate: which system, which weights, how the result is reconstructed. Plain data, quick to import."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.errors import TurntableError
from engine.multiview.orbits import KnownViews
from engine.multiview.settings import (
    MINI_HI3D,
    MINI_PICTURE,
    MINI_TEXT,
    VIDEOMV_PICTURE,
    VIDEOMV_TEXT,
    Hi3DSettings,
    VideoMVSettings,
)

Source = Literal["picture", "text"]
System = Literal["videomv", "hi3d"]


@dataclass(frozen=True)
class Effort:
    """How much work goes into splats and mesh; small pictures deserve less."""

    iterations: int = 800
    """Steps of the splats' fit."""
    max_gaussians: int = 60_000
    """Largest number of splats."""
    sh_degree: int = 2
    """View-dependent colour of the splats: 0 (none) to 3."""
    hull_cells: int = 96
    """Grid cells a side of the visual hull that the fit starts from."""
    resolution: int = 224
    """Voxels along the mesh's longest side."""
    faces: int = 24_000
    """Triangles of the mesh, about."""
    surface: Literal["splats", "outlines"] = "splats"
    """What shows the mesh's, see `meshing.settings.Surface`; views that a small network guessed do not agree about depth."""
    free_views: int = 2
    """Likewise."""
    smoothing_steps: int = 6
    """Taubin steps of the mesh."""
    texture_size: int = 1024
    """Side of the texture in pixels."""
    turntable_frames: int = 96
    """Frames of turntable.mp4."""


@dataclass(frozen=True)
class Preset:
    """One row of `turntable generate --preset`."""

    name: str
    """As it is typed."""
    summary: str
    """One line for --help and errors."""
    system: System
    """Which of the two systems runs."""
    settings: Mapping[Source, VideoMVSettings | Hi3DSettings]
    """What it can start from, and what its weights were trained for; weights that say otherwise are believed."""
    weights: Literal["given", "bundled", "random"]
    """given: --weights names them; bundled: they come with Turntable; random: made up from the seed 0, for tests."""
    effort: Effort = field(default_factory=Effort)
    """Splats and mesh."""
    bundled: Mapping[Source, str] = field(default_factory=dict)
    """Folder of its own weights for each source, below engine/checkpoints/mini."""


MINI_EFFORT = Effort(
    iterations=400, max_gaussians=20_000, sh_degree=1, hull_cells=64, resolution=128, faces=10_000,
    surface="outlines", free_views=2, smoothing_steps=20, texture_size=512, turntable_frames=48,
)  # fmt: skip
"""Against the true meshes of 12 held-out objects the hull of the outlines has an F-score of 0.32 and a Chamfer distance of
0.034, the splats' depth 0.26 and 0.032, torn into flakes where views contradict each other."""
TINY_VIEWS = KnownViews((24,), 39.6, 2.0, (1.5, 2.5), 15.0, (-30.0, 60.0))
TINY_EFFORT = Effort(
    iterations=40, max_gaussians=4000, sh_degree=0, hull_cells=32, resolution=32, faces=1000, texture_size=128,
    turntable_frames=24,
)  # fmt: skip

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "videomv-text",
            "VideoMV from a sentence: 24 views at 256 px, ModelScopeT2V's size",
            "videomv",
            {"text": VIDEOMV_TEXT},
            "given",
        ),
        Preset(
            "videomv-image",
            "VideoMV from a picture: 24 views at 256 px, I2VGen-XL's size",
            "videomv",
            {"picture": VIDEOMV_PICTURE},
            "given",
        ),
        Preset(
            "hi3d",
            "Hi3D from a picture: 16 views at 512 px, refined to 1024, Stable Video Diffusion's size",
            "hi3d",
            {"picture": Hi3DSettings()},
            "given",
        ),
        Preset(
            "mini",
            "VideoMV's classes, small, with weights of our own: 24 views at 128 px, on a CPU",
            "videomv",
            {"picture": MINI_PICTURE, "text": MINI_TEXT},
            "bundled",
            MINI_EFFORT,
            {"picture": "videomv-image", "text": "videomv-text"},
        ),
        Preset(
            "mini-hi3d",
            "Hi3D's classes, small, with weights of our own: 16 views at 128 px, refined to 256, on a CPU",
            "hi3d",
            {"picture": MINI_HI3D},
            "bundled",
            MINI_EFFORT,
            {"picture": "hi3d"},
        ),
        Preset(
            "tiny",
            "VideoMV's classes with small random weights: noise, for tests",
            "videomv",
            {
                "text": VideoMVSettings(views=TINY_VIEWS, size_px=32, steps=5, background=1.0, guidance_scale=3.0),
                "picture": VideoMVSettings(
                    kind="picture", views=TINY_VIEWS, size_px=32, steps=5, background=1.0, guidance_scale=3.0,
                    schedule="cosine_zero_snr", prompt_suffix="", refinement_background=1.0,
                ),
            },
            "random",
            TINY_EFFORT,
        ),
        Preset(
            "tiny-hi3d",
            "Hi3D's classes with small random weights: noise, for tests",
            "hi3d",
            {"picture": Hi3DSettings(size_px=64, refined_px=128, steps=3)},
            "random",
            TINY_EFFORT,
        ),
    )
}  # fmt: skip
"""By name."""


def preset_named(name: str) -> Preset:
    """Return a preset. Raises TurntableError, listing them, if there is none of that name."""
    if name not in PRESETS:
        known = "; ".join(f"{preset.name} ({preset.summary})" for preset in PRESETS.values())
        raise TurntableError(f"--preset {name}: there is none of that name; take one of {known}")
    return PRESETS[name]


def settings_for(preset: Preset, source: Source) -> VideoMVSettings | Hi3DSettings:
    """Return what a preset does from a picture or a sentence; raises TurntableError if it does not take it."""
    if source not in preset.settings:
        flag, other = ("--image", "--text") if source == "picture" else ("--text", "--image")
        fits = [p.name for p in PRESETS.values() if source in p.settings]
        painting = ", or add --text-to-image MODEL, which paints the picture first" if source == "text" else ""
        raise TurntableError(
            f"--preset {preset.name} takes {other}, got {flag}; presets that take {flag}: {', '.join(fits)}{painting}"
        )
    return preset.settings[source]
