"""What git tracks: nothing large, nothing of other people's data."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Every file that git tracks or has staged."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z"]
    listing = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    paths = [REPOSITORY / name for name in listing.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_nothing_large_is_tracked(tracked):
    def limit(path: Path) -> int:
        return 64 * MEGABYTE if path.suffix == ".safetensors" else 5 * MEGABYTE

    assert [str(path) for path in tracked if path.stat().st_size > limit(path)] == []


def test_no_asset_of_the_shared_data_is_tracked(tracked):
    manifest = SHARED_DATA / "objects" / "manifest.json"
    if not manifest.is_file():
        pytest.skip(f"no shared data: {manifest} is not here")
    foreign = set(hashes(json.loads(manifest.read_text())))
    foreign |= set(hashes(json.loads((SHARED_DATA / "orbits128" / "manifest.json").read_text())))
    assert len(foreign) > 600, "the manifest's sha256 entries were not found"
    assert [str(path) for path in tracked if hashlib.sha256(path.read_bytes()).hexdigest() in foreign] == []


def hashes(node: object) -> list[str]:
    """Return every string of 64 hexadecimal digits in a JSON document."""
    if isinstance(node, dict):
        return [found for value in node.values() for found in hashes(value)]
    if isinstance(node, list):
        return [found for value in node for found in hashes(value)]
    is_hash = isinstance(node, str) and len(node) == 64 and set(node) <= set("0123456789abcdef")
    return [node] if is_hash and isinstance(node, str) else []


def test_no_local_paths_are_written_down(tracked):
    """A checkout's or a home folder's absolute path means nothing to anyone else."""
    here = str(REPOSITORY).encode()
    text = [path for path in tracked if path.suffix in {".py", ".md", ".toml", ".txt", ".yaml", ""}]
    assert [str(path) for path in text if here in path.read_bytes()] == []
