"""VideoMV's text-to-orbit U-Net: ModelScopeT2V and a camera for each view (VideoMV section 3.2, UNetSD_T2VBase).

Noisy latents, a time, text tokens and cameras in; the predicted noise (or v) out. A 2D picture is an orbit of one view
without a camera. `engine.checkpoints.keys_videomv` has the released names.
"""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.controlnets.controlnet import zero_module
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from jaxtyping import Float, Num
from torch import Tensor, nn

from engine.multiview.networks.cameras import CameraConditioned, CameraEmbedding, azimuth_of
from engine.multiview.networks.gradient_checkpoints import GradientCheckpoints
from engine.multiview.networks.prior import Expectation, signal_at, v_from_prior
from engine.multiview.networks.sinusoids import sinusoid
from engine.multiview.networks.trunk import (
    LAYERS,
    RELEASED_HEADS,
    check_latents,
    run_trunk,
    set_dropout,
    set_first_transformer,
)
from engine.multiview.networks.view_convolutions import use_view_convolutions

ATTENTION_DOWN, PLAIN_DOWN = "CrossAttnDownBlock3D", "DownBlock3D"
ATTENTION_UP, PLAIN_UP = "CrossAttnUpBlock3D", "UpBlock3D"


class TextOrbitUNet(CameraConditioned, GradientCheckpoints, UNet3DConditionModel):
    """The network; the defaults are the released size (1,412.9 M parameters)."""

    checkpointed = LAYERS

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = 32,
        in_channels: int = 4,
        out_channels: int = 4,
        down_block_types: Sequence[str] = (ATTENTION_DOWN, ATTENTION_DOWN, ATTENTION_DOWN, PLAIN_DOWN),
        up_block_types: Sequence[str] = (PLAIN_UP, ATTENTION_UP, ATTENTION_UP, ATTENTION_UP),
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        downsample_padding: int = 1,
        mid_block_scale_factor: float | int = 1,
        act_fn: str = "silu",
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int = 1024,
        attention_head_dim: int = 64,
        num_attention_heads: int | None = None,
        time_cond_proj_dim: int | None = None,
        temporal_in_heads: int = RELEASED_HEADS,
        camera_dim: int = 16,
        azimuth_harmonics: int = 0,
        dropout: float = 0.1,
        prior: Sequence[float] | None = None,
        prior_pictures: int = 0,
    ) -> None:
        """Build it with random weights, the camera embedding's last layer zero.

        Args: diffusers' UNet3DConditionModel's (attention_head_dim is the width of a head), and
            temporal_in_heads: heads of the first temporal transformer.
            camera_dim: numbers in a camera.
            azimuth_harmonics: so many of their azimuths are told with them, see `cameras.harmonics`; the release has none.
            dropout: share dropped while training, see `set_dropout`; the default is the release's.
            prior: predict what must be added to what the sentence lets expect, see `prior.Expectation`; it stands beside the
                noisy latents as well. For v on the schedule cosine_zero_snr.
            prior_pictures: that it learns.
        """
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            downsample_padding=downsample_padding,
            mid_block_scale_factor=mid_block_scale_factor,
            act_fn=act_fn,
            norm_num_groups=norm_num_groups,
            norm_eps=norm_eps,
            cross_attention_dim=cross_attention_dim,
            attention_head_dim=attention_head_dim,
            num_attention_heads=num_attention_heads,
            time_cond_proj_dim=time_cond_proj_dim,
        )
        set_first_transformer(self, temporal_in_heads)
        set_dropout(self, dropout)
        use_view_convolutions(self)
        self.camera_embedding = CameraEmbedding(camera_dim, 4 * block_out_channels[0], azimuth_harmonics)
        self.expectation: Expectation | None = None
        if prior is not None:
            zero_module(self.conv_out)
            self.conv_in = nn.Conv2d(2 * in_channels, block_out_channels[0], 3, padding=1)
            self.expectation = Expectation(in_channels, prior, pictures=prior_pictures, said=cross_attention_dim)

    def forward(
        self,
        latents: Float[Tensor, "b n c h w"],
        timestep: Num[Tensor, " b"],
        text: Float[Tensor, "b t d"],
        cameras: Float[Tensor, "b n camera"] | None = None,
    ) -> Float[Tensor, "b n c h w"]:
        """Predict the noise, or v, whichever the weights were trained for.

        Args:
            latents: noisy.
            timestep: 0 to 999.
            text: tokens of the sentence (77 of 1024 numbers).
            cameras: `to_videomv` of the views' poses; None for 2D pictures (one view).

        Raises:
            ValueError: channels, text width or cameras of another network.
        """
        check_latents(self, latents, text)
        objects, views = latents.shape[:2]
        time = self.time_embedding(sinusoid(timestep, self.config.block_out_channels[0]).to(latents.dtype))
        embedding = self.embed_views(time, cameras, views)
        context = text.repeat_interleave(views, dim=0)
        if self.expectation is None:
            return run_trunk(self, latents.flatten(0, 1), embedding, context, views).unflatten(0, (objects, views))
        azimuth = latents.new_zeros(objects, 1) if cameras is None else azimuth_of(cameras)
        expected, variance = self.expectation(azimuth, torch.zeros_like(latents), text)
        pictures = torch.cat([latents, expected], dim=2).flatten(0, 1)
        predicted = run_trunk(self, pictures, embedding, context, views).unflatten(0, (objects, views))
        return v_from_prior(latents, expected, predicted, signal_at(timestep), variance)
