"""Objaverse 1.0 through its own package (0.1.7): uids, LVIS categories, annotations, and the objects themselves.

    uids -> annotations (caption, licence, author) -> objects fetched that are not on disk yet -> Entry

What is on disk is never fetched again, so a run that was stopped takes up where it was. An object that cannot be
fetched becomes an Entry with the problem `fetch-failed`; the others go on.
"""

import gzip
import http.client
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import objaverse

from render_farm.assets import check_uid
from render_farm.catalogue.entry import Entry, Progress
from render_farm.catalogue.fetching import quietly, raise_if_disk, reason
from render_farm.catalogue.licences import is_allowed, spdx
from render_farm.errors import RunError
from render_farm.records import Provenance, Refusal

LOG = logging.getLogger(__name__)
CHUNK = 2048
"""Objects whose annotations are held at a time."""


@dataclass(frozen=True)
class ObjaverseChoice:
    """Which objects of Objaverse; with several of these, those that all of them name."""

    uids_file: Path | None = None
    """A text file, one uid a line, or a JSON list of them."""
    lvis: tuple[str, ...] = ()
    """LVIS categories, such as `chair`."""
    limit: int | None = None
    """At most so many, the smallest uids."""
    licences: tuple[str, ...] = ()
    """As records.Filters.licences: objects of others are not fetched, and refused."""


def objaverse_entries(
    choice: ObjaverseChoice, *, home: Path | None = None, processes: int = 4, progress: Progress | None = None
) -> list[Entry]:
    """Return the chosen objects, fetched, sorted by uid.

    Args:
        choice: which.
        home: the package's folder (it holds hf-objaverse-v1); ~/.objaverse by default.
        processes: downloads at a time.
        progress: called after each chunk.

    Raises:
        RunError: a uid or category that Objaverse does not have, or its lists cannot be fetched.
    """
    with _at(home), quietly():
        paths = _fetch_list("the list of objects", objaverse._load_object_paths)
        categories = _fetch_list("the LVIS categories", objaverse.load_lvis_annotations)
        labels = {uid: name for name in sorted(categories, reverse=True) for uid in categories[name]}
        uids = _chosen(choice, paths, categories)
        entries: list[Entry] = []
        for start in range(0, len(uids), CHUNK):
            entries += _chunk(uids[start : start + CHUNK], paths, labels, choice.licences, processes)
            if progress is not None:
                progress(len(entries), len(uids))
    return sorted(entries, key=lambda entry: entry.uid)


@contextmanager
def _at(home: Path | None) -> Iterator[None]:
    """Point the package at another folder: it takes its own from HOME when it is imported."""
    before = (objaverse.BASE_PATH, objaverse._VERSIONED_PATH)
    if home is not None:
        root = home.resolve()
        objaverse.BASE_PATH, objaverse._VERSIONED_PATH = str(root), str(root / "hf-objaverse-v1")
    try:
        yield
    finally:
        objaverse.BASE_PATH, objaverse._VERSIONED_PATH = before


def _fetch_list(what: str, load: Any, *arguments: Any) -> Any:
    """Objaverse's own lists; a file that an earlier run left half-written is named."""
    try:
        return load(*arguments)
    except (gzip.BadGzipFile, EOFError, ValueError) as error:
        raise RunError(f"Objaverse: {what} in {objaverse._VERSIONED_PATH} is damaged ({reason(error)}); remove that file, it "
                       "is fetched again") from error  # fmt: skip
    except (OSError, http.client.HTTPException) as error:
        raise RunError(f"Objaverse: {what} cannot be fetched ({reason(error)}); check the network, or name a folder that "
                       "holds Objaverse") from error  # fmt: skip


