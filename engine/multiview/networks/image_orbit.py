"""VideoMV's image-to-orbit U-Net: I2VGen-XL and a camera for each view (VideoMV section 3.2, UNetSD_I2VGen).

The picture enters three times: its latents beside the noisy ones, its latents as 64 tokens, its CLIP embedding as 4.

    text 77 tokens -------------------------------\
    image_latents -> local_tokens (64) ------------+-> context of cross-attention, in this order
    image_embedding -> picture_tokens (4) --------/
    image_latents, planes 1/(n-1) ... 1 -> view_maps -> x image_latents_gain -> beside the noisy latents
"""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.controlnets.controlnet import zero_module
from diffusers.models.unets.unet_i2vgen_xl import I2VGenXLUNet
from jaxtyping import Float, Num
from torch import Tensor, nn

from engine.multiview.networks.cameras import CameraConditioned, CameraEmbedding, azimuth_of
from engine.multiview.networks.gradient_checkpoints import GradientCheckpoints
from engine.multiview.networks.prior import Expectation, signal_at, v_from_prior
from engine.multiview.networks.sinusoids import sinusoid
from engine.multiview.networks.text_orbit import ATTENTION_DOWN, ATTENTION_UP, PLAIN_DOWN, PLAIN_UP
from engine.multiview.networks.trunk import (
    LAYERS,
    RELEASED_HEADS,
    check_latents,
    run_trunk,
    set_dropout,
    set_first_transformer,
)
from engine.multiview.networks.view_convolutions import use_view_convolutions

RELEASED_FPS = 8
"""Frames per second that VideoMV always gives."""
LOCAL_TOKENS = 64
"""Of the picture's latents, 8 rows of 8."""
RELEASED_CHANNELS = 4
"""Of Stable Diffusion's latents."""
RELEASED_GAIN = 2.0
"""I2VGen-XL's own code adds the picture's maps twice ("this is a bug, but it doesn't matter") and was trained so, and so
was VideoMV. diffusers' I2VGenXLUNet adds them once, and its conversion of the weights copies them unchanged (nothing
is folded into a convolution): base weights in diffusers' form want the factor as well."""


