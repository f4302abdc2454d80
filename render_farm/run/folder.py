"""The folder of a run: what is to be rendered, frozen before it starts.

RUN/run.json              spec, filters, where the shards go, the batches with their hashes; written whole or not
RUN/batches/000.parquet   the tasks of one batch, never changed after; run.json naming it is the commit mark
RUN/state.sqlite, RUN/lock, RUN/staging/, RUN/scratch/      the local scheduler's; another engine keeps its own
OUT/...                   shards, receipts, manifest: the run itself by default, or any fsspec URL
"""

import hashlib
import json
import logging
import platform
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.command_line import product_version
from engine.files import write_bytes
from render_farm.catalogue.batches import read_batch, write_batch
from render_farm.errors import RunError
from render_farm.records import Filters, Task
from render_farm.run.owner import hold
from render_farm.run.tasks import count_tasks, iter_tasks, read_hashes, read_sizes
from render_farm.spec import SPEC_VERSION, RenderSpec

log = logging.getLogger(__name__)

RUN_NAME, FORMAT = "run.json", "farm-run/1"


@dataclass(frozen=True)
class Batch:
    """Objects that were added at one time."""

    number: int
    """From 0."""
    objects: int
    """How many."""
    shards: int
    """In how many shards."""
    sha256: str
    """Of the Parquet file."""

    @property
    def name(self) -> str:
        """Three digits: the start of its shards' names."""
        return f"{self.number:03d}"


