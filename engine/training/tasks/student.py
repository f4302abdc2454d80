"""VideoMV's denoiser and the encoders that learn with it, as one module with one forward: what DDP and FSDP need.

    text: ids ------(text_encoder, where it learns)----> tokens ----\\
    image_embedding: pictures --(image_encoder, likewise)-> token ---> unet -> prediction
"""

from typing import Any

from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from engine.multiview.networks.encoders import ImageEncoder, TextEncoder

LATER_PARTS = (
    "temp_convs", "temp_attentions", "transformer_in", "camera_embedding", "fps_embedding", "context_embedding",
    "image_latents_",
)  # fmt: skip
"""Parts of the U-Nets that Stable Diffusion has not: the video networks added them, VideoMV the cameras."""


class OrbitStudent(nn.Module):
    """What learns. Callable as a denoiser."""

    def __init__(
        self, unet: nn.Module, text_encoder: TextEncoder | None = None, image_encoder: ImageEncoder | None = None
    ) -> None:
        """Join a U-Net and the encoders that learn; None: that encoder is frozen, and what it says is handed over."""
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder
        self.image_encoder = image_encoder

    def forward(
        self,
        latents: Float[Tensor, "b n c h w"],
        timestep: Num[Tensor, " b"],
        *,
        text: Float[Tensor, "b t d"] | Int[Tensor, "b t"],
        image_embedding: Float[Tensor, "b 1 d"] | Float[Tensor, "b 3 H W"] | None = None,
        image_latents: Float[Tensor, "b c h w"] | None = None,
        cameras: Float[Tensor, "b n camera"] | None = None,
    ) -> Float[Tensor, "b n c h w"]:
        """Predict, see the U-Nets.

        Args:
            latents: noisy.
            timestep: 0 to 999.
            text: tokens, or ids where the text encoder learns.
            image_embedding: the picture's, or the picture in [-1, 1] where the image encoder learns; all zeros: none.
            image_latents: the picture's.
            cameras: see `conditions.cameras_told`.
        """
        if self.text_encoder is not None:
            text = self.text_encoder(text)
        if image_embedding is None:
            return self.unet(latents, timestep, text=text, cameras=cameras)
        if self.image_encoder is not None:
            given = image_embedding.flatten(1).any(1).to(latents)  # zeros stand for no picture, not for a grey one
            image_embedding = self.image_encoder(image_embedding) * given[:, None, None]
        return self.unet(
            latents, timestep, text=text, image_embedding=image_embedding, image_latents=image_latents, cameras=cameras
        )

    def parts(self) -> dict[str, Any]:
        """Return what learns, by its name among a pipeline's components."""
        return dict(self.named_children())

    def enable_gradient_checkpointing(self) -> None:
        """Save memory in the U-Net's backward pass."""
        self.unet.enable_gradient_checkpointing()  # type: ignore[operator]  # from diffusers' mixin

    def from_stable_diffusion(self) -> frozenset[str]:
        """Return the names of the U-Net's parameters that Stable Diffusion has as well: the release slows them."""
        return frozenset(
            name
            for name, _ in self.named_parameters()
            if name.startswith("unet.") and not any(part in name for part in LATER_PARTS)
        )
