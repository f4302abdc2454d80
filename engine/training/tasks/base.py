"""Hi3D's first stage learns orbits from pictures (section 4.2): Stable Video Diffusion fine-tuned over views."""

from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from engine.errors import TrainingError
from engine.multiview.hi3d_conditions import first_stage_conditions
from engine.multiview.networks.aesthetic import AestheticScorer
from engine.multiview.networks.orbit_video import SINUSOID_WIDTH, OrbitVideoUNet
from engine.multiview.settings import Hi3DSettings
from engine.training.tasks.components import Start, keep_expectation
from engine.training.tasks.hi3d_networks import check_widths, system_of, taken_image_encoder, taken_vae
from engine.training.tasks.hi3d_settings import BaseSettings
from engine.training.tasks.orbit_video import Hi3DStudent, Kept, OrbitVideoTask, elevations
from engine.training.types import Batch, Draws


class BaseTask(OrbitVideoTask):
    """The first view in, all views out."""

    network = "unet"

    def __init__(
        self,
        student: Hi3DStudent,
        frozen: Mapping[str, nn.Module],
        system: Hi3DSettings,
        settings: BaseSettings,
        latents: Path | None = None,
    ) -> None:
        """Join the networks; see OrbitVideoTask. frozen holds `aesthetic` where the U-Net is told a score."""
        super().__init__(student, frozen, system, settings, latents)
        self._scored_view = settings.scored_view

    def given(self, batch: Batch) -> Float[Tensor, "b *views 3 h w"]:
        """Return the clips' first views."""
        return batch.pixels[:, 0]

    def conditions(
        self,
        given: Float[Tensor, "b *views 3 h w"],
        batch: Batch,
        draws: Draws,
        augmentation: Float[Tensor, " b"],
        kept: Kept | None,
    ) -> dict[str, Tensor]:
        """Return what `Hi3DPipeline` tells its first stage of the batch's first views, dropped where `kept` says so."""
        told = first_stage_conditions(
            given, draws.normal(*given.shape[1:]), augmentation, views=batch.pixels.shape[1],
            elevation_deg=elevations(batch), aesthetic=self._scores(batch), codec=self.codec,
        )  # fmt: skip
        if kept is not None:
            told["concatenated"] = told["concatenated"] * kept.latents[:, :, None, None, None]
        return told | self._tokens(given, kept)

    @property
    def guidance(self) -> tuple[float, float]:
        """The first stage's."""
        return self.system.guidance

    def _scores(self, batch: Batch) -> Float[Tensor, " b"] | None:
        if "aesthetic" not in self.frozen:
            return None
        view = batch.pixels.shape[1] // 2 if self._scored_view == "middle" else 0
        return self.frozen["aesthetic"](batch.pixels[:, view]).float()


def build(start: Start) -> BaseTask:
    """Gather the networks; see `build.make_task`. Weights are Hi3D's, or Stable Video Diffusion's converted.

    Raises:
        TrainingError: components are missing or do not fit each other.
        CheckpointError: the weights do not load.
    """
    settings = start.plan(BaseSettings)
    unet = start.component("unet", "OrbitVideoUNet", lambda: OrbitVideoUNet(**settings.unet), settings.pretrained)
    encoder = taken_image_encoder(start, settings.image_encoder, settings.pretrained)
    frozen: dict[str, nn.Module] = {"vae": taken_vae(start, settings.vae, settings.pretrained)}
    if not settings.train_image_encoder:
        frozen["image_encoder"] = encoder
    if unet.config.projection_class_embeddings_input_dim == 3 * SINUSOID_WIDTH:
        frozen["aesthetic"] = _scorer(start, settings)
    check_widths(unet, frozen["vae"], encoder)
    if start.recipe.optimisation.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    student = Hi3DStudent(keep_expectation(unet), encoder if settings.train_image_encoder else None)
    return BaseTask(student, frozen, system_of(start, settings.system), settings, start.cache)


def _scorer(start: Start, settings: BaseSettings) -> AestheticScorer:
    arguments = settings.aesthetic
    if arguments is None:
        raise TrainingError(
            "unet: is told an aesthetic score, but the recipe has no scorer; take a U-Net whose vector holds "
            f"{2 * SINUSOID_WIDTH} numbers, or set the recipe's aesthetic"
        )
    return start.component("aesthetic", "AestheticScorer", lambda: AestheticScorer(**arguments), settings.pretrained)
