"""expectation-image, expectation-text, expectation-hi3d: what the denoiser works on from, learned before it.

    first view --VAE--> latents ----\\
                                     Expectation--> expected latents <--weighted error--> latents of all views
    caption --text encoder--> tokens /         \\--> variance <--likelihood--> squared error

It is a regression without noise or time, a four-hundredth of a denoising step's arithmetic; see
`networks.prior.Expectation`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from engine.checkpoints.layout import WeightsIndex, plain
from engine.errors import TrainingError
from engine.multiview.conditions import cameras_told
from engine.multiview.networks.cameras import azimuth_of
from engine.multiview.networks.encoders import TextEncoder
from engine.multiview.networks.latents import LatentCodec
from engine.multiview.networks.orbit_video import OrbitVideoUNet
from engine.multiview.networks.prior import Expectation
from engine.multiview.settings import Hi3DSettings, VideoMVSettings
from engine.training.latents import LatentCache
from engine.training.tasks.components import Start, index_of, videomv_components
from engine.training.tasks.hi3d_networks import system_of, taken_vae
from engine.training.tasks.hi3d_settings import BaseSettings
from engine.training.tasks.previews import at_rest, turntables
from engine.training.tasks.settings import VideoMVTask
from engine.training.tasks.videomv import with_scaling_of
from engine.training.tasks.weighing import weighed
from engine.training.types import Batch, Draws, Losses

LIKELIHOOD_WEIGHT = 0.1
"""Of the likelihood of the errors, from which the variance is learned; the expectation itself does not feel it."""


class ExpectationStudent(nn.Module):
    """What learns: an expectation, and the text encoder where sentences are the condition."""

    def __init__(self, expectation: Expectation, text_encoder: TextEncoder | None = None) -> None:
        super().__init__()
        self.expectation = expectation
        self.text_encoder = text_encoder

    def forward(
        self,
        azimuth: Float[Tensor, "b n"],
        given: Float[Tensor, "b 1 c h w"],
        ids: Int[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b n c h w"], Float[Tensor, "b n"]]:
        """Return expected latents and the variance of their error; see `Expectation`. ids: of the sentences."""
        text = None if self.text_encoder is None else self.text_encoder(ids)
        return self.expectation(azimuth, given, text)


@dataclass(frozen=True)
class Rule:
    """What the recipe of the denoiser says that counts for its expectation as well."""

    settings: VideoMVSettings | Hi3DSettings
    """What the denoiser's weights are trained for."""
    visible: bool
    """See `weighing.weighed`."""
    alike: bool
    """Likewise."""
    drop: float
    """Share of the sentences that become the negative one; a picture is always told (as in I2VGen-XL)."""

    @property
    def kind(self) -> Literal["text", "picture"]:
        """Of the condition."""
        return "picture" if isinstance(self.settings, Hi3DSettings) else self.settings.kind

    @property
    def system(self) -> Literal["videomv", "hi3d"]:
        """Whose denoiser."""
        return "hi3d" if isinstance(self.settings, Hi3DSettings) else "videomv"


