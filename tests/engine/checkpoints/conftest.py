"""What the tests of checkpoints share."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.engine.checkpoints.hub_server import HubServer


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub on this machine with one repository, owner/name."""
    generator = torch.Generator().manual_seed(0)
    large = bytes(torch.randint(0, 256, (300_000,), generator=generator, dtype=torch.uint8).numpy())
    files = {"unet/model.safetensors": large, "unet/config.json": b'{"a": 1}\n', "README.md": b"# A model\n"}
    with HubServer(files) as server:
        yield server


@pytest.fixture(scope="session")
def true_keys(oracles: Path) -> dict[str, dict[str, Tensor]]:
    """Names and shapes of the released networks, as meta tensors."""
    return {
        path.stem.removeprefix("keys_").removesuffix("_true"): _meta(path) for path in oracles.glob("keys_*_true.txt")
    }


def _meta(path: Path) -> dict[str, Tensor]:
    lines = [line.split("\t") for line in path.read_text().splitlines() if not line.startswith("#")]
    return {name: torch.empty(ast.literal_eval(shape), device="meta") for name, shape in lines}
