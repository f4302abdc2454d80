"""vae: pictures to latents and back (Rombach et al. 2022, appendix G), without the adversarial term.

views [b n 3 h w], or squares of them --encoder--> mean, log variance --a draw--> decoder --> L1 or L2, LPIPS
                                                         \\--> KL to N(0, 1)
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from engine.checkpoints.layout import WeightsIndex
from engine.errors import TrainingError
from engine.evaluation.perceptual import Perceptual
from engine.training.tasks.components import Start, index_of
from engine.training.tasks.previews import at_rest, turntables
from engine.training.tasks.settings import VaeTask
from engine.training.tasks.vae_start import start_as_identity
from engine.training.types import Batch, Draws, Losses, seed_from

ERRORS = {"l1": functional.l1_loss, "l2": functional.mse_loss}


class VaeStudent(nn.Module):
    """An autoencoder with one forward through both halves."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(
        self, pictures: Float[Tensor, "b 3 h w"], noise: Float[Tensor, "b c p q"]
    ) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b c p q"], Float[Tensor, "b c p q"]]:
        """Return pictures after both halves, and mean and log variance of the latents; noise zero takes the mean."""
        posterior = self.vae.encode(pictures).latent_dist
        latents = posterior.mean + posterior.std * noise.to(posterior.mean)
        return self.vae.decode(latents).sample, posterior.mean, posterior.logvar

    def enable_gradient_checkpointing(self) -> None:
        """Save memory in the backward pass."""
        self.vae.enable_gradient_checkpointing()


class VaeLearning:
    """The task of the recipe `vae`."""

    unused_parameters = False

    def __init__(self, vae: AutoencoderKL, plan: VaeTask, perceptual: Perceptual | None = None) -> None:
        """Take the autoencoder, what its losses weigh, and LPIPS if it is to count."""
        self.plan = plan
        self.student: nn.Module = VaeStudent(vae.requires_grad_(True))
        if plan.learns == "decoder":
            vae.encoder.requires_grad_(False)
            vae.quant_conv.requires_grad_(False)
        self.frozen: Mapping[str, nn.Module] = {} if perceptual is None else {"perceptual": perceptual}
        self.latent_scaling = plan.latent_scaling
        """Factor that brings latents to unit variance, as last measured."""
        self._vae = vae

    def loss(self, student: nn.Module, batch: Batch, *, share: float) -> Losses:
        """Return the weighted sum over all views."""
        crop = self.plan.crop_px if student.training else None
        pictures = batch.pixels.flatten(0, 1) if crop is None else crops(batch, crop)
        made, mean, log_variance = student(pictures, self._noise(batch, crop))
        made, mean, log_variance = made.float(), mean.float(), log_variance.float()
        parts = {"error": ERRORS[self.plan.error](made, pictures)}
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)
        parts["kl"] = divergence.sum() / pictures.numel()
        total = parts["error"] + self.plan.kl_weight * parts["kl"]
        if "perceptual" in self.frozen:
            parts["perceptual"] = self.frozen["perceptual"](made, pictures).mean()
            total = total + self.plan.perceptual_weight * parts["perceptual"]
        return Losses(total, {"loss": total.detach(), **{name: value.detach() for name, value in parts.items()}})

    def measure(self, student: nn.Module, batch: Batch) -> Mapping[str, float]:
        """Return the loss, the pictures' PSNR from the posterior's mean, and what brings latents to unit variance."""
        with at_rest(student):
            losses = self.loss(student, batch, share=1.0)
            pictures = batch.pixels.flatten(0, 1)
            made, mean, _ = student(pictures, torch.zeros_like(self._noise(batch)))
            error = ((made.float().clamp(-1, 1) - pictures) / 2).square().mean((1, 2, 3))
            self.latent_scaling = float(1 / mean.float().std().clamp_min(1e-6))
        psnr_db = float((-10 * error.clamp_min(1e-10).log10()).mean())
        measured = {name: float(value) for name, value in losses.parts.items()}
        return {**measured, "psnr_db": psnr_db, "latent_scaling": self.latent_scaling}

    def preview(self, student: nn.Module, batch: Batch) -> Mapping[str, UInt8[np.ndarray, "n h w 3"]]:
        """Send all views through both halves; one film."""
        with at_rest(student):
            made, _, _ = student(batch.pixels.flatten(0, 1), torch.zeros_like(self._noise(batch)))
        return {"turntable": turntables(batch.pixels, made.unflatten(0, batch.pixels.shape[:2]))}

    def components(self) -> Mapping[str, Any]:
        """Return the autoencoder."""
        return {"vae": self._vae}

    def index(self) -> WeightsIndex:
        """Return what is written beside it; tasks that start from it take its scaling of latents."""
        return index_of("vae", self.components(), {"latent_scaling": self.latent_scaling})

    def _noise(self, batch: Batch, crop: int | None = None) -> Float[Tensor, "bn c p q"]:
        config, (views, _, height, width) = self._vae.config, batch.pixels.shape[1:]
        factor = 2 ** (len(config.block_out_channels) - 1)
        drawn = Draws(batch.seeds, batch.pixels.device).normal(
            views, config.latent_channels, (crop or height) // factor, (crop or width) // factor
        )
        return drawn.flatten(0, 1)


def crops(batch: Batch, side: int) -> Float[Tensor, "bn 3 side side"]:
    """Cut a square out of every view that holds a pixel of the object, drawn from its clip's seed.

    Objects cover little of their views: an autoencoder that sees mostly white learns white and greys first.
    """
    views, (height, width) = batch.pixels.shape[1], batch.pixels.shape[-2:]
    drawn = Draws([seed_from(seed, "crop") for seed in batch.seeds]).uniform(views, 3)
    cut = []
    for pixels, alpha, (which, down, right) in zip(
        batch.pixels.flatten(0, 1), batch.alpha.flatten(0, 1), drawn.flatten(0, 1).tolist(), strict=True
    ):
        rows, columns = alpha[0].nonzero(as_tuple=True)
        pick = int(which * len(rows))
        row, column = (int(rows[pick]), int(columns[pick])) if len(rows) else (height // 2, width // 2)
        top = min(max(row - int(down * side), 0), height - side)
        left = min(max(column - int(right * side), 0), width - side)
        cut.append(pixels[:, top : top + side, left : left + side])
    return torch.stack(cut)


def build(start: Start) -> VaeLearning:
    """Build the task; see `build.make_task`. Raises TrainingError for squares that do not fit the views, among others."""
    plan, side = start.plan(VaeTask), start.recipe.data.size_px
    if plan.crop_px is not None and plan.crop_px > side:
        raise TrainingError(
            f"vae: squares of {plan.crop_px} px do not fit views of {side}; pass --size-px {plan.crop_px}"
        )
    vae = start.component(
        "vae", "AutoencoderKL", lambda: start_as_identity(AutoencoderKL(**plan.network)), plan.pretrained
    )
    return VaeLearning(vae, plan, start.lpips())
