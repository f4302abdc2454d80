"""Turntable videos: frames in, an H.264 mp4 that every browser and Blender play, and back (for tests and metrics)."""

import errno
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from jaxtyping import UInt8

from engine.errors import FileFormatError
from engine.files.atomic import atomic_path

CONSTANT_QUALITY = 16
"""x264's crf: visually lossless for renders."""
THREADS = 2
BT709 = "bt709"
ENCODING = (
    "-f", "mp4", "-crf", str(CONSTANT_QUALITY), "-preset", "medium", "-threads", str(THREADS),
    # RGB to YUV by the matrix that the file then names; players guess it otherwise, and colours shift
    "-vf", f"scale=in_range=full:out_range=tv:out_color_matrix={BT709}:flags=accurate_rnd+full_chroma_int",
    "-colorspace", BT709, "-color_primaries", BT709, "-color_trc", "iec61966-2-1", "-color_range", "tv",
    "-movflags", "+faststart", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1",
)  # fmt: skip


def write_turntable(path: Path, frames: UInt8[np.ndarray, "n h w 3"], fps: float | int = 12) -> None:
    """Write frames once around as H.264, yuv420p, faststart mp4; all or nothing.

    The views of an orbit do not repeat the first one at the end, so a looping player goes round without a pause.
    Odd sizes are widened by their last row or column, since 4:2:0 needs even ones.

    Args:
        path: the mp4.
        frames: sRGB, opaque (see `preview.composite`).
        fps: frames a second; 24 views at 12 turn once in two seconds.

    Raises:
        FileFormatError: the encoder failed; the message has its last line.
        TurntableError: the file system refused.
    """
    if not len(frames) or not fps > 0:
        raise ValueError(f"a video needs frames and a positive fps, got {len(frames)} frames at {fps}")
    _, height, width, _ = frames.shape
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with atomic_path(path) as partial:
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24",
            "-s", f"{even.shape[2]}x{even.shape[1]}", "-r", f"{fps:g}", "-i", "-", "-an", "-c:v", "libx264",
            "-pix_fmt", "yuv420p", *ENCODING, str(partial),
        ]  # fmt: skip
        # not imageio_ffmpeg.write_frames: it does not look at ffmpeg's exit status, and a full disk went unnoticed
        done = subprocess.run(command, input=even.tobytes(), capture_output=True, check=False)
        if done.returncode:
            raise _failed(path, done.stderr.decode("utf-8", "replace"))


def _failed(path: Path, log: str) -> Exception:
    if "No space left on device" in log:
        return OSError(errno.ENOSPC, "No space left on device")  # atomic_path explains it like any other
    return FileFormatError(f"{path}: ffmpeg could not write the video: {_last_line(log)}")


def _last_line(log: str) -> str:
    return next((line.strip() for line in reversed(log.splitlines()) if line.strip(" =")), "no message")


def read_video(path: Path) -> tuple[UInt8[np.ndarray, "n h w 3"], float]:
    """Return all frames of a video (sRGB) and its frames a second. Raises FileFormatError."""
    if not path.is_file():
        raise FileFormatError(f"{path}: there is no such video")
    try:
        reader = imageio_ffmpeg.read_frames(str(path), pix_fmt="rgb24")
        meta = next(reader)
        width, height = meta["size"]
        frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    except (OSError, RuntimeError, KeyError, ValueError, subprocess.SubprocessError) as error:
        raise FileFormatError(f"{path}: is not a video that ffmpeg reads: {_last_line(str(error))}") from error
    if not frames:
        raise FileFormatError(f"{path}: holds no frame; it may be truncated")
    return np.stack(frames), float(meta["fps"])
