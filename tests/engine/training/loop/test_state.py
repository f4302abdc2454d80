"""The run's folder: what a killed process leaves, and what another run's checkpoint is refused for."""

from pathlib import Path

import pytest

from engine.errors import TrainingError
from engine.training.loop import state
from engine.training.loop.state import Progress
from engine.training.types import Position

IDENTITY = {
    "recipe": "vae", "size": "tiny", "data": {"views": 2, "size_px": 128}, "seed": 0, "lora_rank": None, "ema": True,
    "scaled": False, "parameters": "abc",
}  # fmt: skip


def checkpoint(run: Path, step: int) -> Path:
    """A whole checkpoint without weights."""
    folder = state.checkpoint_path(run, step)
    folder.mkdir(parents=True)
    state.write_progress(folder, Progress(step=step), {}, IDENTITY, 1)
    return folder


def test_progress_comes_back_with_the_positions_of_all_processes(tmp_path):
    mine, theirs, old = Position(0, 1, 5, 7, 2, 1), Position(1, 1, 4, 7, 2, 1), Position(1, 0, 9, 3, 2, 1)
    progress = Progress(step=3, seconds=1.5, samples=12, positions={1: old}, best=0.5, best_step=2)
    state.write_progress(tmp_path, progress, {0: mine, 1: theirs}, IDENTITY, 2)
    found, ranks = state.read_progress(tmp_path, IDENTITY)
    assert ranks == 2
    assert found == Progress(step=3, seconds=1.5, samples=12, positions={0: mine, 1: theirs}, best=0.5, best_step=2)


def test_positions_of_readers_that_are_no_more_are_dropped(tmp_path):
    """Four readers became one: what the three others had read says nothing any more."""
    before = {reader: Position(reader, 0, 5, 1, 2, 2) for reader in range(4)}
    now = Position(0, 0, 30, 8, 1, 1)
    state.write_progress(tmp_path, Progress(positions=before), {0: now}, IDENTITY, 1)
    assert state.read_progress(tmp_path, IDENTITY)[0].positions == {0: now}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("recipe", "depth", "the recipe was vae, asked for is depth"),
        ("size", "full", "its size was tiny, asked for is full"),
        ("data", {"views": 2, "size_px": 256}, r"the data plan \(size_px\) was 128, asked for is 256"),
        ("seed", 3, "--seed was 0, asked for is 3"),
        ("lora_rank", 8, "--lora was None, asked for is 8"),
        ("ema", False, "whether --ema-decay keeps an average was True, asked for is False"),
        ("scaled", True, "whether --precision is fp16 was False, asked for is True"),
        ("parameters", "xyz", "the network's parameters was abc, asked for is xyz"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_name(tmp_path, key, value, words):
    place = checkpoint(tmp_path, 4)
    with pytest.raises(TrainingError, match=f"is a checkpoint of another run: {words}; ask for the same"):
        state.read_progress(place, {**IDENTITY, key: value})


def test_only_whole_checkpoints_count(tmp_path):
    whole = checkpoint(tmp_path, 3)
    half = state.checkpoint_path(tmp_path, 9)
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"")
    assert state.checkpoints(tmp_path) == [whole]


def test_sweeping_removes_what_was_being_written(tmp_path):
    whole = checkpoint(tmp_path, 3)
    partial = state.partial_of(state.checkpoint_path(tmp_path, 6))
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    state.sweep(tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == [whole]


def test_a_folder_that_was_about_to_be_replaced_comes_back(tmp_path):
    """Killed between the two renames: the old one has no name, the new one not yet."""
    (tmp_path / ".best.replaced").mkdir()
    (tmp_path / ".best.replaced" / "file").write_text("old")
    (tmp_path / ".best.partial").mkdir()
    state.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert (tmp_path / "best" / "file").read_text() == "old"


def test_replacing_a_folder_leaves_the_new_one_alone(tmp_path):
    for name in ("best", ".best.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    state.replace_folder(tmp_path / ".best.partial", tmp_path / "best")
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert (tmp_path / "best" / "file").read_text() == ".best.partial"


def test_the_newest_are_kept(tmp_path):
    for step in (1, 2, 30, 4):
        checkpoint(tmp_path, step)
    state.forget_old(tmp_path, keep=2)
    assert [state.step_of(path) for path in state.checkpoints(tmp_path)] == [4, 30]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
