"""How pleasing a picture is, as Hi3D's first stage is told: CLIP ViT-L/14 and a linear predictor on its embedding.

picture in [-1, 1] -> 224 x 384, columns 80 to 304 -> CLIP -> unit length -> five linear layers -> a score, 1 to 10
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.clip.configuration_clip import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

from engine.multiview.networks.clip_pictures import normalised
from engine.multiview.networks.encoders import filled, loaded, seeded

VIT_L_14 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "projection_dim": 768,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "quick_gelu",
}
"""OpenAI's CLIP ViT-L/14."""
STRETCH = (384, 224)
"""The release resizes any picture to this aspect, wide as its training videos were, and keeps the middle square."""


class AestheticScorer(ModelMixin, ConfigMixin):
    """The release's sac+logos+ava1-l14-linearMSE predictor, whose layers have no activations between them."""

    _keep_in_fp32_modules: ClassVar[list[str]] = ["mlp"]
    """Hi3D embeds 100 x score as an angle, which half precision would turn by a radian."""

    @register_to_config
    def __init__(self, vision: dict[str, Any] | None = None, widths: Sequence[int] = (1024, 128, 64, 16)) -> None:
        """Build it: CLIPVisionConfig's arguments (None: ViT-L/14), and the predictor's widths but for the final one."""
        super().__init__()
        config = CLIPVisionConfig(**(vision or VIT_L_14))
        self.clip = CLIPVisionModelWithProjection(config)
        sizes = [int(config.projection_dim), *widths, 1]
        # The release has dropout between the layers, which does nothing in use.
        self.mlp = nn.Sequential(*(nn.Linear(taken, given) for taken, given in pairwise(sizes)))
        self.chunk = 8
        self.eval()

    def score(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """Return a score for each picture in [-1, 1], on the model's device; square pictures are stretched, as released."""
        return self(images)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """Score pictures."""
        weight: Tensor = self.get_submodule("mlp.0").get_parameter("weight")
        parts = images.to(weight.device).split(self.chunk)
        embeddings = torch.cat([self.clip(pixel_values=self.prepared(part)).image_embeds for part in parts])
        # An embedding of length 0 stays 0.
        unit = functional.normalize(embeddings.float(), dim=-1, eps=torch.finfo(torch.float32).tiny)
        return self.mlp(unit.to(weight.dtype)).squeeze(-1)

    def prepared(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s s"]:
        """Return what CLIP sees: bilinear without smoothing, the middle columns, normalised."""
        size = int(self.clip.config.image_size)
        wide = size * STRETCH[0] // STRETCH[1]
        resized = functional.interpolate(images.float(), size=(size, wide), mode="bilinear")
        left = (wide - size) // 2
        return normalised((resized[..., left : left + size] + 1) / 2).to(next(self.clip.parameters()).dtype)

    @classmethod
    def fresh(
        cls,
        *,
        width: int = 32,
        layers: int = 2,
        head_width: int = 16,
        embedding: int = 16,
        size_px: int = 56,
        seed: int = 0,
    ) -> "AestheticScorer":
        """Return one with random weights; the defaults suit tests."""
        vision = VIT_L_14 | {
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "projection_dim": embedding,
            "num_hidden_layers": layers,
            "num_attention_heads": width // head_width,
            "image_size": size_px,
        }
        with seeded(seed):
            return cls(vision=vision, widths=(16, 8))

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "AestheticScorer":
        """Build it from what a key map gives. Raises CheckpointError if the tensors do not fit."""
        return filled("aesthetic scorer", lambda: cls(**config), tensors)

    @classmethod
    def from_pretrained(cls, folder: Path | str, torch_dtype: torch.dtype = torch.float32) -> "AestheticScorer":
        """Read what save_pretrained wrote. Raises CheckpointError if it is not whole."""
        return loaded(super().from_pretrained, Path(folder), torch_dtype=torch_dtype)
