"""Exports of one folder a sample: whole or not there, and not written again while the shard is the same.

TARGET/UID.ORBIT/...            its files, and EXPORT_NAME, which names what it was made of
TARGET/.UID.ORBIT.partial/      being written
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Literal

from PIL import Image

from engine.errors import TurntableError
from engine.files.atomic import PARTIAL_SUFFIX, sync_folder
from render_farm.errors import RunError
from render_farm.export.selection import Selected
from render_farm.shards import Sample

EXPORT_NAME = "export.json"
ImageFormat = Literal["webp", "png"]


def identity(kind: str, selected: Selected, sample: Sample, image_format: ImageFormat) -> dict[str, str | None]:
    """Return what a sample's folder is made of."""
    return {
        "kind": kind, "sample": sample.name, "shard": selected.receipt.shard, "sha256": selected.receipt.sha256,
        "images": image_format,
    }  # fmt: skip


def is_done(target: Path, made_of: Mapping[str, str | None]) -> bool:
    """Say whether a sample's folder is there and was made of the same."""
    try:
        found = json.loads((target / str(made_of["sample"]) / EXPORT_NAME).read_bytes())
    except (OSError, ValueError):
        return False
    return bool(found == made_of)


@contextmanager
def new_folder(target: Path, made_of: Mapping[str, str | None]) -> Iterator[Path]:
    """Give a folder to fill; it takes its name when the block ends well, in place of an older one.

    Raises:
        TurntableError: the file system refused.
    """
    name = str(made_of["sample"])
    partial, final = target / f".{name}{PARTIAL_SUFFIX}", target / name
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        (partial / EXPORT_NAME).write_text(json.dumps(made_of), encoding="utf-8")
        if final.is_dir() and not (final / EXPORT_NAME).is_file():
            raise RunError(f"{final}: is there already, and no export of this program; choose another folder")
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        sync_folder(target)
    except OSError as error:
        raise TurntableError(f"cannot write {final}: {error.strerror or error}; choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_images(
    folder: Path, sample: Sample, parts: Mapping[str, bytes], kind: str, image_format: ImageFormat
) -> list[str] | None:
    """Write a sample's pictures of one kind as KIND/00.webp, ... and return these names; None where it has none.

    WebP is copied as it is; depth is a PNG already.
    """
    members = [sample.member(kind, view) for view in range(len(sample.document["azimuth_deg"]))]
    names = []
    for view, member in enumerate(members):
        if member is None:
            return None
        data, suffix = parts[member.name], member.name.rsplit(".", 1)[1]
        if suffix == "webp" and image_format == "png":
            data, suffix = png_from_webp(data), "png"
        path = folder / kind / f"{view:02d}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        names.append(f"{kind}/{path.name}")
    return names


def png_from_webp(data: bytes) -> bytes:
    """Return the same pixels as PNG."""
    buffer = BytesIO()
    Image.open(BytesIO(data), formats=["WEBP"]).save(buffer, "PNG")
    return buffer.getvalue()