def _chosen(choice: ObjaverseChoice, paths: Mapping[str, str], categories: Mapping[str, list[str]]) -> list[str]:
    """The uids, sorted by where they lie: annotations come in one file a folder."""
    chosen = set(paths)
    for name in choice.lvis:
        if name not in categories:
            near = sorted(known for known in categories if name.lower() in known.lower())[:5]
            raise RunError(f"Objaverse has no LVIS category {name!r}" + (f"; near: {', '.join(near)}" if near else ""))
    if choice.lvis:
        chosen &= {uid for name in choice.lvis for uid in categories[name]}
    if choice.uids_file is not None:
        wanted = _read_uids(choice.uids_file)
        missing = [uid for uid in wanted if uid not in paths]
        if missing:
            raise RunError(f"{choice.uids_file.name}: {len(missing)} of {len(wanted)} uids are not in Objaverse, the first is "
                           f"{missing[0]!r}; remove them")  # fmt: skip
        chosen &= set(wanted)
    return sorted(sorted(chosen)[: choice.limit], key=lambda uid: paths[uid])


def _read_uids(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        uids = json.loads(text) if text.lstrip().startswith("[") else text.split()
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: the list of uids cannot be read ({reason(error)}); expected one uid a line") from error
    for index, uid in enumerate(uids):
        problem = check_uid(uid) if isinstance(uid, str) else f"expected text, found {uid!r}"
        if problem is not None:
            raise RunError(f"{path.name}: item {index + 1}: {problem}")
    return list(uids)


def _chunk(
    uids: Sequence[str], paths: Mapping[str, str], labels: Mapping[str, str], licences: Sequence[str], processes: int
) -> Iterator[Entry]:
    annotations = _fetch_list("the annotations", objaverse.load_annotations, list(uids))
    known = {uid: _provenance(annotations.get(uid, {}), labels.get(uid, "")) for uid in uids}
    wanted = [uid for uid in uids if is_allowed(known[uid].license, licences)]
    failures = _fetch_all(wanted, paths, processes)
    root = Path(objaverse._VERSIONED_PATH)
    for uid in uids:
        problem = failures.get(uid)
        if not is_allowed(known[uid].license, licences):
            problem = Refusal(
                "licence", f"its licence {known[uid].license or 'is unknown, which'} is none of those wanted"
            )
        yield Entry(uid, root / paths[uid], known[uid], problem)


def _fetch_all(uids: Sequence[str], paths: Mapping[str, str], processes: int) -> dict[str, Refusal]:
    """Fetch what is not there yet and return what could not be had."""
    root = Path(objaverse._VERSIONED_PATH)
    missing = [uid for uid in uids if not (root / paths[uid]).exists()]
    if not missing:
        return {}
    LOG.info("fetching %d objects of Objaverse", len(missing))
    stripes = [missing[index::processes] for index in range(min(processes, len(missing)))]
    with ThreadPoolExecutor(len(stripes)) as pool:
        parts = list(pool.map(lambda stripe: _fetch(stripe, paths), stripes))
    return {uid: refusal for part in parts for uid, refusal in part.items()}


def _fetch(uids: Sequence[str], paths: Mapping[str, str]) -> dict[str, Refusal]:
    """Fetch one after the other. The package stops at the first failure: it is noted, and the rest goes on."""
    root, failures, rest = Path(objaverse._VERSIONED_PATH), {}, list(uids)
    while rest:
        try:
            objaverse.load_objects(rest)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise_if_disk(error)
            failed = next((uid for uid in rest if not (root / paths[uid]).exists()), None)
            if failed is None:  # nothing is missing any more: what failed was not a download
                break
            failures[failed] = Refusal("fetch-failed", f"cannot be fetched from Objaverse: {reason(error)}", "fetching")
            LOG.warning("%s: %s", failed, failures[failed].message)
            rest = rest[rest.index(failed) + 1 :]
        else:
            break
    return failures


def _provenance(annotation: Mapping[str, Any], label: str) -> Provenance:
    """Caption: the description, or the name where there is none. Label: LVIS, or the first of Sketchfab's categories."""
    name, description = (" ".join(str(annotation.get(key) or "").split()) for key in ("name", "description"))
    user = annotation.get("user") or {}
    categories = annotation.get("categories") or [{}]
    return Provenance(
        caption=description or name,
        label=label or str(categories[0].get("name") or ""),
        license=spdx(str(annotation.get("license") or "")),
        attribution=str(user.get("displayName") or user.get("username") or ""),
        source=str(annotation.get("viewerUrl") or annotation.get("uri") or ""),
    )
