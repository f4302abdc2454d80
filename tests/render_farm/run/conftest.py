"""A store, a staging folder and balls to put into them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from render_farm.run.staging import Staging
from render_farm.run.store import Store
from tests.render_farm.staged import SPEC


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    return Staging(tmp_path / "staging")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "state.sqlite", SPEC)
    yield opened
    opened.close()
