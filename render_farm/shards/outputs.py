"""Where a run's results go: a folder, or anything that fsspec writes to (s3://, gs://, az://, memory://).

A name such as `shards/000-000012.tar` is there whole or not at all. In a folder a file is written beside its place,
brought to the disk and renamed. An object store shows an upload when it is complete; other remote file systems get a
temporary name that is renamed. Names ending in `.partial` are never listed.

A network that fails for a moment does not end a run: s3fs asks again for some seconds, and what still fails is asked again
here for a minute, unless nothing has ever come back from there: then address or credentials are wrong, and it is said at
once.
"""

import errno
import hashlib
import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import fsspec

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
RETRY_S = (2.0, 10.0, 50.0)
"""Waits before a remote file system that has answered before is asked again."""
LASTING = frozenset(
    {errno.EACCES, errno.EPERM, errno.ENOENT, errno.EINVAL, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR}
)
"""Errors that asking again does not mend."""
Answer = TypeVar("Answer")

log = logging.getLogger(__name__)


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


def make_folder(folder: Path) -> None:
    """Make a folder and those around it, and bring the entry of each new one to the disk."""
    if folder.is_dir():
        return
    if folder.exists():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


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
        self._make_folder(self.root / name)
        return atomic_path(self.root / name)

    def put_bytes(self, name: str, data: bytes) -> None:
        self._make_folder(self.root / name)
        write_bytes(self.root / name, data)

    def _make_folder(self, path: Path) -> None:
        """A new folder's own entry must outlive a power cut as well: staged objects are removed once it holds their shard."""
        try:
            make_folder(path.parent)
        except OSError as error:
            raise TurntableError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error

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
        for left in path.parent.glob(f"{path.name}.*{PARTIAL_SUFFIX}"):
            left.unlink(missing_ok=True)

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
        self._has_answered = False
        try:
            self.fs, self.root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            package = PACKAGES.get(self.protocol)
            fix = "install the package that fsspec names"
            if package:
                fix = f"pip install {package}" + (" (the extra `s3`)" if package == "s3fs" else "")
            raise RunError(f"{url}: {self.protocol}:// needs a package that is not here: {fix} ({error})") from error
        except ValueError as error:
            raise RunError(
                f"{url}: is no address that fsspec knows ({error}); use a folder, s3://, gs:// or az://"
            ) from error
        except _failures() as error:  # gcsfs looks for credentials here already
            raise RunError(f"{url}: cannot be reached: {self._reason(error)}") from error

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="turntable-") as scratch:
            path = Path(scratch) / Path(name).name
            yield path
            self._upload(name, path)

    def _upload(self, name: str, path: Path) -> None:
        self._ask(name, "written", lambda: self._put(self._path(name), path))
        stored, expected = self.size(name), path.stat().st_size
        if stored != expected:
            raise RunError(
                f"{self.address(name)}: must have {expected} bytes after its upload, found {stored}; try again"
            )

    def _put(self, target: str, path: Path) -> None:
        if self.protocol in WHOLE_UPLOADS:
            self.fs.put_file(str(path), target)
            return
        self.fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        partial = f"{target}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}"
        self.fs.put_file(str(path), partial)
        self.fs.mv(partial, target)

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="turntable-") as scratch:
            path = Path(scratch) / Path(name).name
            self._ask(name, "read", lambda: self.fs.get_file(self._path(name), str(path)))
            yield path

    def get(self, name: str) -> bytes:
        return bytes(self._ask(name, "read", lambda: self.fs.cat_file(self._path(name))))

    def get_range(self, name: str, offset: int, size: int) -> bytes:
        found = self._ask(name, "read", lambda: self.fs.cat_file(self._path(name), start=offset, end=offset + size))
        return bytes(found)

    def size(self, name: str) -> int | None:
        info: dict[str, Any] | None = self._ask(name, "read", lambda: _or_none(self.fs.info, self._path(name)))
        return int(info["size"]) if info is not None and info["type"] == "file" else None

    def list(self, folder: str) -> tuple[str, ...]:
        found = self._ask(folder, "listed", lambda: _or_none(self.fs.ls, self._path(folder), detail=True))
        names = (entry["name"].rsplit("/", 1)[-1] for entry in found or () if entry["type"] == "file")
        return tuple(sorted(f"{folder}/{name}" for name in names if name and not name.endswith(PARTIAL_SUFFIX)))

    def remove(self, name: str) -> None:
        self._ask(name, "removed", lambda: _or_none(self.fs.rm_file, self._path(name)))

    def clear_partials(self, name: str) -> None:
        """Object stores keep no half-written objects; unfinished multipart uploads are for the bucket's own rules."""
        if self.protocol in WHOLE_UPLOADS:
            return
        for path in self._ask(name, "listed", lambda: self.fs.glob(f"{self._path(name)}.*{PARTIAL_SUFFIX}")):
            self._ask(name, "removed", partial(_or_none, self.fs.rm_file, path))

    def _ask(self, name: str, done: str, question: Callable[[], Answer]) -> Answer:
        """Do it, again where that may help. Raises RunError."""
        for wait_s in (*RETRY_S, None):
            try:
                answer = question()
            except _failures() as error:
                if wait_s is None or not self._has_answered or not _may_pass(error):
                    raise RunError(f"{self.address(name)}: cannot be {done}: {self._reason(error)}") from error
                log.warning(
                    "%s: cannot be %s: %s; trying again in %g s", self.address(name), done, self._reason(error), wait_s
                )
                time.sleep(wait_s)
            else:
                self._has_answered = True
                return answer
        raise AssertionError("the last try returns or raises")

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


def _or_none(work: Callable[..., Any], path: str, **more: Any) -> Any:
    """Its result; None where there is no such file."""
    try:
        return work(path, **more)
    except FileNotFoundError:
        return None


def _may_pass(error: BaseException) -> bool:
    """A busy server, a network that is down; not a missing bucket, missing rights or a full disk."""
    kind = type(error).__name__
    if "Credential" in kind or "RefreshError" in kind or isinstance(error, ValueError | ImportError):
        return False
    return not (isinstance(error, OSError) and error.errno in LASTING) and not isinstance(
        error, PermissionError | FileNotFoundError
    )


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
