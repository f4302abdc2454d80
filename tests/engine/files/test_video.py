"""Turntable videos: every frame comes back, near enough; the container is what players need."""

from pathlib import Path

import numpy as np
import pytest

from engine.errors import FileFormatError
from engine.files import read_video, write_turntable


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def moving_square(count: int, height: int, width: int) -> np.ndarray:
    frames = np.full((count, height, width, 3), (200, 60, 30), np.uint8)
    for i in range(count):
        frames[i, 8:24, 4 + 2 * i : 20 + 2 * i] = (20, 90, 220)
    return frames


@pytest.mark.parametrize(("height", "width"), [(64, 96), (63, 95)])
def test_frames_come_back_in_number_order_and_colour(tmp_path: Path, height: int, width: int) -> None:
    frames = moving_square(24, height, width)
    write_turntable(tmp_path / "a.mp4", frames, fps=12)
    read, fps = read_video(tmp_path / "a.mp4")
    assert fps == 12
    assert read.shape == (24, 64, 96, 3)
    error = np.abs(read[:, :height, :width].astype(int) - frames)
    # 4:2:0 smears colour over a pixel at the square's edges; flat regions must hold their colour (the BT.709 matrix
    # taken for BT.601 would shift this red and blue by 10 to 20)
    assert np.median(error) <= 3
    assert np.mean(error) < 4
    assert error[:, 40:, :].max() <= 6


def test_the_index_comes_first_and_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_turntable(tmp_path / name, moving_square(6, 32, 64))
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")  # plays while it loads
    assert b"avc1" in data
    assert data == (tmp_path / "b.mp4").read_bytes()
    assert names_in(tmp_path) == ["a.mp4", "b.mp4"]


def test_wrong_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a video needs frames and a positive fps, got 0 frames at 12"):
        write_turntable(tmp_path / "a.mp4", np.zeros((0, 8, 8, 3), np.uint8), fps=12.0)
    with pytest.raises(FileFormatError, match="there is no such video"):
        read_video(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    with pytest.raises(FileFormatError, match="is not a video that ffmpeg reads"):
        read_video(tmp_path / "a.mp4")


def test_an_encoder_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.files.video.ENCODING", ("-f", "mp4", "-crf", "nonsense"))
    with pytest.raises(FileFormatError, match=r"a.mp4: ffmpeg could not write the video: .+"):
        write_turntable(tmp_path / "a.mp4", moving_square(2, 32, 64))
    assert names_in(tmp_path) == []
