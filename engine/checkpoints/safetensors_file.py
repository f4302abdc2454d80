"""safetensors files by their own format: a header that is checked before anything is mapped, tensors written one by one.

A file is 8 bytes N (little endian), N bytes of JSON (name -> dtype, shape, data_offsets), then the data without holes
(github.com/huggingface/safetensors, README "Format").
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from engine.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
AGAIN = "delete it, and download or copy it again"


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    """First byte, counted from the file's beginning."""
    stop: int
    """One past the last byte."""


def read_header(path: Path) -> dict[str, Entry]:
    """Return what a safetensors file holds. Raises CheckpointError, naming what is wrong, unless all of it is there."""
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        if len(first) < 8:
            raise CheckpointError(f"{path}: has {size} bytes, too few for a safetensors file; {AGAIN}")
        (length,) = struct.unpack("<Q", first)
        if length > MAX_HEADER_BYTES:
            raise CheckpointError(f"{path}: is no safetensors file (its header would have {length} bytes); {AGAIN}")
        if 8 + length > size:
            raise CheckpointError(
                f"{path}: is cut short inside its header: {8 + length} bytes expected, {size} found; {AGAIN}"
            )
        raw = file.read(length)
    entries = _entries(path, raw, 8 + length)
    _check_offsets(path, entries, 8 + length, size)
    return entries


def _entries(path: Path, raw: bytes, data_start: int) -> dict[str, Entry]:
    try:
        header = json.loads(raw)
    except ValueError as error:  # UnicodeDecodeError too
        raise CheckpointError(f"{path}: has a safetensors header that is not JSON ({error}); {AGAIN}") from None
    if not isinstance(header, dict):
        raise CheckpointError(
            f"{path}: has a safetensors header that is a {type(header).__name__}, not an object; {AGAIN}"
        )
    return {name: _entry(path, name, info, data_start) for name, info in header.items() if name != "__metadata__"}


def _entry(path: Path, name: str, info: Any, data_start: int) -> Entry:
    try:
        dtype, shape, (start, stop) = info["dtype"], tuple(info["shape"]), info["data_offsets"]
        whole = all(isinstance(number, int) and number >= 0 for number in (*shape, start, stop))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise CheckpointError(
            f"{path}: its safetensors header describes {name} without dtype, shape and offsets; {AGAIN}"
        )
    if dtype not in DTYPES:
        raise CheckpointError(
            f"{path}: {name} has the dtype {dtype}, expected one of {', '.join(DTYPES)}; take an fp32 or fp16 version"
        )
    return Entry(DTYPES[dtype], shape, data_start + start, data_start + stop)


def _check_offsets(path: Path, entries: Mapping[str, Entry], data_start: int, size: int) -> None:
    """Raise CheckpointError unless the tensors fill the file exactly, one after the other."""
    position = data_start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        expected = math.prod(entry.shape) * entry.dtype.itemsize
        if entry.stop - entry.start != expected:
            found = entry.stop - entry.start
            raise CheckpointError(
                f"{path}: bad offsets: {name} {list(entry.shape)} needs {expected} bytes, its place has {found}; {AGAIN}"
            )
        if entry.start != position:
            kind = "overlaps the tensor before it" if entry.start < position else "leaves a hole before it"
            raise CheckpointError(f"{path}: bad offsets: {name} {kind}; {AGAIN}")
        position = entry.stop
    if position > size:
        raise CheckpointError(f"{path}: is cut short: {position} bytes expected, {size} found; {AGAIN}")
    if position < size:
        raise CheckpointError(f"{path}: has {size - position} bytes after its last tensor; {AGAIN}")


def write_tensors(file: BinaryIO, tensors: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype]) -> None:
    """Write a safetensors file, holding one tensor in memory at a time.

    Args:
        file: open for writing.
        tensors: on the CPU; mapped files are read as they are written.
        dtypes: what each becomes.

    Raises:
        CheckpointError: a type that the format does not have.
    """
    for name, dtype in dtypes.items():
        if dtype not in NAMES:
            raise CheckpointError(f"{name}: safetensors have no type for {dtype}; take another precision")
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # diffusers and transformers ask for this
    # Wide types first, as the safetensors library writes them: every tensor is then aligned.
    order = sorted(tensors, key=lambda name: (-dtypes[name].itemsize, name))
    position = 0
    for name in order:
        stop = position + tensors[name].numel() * dtypes[name].itemsize
        header[name] = {
            "dtype": NAMES[dtypes[name]],
            "shape": list(tensors[name].shape),
            "data_offsets": [position, stop],
        }
        position = stop
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    file.write(struct.pack("<Q", len(raw)) + raw)
    for name in order:
        flat = tensors[name].detach().to(dtypes[name]).contiguous().reshape(-1)
        if flat.numel():
            file.write(flat.view(torch.uint8).numpy().data)
