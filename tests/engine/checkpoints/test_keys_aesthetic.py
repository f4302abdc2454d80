"""Hi3D's aesthetic embedder: names, sizes, and the same score as the published computation."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.checkpoints.keys_aesthetic import (
    aesthetic_from_parts,
    aesthetic_from_release,
    aesthetic_to_release,
)
from engine.checkpoints.prefixes import HI3D_AESTHETIC
from engine.errors import CheckpointError
from engine.multiview.networks.aesthetic import AestheticScorer
from tests.engine.checkpoints.released_clip import QuickGelu, ReleasedClip, openai_l, randomised


class ReleasedPredictor(nn.Module):
    """christophschuhmann/improved-aesthetic-predictor's MLP."""

    def __init__(self, taken: int) -> None:
        super().__init__()
        first = [nn.Linear(taken, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2)]
        self.layers = nn.Sequential(*first, nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1))


def embedder(clip: ReleasedClip) -> nn.Module:
    """Build AesEmbedder's modules: the text tower's blocks are deleted."""
    module = nn.Module()
    del clip.transformer
    module.aesthetic_model = clip
    module.aesthetic_mlp = ReleasedPredictor(clip.visual.proj.shape[1])
    return module


def released_score(module: nn.Module, video: Tensor) -> Tensor:
    """Follow AesEmbedder.forward: video [b c t h w], its middle frame is scored."""
    y = video[:, :, video.shape[2] // 2]
    y = functional.interpolate(y, [224, 384], mode="bilinear")[:, :, :, 80:304]
    y = (y + 1) * 0.5
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    y = torch.stack([(y[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    features = module.aesthetic_model.visual(y)
    return module.aesthetic_mlp.layers(features / features.norm(dim=-1, keepdim=True))[:, 0]


def test_same_score() -> None:
    clip = ReleasedClip(size=224, patch=32, activation=QuickGelu)
    released = randomised(embedder(clip), seed=7)
    tensors = {HI3D_AESTHETIC + key: tensor for key, tensor in released.state_dict().items()}
    converted = aesthetic_from_release(tensors, prefix=HI3D_AESTHETIC, head_dim=16)
    scorer = AestheticScorer.from_state(converted.config, converted.tensors)
    video = torch.rand(3, 3, 5, 96, 128, generator=torch.Generator().manual_seed(8)) * 2 - 1
    with torch.no_grad():
        found, expected = scorer.score(video[:, :, 2]), released_score(released, video)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)  # float32 in another order
    back = aesthetic_to_release(converted.tensors, HI3D_AESTHETIC)
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in back.items())
    assert len(back) == len(tensors) - 6  # text frame: 4, text_projection, logit_scale


def test_released_size_and_two_files() -> None:
    with torch.device("meta"):
        clip, predictor = openai_l().state_dict(), ReleasedPredictor(768).state_dict()
    converted = aesthetic_from_parts(clip, predictor)
    assert converted.config["widths"] == [1024, 128, 64, 16]
    assert converted.config["vision"]["hidden_act"] == "quick_gelu"
    with torch.device("meta"):
        default = AestheticScorer()
    shapes = {key: tensor.shape for key, tensor in default.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in converted.tensors.items()}
    # 303,966,208 of CLIP ViT-L/14's vision tower and 927,969 of the predictor.
    assert default.num_parameters() == 303_966_208 + 927_969


def test_errors_name_the_keys() -> None:
    released = embedder(ReleasedClip()).state_dict()
    with pytest.raises(CheckpointError, match=r"^Hi3D's aesthetic embedder: has unknown keys encoder\.conv_in\.bias"):
        aesthetic_from_release(released | {"encoder.conv_in.bias": torch.zeros(1)}, head_dim=16)
    with pytest.raises(CheckpointError, match="has 0 layers, expected at least 2"):
        aesthetic_from_parts(ReleasedClip().state_dict(), {}, head_dim=16)
    with pytest.raises(CheckpointError, match=r"layers\.0\.weight must have shape \(1024, 24\), has \(1024, 768\)"):
        aesthetic_from_parts(ReleasedClip().state_dict(), ReleasedPredictor(768).state_dict(), head_dim=16)
