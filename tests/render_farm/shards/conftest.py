"""A sealed output with a manifest, for tests that only read it, and a copy for tests that break it."""

import shutil
from pathlib import Path

import pytest

from render_farm.records import Refusal
from render_farm.shards import build_manifest, open_output
from tests.render_farm.staged import Ball, seal

FAILED = Refusal("crash", "Blender was ended by signal 11", "rendering view 3", "Segmentation fault")
BALLS = (
    Ball("apple", asset="one", picture_hash="00000000000000ff"), Ball("bell", shard="000-000001"),
    Ball("cherry", radius_m=0.3), Ball("drum", shard="000-000001", refusal=FAILED), Ball("egg", refusal=FAILED),
    Ball("figs", shard="000-000002", refusal=FAILED), Ball("egg", shard="001-000000", radius_m=0.35),
    Ball("apple2", shard="001-000000", picture_hash="00000000000001fe"),
)  # fmt: skip
"""egg failed in the first batch and succeeded in the second; figs' shard holds nothing; apple2 looks like apple."""


@pytest.fixture(scope="session")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four shards and their manifest; do not change it."""
    folder = tmp_path_factory.mktemp("sealed")
    output = open_output(folder / "out")
    seal(output, folder / "staging", *BALLS)
    build_manifest(output)
    return folder / "out"


@pytest.fixture
def out(sealed: Path, tmp_path: Path) -> Path:
    """The same, to be broken."""
    return Path(shutil.copytree(sealed, tmp_path / "out"))