class ImageOrbitUNet(CameraConditioned, GradientCheckpoints, I2VGenXLUNet):
    """The network; the defaults are the released size (1,422.1 M parameters)."""

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
        norm_num_groups: int = 32,
        cross_attention_dim: int = 1024,
        attention_head_dim: int = 64,
        num_attention_heads: int | None = None,
        temporal_in_heads: int = RELEASED_HEADS,
        camera_dim: int = 16,
        azimuth_harmonics: int = 0,
        dropout: float = 0.1,
        fps: float | int = RELEASED_FPS,
        image_latents_gain: float | int = RELEASED_GAIN,
        picture_copies: int = 0,
        token_positions: bool = False,
        prior: Sequence[float] | None = None,
        prior_pictures: int = 0,
    ) -> None:
        """Build it with random weights, the camera embedding's last layer zero.

        Args: diffusers' I2VGenXLUNet's (attention_head_dim is the width of a head), and
            temporal_in_heads: heads of the first temporal transformer.
            camera_dim: numbers in a camera.
            azimuth_harmonics: so many of their azimuths are told with them, see `cameras.harmonics`; the release has none.
            dropout: share dropped while training, see `set_dropout`; the default is the release's.
            fps: frames per second, embedded as the time is.
            image_latents_gain: factor on the picture's maps beside the noisy latents.
            picture_copies: what of the picture stands beside every view as it is: 0 nothing (the release), 1 its
                latents, 2 also their mirror image, which is the outline from behind. Small networks that start from
                nothing learn faster with them: they begin by copying.
            token_positions: learn where each of the picture's 64 tokens lies (the release tells by padding alone).
            prior: predict what must be added to what the picture lets expect, see `prior.Expectation` for the two numbers
                with which that begins; it stands beside the noisy latents as well. For v on the schedule cosine_zero_snr.
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
            norm_num_groups=norm_num_groups,
            cross_attention_dim=cross_attention_dim,
            attention_head_dim=attention_head_dim,
            num_attention_heads=num_attention_heads,
        )
        set_first_transformer(self, temporal_in_heads)
        set_dropout(self, dropout)
        use_view_convolutions(self)
        self.camera_embedding = CameraEmbedding(camera_dim, 4 * block_out_channels[0], azimuth_harmonics)
        self._take_channels(in_channels, picture_copies + (prior is not None))
        self.token_places = (
            nn.Parameter(0.5 * torch.randn(LOCAL_TOKENS, cross_attention_dim)) if token_positions else None
        )

        self.expectation: Expectation | None = None
        if prior is not None:
            zero_module(self.conv_out)
            self.expectation = Expectation(in_channels, prior, pictures=prior_pictures)

    def _take_channels(self, channels: int, copies: int) -> None:
        """diffusers fixes 4 channels where the picture's latents come in; give those, and the copies, theirs."""
        if channels != RELEASED_CHANNELS:
            for layers in (self.image_latents_proj_in, self.image_latents_context_embedding):
                layers[0] = nn.Conv2d(channels, layers[0].out_channels, 3, padding=1)
        if copies:
            self.conv_in = nn.Conv2d((2 + copies) * channels, self.config.block_out_channels[0], 3, padding=1)

    def forward(
        self,
        latents: Float[Tensor, "b n c h w"],
        timestep: Num[Tensor, " b"],
        text: Float[Tensor, "b t d"],
        image_embedding: Float[Tensor, "b 1 d"],
        image_latents: Float[Tensor, "b c h w"],
        cameras: Float[Tensor, "b n camera"] | None = None,
    ) -> Float[Tensor, "b n c h w"]:
        """Predict v, or the noise, whichever the weights were trained for.

        Args:
            latents: noisy.
            timestep: 0 to 999.
            text: tokens of the sentence (77 of 1024 numbers; VideoMV gives the empty sentence).
            image_embedding: of the picture, by CLIP; zeros for the unconditional branch.
            image_latents: of the picture, scaled as the noisy ones are.
            cameras: `to_videomv` of the views' poses; None for 2D pictures (one view).

        Raises:
            ValueError: channels, text width or cameras of another network.
        """
        check_latents(self, latents, text)
        objects, views = latents.shape[:2]
        embedding = self.embed_views(self._embed_time(timestep, latents.dtype), cameras, views)
        context = torch.cat([text, self.local_tokens(image_latents), self.picture_tokens(image_embedding)], dim=1)
        maps = self.config.image_latents_gain * self.view_maps(image_latents, views)
        copies = [image_latents, image_latents.flip(-1)][: self.config.picture_copies]
        beside = [copy[:, None].expand(-1, views, -1, -1, -1) for copy in copies]
        if self.expectation is not None:
            expected, variance = self.expected(image_latents, cameras)
            beside.append(expected)
        pictures = torch.cat([latents, maps, *beside], dim=2).flatten(0, 1)
        predicted = run_trunk(self, pictures, embedding, context.repeat_interleave(views, dim=0), views)
        predicted = predicted.unflatten(0, (objects, views))
        if self.expectation is None:
            return predicted
        return v_from_prior(latents, expected, predicted, signal_at(timestep), variance)

    def expected(
        self, image_latents: Float[Tensor, "b c h w"], cameras: Float[Tensor, "b n camera"] | None
    ) -> tuple[Float[Tensor, "b n c h w"], Float[Tensor, "b n"]]:
        """What the picture alone lets expect of the views, see `prior.Expectation`; of networks with a prior."""
        assert self.expectation is not None
        azimuth = image_latents.new_zeros(len(image_latents), 1) if cameras is None else azimuth_of(cameras)
        return self.expectation(azimuth, image_latents[:, None])

    def local_tokens(self, image_latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
        """The picture's latents as tokens: convolutions and pooling to 8 x 8 places, row by row."""
        tokens = self.image_latents_context_embedding(image_latents).flatten(2).transpose(1, 2)
        return tokens if self.token_places is None else tokens + self.token_places

    def picture_tokens(self, image_embedding: Float[Tensor, "b 1 d"]) -> Float[Tensor, "b t d"]:
        """The picture's CLIP embedding as tokens."""
        width = self.config.cross_attention_dim
        return self.context_embedding(image_embedding).reshape(len(image_embedding), -1, width)

    def view_maps(self, image_latents: Float[Tensor, "b c h w"], views: int) -> Float[Tensor, "b n c h w"]:
        """What stands beside the noisy latents of each view: the picture first, then planes that tell the position.

        View i > 0 starts as the constant i / (views - 1) in all channels; convolutions, then attention along the views
        at every pixel. In channels: in_channels, whatever the latents have.
        """
        objects, _, height, width = image_latents.shape
        positions = torch.arange(1, views, device=image_latents.device) / max(views - 1, 1)
        planes = positions.to(image_latents.dtype)[None, :, None, None, None].expand(
            objects, -1, *image_latents.shape[1:]
        )
        frames = torch.cat([image_latents[:, None], planes], dim=1)  # [b, n, c, h, w]
        maps = self.image_latents_proj_in(frames.flatten(0, 1)).unflatten(0, (objects, views))
        pixels = maps.permute(0, 3, 4, 1, 2).flatten(0, 2)  # [b h w, n, c]
        pixels = self.image_latents_temporal_encoder(pixels)
        return pixels.unflatten(0, (objects, height, width)).permute(0, 3, 4, 1, 2)

    def _embed_time(self, timestep: Num[Tensor, " b"], dtype: torch.dtype) -> Float[Tensor, "b e"]:
        width = self.config.block_out_channels[0]
        fps = torch.full_like(timestep, self.config.fps, dtype=torch.float32)
        time = self.time_embedding(sinusoid(timestep, width).to(dtype))
        return time + self.fps_embedding(sinusoid(fps, width).to(dtype))
