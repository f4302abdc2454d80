"""Files that are on no hub: an https address in, a whole file with a known SHA-256 out. What breaks off is taken up again.

FOLDER/1a2b3c4d/name            the file; the folder is named for the address
FOLDER/1a2b3c4d/name.json       address, SHA-256, size: written last
FOLDER/1a2b3c4d/name.partial    what has come so far, with the server's ETag in name.partial.json
"""

import hashlib
import http.client
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from engine.checkpoints.space import check_space, explain_full, is_full
from engine.errors import CheckpointError
from engine.files import write_bytes
from engine.files.atomic import PARTIAL_SUFFIX, sync_folder
from engine.results import locked, sha256_of

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60
OnBytes = Callable[[int, int | None], None]
"""Called with the bytes that are there and, if the server says it, the bytes of the whole."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retries:
    """How often a download is taken up again."""

    count: int = 5
    """Attempts in a row that bring no new bytes before it is given up."""
    pause_s: float = 1.0
    """Pause before the second attempt; doubled each time."""


PATIENT = Retries()
"""For networks as they are."""


def is_url(address: str) -> bool:
    """Whether this is an address of the web."""
    return address.startswith(("https://", "http://"))


def download(
    url: str, folder: Path, *, sha256: str | None = None, retries: Retries = PATIENT, on_bytes: OnBytes | None = None
) -> Path:
    """Download a file, or return it if it is there and whole.

    Args:
        url: https; http only from this machine.
        folder: downloads are kept here, one folder an address.
        sha256: what the file must have; None: what it has is recorded, and checked the next time.
        retries: how often to try.
        on_bytes: progress.

    Raises:
        CheckpointError: no such address, no network, another SHA-256 than expected, disk full.
    """
    _check_url(url)
    name = Path(unquote(urlsplit(url).path)).name
    place = folder / hashlib.sha256(url.encode()).hexdigest()[:8]
    place.mkdir(parents=True, exist_ok=True)
    with locked(place):
        path = place / name
        if path.is_file():
            return _checked(path, url, sha256)
        partial = path.with_name(name + PARTIAL_SUFFIX)
        _complete(url, partial, retries, on_bytes)
        digest = sha256_of(partial)
        if sha256 and digest != sha256.lower():
            partial.unlink()
            raise CheckpointError(
                f"{url}: came with SHA-256 {digest}, expected {sha256}; the file was removed: try again, or check that "
                "the address and the SHA-256 are of the same version"
            )
        partial.replace(path)
        sync_folder(place)
        _state(partial).unlink(missing_ok=True)
        _record(path, url, digest)
        return path


def _check_url(url: str) -> None:
    _check_scheme(url, f"{url}:")
    path = unquote(urlsplit(url).path)
    if not Path(path).name or ".." in path:
        raise CheckpointError(f"{url}: names no file; give the address of the file itself")


def _check_scheme(url: str, what: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise CheckpointError(f"{what} is not encrypted on its way; give an https address")


def _record(path: Path, url: str, digest: str) -> None:
    content = {"url": url, "sha256": digest, "size": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns}
    write_bytes(path.with_name(path.name + ".json"), (json.dumps(content) + "\n").encode())


def _checked(path: Path, url: str, sha256: str | None) -> Path:
    """Return a file that is there, if it is what was downloaded."""
    record = _read_json(path.with_name(path.name + ".json"))
    untouched = record.get("size") == path.stat().st_size and record.get("mtime_ns") == path.stat().st_mtime_ns
    digest = record["sha256"] if untouched else sha256_of(path)
    expected = (sha256 or record.get("sha256") or digest).lower()
    if digest != expected:
        raise CheckpointError(
            f"{path}: has SHA-256 {digest}, expected {expected}: it was changed or is another version; delete it and "
            f"download {url} again"
        )
    if not untouched:
        _record(path, url, digest)
    return path


def _state(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _complete(url: str, partial: Path, retries: Retries, on_bytes: OnBytes | None) -> None:
    """Fetch until the partial file is whole."""
    idle, most = 0, _size(partial)
    while True:
        try:
            if _fetch_once(url, partial, on_bytes):
                return
            reason = "the connection broke off"
        except (TimeoutError, ConnectionError, http.client.HTTPException, urllib.error.URLError) as error:
            _raise_if_final(error, url)
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        except OSError as error:
            if is_full(error):
                raise explain_full(error, partial, None) from error
            raise
        there = _size(partial)
        # More than ever: a server that says a wrong length makes the same bytes come and go.
        idle = 0 if there > most else idle + 1
        most = max(most, there)
        if idle >= retries.count:
            raise CheckpointError(
                f"{url}: cannot be downloaded ({reason}, {there} bytes so far); check the network and try again: it goes "
                "on where it stopped. Or download it on another machine and give the file"
            )
        log.info("%s: %s after %d bytes; taking it up again", partial.name, reason, there)
        time.sleep(retries.pause_s * 2 ** max(idle - 1, 0))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class _Encrypted(urllib.request.HTTPRedirectHandler):
    """Goes where a server sends it, but not from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _check_scheme(newurl, f"{req.full_url}: sends on to {newurl}, which")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _raise_if_final(error: Exception, url: str) -> None:
    """Raise CheckpointError for answers of the server that will not change."""
    if not isinstance(error, urllib.error.HTTPError) or error.code in (408, 425, 429) or error.code >= 500:
        return
    words = {401: "asks for a login", 403: "refuses the download", 404: "is not there", 410: "is not there any more"}
    raise CheckpointError(
        f"{url}: {words.get(error.code, 'cannot be downloaded')} (HTTP {error.code}); check the address, or download it "
        "by hand and give the file"
    ) from None


def _fetch_once(url: str, partial: Path, on_bytes: OnBytes | None) -> bool:
    """Fetch what is missing, or the whole if the server's file is another now. Return whether the file is whole."""
    have = _size(partial)
    validator = _read_json(_state(partial)).get("validator")
    headers = {"User-Agent": "turntable3d", "Accept-Encoding": "identity"}
    if have and validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    try:
        opener = urllib.request.build_opener(_Encrypted)
        answer = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the range lies outside: begin anew
            raise
        partial.unlink()
        return False
    with answer:
        resumed = answer.status == 206 and str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-")
        start = have if resumed else 0
        total = None if answer.length is None else start + answer.length
        check_space(partial.parent, 0 if total is None else total - start, f"download {url}")
        tag = answer.headers.get("ETag", "")
        validator = answer.headers.get("Last-Modified") if not tag or tag.startswith("W/") else tag
        write_bytes(_state(partial), json.dumps({"url": url, "validator": validator}).encode())
        with partial.open("ab" if resumed else "wb") as file:
            done = start
            while chunk := answer.read(CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                if on_bytes:
                    on_bytes(done, total)
    return total is None or done == total
