"""Hi3D's U-Net: Stable Video Diffusion's, told an elevation instead of a frame rate and a motion.

noisy latents + latents (and depth) of the input on channels --U-Net--> v
       c_noise and a vector (aesthetic, elevation, noise augmentation) into every block
       the input picture's CLIP embedding into every cross-attention

Stage 1 concatenates 4 channels (the input picture's latents), stage 2 concatenates 13 (depth 9, low-resolution 4).
"""

import math
from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.controlnets.controlnet import zero_module
from diffusers.models.resnet import SpatioTemporalResBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from engine.multiview.networks.cameras import harmonics
from engine.multiview.networks.gradient_checkpoints import GradientCheckpoints
from engine.multiview.networks.prior import Expectation, v_from_prior
from engine.multiview.networks.sinusoids import sinusoid
from engine.multiview.networks.view_convolutions import use_view_convolutions

NORM_EPSILON = 1e-5
"""Of every group norm in a residual block, as trained; diffusers has 1e-6 in some."""
SINUSOID_WIDTH = 256
"""Numbers that each of elevation, noise augmentation and aesthetic score becomes."""


class OrbitVideoUNet(GradientCheckpoints, UNetSpatioTemporalConditionModel):
    """A video U-Net over the views of an orbit. The defaults are Hi3D's stage 1."""

    # diffusers' own checkpoints leave out the attention over views and keep three times as much.
    checkpointed: ClassVar[tuple[type[nn.Module], ...]] = (SpatioTemporalResBlock, TransformerSpatioTemporalModel)

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 8,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] | list[str] = (
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "DownBlockSpatioTemporal",
        ),
        up_block_types: tuple[str, ...] | list[str] = (
            "UpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
        ),
        block_out_channels: tuple[int, ...] | list[int] = (320, 640, 1280, 1280),
        addition_time_embed_dim: int = SINUSOID_WIDTH,
        projection_class_embeddings_input_dim: int = 3 * SINUSOID_WIDTH,
        layers_per_block: int | tuple[int, ...] | list[int] = 2,
        cross_attention_dim: int | tuple[int, ...] | list[int] = 1024,
        transformer_layers_per_block: int | tuple[int, ...] | list[int] = 1,
        num_attention_heads: int | tuple[int, ...] | list[int] = (5, 10, 20, 20),
        num_frames: int = 16,
        view_harmonics: int = 0,
        prior: Sequence[float] | None = None,
        prior_pictures: int = 0,
        prior_width: int = 512,
    ) -> None:
        """Build it; the arguments are diffusers' (`projection_class_embeddings_input_dim` is the vector's length), and
        view_harmonics: so many of each view's place on the ring are told with the time, see `cameras.harmonics`; the release
            tells places in its attention alone.
        prior: predict what must be added to what the condition lets expect, see `prior.Expectation` for the two numbers
            with which that begins; it is told behind the condition as well. None: v itself, as the release.
        prior_pictures: that it learns.
        prior_width: of its layers.
        """
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            addition_time_embed_dim=addition_time_embed_dim,
            projection_class_embeddings_input_dim=projection_class_embeddings_input_dim,
            layers_per_block=layers_per_block,
            cross_attention_dim=cross_attention_dim,
            transformer_layers_per_block=transformer_layers_per_block,
            num_attention_heads=num_attention_heads,
            num_frames=num_frames,
        )
        use_view_convolutions(self)
        width = 4 * block_out_channels[0]
        self.view_embedding = zero_module(nn.Linear(2 * view_harmonics, width)) if view_harmonics else None
        self.expectation: Expectation | None = None
        if prior is not None:
            zero_module(self.conv_out)
            self.expectation = Expectation(out_channels, prior, pictures=prior_pictures, width=prior_width)
            self.conv_in = nn.Conv2d(in_channels + out_channels, block_out_channels[0], 3, padding=1)
        for module in self.modules():
            if isinstance(module, SpatioTemporalResBlock):
                _set_epsilon(module)

    def forward(
        self,
        latents: Float[Tensor, "b n c h w"],
        timestep: Float[Tensor, " b"] | Float[Tensor, "b n"],
        tokens: Float[Tensor, "b t d"],
        concatenated: Float[Tensor, "b n k h w"],
        vector: Float[Tensor, "b a"],
    ) -> Float[Tensor, "b n o h w"]:
        """Predict v.

        Args:
            latents: noisy, already scaled by c_in.
            timestep: c_noise, one for all views of an object or one for each.
            tokens: of the input picture, for cross-attention; zeros in the unconditional branch.
            concatenated: latents of the condition, after the noisy ones on the channels; in stage 2 depth, then latents.
            vector: see `conditioning_vector`.
        """
        batch, views = latents.shape[:2]
        embedded = self._embedded(timestep, vector, latents)
        told = {"encoder_hidden_states": tokens.repeat_interleave(views, dim=0)}
        moving = {"temb": embedded, "image_only_indicator": latents.new_zeros(batch, views)}  # all are views
        seen = [latents, concatenated]
        if self.expectation is not None:
            expected, variance = self.expectation(_places(latents), concatenated[:, :, -latents.shape[2] :])
            seen.append(expected)
        hidden = self.conv_in(torch.cat(seen, dim=2).flatten(0, 1))
        skips: list[Tensor] = [hidden]
        for block in self.down_blocks:
            hidden, kept = block(hidden_states=hidden, **moving, **(told if _attends(block) else {}))
            skips.extend(kept)
        hidden = self.mid_block(hidden_states=hidden, **moving, **told)
        for block in self.up_blocks:
            count = len(block.resnets)
            skips, kept = skips[:-count], tuple(skips[-count:])
            size = skips[-1].shape[-2:] if skips else None  # of the next level; odd ones are not twice this one's
            hidden = block(
                hidden_states=hidden,
                res_hidden_states_tuple=kept,
                upsample_size=size,
                **moving,
                **(told if _attends(block) else {}),
            )
        predicted = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        predicted = predicted.unflatten(0, (batch, views))
        if self.expectation is None:
            return cast(Tensor, predicted)
        sigma = (4 * timestep.float()).exp()  # c_noise is a quarter of its logarithm
        return v_from_prior(latents, expected, predicted, (1 + sigma**2).rsqrt(), variance)

    def _embedded(self, timestep: Tensor, vector: Tensor, latents: Tensor) -> Tensor:
        """Return the embedding of time and vector for every view, [b * n, d]."""
        views = latents.shape[1]
        times = timestep if timestep.ndim == 2 else timestep[:, None].expand(-1, views)
        time = self.time_embedding(self.time_proj(times.flatten()).to(latents.dtype))
        embedded = time + self.add_embedding(vector.to(latents.dtype)).repeat_interleave(views, dim=0)
        if self.view_embedding is None:
            return embedded
        places = self.view_embedding(harmonics(_places(latents), self.config.view_harmonics).to(latents.dtype))
        return embedded + places.flatten(0, 1)


