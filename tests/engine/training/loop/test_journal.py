"""The journal: lines once a step, curves, turntables that turn."""

import io
import json

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.training.loop.journal import Journal, cut_back, gif


def turning(frames: int = 6) -> np.ndarray:
    """A bright bar that wanders over a gradient."""
    pictures = np.zeros((frames, 16, 24, 3), np.uint8)
    pictures[..., 1] = np.linspace(0, 255, 24).astype(np.uint8)
    for index in range(frames):
        pictures[index, :, 4 * index : 4 * index + 2] = (255, 200, 0)
    return pictures


def test_a_gif_plays_all_frames_in_their_colours():
    frames = turning()
    with Image.open(io.BytesIO(gif(frames))) as image:
        assert image.n_frames == len(frames)
        assert image.info["loop"] == 0
        for index, frame in enumerate(frames):
            image.seek(index)
            error = np.abs(np.asarray(image.convert("RGB")).astype(int) - frame)
            assert (
                error.max() <= 6
            )  # 26 colours a frame: the palette of 256 holds them, boxes of median cut are averaged


def test_turntables_are_animated_on_tensorboard(tmp_path):
    journal = Journal(tmp_path, 0, writes=True)
    journal.turntables(5, {"orbit": turning()})
    journal.close()
    found = EventAccumulator(str(tmp_path / "log")).Reload()
    (animated,) = found.Images("orbit/turntable")
    assert animated.step == 5
    assert (animated.width, animated.height) == (24, 16)
    with Image.open(io.BytesIO(animated.encoded_image_string)) as image:
        assert (image.format, image.n_frames) == ("GIF", 6)
    (sheet,) = found.Images("orbit/sheet")
    with Image.open(io.BytesIO(sheet.encoded_image_string)) as image:
        assert image.format == "PNG"
    assert (tmp_path / "previews" / "orbit.png").is_file()


def test_lines_hold_no_infinities(tmp_path):
    journal = Journal(tmp_path, 0, writes=True)
    journal.step(1, {"loss": float("nan"), "skipped": True})
    journal.close()
    assert json.loads((tmp_path / "losses.jsonl").read_text()) == {"step": 1, "loss": None, "skipped": True}


def test_going_on_forgets_what_came_after_the_checkpoint(tmp_path):
    first = Journal(tmp_path, 0, writes=True)
    for step in range(1, 6):
        first.step(step, {"loss": float(step)})
        first.scalars(step, {"loss": float(step)})
    first.close()
    second = Journal(tmp_path, 3, writes=True)
    second.step(4, {"loss": 40.0})
    second.scalars(4, {"loss": 40.0})
    second.close()
    lines = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    scalars = EventAccumulator(str(tmp_path / "log")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in scalars] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    path = tmp_path / "losses.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    cut_back(path, 9)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_processes_that_do_not_write_leave_nothing(tmp_path):
    journal = Journal(tmp_path, 0, writes=False)
    journal.step(1, {"loss": 1.0})
    journal.measures(1, {"loss": 1.0})
    journal.turntables(1, {"orbit": turning()})
    journal.close()
    assert not list(tmp_path.iterdir())
