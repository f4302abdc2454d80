"""videomv-text: a sentence to 24 views (VideoMV section 3.2). Also what videomv-image and videomv-2d-joint are built by."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from engine.errors import TrainingError
from engine.multiview.networks.latents import LatentCodec
from engine.multiview.settings import VideoMVSettings
from engine.training.latents import LatentCache
from engine.training.plans import Recipe
from engine.training.tasks.components import Start, videomv_components
from engine.training.tasks.diffusion import OrbitDiffusion
from engine.training.tasks.settings import VideoMVTask


def build(
    recipe: Recipe,
    weights: Path | None = None,
    *,
    parts: Mapping[str, Path] | None = None,
    cache: Path | None = None,
    fresh: bool = False,
    seed: int = 0,
) -> OrbitDiffusion:
    """Build the task; see `build.make_task` for the arguments.

    Raises:
        TrainingError: a component that must be pretrained is not given, or weights of another recipe.
        CheckpointError: weights that do not load.
    """
    plan = recipe.task
    if not isinstance(plan, VideoMVTask):
        raise TrainingError(f"{recipe.name}: its task settings must be a VideoMVTask, found {type(plan).__name__}")
    start = Start(recipe, weights, parts, fresh, seed)
    plan = replace(plan, settings=with_scaling_of(start, plan.settings))
    components = videomv_components(start, plan.settings, plan.networks, plan.pretrained)
    codec = LatentCodec(components["vae"], plan.settings.latent_scaling)
    return OrbitDiffusion(components, plan, LatentCache(codec, cache))


def with_scaling_of(start: Start, settings: VideoMVSettings) -> VideoMVSettings:
    """Return the settings with the factor on latents that belongs to the given autoencoder, where it says one."""
    scaling = start.settings("vae").get("latent_scaling", settings.latent_scaling)
    return replace(settings, latent_scaling=float(scaling))
