"""A small run that was rendered to its end by the command."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.render_farm.broken_assets import cut_off, pillar
from tests.render_farm.cli.commands import SPEC_FLAGS, WORK_FLAGS, Ended, call_outside


@dataclass(frozen=True)
class Farmed:
    """The run, and what its first command said."""

    folder: Path
    models: Path
    first: Ended


@pytest.fixture(scope="session")
def farmed(tmp_path_factory: pytest.TempPathFactory) -> Farmed:
    """Two good objects and one that is cut off. For looking at; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("farmed")
    models = folder / "models"
    models.mkdir()
    pillar(models / "red.glb")
    pillar(models / "blue.glb", [0.1, 0.2, 0.8, 1.0])
    cut_off(models)
    first = call_outside("run", folder / "run", "--assets", models, *SPEC_FLAGS, *WORK_FLAGS)
    assert first.status == 0, first.err
    return Farmed(folder / "run", models, first)
