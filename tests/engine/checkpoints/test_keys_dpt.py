"""MiDaS' published names become transformers'; both compute the same."""

import pytest
import torch
from transformers.models.dpt.configuration_dpt import DPTConfig
from transformers.models.dpt.modeling_dpt import DPTForDepthEstimation

from engine.checkpoints.keys_dpt import dpt_from_release, dpt_to_release
from engine.checkpoints.prefixes import HI3D_DEPTH
from engine.errors import CheckpointError
from engine.multiview.networks.depth import DepthEstimator
from tests.engine.checkpoints.released_clip import randomised
from tests.engine.checkpoints.released_dpt import RELEASED, ReleasedDpt, Sizes


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        (Sizes(), (64, 64)),  # the size of the stored positions
        (Sizes(), (96, 160)),  # neither square nor that size: positions are resized
        (Sizes(layers=8, hooks=(5, 7), stem=16, stages=(64, 32, 160), maps=(64, 32, 24, 56)), (128, 96)),
    ],
)
def test_both_compute_the_same(sizes: Sizes, shape: tuple[int, int]) -> None:
    released = randomised(ReleasedDpt(sizes), seed=5)
    with torch.no_grad():
        released.scratch.output_conv[4].bias += 3  # away from the final ReLU's zero
        images = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(6)) * 2 - 1
        converted = dpt_from_release(released.state_dict(), head_dim=16, groups=4)
        estimator = DepthEstimator.from_state(converted.config, converted.tensors)
        found, expected = estimator(images), released(images)
    assert found.shape == (2, *shape)
    assert (expected > 0).float().mean() > 0.5
    assert expected.std() > 0.1 * expected.mean()
    # Float32 in another order (2e-6 seen); another activation is 3e-4 away, other padding, groups or hooks over 0.1.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.max()))


@pytest.mark.slow
def test_both_compute_the_same_at_the_released_size() -> None:
    """The sizes, groups, hooks and positions of dpt_hybrid_384.pt, all inferred."""
    released = randomised(ReleasedDpt(RELEASED), seed=5)
    converted = dpt_from_release(released.state_dict())
    estimator = DepthEstimator.from_state(converted.config, converted.tensors)
    released.scratch.output_conv[5] = estimator.model.head.head[5] = torch.nn.Identity()  # random depths are negative
    images = torch.rand(1, 3, 384, 384, generator=torch.Generator().manual_seed(6)) * 2 - 1
    with torch.no_grad():
        found, expected = estimator(images), released(images)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()  # float32 in another order; 2e-5 seen


def test_there_and_back() -> None:
    tensors = randomised(ReleasedDpt()).state_dict()
    converted = dpt_from_release(
        {HI3D_DEPTH + k: v for k, v in tensors.items()}, prefix=HI3D_DEPTH, head_dim=16, groups=4
    )
    back = dpt_to_release(converted.tensors)
    assert set(tensors) - set(back) == {"pretrained.model.head.weight", "pretrained.model.head.bias"}
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in back.items())
    assert dpt_from_release(converted.tensors, head_dim=16, groups=4) == converted  # Intel/dpt-hybrid-midas is named so


def test_released_size() -> None:
    """DPT-Hybrid has 123 M parameters (Ranftl et al. 2021, table 1 lists its speed with that size)."""
    with torch.device("meta"):
        tensors = ReleasedDpt(RELEASED).state_dict()
    assert (sum(tensor.numel() for tensor in tensors.values()), len(tensors)) == (123_146_985, 368)
    converted = dpt_from_release(tensors)
    with torch.device("meta"):
        model = DPTForDepthEstimation(DPTConfig(**converted.config))
    model.load_state_dict(converted.tensors, assign=True)
    assert (model.num_parameters(), len(converted.tensors)) == (122_377_985, 414)
    # As Intel/dpt-hybrid-midas publishes them, but for the epsilon, which is timm's here.
    with torch.device("meta"):
        published = DPTForDepthEstimation(
            DPTConfig(
                is_hybrid=True,
                backbone_out_indices=[0, 1, 8, 11],
                neck_hidden_sizes=[256, 512, 768, 768],
                reassemble_factors=[1, 1, 1, 0.5],
            )
        )
    assert set(published.state_dict()) == set(converted.tensors)
    ours = model.config.to_dict()
    differing = {key for key, value in published.config.to_dict().items() if ours[key] != value}
    assert differing <= {"layer_norm_eps", "backbone_config"}
    assert converted.config["backbone_out_indices"] == [0, 1, 8, 11]


def test_errors_name_what_is_wrong() -> None:
    tensors = ReleasedDpt().state_dict()
    with pytest.raises(
        CheckpointError, match="MiDaS' DPT hybrid: head_dim 64 does not divide the width 32; pass the right"
    ):
        dpt_from_release(tensors)
    with pytest.raises(CheckpointError, match="MiDaS' DPT hybrid: lacks"):
        dpt_from_release({})
    with pytest.raises(CheckpointError, match=r"pos_embed is for 15 patches, expected a square number"):
        dpt_from_release(tensors | {"pretrained.model.pos_embed": torch.zeros(1, 16, 32)}, head_dim=16, groups=4)
    with pytest.raises(CheckpointError, match=r"sizes that no such network can have \(.*num_groups \(32\)\); is it"):
        dpt_from_release(tensors, head_dim=16)
