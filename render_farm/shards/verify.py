"""Verification: is everything in an output what was sealed? Reads all, changes nothing.

receipts (own checksum) -> tars (checksum, members, every picture decodes, cameras recomputed from asset and spec)
manifest.json (own checksum) -> tables and receipts (checksums)        the run's batches -> shards that are missing
"""

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine.errors import OrbitError, TurntableError
from engine.files import validate_shard
from engine.files.orbit_json import decode_document
from engine.geometry import Orbit
from render_farm.cameras import PlannedOrbit, plan_orbits
from render_farm.catalogue.batches import read_columns
from render_farm.errors import RunError
from render_farm.records import ObjectRecord
from render_farm.shards.manifest import MANIFEST, MANIFEST_NAME, read_manifest, table_name
from render_farm.shards.outputs import Output, file_sha256
from render_farm.shards.receipts import (
    RECEIPTS,
    SHARDS,
    Receipt,
    Sample,
    check_receipt,
    list_receipts,
    receipt_name,
    tar_name,
    wrong_members,
)
from render_farm.shards.tables import SCHEMAS
from render_farm.spec import RenderSpec, task_key, task_seed

Kind = Literal[
    "bad-receipt", "missing-tar", "bad-tar", "bad-sample", "bad-record", "bad-cameras", "stray", "missing-manifest",
    "bad-manifest", "stale-manifest", "missing-shard", "missing-object",
]  # fmt: skip
"""What can be wrong."""
LAST_DIGITS = 1e-12
"""Metres, degrees: sine and cosine of another processor may differ in the last digit of a double, no camera in more."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    kind: Kind
    """Of what sort."""
    name: str
    """The file's name in the output, or the shard's."""
    message: str
    """One line: expected, found, what to do."""

    def __str__(self) -> str:
        return f"{self.message} [{self.kind}]"


def verify(
    output: Output,
    run: Path | None = None,
    *,
    deep: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """Return all that is wrong, in the order of names; an empty list means that everything is as it was sealed.

    Args:
        output: what to look at.
        run: the folder of its run, to tell which shards of its batches are missing.
        deep: read every tar: checksums, members, pictures, cameras; else only that it is there and has its size.
        progress: told of shards done and all.

    Raises:
        RunError: the output cannot be listed, or the run's batches cannot be read.
    """
    shards = list_receipts(output)
    expected = {} if run is None else _expected(run)
    problems: list[Problem] = []
    digests: dict[str, str | None] = {}
    for done, shard in enumerate(shards):
        receipt, digest, found = _receipt(output, shard)
        problems += found
        if receipt is not None:
            problems += _records(output, receipt) + _shard(output, receipt, deep)
            problems += _differing(output, receipt, expected.get(shard))
        digests[shard] = digest
        if progress:
            progress(done + 1, len(shards))
    problems += _strays(output, shards) + _manifest(output, digests)
    if run is not None:
        problems += _missing(output, expected, set(shards))
    return sorted(problems, key=lambda problem: (problem.name, problem.kind, problem.message))


def _receipt(output: Output, shard: str) -> tuple[Receipt | None, str | None, list[Problem]]:
    """A receipt and its file's checksum, or what is wrong with it."""
    name = receipt_name(shard)
    try:
        data = output.get(name)
        return check_receipt(output, shard, data), hashlib.sha256(data).hexdigest(), []
    except RunError as error:
        return None, None, [Problem("bad-receipt", name, str(error))]


def _records(output: Output, receipt: Receipt) -> list[Problem]:
    """Records, samples and cameras of one receipt fit each other; this needs no tar."""
    name, where = receipt_name(receipt.shard), output.address(receipt_name(receipt.shard))
    promised = {
        f"{record.uid}.{orbit}" for record in receipt.records if record.outcome == "done" for orbit in record.orbits
    }
    held = {sample.name for sample in receipt.samples}
    problems = [
        Problem("bad-record", name, f"{where}: {sample} is {word}; render its object again")
        for sample, word in sorted(
            [(s, "promised by its record, but not in the tar") for s in promised - held]
            + [(s, "in the tar, but no record promises it") for s in held - promised]
        )
    ]
    spec = _spec(receipt)
    if isinstance(spec, str):
        return [*problems, Problem("bad-receipt", name, f"{where}: {spec}")]
    for record in receipt.records:
        if spec is not None and record.outcome == "done":
            problems += [Problem("bad-cameras", name, f"{where}: {fault}") for fault in _cameras(receipt, record, spec)]
    return problems


def _spec(receipt: Receipt) -> RenderSpec | str | None:
    """The spec of a receipt; None where its context has none; a sentence where it is wrong."""
    if "spec" not in receipt.context:
        return None
    try:
        spec = RenderSpec.from_json(json.dumps(receipt.context["spec"]))
    except ValueError as error:
        return str(error)
    if spec.digest != receipt.context.get("spec_digest"):
        return f"spec_digest must be {spec.digest}, found {receipt.context.get('spec_digest')}"
    return spec