@dataclass(frozen=True)
class Run:
    """A run as its run.json says. Values only: `add_batch` returns a new one."""

    folder: Path
    """Where it lives."""
    spec: RenderSpec
    """What is rendered."""
    filters: Filters
    """What is left out."""
    shard_objects: int
    """About how many objects a shard holds."""
    out: str | None
    """Where shards, receipts and manifest go: a folder or an fsspec URL; None: the run's own folder."""
    batches: tuple[Batch, ...] = ()
    """What was added so far."""
    program: Mapping[str, str] | None = None
    """Versions of what made the run."""

    # -------------------------------------------------------------------------------------------- paths
    @property
    def out_url(self) -> str:
        """Where shards, receipts and manifest go, as a path or URL."""
        return self.out or str(self.folder)

    @property
    def store_path(self) -> Path:
        """State of the local scheduler."""
        return self.folder / "state.sqlite"

    @property
    def scratch(self) -> Path:
        """Temporary files, if nothing else is asked for."""
        return self.folder / "scratch"

    def batch_path(self, batch: Batch | int) -> Path:
        """Where a batch's tasks are."""
        number = batch if isinstance(batch, int) else batch.number
        return self.folder / "batches" / f"{number:03d}.parquet"

    # -------------------------------------------------------------------------------------------- life
    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a folder is a run's."""
        return (folder / RUN_NAME).is_file()

    @staticmethod
    def create(
        folder: Path, spec: RenderSpec, filters: Filters, *, shard_objects: int = 256, out: str | None = None
    ) -> "Run":
        """Make a run without objects.

        Args:
            folder: is made where missing.
            spec: what to render.
            filters: what to leave out.
            shard_objects: about how many objects a shard holds.
            out: where shards go; a path is made absolute; None: the folder itself.

        Raises:
            RunError: the folder is a run's already.
            TurntableError: the file system refused.
        """
        if shard_objects < 1:
            raise ValueError(f"shard_objects must be at least 1, got {shard_objects}")
        if out is not None and "://" not in out:
            out = str(Path(out).resolve())
        program = {"turntable": product_version(), "spec": str(SPEC_VERSION), "python": platform.python_version()}
        run = Run(folder.resolve(), spec, filters, shard_objects, out, (), program)
        with hold(run.folder / "lock"):
            if Run.exists(folder):
                raise RunError(f"{folder} holds a run already: go on with it, or choose another folder")
            run._save()
        return run

    @staticmethod
    def open(folder: Path) -> "Run":
        """Read a run.

        Raises:
            RunError: there is none, or it cannot be understood.
        """
        path = folder / RUN_NAME
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != FORMAT:
                raise RunError(f"{path} is of format {document['format']!r}, this program reads {FORMAT!r}: use the program "
                               "that made it, or start a new run")  # fmt: skip
            return _run(folder.resolve(), document)
        except FileNotFoundError as error:
            raise RunError(f"{folder} is not a run: there is no {RUN_NAME} in it; plan or start one first") from error
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"{path} is no description of a run ({error}); restore it, or start a new run") from error

    def check(
        self, spec: RenderSpec, *, filters: Filters | None = None, shard_objects: int | None = None,
        out: str | None = None, default: RenderSpec | None = None,
    ) -> None:  # fmt: skip
        """Raise RunError, naming the first field, unless this run was made with the same settings.

        Args:
            spec: asked for.
            filters: asked for; None asks nothing.
            shard_objects: asked for; None asks nothing.
            out: asked for; None asks nothing.
            default: what `spec` is if nobody asks for anything: where the two agree, nothing is asked for; so with
                filters that are `Filters`' own. None: all of both is asked for.
        """
        mine: dict[str, Any] = {"spec": json.loads(self.spec.canonical_json())}
        theirs: dict[str, Any] = {"spec": json.loads(spec.canonical_json())}
        if filters is not None:
            mine["filters"], theirs["filters"] = _plain(asdict(self.filters)), _plain(asdict(filters))
        if shard_objects is not None:
            mine["shard_objects"], theirs["shard_objects"] = self.shard_objects, shard_objects
        if out is not None:
            mine["out"] = self.out_url
            theirs["out"] = out if "://" in out else str(Path(out).resolve())
        found = _differences(mine, theirs)
        if default is not None:
            unasked = {"spec": json.loads(default.canonical_json()), "filters": _plain(asdict(Filters()))}
            asked = {name for name, _, _ in _differences(unasked, theirs)}
            found = [each for each in found if each[0].split(".")[0] not in unasked or each[0] in asked]
        for name, old, new in found:
            raise RunError(f"{self.folder}: this run has {name} = {json.dumps(old)}, asked for is {json.dumps(new)}; all of a "
                           "run is made alike: leave that setting as it was, or choose another folder")  # fmt: skip

    # -------------------------------------------------------------------------------------------- objects
    @property
    def next_batch(self) -> int:
        """Number of the batch that is added next; its shards' names start with it."""
        return len(self.batches)

    def add_batch(self, tasks: Sequence[Task]) -> "Run":
        """Add objects and return the run that has them. Not while a scheduler is at work on the folder.

        Raises:
            RunError: the folder is held, the run has changed since it was read, or a task comes twice.
            TurntableError: the file system refused.
        """
        number = self.next_batch
        foreign = [task for task in tasks if not task.shard.startswith(f"{number:03d}-")]
        if foreign or not tasks:
            found = f"{foreign[0].uid} in {foreign[0].shard}" if foreign else "no tasks"
            raise ValueError(f"tasks of batch {number} must be in shards {number:03d}-..., got {found}")
        with hold(self.folder / "lock"):
            if Run.open(self.folder).batches != self.batches:
                raise RunError(f"{self.folder}: objects were added to this run meanwhile; start again")
            write_batch(self.batch_path(number), tasks)
            digest = hashlib.sha256(self.batch_path(number).read_bytes()).hexdigest()
            batch = Batch(number, len(tasks), len({task.shard for task in tasks}), digest)
            run = replace(self, batches=(*self.batches, batch))
            run._save()
        return run

    def tasks(self, batch: int | None = None) -> list[Task]:
        """Return the tasks of one batch, or of all in order.

        Raises:
            RunError: a batch is missing, or is not the one that was added.
        """
        if batch is None:
            return [task for each in self.batches for task in self.tasks(each.number)]
        if not 0 <= batch < len(self.batches):
            raise RunError(f"{self.folder}: there is no batch {batch}; this run has {len(self.batches)}")
        return read_batch(self._checked(batch))

    def tasks_of(self, shards: Collection[str]) -> Iterator[Task]:
        """Give the tasks of some shards, in order, one after the other: all tasks of a large run take gigabytes.

        Raises:
            RunError: as `tasks`.
        """
        for batch in self.batches:
            mine = {shard for shard in shards if shard.startswith(f"{batch.name}-")}
            if mine:
                yield from iter_tasks(self._checked(batch.number), "shard", mine)

    def newest_tasks(self, uids: Collection[str]) -> dict[str, Task]:
        """Return some objects' tasks by uid, the newest where an object was added again. Raises RunError as `tasks`."""
        return {task.uid: task for each in self.batches for task in iter_tasks(self._checked(each.number), "uid", uids)}

    def hashes(self) -> dict[str, str]:
        """Return uid -> sha256 of all objects, the newest where one was added again. Raises RunError as `tasks`."""
        found: dict[str, str] = {}
        for batch in self.batches:
            found |= read_hashes(self._checked(batch.number))
        return found

    def sizes(self) -> dict[str, int | None]:
        """Return uid -> bytes of all objects' files, None where one is refused; else as `hashes`."""
        found: dict[str, int | None] = {}
        for batch in self.batches:
            found |= read_sizes(self._checked(batch.number))
        return found

    def shards(self) -> dict[str, int]:
        """Return how many tasks each shard has, by name, sorted. Cheap: no task is read.

        Raises:
            RunError: as `tasks`.
        """
        counts = Counter[str]()
        for batch in self.batches:
            counts += count_tasks(self._checked(batch.number))
        return dict(sorted(counts.items()))

    def _checked(self, batch: int) -> Path:
        """Its file, once it has proved to be the one that was added."""
        path = self.batch_path(batch)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise RunError(f"{path}: there is no such batch; is this the folder of a run?") from error
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}") from error
        if found != self.batches[batch].sha256:
            raise RunError(f"{path} is not the batch that was added to this run (its sha256 differs); restore it")
        return path

    def _save(self) -> None:
        document = {
            "format": FORMAT, "spec": json.loads(self.spec.canonical_json()), "spec_digest": self.spec.digest,
            "filters": asdict(self.filters), "shard_objects": self.shard_objects, "out": self.out,
            "batches": [asdict(batch) for batch in self.batches], "program": self.program,
        }  # fmt: skip
        write_bytes(self.folder / RUN_NAME, (json.dumps(document, indent=1) + "\n").encode())


def _run(folder: Path, document: dict[str, Any]) -> Run:
    spec = RenderSpec.from_json(json.dumps(document["spec"]))
    if spec.digest != document["spec_digest"]:
        raise RunError(f"{folder / RUN_NAME}: the spec was changed by hand (its digest is not {document['spec_digest']}); "
                       "undo that, or start a new run")  # fmt: skip
    filters = document["filters"]
    return Run(
        folder, spec, Filters(**filters | {"licences": tuple(filters["licences"])}), document["shard_objects"],
        document["out"], tuple(Batch(**batch) for batch in document["batches"]), document["program"],
    )  # fmt: skip


def _plain(value: Any) -> Any:
    """As JSON has it: lists, no tuples."""
    return json.loads(json.dumps(value))


def _differences(mine: Any, theirs: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Leaves that differ, by dotted name."""
    if not (isinstance(mine, dict) and isinstance(theirs, dict)):
        return [] if mine == theirs else [(name, mine, theirs)]
    found = []
    for key in sorted(mine.keys() | theirs.keys()):
        found += _differences(mine.get(key), theirs.get(key), f"{name}.{key}" if name else key)
    return found