def conditioning_vector(
    elevation_deg: Float[Tensor, " b"],
    noise_augmentation: Float[Tensor, " b"],
    aesthetic: Float[Tensor, " b"] | None = None,
) -> Float[Tensor, "b a"]:
    """Return what the U-Net is told besides pictures: sinusoids of aesthetic (stage 1 alone), elevation, augmentation.

    Args:
        elevation_deg: of the input picture's camera, degrees above the horizon.
        noise_augmentation: standard deviation of the noise that was added to the input picture in [-1, 1].
        aesthetic: LAION's score, about 1 to 10; None for stage 2, which knows none.

    Returns:
        256 numbers for each of them, in that order: 768 in stage 1, 512 in stage 2.
    """
    blocks = [sinusoid(value, SINUSOID_WIDTH) for value in (elevation_deg, noise_augmentation)]
    if aesthetic is not None:
        # The score itself takes the first place; 255 is odd, so that the sinusoid ends in a zero.
        blocks.insert(0, torch.cat([aesthetic[:, None], sinusoid(aesthetic * 100, SINUSOID_WIDTH - 1)], dim=1))
    return torch.cat(blocks, dim=1)


def _set_epsilon(block: SpatioTemporalResBlock) -> None:
    for part in (block.spatial_res_block, block.temporal_res_block):
        part.norm1.eps = part.norm2.eps = NORM_EPSILON


def _places(latents: Float[Tensor, "b n c h w"]) -> Float[Tensor, "b n"]:
    """Azimuths of a ring's views, radians, the first being 0."""
    batch, views = latents.shape[:2]
    return (torch.arange(views, device=latents.device) * (2 * math.pi / views)).expand(batch, -1)


def _attends(block: nn.Module) -> bool:
    return bool(getattr(block, "has_cross_attention", False))
