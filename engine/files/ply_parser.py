"""The PLY container: header and one element's columns, from ASCII or binary of either byte order, any scalar types."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.errors import FileFormatError

TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
ORDERS: Mapping[str, Literal["", "<", ">"]] = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
END = b"\nend_header"
HEADER_LIMIT = 1 << 16
"""Bytes within which a header must end; real ones have a few thousand."""


@dataclass(frozen=True)
class PlyElement:
    """One element of the header."""

    name: str
    """vertex, face, ..."""
    count: int
    """Rows."""
    properties: tuple[tuple[str, str], ...]
    """(name, numpy type without byte order) in file order; the type is "list" where it is one."""


@dataclass(frozen=True)
class PlyHeader:
    """What stands before the data."""

    order: Literal["", "<", ">"]
    """Byte order; empty for ASCII."""
    elements: tuple[PlyElement, ...]
    """In file order."""
    comments: tuple[str, ...]
    """Without the word `comment`."""
    size_bytes: int
    """Where the data begins."""

    def element(self, name: str) -> PlyElement | None:
        """Return the element of a name, None where there is none."""
        return next((element for element in self.elements if element.name == name), None)


def parse_header(data: bytes, name: str) -> PlyHeader:
    """Parse a header; `name` is the file's, for messages. Raises FileFormatError."""
    if not data.startswith((b"ply\n", b"ply\r")):
        raise FileFormatError(f"{name}: is not a PLY: it must begin with the line 'ply', found {data[:12]!r}")
    end = data.find(END, 0, HEADER_LIMIT)
    newline = data.find(b"\n", end + len(END), end + len(END) + 2) if end >= 0 else -1
    if newline < 0:
        raise FileFormatError(f"{name}: is truncated: its PLY header has no end_header line")
    order: Literal["", "<", ">"] | None = None
    elements: list[tuple[str, int, list[tuple[str, str]]]] = []
    comments = []
    for line in data[:end].decode("utf-8", "replace").splitlines()[1:]:
        match line.split():
            case ["format", kind, _] if kind in ORDERS:
                order = ORDERS[kind]
            case ["element", element, count] if count.isdecimal():
                elements.append((element, int(count), []))
            case ["property", "list", _, _, column] if elements:
                elements[-1][2].append((column, "list"))
            case ["property", kind, column] if kind in TYPES and elements:
                elements[-1][2].append((column, TYPES[kind]))
            case ["comment", *_]:
                comments.append(line.partition(" ")[2].strip())
            case ["obj_info", *_] | []:
                pass
            case _:
                raise FileFormatError(f"{name}: has a PLY header line that means nothing: {line[:80]!r}")
    if order is None:
        raise FileFormatError(f"{name}: has no 'format' line in its PLY header")
    return PlyHeader(
        order,
        tuple(PlyElement(e, count, tuple(columns)) for e, count, columns in elements),
        tuple(comments),
        newline + 1,
    )


def read_columns(data: bytes, header: PlyHeader, element: str, name: str) -> Mapping[str, np.ndarray]:
    """Return an element's columns by property name, in the file's types. Raises FileFormatError.

    Elements before it must have no list properties, since their size is not known without walking them.
    """
    offset = header.size_bytes
    rows_before = 0
    for each in header.elements:
        if any(kind == "list" for _, kind in each.properties):
            raise FileFormatError(f"{name}: element {each.name} has list properties; expected scalars only")
        if len({column for column, _ in each.properties}) < len(each.properties):
            raise FileFormatError(f"{name}: element {each.name} names a property twice")
        if each.name == element:
            if not header.order:
                return _ascii_columns(data[header.size_bytes :], rows_before, each, name)
            dtype = np.dtype([(column, header.order + kind) for column, kind in each.properties])
            return _binary_columns(data, offset, dtype, each, name)
        rows_before += each.count
        offset += each.count * sum(np.dtype(kind).itemsize for _, kind in each.properties)
    raise FileFormatError(f"{name}: has no element {element}")


def _binary_columns(
    data: bytes, offset: int, dtype: np.dtype, element: PlyElement, name: str
) -> Mapping[str, np.ndarray]:
    whole = max(len(data) - offset, 0) // dtype.itemsize if dtype.itemsize else 0
    if whole < element.count:
        raise _truncated(name, element, whole)
    table = np.frombuffer(data, dtype, element.count, offset)
    return {column: table[column] for column, _ in element.properties}


def _ascii_columns(body: bytes, skip: int, element: PlyElement, name: str) -> Mapping[str, np.ndarray]:
    lines = [line for line in body.splitlines() if line.strip()][skip : skip + element.count]
    if len(lines) < element.count:
        raise _truncated(name, element, len(lines))
    try:
        table = np.loadtxt(io.BytesIO(b"\n".join(lines)), np.float64, ndmin=2, comments=None)
    except ValueError as error:
        raise FileFormatError(f"{name}: element {element.name} holds a row that is not numbers: {error}") from error
    if table.shape[1] != len(element.properties):
        raise FileFormatError(
            f"{name}: element {element.name} must have {len(element.properties)} numbers a row, found {table.shape[1]}"
        )
    return {column: table[:, i].astype(kind) for i, (column, kind) in enumerate(element.properties)}


def _truncated(name: str, element: PlyElement, found: int) -> FileFormatError:
    return FileFormatError(
        f"{name}: is truncated: its header promises {element.count} {element.name} rows, {found} whole ones are there; "
        "write it again"
    )


def format_header(element: str, count: int, properties: Sequence[str], comments: Sequence[str]) -> bytes:
    """Return the header of a binary little-endian PLY with one element of float properties."""
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {comment}" for comment in comments)]
    lines += [f"element {element} {count}", *(f"property float {column}" for column in properties), "end_header", ""]
    return "\n".join(lines).encode("ascii")
