"""Folders of workers on a node's own disk: state, staged objects, temporary files. None is ever shared.

    BASE/turntable-RUN-3-of-16/            of a `worker`: the same share finds it again
    BASE/turntable-RUN/SHARD.xxxxxxxx/     of one attempt at a Ray task: the next one at the same shard takes it over

RUN tells runs apart, so that two of them meet neither each other's state nor what an older one left.
"""

import contextlib
import fcntl
import hashlib
import shutil
import tempfile
from pathlib import Path

from render_farm.errors import RunError
from render_farm.run.folder import Run
from render_farm.run.orphans import end_orphans

LOCK = "lock"
"""Beside the state: `run_shards` holds it, and its holder's name is in it from then on."""
DOOMED = ".gone"
"""End of the name of a folder that is being removed."""


def run_name(run: Run) -> str:
    """Return a name that no other run has on this node: of its folder, its spec and its first objects."""
    first = run.batches[0].sha256 if run.batches else ""
    return "turntable-" + hashlib.sha256(f"{run.folder}\n{run.spec.digest}\n{first}".encode()).hexdigest()[:12]


def worker_place(run: Run, base: Path | None, share: str) -> Path:
    """Return the folder of the worker with the share I/N; it need not exist."""
    return (base or Path(tempfile.gettempdir())) / f"{run_name(run)}-{share.replace('/', '-of-')}"


def claim_place(run: Run, base: Path | None, shard: str) -> Path:
    """Make a folder for one attempt at a shard.

    What a dead attempt at the same shard had staged on this node moves in; what dead attempts at others left is removed.

    Raises:
        RunError: the folder cannot be made.
    """
    folder = (base or Path(tempfile.gettempdir())) / run_name(run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=f"{shard}.", dir=folder))
    except OSError as error:
        raise RunError(f"{folder}: cannot be made: {error.strerror}; choose another --scratch") from error
    for left in sorted(folder.iterdir()):
        if left.name.endswith(DOOMED):
            shutil.rmtree(left, ignore_errors=True)
        elif left != place and _is_abandoned(left):
            end_orphans(left)
            same = left.name.startswith(f"{shard}.") and not any(place.iterdir())
            _take(left, place if same else None)
    return place


def leave_place(place: Path) -> None:
    """Remove a folder whose work is done."""
    shutil.rmtree(place, ignore_errors=True)


def leave_claim(place: Path) -> None:
    """Remove what `claim_place` made, and the run's folder around it if no other attempt is in it."""
    leave_place(place)
    with contextlib.suppress(OSError):
        place.parent.rmdir()


def _is_abandoned(place: Path) -> bool:
    """Someone held its lock, and nobody does. One without a name in its lock is just being started."""
    try:
        with (place / LOCK).open() as file:
            if not file.read():
                return False
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:  # no lock yet, or held
        return False


def _take(left: Path, target: Path | None) -> None:
    """Move an abandoned folder to an empty one, or remove it. One rename decides between those who try at once."""
    with contextlib.suppress(OSError):
        (left / LOCK).unlink()
        if target is not None:
            left.rename(target)
        else:
            doomed = left.with_name(left.name + DOOMED)
            left.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)


__all__ = ["claim_place", "leave_claim", "leave_place", "run_name", "worker_place"]
