"""The aesthetic score: folders, chunks, precision. That it is the release's: test_keys_aesthetic."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import CheckpointError
from engine.multiview.networks.aesthetic import AestheticScorer


def test_folder_chunks_and_precision(tmp_path: Path) -> None:
    scorer = AestheticScorer.fresh()
    scorer.chunk = 2
    images = torch.rand(5, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        scores = scorer.score(images)
        alone = torch.cat([scorer.score(image[None]) for image in images])
    assert scores.shape == (5,)
    torch.testing.assert_close(scores, alone, rtol=1e-5, atol=1e-6)  # float32: batches of another size
    scorer.save_pretrained(tmp_path)
    read, half = (AestheticScorer.from_pretrained(tmp_path, torch_dtype=d) for d in (torch.float32, torch.float16))
    with torch.no_grad():
        torch.testing.assert_close(read.score(images), scores, rtol=1e-5, atol=1e-6)
    assert isinstance(half, AestheticScorer)
    assert half.clip.dtype == torch.float16
    assert half.mlp[0].weight.dtype == torch.float32


def test_only_the_middle_counts() -> None:
    """Columns 80 to 304 of 384: the outer fifths of any picture are not seen."""
    scorer = AestheticScorer.fresh()
    image = torch.rand(1, 3, 48, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    outside, inside = image.clone(), image.clone()
    outside[..., :19], outside[..., 77:] = 1.0, -1.0
    inside[..., 30:60] = 1.0
    with torch.no_grad():
        score = scorer.score(image)
        assert torch.equal(scorer.score(outside), score)
        assert not torch.equal(scorer.score(inside), score)


def test_missing_tensors_are_refused(tmp_path: Path) -> None:
    """diffusers leaves them without values and only warns."""
    AestheticScorer.fresh().save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["mlp.1.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"the weights have missing keys \(1\), such as mlp\.1\.weight; convert"):
        AestheticScorer.from_pretrained(tmp_path)