def _cameras(receipt: Receipt, record: ObjectRecord, spec: RenderSpec) -> list[str]:
    """Key, seed, cameras and light of an object are those that its asset's bytes and the spec give."""
    seed = task_seed(record.sha256, spec)
    # where duplicates are kept, the uid is part of the key (catalogue/scan.py)
    keys = {task_key(record.sha256, spec), task_key(f"{record.sha256}|{record.uid}", spec)}
    if record.key not in keys or record.seed != seed:
        return [f"{record.uid}: key and seed must be {task_key(record.sha256, spec)} and {seed}, found {record.key} and "
                f"{record.seed}; the object was rendered for another spec"]  # fmt: skip
    planned = {item.orbit.name: item for item in plan_orbits(seed, spec)}
    samples = receipt.samples_of(record.uid)
    faults = []
    if {sample.orbit for sample in samples} != set(planned):
        faults.append(f"{record.uid}: must have the orbits {', '.join(planned)}, found {', '.join(record.orbits)}")
    for sample in samples:
        try:
            fault = _differs(sample, planned[sample.orbit]) if sample.orbit in planned else None
        except OrbitError as error:
            fault = str(error)
        if fault:
            faults.append(f"{sample.name}: {fault}; pictures and cameras do not belong together: render it again")
    return faults


def _differs(sample: Sample, planned: PlannedOrbit) -> str | None:
    document = sample.checked()
    stored, expected = document.orbit, planned.orbit
    if _lens(stored) != _lens(expected):
        return f"size, focal length and principal point must be {_lens(expected)}, found {_lens(stored)}"
    for name in ("T_world_camera", "azimuth_deg", "elevation_deg", "distance_m"):
        one, other = getattr(stored, name), getattr(expected, name)
        if one.shape != other.shape or (np.abs(one - other) > LAST_DIGITS).any():
            return f"{name} is not what the asset's seed and the spec give"
    light = document.facts["renderer"].get("light")
    if light is not None and json.dumps(light, sort_keys=True) != json.dumps(planned.light, sort_keys=True):
        return "its light is not what the asset's seed and the spec give"
    return None


def _lens(orbit: Orbit) -> tuple[float, ...]:
    return (float(orbit.width), float(orbit.height), orbit.focal_px, *orbit.principal_px)


def _shard(output: Output, receipt: Receipt, deep: bool) -> list[Problem]:
    name = tar_name(receipt.shard)
    where = output.address(name)
    size = output.size(name)
    if receipt.tar is None:
        if size is None:
            return []
        return [Problem("stray", name, f"{where}: its receipt says that no object succeeded; remove it")]
    if size is None:
        return [Problem("missing-tar", name, f"{where}: is missing, its receipt is there; copy it again")]
    if size != receipt.bytes:
        return [Problem("bad-tar", name, f"{where}: must have {receipt.bytes} bytes, found {size}; copy it again")]
    if not deep:
        return []
    try:
        with output.local(name) as path:
            return _tar(path, receipt, name, where)
    except (TurntableError, OSError) as error:
        return [Problem("bad-tar", name, f"{where}: {error}")]


def _tar(path: Path, receipt: Receipt, name: str, where: str) -> list[Problem]:
    found = file_sha256(path)
    problems = []
    if found != receipt.sha256:
        problems.append(Problem("bad-tar", name, f"{where}: must have sha256 {receipt.sha256:.16}..., found {found:.16}...; "
                                "copy it again"))  # fmt: skip
    with path.open("rb") as file:
        for sample in receipt.samples:
            parts = {}
            for member in sample.members:
                file.seek(member.offset)
                parts[member.name] = file.read(member.size)
            problems += [
                Problem("bad-sample", name, f"{where}: {member} is not what was sealed; copy the shard again")
                for member in wrong_members(sample.members, parts)
            ]
            problems += _document(sample, parts, name, where)
    if not problems:  # the bytes are those that were sealed: were they right then?
        problems += _content(path, receipt, name, where)
    return problems


def _document(sample: Sample, parts: Mapping[str, bytes], name: str, where: str) -> list[Problem]:
    try:
        document = decode_document(parts.get(f"{sample.name}.json", b""), f"{where}: {sample.name}.json")
        same = json.loads(parts[f"{sample.name}.json"]) == sample.document
    except TurntableError as error:
        return [Problem("bad-sample", name, str(error))]
    if same and document.sample == sample.name:
        return []
    return [Problem("bad-sample", name, f"{where}: {sample.name}.json is not the one of its receipt; copy both again")]


