"""Weights from where they are: a path, an id on the Hugging Face hub or an https address in, a local path out.

    weights/videomv-text                         a file or folder here: itself
    owner/name[@revision][:file or folder]       downloaded into the hub's cache, every large file's SHA-256 checked
    https://.../weights.pth                      downloaded into Turntable's cache, see download.py

HF_ENDPOINT (a mirror), HF_TOKEN, HF_HOME and HF_HUB_OFFLINE work as everywhere.
"""

import fnmatch
import json
import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.checkpoints.download import PATIENT, OnBytes, Retries, download, is_url
from engine.checkpoints.space import check_space, explain_full, is_full
from engine.errors import CheckpointError
from engine.files import write_bytes
from engine.results import sha256_of

NAME = r"\w(?:[\w.-]{0,94}\w)?"
HUB_ID = re.compile(rf"(?P<repo>{NAME}/{NAME})(?:@(?P<revision>[^:]+))?(?::(?P<inside>.+))?", re.ASCII)
LFS_NAME = re.compile(r"[0-9a-f]{64}")
"""The hub's cache names large files by their SHA-256."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubId:
    """What to take from the hub."""

    repo: str
    """owner/name"""
    revision: str | None
    """Branch, tag or commit; None: the main branch."""
    inside: str
    """A file or folder of the repository; empty: all of it."""


def cache_folder() -> Path:
    """Return where downloads are kept: $TURNTABLE_CACHE, or turntable in the user's cache folder."""
    if chosen := os.environ.get("TURNTABLE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "turntable"


def parse_hub_id(text: str) -> HubId | None:
    """Return what a hub id names, or None if the text is none by the hub's own rules for names."""
    match = HUB_ID.fullmatch(text)
    if match is None or "--" in match["repo"] or ".." in match["repo"] + (match["revision"] or ""):
        return None
    return HubId(match["repo"], match["revision"], (match["inside"] or "").strip("/"))


def fetch(
    id_or_path: str | Path,
    *,
    patterns: Sequence[str] = (),
    sha256: str | None = None,
    cache: Path | None = None,
    endpoint: str | None = None,
    offline: bool = False,
    retries: Retries = PATIENT,
    on_bytes: OnBytes | None = None,
) -> Path:
    """Return the local path of weights, downloading them if need be.

    Args:
        id_or_path: a path, `owner/name[@revision][:file or folder]`, or an https address.
        patterns: take the hub's files that match one of these, such as "unet/*"; none: all.
        sha256: of the file behind an https address.
        cache: folder for downloads; None: the hub's own cache, and `cache_folder()` for other addresses.
        endpoint: the hub; None: HF_ENDPOINT or huggingface.co.
        offline: take what an earlier call has downloaded.
        retries: for https addresses.
        on_bytes: called with the bytes that are there and the bytes of the whole file.

    Returns:
        The file, or the folder that holds the repository's files under their own names.

    Raises:
        CheckpointError: in one line, what is wrong and what to do.
    """
    text = str(id_or_path)
    local = Path(text).expanduser()
    if local.exists():
        return local
    if is_url(text):
        return download(text, cache or cache_folder() / "downloads", sha256=sha256, retries=retries, on_bytes=on_bytes)
    wanted = parse_hub_id(text) if isinstance(id_or_path, str) else None
    if wanted is None:
        raise CheckpointError(
            f"{text}: no such file or folder, and no hub id (owner/name[@revision][:file]) or https address either"
        )
    hub = _Hub(wanted, cache, endpoint, on_bytes)
    return hub.cached(patterns) if offline or _offline_by_environment() else hub.downloaded(patterns)


def _offline_by_environment() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


class _Hub:
    """One thing on the hub."""

    def __init__(self, wanted: HubId, cache: Path | None, endpoint: str | None, on_bytes: OnBytes | None) -> None:
        from huggingface_hub import constants

        self.wanted = wanted
        self.cache = cache or Path(constants.HF_HUB_CACHE)
        self.endpoint = endpoint or constants.ENDPOINT
        self.on_bytes = on_bytes

    def downloaded(self, patterns: Sequence[str]) -> Path:
        """Download what is missing, check it, and return where it is."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

        wanted = self.wanted
        try:
            info = HfApi(endpoint=self.endpoint).model_info(wanted.repo, revision=wanted.revision, files_metadata=True)
            files = self._chosen(info.siblings or [], patterns)
            missing = sum(file.size or 0 for file in files if not self._path(info.sha, file.rfilename).exists())
            check_space(self.cache, missing, f"download {wanted.repo}")
            for file in files:
                self._download(info.sha, file)
            self._remember(info.sha, [file.rfilename for file in info.siblings])
        except (HTTPError, OfflineModeIsEnabled, OSError) as error:
            unreachable = not isinstance(error, HfHubHTTPError) and not (isinstance(error, OSError) and is_full(error))
            if unreachable and (path := self._cached_or_none(patterns)) is not None:
                log.warning("%s: the hub cannot be reached; taking what was downloaded before", wanted.repo)
                return path
            raise self._explained(error) from error
        return self._path(info.sha, wanted.inside)

    def _download(self, commit: str, file: Any) -> None:
        """Download one file, unless it is there, and check it."""
        from huggingface_hub import hf_hub_download

        path = hf_hub_download(
            self.wanted.repo,
            file.rfilename,
            revision=commit,
            cache_dir=self.cache,
            endpoint=self.endpoint,
            tqdm_class=_bar_class(self.on_bytes),
        )
        if file.lfs is not None:
            _verify(Path(path), file.lfs.sha256, f"{self.wanted.repo}:{file.rfilename}")

    def cached(self, patterns: Sequence[str]) -> Path:
        """Return what is there from an earlier download. Raises CheckpointError if it is not."""
        path = self._cached_or_none(patterns)
        if path is None:
            raise CheckpointError(
                f"{self.wanted.repo}: was not downloaded before and the hub is not to be asked (offline); go online once, "
                f"or copy it into {self.cache} or name its folder"
            )
        return path

    def _cached_or_none(self, patterns: Sequence[str]) -> Path | None:
        """Return what is there from an earlier download, checked, or None if it is not all there."""
        revision = self.wanted.revision or "main"
        reference = self._storage / "refs" / revision
        commit = reference.read_text() if reference.is_file() else revision
        if not self._path(commit, "").is_dir():
            return None
        listing = self._listing(commit)
        present = [path for path in self._path(commit, "").rglob("*") if path.is_file()]
        names = (
            json.loads(listing.read_text())
            if listing.is_file()
            else [path.relative_to(self._path(commit, "")).as_posix() for path in present]
        )
        chosen = self._names(names, patterns)
        if not chosen or not all(self._path(commit, name).exists() for name in chosen):
            return None
        for name in chosen:
            digest = self._path(commit, name).resolve().name
            if LFS_NAME.fullmatch(digest):
                _verify(self._path(commit, name), digest, f"{self.wanted.repo}:{name}")
        return self._path(commit, self.wanted.inside)

    def _remember(self, commit: str, names: Sequence[str]) -> None:
        """Keep what the hub says, for when it cannot be asked: the branch's commit, as its own client does, and the names."""
        write_bytes(self._storage / "refs" / (self.wanted.revision or "main"), commit.encode())
        write_bytes(self._listing(commit), json.dumps(sorted(names)).encode())

    @property
    def _storage(self) -> Path:
        return self.cache / f"models--{self.wanted.repo.replace('/', '--')}"

    def _path(self, commit: str, name: str) -> Path:
        return self._storage / "snapshots" / commit / name

    def _listing(self, commit: str) -> Path:
        return self._storage / "turntable" / f"{commit}.json"

    def _names(self, names: Iterable[str], patterns: Sequence[str]) -> list[str]:
        """Return the files that the id and the patterns name."""
        inside = self.wanted.inside
        chosen = [name for name in names if not inside or name == inside or name.startswith(inside + "/")]
        return [name for name in chosen if not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]

    def _chosen(self, files: Sequence[Any], patterns: Sequence[str]) -> list[Any]:
        """Return the files to take, as the hub describes them. Raises CheckpointError if there are none."""
        names = self._names([file.rfilename for file in files], patterns)
        if not names:
            held = ", ".join(sorted(file.rfilename for file in files)[:8])
            asked = self.wanted.inside or " ".join(patterns) or "any file"
            raise CheckpointError(f"{self.wanted.repo}: holds no {asked}; it holds {held or 'nothing'}")
        return [file for file in files if file.rfilename in set(names)]

    def _explained(self, error: Exception) -> CheckpointError:
        """Return what to raise for an error of the hub."""
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        repo, page = self.wanted.repo, f"{self.endpoint}/{self.wanted.repo}"
        login = "`hf auth login` or HF_TOKEN"
        if isinstance(error, GatedRepoError):
            return CheckpointError(f"{repo}: is gated: accept its terms at {page}, then log in with {login}")
        if isinstance(error, RepositoryNotFoundError):
            return CheckpointError(
                f"{repo}: no such folder here, and no such repository on {self.endpoint} (or it is private: log in with "
                f"{login}); check the spelling"
            )
        if isinstance(error, RevisionNotFoundError):
            return CheckpointError(f"{repo}: has no revision {self.wanted.revision}; see {page}/tree/main")
        if isinstance(error, HfHubHTTPError):
            status = getattr(error.response, "status_code", 0)
            words = {
                401: f"needs a login ({login}), or its name is misspelt",
                403: f"refuses the download: ask its owner, or log in with {login}",
            }
            fix = words.get(status, "cannot be downloaded now: try again later; what has come so far is kept")
            return CheckpointError(f"{repo}: {fix} (HTTP {status})")
        of_network = isinstance(error, LocalEntryNotFoundError | ConnectionError)
        if isinstance(error, OSError) and error.errno and not of_network:
            return explain_full(error, self.cache / repo, None)
        return CheckpointError(
            f"{repo}: {self.endpoint} cannot be reached ({str(error).splitlines()[0][:120] or type(error).__name__}); check "
            "the network, set HF_ENDPOINT to a mirror, or download it on another machine and name the folder"
        )


def _verify(path: Path, sha256: str, name: str) -> None:
    """Raise CheckpointError, and remove the file, unless it has this SHA-256. Done once for a file that stays as it is."""
    blob = path.resolve()
    record = blob.parent.parent / "turntable" / f"{sha256}.json"
    stat = blob.stat()
    state = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "inode": stat.st_ino}
    if record.is_file() and record.read_text() == json.dumps(state):
        return
    found = sha256_of(blob)
    if found != sha256:
        path.unlink()
        blob.unlink(missing_ok=True)
        raise CheckpointError(
            f"{name}: has SHA-256 {found}, expected {sha256}: it was damaged on its way or on this disk and is removed; "
            "download it again"
        )
    write_bytes(record, json.dumps(state).encode())


def _bar_class(on_bytes: OnBytes | None) -> Any:
    """Return a tqdm class that draws nothing and reports the bytes."""
    from tqdm.auto import tqdm

    class Reporting(tqdm):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            self._whole, self._done = settings.get("total"), settings.get("initial") or 0
            settings.pop("name", None)
            super().__init__(*arguments, **(settings | {"disable": True}))

        def update(self, n: Any = 1) -> bool | None:
            self._done += int(n or 0)
            if on_bytes:
                on_bytes(self._done, self._whole)
            return super().update(n)

    return Reporting
