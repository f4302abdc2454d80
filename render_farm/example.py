"""Have the project's own example object made: a path in, a GLB there. Blender does it, in a child on the same leash."""

import sys
import tempfile
from pathlib import Path

from render_farm.errors import FarmError
from render_farm.process import ChildTimeoutError, Deadline, child_environment, run_child

EXAMPLE = (sys.executable, "-m", "render_farm.worker.example")
TIMEOUT_S = 600.0


def make_example(out: Path, *, threads: int = 4, command: tuple[str, ...] = EXAMPLE) -> Path:
    """Write the example object to `out` and return its path.

    Args:
        out: a .glb.
        threads: for Blender.
        command: the child; `--out FILE` is appended.

    Raises:
        FarmError: it could not be made or written; `out` is as it was before.
    """
    if out.suffix.lower() != ".glb":
        raise FarmError("unknown-format", f"{out.name}: the example is a .glb, found {out.suffix!r}; name it so")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".example.", suffix=".partial", dir=out.parent) as folder:
            made = Path(folder).resolve() / out.name
            _run(made, threads, command)
            made.replace(out)
    except OSError as error:
        raise FarmError("write-failed", f"cannot write {out}: {error.strerror}; choose another folder") from error
    return out


def _run(made: Path, threads: int, command: tuple[str, ...]) -> None:
    try:
        end = run_child(
            [*command, "--out", str(made)],
            env=child_environment(made.parent, threads),
            first=Deadline("making the example", TIMEOUT_S),
            on_event=lambda event: Deadline("making the example", TIMEOUT_S),
        )
    except ChildTimeoutError as error:
        raise FarmError("timeout", f"the example: {error.args[0]}", error.detail) from error
    if end.returncode != 0 or not made.is_file():
        raise FarmError("crash", f"the example was not made: the child {end.how}; see its last words with -v", end.tail)
