"""Where a run's results go: a folder, or anything that fsspec writes to (s3://, gs://, az://, memory://).

A name such as `shards/000-000012.tar` is there whole or not at all. In a folder a file is written beside its place,
brought to the disk and renamed. An object store shows an upload when it is complete; other remote file systems get a
temporary name that is renamed. Names ending in `.partial` are never listed.
"""

import hashlib
import secrets
import shutil
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]

from engine.errors import TurntableError
from engine.files import atomic_path, write_bytes
from engine.files.atomic import PARTIAL_SUFFIX, sync_folder
from render_farm.errors import RunError

PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
    "adl": "adlfs", "oci": "ocifs", "oss": "ossfs", "hf": "huggingface_hub", "sftp": "paramiko", "ssh": "paramiko",
}  # fmt: skip
"""What each kind of address needs besides fsspec."""
WHOLE_UPLOADS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "memory"})
"""Kinds of address where an upload is seen only when it is complete."""
BLOCK = 1 << 20


class Output(ABC):
    """A place for whole files by name. Every method raises RunError or TurntableError in one line."""

    url: str
    """As the user wrote it, without a slash at the end."""

    @abstractmethod
    def writing(self, name: str) -> AbstractContextManager[Path]:
        """Give a local path to write; it becomes `name` when the block ends well, and nothing otherwise."""

    @abstractmethod
    def local(self, name: str) -> AbstractContextManager[Path]:
        """Give a local path with the content of `name`, to be read only while the block lasts."""

    @abstractmethod
    def get(self, name: str) -> bytes:
        """Return the whole content."""

    @abstractmethod
    def get_range(self, name: str, offset: int, size: int) -> bytes:
        """Return some bytes; fewer where the file ends."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Return the number of bytes, None where there is no such file."""

    @abstractmethod
    def list(self, folder: str) -> tuple[str, ...]:
        """Return the names of the files in a folder (`shards` -> `shards/000-000000.tar`, ...), sorted."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file; nothing happens where there is none."""

    @abstractmethod
    def clear_partials(self, name: str) -> None:
        """Remove what killed writers of this one file left; call it when nobody else writes that file."""

    def address(self, name: str) -> str:
        """Return the path or URL of a name, for messages and for other programs."""
        return f"{self.url}/{name}"

    def exists(self, name: str) -> bool:
        """Say whether there is such a file."""
        return self.size(name) is not None

    def put(self, name: str, path: Path) -> None:
        """Store a copy of a local file."""
        with self.writing(name) as place:
            shutil.copyfile(path, place)

    def put_bytes(self, name: str, data: bytes) -> None:
        """Store these bytes."""
        with self.writing(name) as place:
            place.write_bytes(data)

    def sha256(self, name: str) -> str:
        """Return the checksum of a file, 64 hexadecimal digits."""
        with self.local(name) as path:
            return file_sha256(path)


def open_output(where: str | Path) -> Output:
    """Return the output at a folder or an fsspec URL. Nothing is made or asked for yet.

    Raises:
        RunError: the kind of address is not known, or its package is not installed.
    """
    text = str(where)
    if text.startswith(("file://", "local://")):
        text = text.split("://", 1)[1]
    return _Remote(text.rstrip("/")) if "://" in text else _Folder(Path(text))


def check_writable(output: Output) -> None:
    """Write and remove a small file, so that wrong credentials show before hours of work and not after them."""
    name = f"receipts/.writable{PARTIAL_SUFFIX}"
    output.put_bytes(name, b"turntable-farm")
    output.remove(name)


