"""One door to all exports: an output with a manifest in, a folder that other programs read out."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from render_farm.export import nerfstudio, opencv, parquet
from render_farm.export.folders import ImageFormat, identity, is_done, new_folder
from render_farm.export.selection import choose_rows, select
from render_farm.shards import Output
from render_farm.shards.tables import Row

logger = logging.getLogger(__name__)

Kind = Literal["nerfstudio", "opencv", "parquet"]
WRITERS = {"nerfstudio": nerfstudio.write_sample, "opencv": opencv.write_sample}


@dataclass(frozen=True)
class ExportSummary:
    """What an export wrote."""

    objects: int
    """That were asked for, and are there now."""
    paths: tuple[Path, ...]
    """Folders of samples, or Parquet files."""
    kept: int
    """Paths that were there already and whole."""


def export(
    output: Output,
    kind: Kind,
    target: Path,
    *,
    uids: Iterable[str] | None = None,
    drop_duplicates: bool = False,
    image_format: ImageFormat = "webp",
    progress: Callable[[int, int], None] | None = None,
) -> ExportSummary:
    """Write objects for other programs. What is there and whole is kept: an export that was cut off goes on.

    Args:
        output: with a manifest; the WebDataset tars in it need no export.
        kind: nerfstudio, opencv: a folder for each orbit; parquet: Hugging Face Parquet.
        target: a folder; made where missing.
        uids: only these objects.
        drop_duplicates: leave out objects that the manifest calls duplicates.
        image_format: of the pictures in folders. WebP is copied as it is stored.
        progress: told of objects done and all.

    Raises:
        RunError: no manifest, a uid that is not there, or a damaged shard.
        TurntableError: the file system refused.
    """
    rows = choose_rows(output, uids, drop_duplicates)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, len(rows))

    if kind == "parquet":
        return parquet_summary(output, target, rows, advance)
    paths, kept = [], 0
    for selected in select(output, rows):
        for sample in selected.samples:
            made_of = identity(kind, selected, sample, image_format)
            paths.append(target / sample.name)
            if is_done(target, made_of):
                kept += 1
                continue
            with new_folder(target, made_of) as folder:
                WRITERS[kind](folder, selected, sample, selected.parts(output, sample), image_format)
        advance(1)
    return ExportSummary(len(rows), tuple(paths), kept)


def parquet_summary(output: Output, target: Path, rows: list[Row], advance: Callable[[int], None]) -> ExportSummary:
    """Write Parquet files and say what was done."""
    before = {path: path.stat().st_mtime_ns for path in (target / "data").glob("*.parquet")}
    paths = parquet.write_shards(output, target, rows, advance)
    kept = sum(before.get(path) == path.stat().st_mtime_ns for path in paths)
    return ExportSummary(len(rows), tuple(paths), kept)