class ExpectationLearning:
    """The task of all three recipes."""

    unused_parameters = False

    def __init__(self, components: Mapping[str, Any], rule: Rule, latents: LatentCache) -> None:
        """Take the network whose expectation learns; the rest of it stays as it is.

        Args:
            components: unet, vae, and text_encoder where sentences are the condition.
            rule: how it learns.
            latents: gives the clean latents.

        Raises:
            TrainingError: the U-Net expects nothing.
        """
        unet = components["unet"]
        if unet.expectation is None:
            raise TrainingError("the U-Net has no prior to learn; set its `prior`, or train it without this recipe")
        self.unet, self.rule, self.latents = unet.requires_grad_(False), rule, latents
        self.text_encoder: TextEncoder | None = components.get("text_encoder")
        student = ExpectationStudent(unet.expectation, self.text_encoder).requires_grad_(True)
        self.student: nn.Module = student
        self.frozen: Mapping[str, nn.Module] = {"vae": components["vae"].eval().requires_grad_(False)}

    def loss(self, student: nn.Module, batch: Batch, *, share: float) -> Losses:
        """Return the squared error of the expected latents, and what the variance lacks."""
        return self._loss(student, batch, self.rule.drop)

    def measure(self, student: nn.Module, batch: Batch) -> Mapping[str, float]:
        """Return the error, and the PSNR of the decoded views but a given one."""
        with at_rest(student):
            losses = self._loss(student, batch, drop=0.0)
            unknown = slice(1 if self.text_encoder is None else 0, None)
            made = self._made(student, batch)[:, unknown].clamp(-1, 1)
            error = ((made - batch.pixels[:, unknown]) / 2).square().mean((2, 3, 4))
        psnr_db = float((-10 * error.clamp_min(1e-10).log10()).mean())
        return {**{name: float(value) for name, value in losses.parts.items()}, "psnr_db": psnr_db}

    def preview(self, student: nn.Module, batch: Batch) -> Mapping[str, UInt8[np.ndarray, "n h w 3"]]:
        """Show the true views and the expected ones; one film."""
        with at_rest(student):
            return {"turntable": turntables(batch.pixels, self._made(student, batch))}

    def components(self) -> Mapping[str, Any]:
        """Return the network that the expectation is a part of, and the text encoder where it learned as well."""
        return {"unet": self.unet} | ({} if self.text_encoder is None else {"text_encoder": self.text_encoder})

    def index(self) -> WeightsIndex:
        """Return what is written beside them."""
        return index_of(self.rule.system, {**self.components(), **self.frozen}, plain(self.rule.settings))

    def _loss(self, student: nn.Module, batch: Batch, drop: float) -> Losses:
        draws = Draws(batch.seeds, batch.pixels.device)
        x0 = self.latents.sampled(batch, draws)
        dropped = (draws.uniform() < drop).tolist()
        expected, variance = student(self._azimuth(batch), *self._condition(batch, x0[:, :1], dropped))
        error = (expected.float() - x0).square()
        wrong = weighed(error, x0, self.latents, visible=self.rule.visible, alike=self.rule.alike).mean()
        found = error.detach().mean((2, 3, 4))
        likelihood = 0.5 * (found / variance + variance.log()).mean()
        return Losses(wrong + LIKELIHOOD_WEIGHT * likelihood, {"loss": wrong.detach(), "nll": likelihood.detach()})

    def _condition(
        self, batch: Batch, first: Float[Tensor, "b 1 c h w"], dropped: list[bool]
    ) -> tuple[Float[Tensor, "b 1 c h w"], Int[Tensor, "b t"] | None]:
        """Return what the network is told of the first view's scaled latents, or of a sentence, which may be dropped."""
        if isinstance(self.rule.settings, Hi3DSettings):
            return first / self.latents.codec.scaling, None
        if self.text_encoder is None:
            return first, None
        negative = self.rule.settings.negative_prompt
        said = [negative if lost else caption for lost, caption in zip(dropped, batch.captions, strict=True)]
        return torch.zeros_like(first), self.text_encoder.tokens(said).to(first.device)

    def _made(self, student: nn.Module, batch: Batch) -> Float[Tensor, "b n 3 h w"]:
        first = self.latents.codec.encode(batch.pixels[:, :1])
        told = self._condition(batch, first, [False] * len(batch))
        return self.latents.codec.decode(student(self._azimuth(batch), *told)[0]).float()

    def _azimuth(self, batch: Batch) -> Float[Tensor, "b n"]:
        if batch.orbits is None:
            raise TrainingError(f"{batch.uids[0]}: is a 2D picture, an expectation is of orbits; leave --pictures")
        return azimuth_of(cameras_told(batch.orbits, self.rule.kind, batch.pixels.device))


def build(start: Start) -> ExpectationLearning:
    """Build the task; see `build.make_task`.

    Raises:
        TrainingError: a component that must be pretrained is not given, or a U-Net without a prior.
        CheckpointError: weights that do not load.
    """
    if isinstance(start.recipe.task, BaseSettings):
        return _of_hi3d(start, start.recipe.task)
    plan = start.plan(VideoMVTask)
    settings = with_scaling_of(start, plan.settings)
    told = ("text_encoder",) if settings.kind == "text" else ()
    components = videomv_components(start, settings, plan.networks, plan.pretrained, ("unet", "vae", *told))
    rule = Rule(settings, plan.visible, plan.alike, plan.drop)
    return _learning(start, components, rule)


def _of_hi3d(start: Start, plan: BaseSettings) -> ExpectationLearning:
    unet = start.component("unet", "OrbitVideoUNet", lambda: OrbitVideoUNet(**plan.unet), plan.pretrained)
    components = {"unet": unet, "vae": taken_vae(start, plan.vae, plan.pretrained)}
    rule = Rule(system_of(start, plan.system), plan.diffusion.visible, plan.diffusion.alike, drop=0.0)
    return _learning(start, components, rule)


def _learning(start: Start, components: Mapping[str, Any], rule: Rule) -> ExpectationLearning:
    codec = LatentCodec(components["vae"], rule.settings.latent_scaling)
    return ExpectationLearning(components, rule, LatentCache(codec, start.cache))