def file_sha256(path: Path, advance: Callable[[int], None] | None = None) -> str:
    """Return the sha256 of a local file; `advance` is told of the bytes as they are read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            if advance:
                advance(len(block))
    return digest.hexdigest()


class _Folder(Output):
    def __init__(self, root: Path) -> None:
        self.url, self.root = str(root), root

    def writing(self, name: str) -> AbstractContextManager[Path]:
        return atomic_path(self.root / name)

    def put_bytes(self, name: str, data: bytes) -> None:
        write_bytes(self.root / name, data)

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        with self._reading(name):
            (self.root / name).open("rb").close()
        yield self.root / name

    def get(self, name: str) -> bytes:
        with self._reading(name):
            return (self.root / name).read_bytes()

    def get_range(self, name: str, offset: int, size: int) -> bytes:
        with self._reading(name), (self.root / name).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def size(self, name: str) -> int | None:
        path = self.root / name
        return path.stat().st_size if path.is_file() else None

    def list(self, folder: str) -> tuple[str, ...]:
        place = self.root / folder
        if not place.is_dir():
            return ()
        names = (path.name for path in place.iterdir() if path.is_file())
        return tuple(sorted(f"{folder}/{name}" for name in names if not name.endswith(PARTIAL_SUFFIX)))

    def remove(self, name: str) -> None:
        path = self.root / name
        try:
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                sync_folder(path.parent)
        except OSError as error:
            raise RunError(f"{path}: cannot be removed: {error.strerror or error}") from error

    def clear_partials(self, name: str) -> None:
        path = self.root / name
        for partial in path.parent.glob(f"{path.name}.*{PARTIAL_SUFFIX}"):
            partial.unlink(missing_ok=True)

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(f"{self.root / name}: cannot be read: {error.strerror or error}") from error


class _Remote(Output):
    def __init__(self, url: str) -> None:
        self.url = url
        self.protocol = url.split("://", 1)[0]
        try:
            self.fs, self.root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            package = PACKAGES.get(self.protocol)
            fix = f"pip install {package}" if package else "install the package that fsspec names"
            raise RunError(f"{url}: {self.protocol}:// needs a package that is not here: {fix} ({error})") from error
        except ValueError as error:
            raise RunError(
                f"{url}: is no address that fsspec knows ({error}); use a folder, s3://, gs:// or az://"
            ) from error

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="turntable-") as scratch:
            path = Path(scratch) / Path(name).name
            yield path
            self._upload(name, path)

    def _upload(self, name: str, path: Path) -> None:
        target = self._path(name)
        if self.protocol in WHOLE_UPLOADS:
            with self._asking(name, "written"):
                self.fs.put_file(str(path), target)
        else:
            with self._asking(name, "written"):
                self.fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
                partial = f"{target}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}"
                self.fs.put_file(str(path), partial)
                self.fs.mv(partial, target)
        stored, expected = self.size(name), path.stat().st_size
        if stored != expected:
            raise RunError(
                f"{self.address(name)}: must have {expected} bytes after its upload, found {stored}; try again"
            )

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="turntable-") as scratch:
            path = Path(scratch) / Path(name).name
            with self._asking(name, "read"):
                self.fs.get_file(self._path(name), str(path))
            yield path

    def get(self, name: str) -> bytes:
        with self._asking(name, "read"):
            return bytes(self.fs.cat_file(self._path(name)))

    def get_range(self, name: str, offset: int, size: int) -> bytes:
        with self._asking(name, "read"):
            return bytes(self.fs.cat_file(self._path(name), start=offset, end=offset + size))

    def size(self, name: str) -> int | None:
        with self._asking(name, "read"):
            try:
                info: dict[str, Any] = self.fs.info(self._path(name))
            except FileNotFoundError:
                return None
        return int(info["size"]) if info["type"] == "file" else None

    def list(self, folder: str) -> tuple[str, ...]:
        with self._asking(folder, "listed"):
            try:
                found: list[dict[str, Any]] = self.fs.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return ()
        names = (entry["name"].rsplit("/", 1)[-1] for entry in found if entry["type"] == "file")
        return tuple(sorted(f"{folder}/{name}" for name in names if name and not name.endswith(PARTIAL_SUFFIX)))

    def remove(self, name: str) -> None:
        with self._asking(name, "removed"):
            try:
                self.fs.rm_file(self._path(name))
            except FileNotFoundError:
                return

    def clear_partials(self, name: str) -> None:
        """Object stores keep no half-written objects; unfinished multipart uploads are for the bucket's own rules."""
        if self.protocol in WHOLE_UPLOADS:
            return
        with self._asking(name, "listed"):
            for path in self.fs.glob(f"{self._path(name)}.*{PARTIAL_SUFFIX}"):
                self.fs.rm_file(path)

    @contextmanager
    def _asking(self, name: str, done: str) -> Iterator[None]:
        try:
            yield
        except TurntableError:
            raise
        except _failures() as error:
            raise RunError(f"{self.address(name)}: cannot be {done}: {self._reason(error)}") from error

    def _reason(self, error: BaseException) -> str:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        kind = type(error).__name__
        if "Credential" in kind or "Credential" in text or "RefreshError" in kind or "Token" in kind:
            return f"no valid credentials ({text}); log in, or set the variables that {self.protocol}:// reads"
        if isinstance(error, PermissionError):
            return f"access denied ({text}); check the credentials and their rights on {self.root.split('/')[0]}"
        if isinstance(error, FileNotFoundError):
            return f"there is no such file or bucket ({text}); check {self.url}, or make the bucket first"
        return text


def _failures() -> tuple[type[BaseException], ...]:
    """What file systems raise: OSError mostly; the clouds' own clients have bases of their own, once loaded."""
    found: list[type[BaseException]] = [OSError, ValueError, ImportError]
    for module, names in (
        ("botocore.exceptions", ("BotoCoreError", "ClientError")), ("google.auth.exceptions", ("GoogleAuthError",)),
        ("azure.core.exceptions", ("AzureError",)), ("aiohttp", ("ClientError",)),
    ):  # fmt: skip
        if module in sys.modules:
            found += [getattr(sys.modules[module], name) for name in names]
    return tuple(found)