def _content(path: Path, receipt: Receipt, name: str, where: str) -> list[Problem]:
    try:
        held = validate_shard(path)
    except OrbitError as error:
        return [Problem("bad-sample", name, str(error).replace(str(path), where))]
    problems = []
    if set(held) != {sample.name for sample in receipt.samples}:
        problems.append(Problem("bad-tar", name, f"{where}: holds other samples than its receipt says"))
    with tarfile.open(path, "r:") as tar:
        members = [(info.name, info.offset_data, info.size) for info in tar]
    if members != [(m.name, m.offset, m.size) for sample in receipt.samples for m in sample.members]:
        problems.append(Problem("bad-receipt", name, f"{where}: its files lie elsewhere than its receipt says"))
    return problems


def _strays(output: Output, shards: Iterable[str]) -> list[Problem]:
    """What no receipt accounts for."""
    receipts, tars = {receipt_name(shard) for shard in shards}, {tar_name(shard) for shard in shards}
    return [
        Problem("stray", name, f"{output.address(name)}: has no receipt, so it does not count; seal it, or remove it")
        for name in output.list(SHARDS) if name not in tars
    ] + [
        Problem("stray", name, f"{output.address(name)}: is no receipt (BATCH-NUMBER.json); remove it")
        for name in output.list(RECEIPTS) if name not in receipts
    ]  # fmt: skip


def _manifest(output: Output, receipts: Mapping[str, str | None]) -> list[Problem]:
    """The manifest's own checksum, those of its tables, and whether it knows all receipts as they are."""
    where = output.address(MANIFEST_NAME)
    if not output.exists(MANIFEST_NAME):
        if not receipts and not output.list(MANIFEST):
            return []
        return [Problem("missing-manifest", MANIFEST_NAME, f"{where}: is missing; build the manifest")]
    try:
        manifest = read_manifest(output)
    except RunError as error:
        return [Problem("bad-manifest", MANIFEST_NAME, str(error))]
    problems = [problem for table in SCHEMAS for problem in _table(output, table, manifest["tables"].get(table, {}))]
    known = {entry["shard"]: entry["receipt_sha256"] for entry in manifest["shards"]}
    changed = [s for s in receipts if s in known and receipts[s] not in (None, known[s])]
    if set(known) != set(receipts) or changed:
        odd = sorted((set(known) ^ set(receipts)) | set(changed))
        problems.append(Problem("stale-manifest", MANIFEST_NAME, f"{where}: was not built from the receipts that are there "
                                f"(first difference: shard {odd[0]}); build the manifest again"))  # fmt: skip
    known_files = {MANIFEST_NAME, *(table_name(table) for table in SCHEMAS)}
    problems += [
        Problem("stray", name, f"{output.address(name)}: is no part of the manifest; remove it")
        for name in output.list(MANIFEST) if name not in known_files
    ]  # fmt: skip
    return problems


def _table(output: Output, table: str, expected: Mapping[str, Any]) -> list[Problem]:
    name = table_name(table)
    if not output.exists(name):
        return [Problem("bad-manifest", name, f"{output.address(name)}: is missing; build the manifest again")]
    found = output.sha256(name)
    if found == expected.get("sha256"):
        return []
    return [Problem("bad-manifest", name, f"{output.address(name)}: must have sha256 {expected.get('sha256', '')!s:.16}..., "
                    f"found {found:.16}...; build the manifest again")]  # fmt: skip


def _expected(run: Path) -> dict[str, list[str]]:
    """Uid and key of every object that the run's batches hold, by shard. Nothing else of a task is read."""
    found: dict[str, list[str]] = {}
    for path in sorted((run / "batches").glob("*.parquet")):
        for shard, uid, key in zip(*read_columns(path, "shard", "uid", "key"), strict=True):
            found.setdefault(shard, []).append(f"{uid} {key}")
    return found


def _differing(output: Output, receipt: Receipt, expected: list[str] | None) -> list[Problem]:
    """Objects of a shard that are not those of the run's batch, where there is one."""
    if expected is None:
        return []
    odd = sorted(set(expected) ^ {f"{record.uid} {record.key}" for record in receipt.records})
    if not odd:
        return []
    name = receipt_name(receipt.shard)
    return [Problem("missing-object", name, f"{output.address(name)}: its objects are not those of the run's batch "
                    f"({len(odd)} differ, first: {odd[0].split()[0]})")]  # fmt: skip


def _missing(output: Output, expected: Mapping[str, Sequence[str]], sealed: set[str]) -> list[Problem]:
    """Shards of the run's batches that are not there, and shards of which they do not know."""
    problems = [
        Problem("missing-shard", tar_name(shard), f"{output.address(tar_name(shard))}: {len(objects)} objects of the run are "
                "not sealed yet; run it again")
        for shard, objects in sorted(expected.items()) if shard not in sealed
    ]  # fmt: skip
    unknown = sorted(sealed - set(expected)) if expected else []
    problems += [Problem("stray", receipt_name(s), f"{output.address(receipt_name(s))}: no batch of the run has this shard")
                 for s in unknown]  # fmt: skip
    return problems
