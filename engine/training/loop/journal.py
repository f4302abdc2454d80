"""What a run writes down: losses.jsonl and measures.jsonl for programs, TensorBoard for people.

losses.jsonl holds a line a step and never a step twice: at resume both files are cut back to the checkpoint's step, and
TensorBoard is told to forget what came after it. Turntables go to TensorBoard as animated GIFs (as images, which its
page plays; no moviepy), with a contact sheet beside them that can be looked at in rest.
"""

import io
import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from engine.files import write_bytes
from engine.files.preview import contact_sheet, grid, write_png

log = logging.getLogger(__name__)

LOSSES, MEASURES, TENSORBOARD, PREVIEWS = "losses.jsonl", "measures.jsonl", "log", "previews"
FRAME_MS = 90
"""Of a turntable; 24 views turn once in two seconds."""
COLUMNS = 8
"""Of a contact sheet."""
SAID_EVERY_S = 30.0
"""Between two lines of the log."""


class Journal:
    """The journal of a run, on the one process that writes it; on others every call does nothing."""

    def __init__(self, run: Path, step: int, *, writes: bool) -> None:
        """Open a run's journal to go on after a step; later entries are forgotten."""
        self._run, self._writes, self._said = run, writes, 0.0
        if not writes:
            return
        from torch.utils.tensorboard import SummaryWriter  # half a second to import

        for name in (LOSSES, MEASURES):
            cut_back(run / name, step)
        self._losses = (run / LOSSES).open("a")
        self._measures = (run / MEASURES).open("a")
        self._board = SummaryWriter(str(run / TENSORBOARD), purge_step=step + 1)

    def step(self, step: int, values: Mapping[str, float | bool | None]) -> None:
        """Write a step's line."""
        if not self._writes:
            return
        self._losses.write(_line({"step": step, **values}))
        self._losses.flush()
        now = time.monotonic()
        if now - self._said >= SAID_EVERY_S:
            self._said = now
            log.info("step %d: loss %.4g, %.2f s a step", step, values["loss"], values.get("seconds", 0.0))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Draw curves."""
        if self._writes:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def measures(self, step: int, values: Mapping[str, float]) -> None:
        """Write what was measured on held-out objects."""
        if self._writes:
            self._measures.write(_line({"step": step, **values}))
            self.sync()
            self.scalars(step, {f"held-out/{name}": value for name, value in values.items()})
            log.info("step %d, held out: %s", step, ", ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def turntables(self, step: int, named: Mapping[str, UInt8[np.ndarray, "n h w 3"]]) -> None:
        """Show turntables: animated and as a sheet on TensorBoard, and the newest sheets as files."""
        if not self._writes:
            return
        for name, frames in named.items():
            sheet = contact_sheet(grid(list(frames), COLUMNS))
            self._board.add_image(f"{name}/sheet", sheet, step, dataformats="HWC")
            if len(frames) > 1:
                self._add_gif(f"{name}/turntable", frames, step)
            write_png(self._run / PREVIEWS / f"{name.replace('/', '-')}.png", sheet)
        self._board.flush()

    def _add_gif(self, tag: str, frames: UInt8[np.ndarray, "n h w 3"], step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        height, width = frames.shape[1:3]
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif(frames))
        writer: Any = self._board.file_writer
        writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    def sync(self) -> None:
        """Bring all lines to the disk, as before a checkpoint."""
        if self._writes:
            for file in (self._losses, self._measures):
                file.flush()
                os.fsync(file.fileno())
            self._board.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._writes:
            self.sync()
            self._losses.close()
            self._measures.close()
            self._board.close()


def _line(values: Mapping[str, Any]) -> str:
    """One line of JSON, which knows no infinities: those become null."""
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }
    return json.dumps(plain) + "\n"


def cut_back(path: Path, step: int) -> None:
    """Drop a JSONL file's lines after a step, and a line that a killed writer left half done."""
    if not path.is_file():
        return
    text = path.read_text()
    kept = [line for line in text.splitlines(keepends=True) if _belongs(line, step)]
    if "".join(kept) != text:
        write_bytes(path, "".join(kept).encode())


def _belongs(line: str, step: int) -> bool:
    try:
        return line.endswith("\n") and json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False


def gif(frames: UInt8[np.ndarray, "n h w 3"]) -> bytes:
    """Return an endless animated GIF; every frame has colours of its own."""
    pictures = [Image.fromarray(frame).quantize(256, method=Image.Quantize.MEDIANCUT) for frame in frames]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=FRAME_MS, loop=0)
    return buffer.getvalue()
