"""videomv-text, videomv-image and videomv-2d-joint: a sentence or a picture to 24 views (VideoMV section 3.2).

Picture (I2VGen-XL's conditions): the first view's latents and its embedding are told, the text is empty. Where the recipe
drops conditions (I2VGen-XL's p_zero), embedding and text go together, as at inference; the latents stay.
Joint: 2D pictures come among the orbits, as orbits of one view without cameras.
"""

from dataclasses import replace

from engine.multiview.networks.latents import LatentCodec
from engine.multiview.settings import VideoMVSettings
from engine.training.latents import LatentCache
from engine.training.tasks.components import Start, videomv_components
from engine.training.tasks.diffusion import OrbitDiffusion
from engine.training.tasks.settings import VideoMVTask


def build(start: Start) -> OrbitDiffusion:
    """Build the task; see `build.make_task`.

    Raises:
        TrainingError: a component that must be pretrained is not given, or weights of another recipe.
        CheckpointError: weights that do not load.
    """
    plan = start.plan(VideoMVTask)
    plan = replace(plan, settings=with_scaling_of(start, plan.settings))
    components = videomv_components(start, plan.settings, plan.networks, plan.pretrained)
    codec = LatentCodec(components["vae"], plan.settings.latent_scaling)
    task = OrbitDiffusion(components, plan, LatentCache(codec, start.cache))
    # A step of 2D pictures leaves the cameras' layers without gradients.
    task.unused_parameters = start.recipe.data.picture_share > 0
    return task


def with_scaling_of(start: Start, settings: VideoMVSettings) -> VideoMVSettings:
    """Return the settings with the factor on latents that belongs to the given autoencoder, where it says one."""
    scaling = start.settings("vae").get("latent_scaling", settings.latent_scaling)
    return replace(settings, latent_scaling=float(scaling))
