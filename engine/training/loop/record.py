"""run.json: what a run was asked for, with which code and which versions."""

import json
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from engine.errors import TrainingError
from engine.files import write_bytes
from engine.training.loop.state import FORMAT, RUN, check_identity
from engine.training.loop.steps import Setup
from engine.versions import commit, versions

log = logging.getLogger(__name__)


def write_record(run: Path, setup: Setup, identity: Mapping[str, Any], asked: Mapping[str, Any], step: int) -> None:
    """Write run.json, or add this call to it; say what is other than before where that is allowed.

    Raises TrainingError if the folder is another run's.
    """
    path = run / RUN
    before = _read(path) if path.is_file() else None
    call = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "after_step": step, "command": sys.argv}
    content = {
        "format": FORMAT, "identity": dict(identity), "recipe": _plain(setup.recipe), "settings": asdict(setup.settings),
        "asked": dict(asked), "processes": setup.shares.ranks, "device": str(setup.accelerator.device),
        "precision": setup.accelerator.mixed_precision, "distributed": setup.accelerator.distributed_type.value,
        "commit": commit(), "versions": versions(), "calls": [*(before or {}).get("calls", []), call],
    }  # fmt: skip
    content = json.loads(json.dumps(content, default=str))
    if before is not None and step:
        check_identity(path, before["identity"], identity)
        _tell_changes(before, content)
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise TrainingError(f"{path}: is not JSON ({error}); delete it to go on") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise TrainingError(f"{path}: is not a run of `turntable train`; take another --out")
    return content


def _tell_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    was, is_now = before["recipe"]["optimisation"], now["recipe"]["optimisation"]
    changed = [f"{name} {was.get(name)} -> {value}" for name, value in is_now.items() if was.get(name) != value]
    if before.get("precision") != now["precision"]:
        changed.append(f"precision {before.get('precision')} -> {now['precision']}")
    if changed:
        log.warning("this run goes on with other settings than it began: %s", ", ".join(changed))


def _plain(recipe: Any) -> dict[str, Any]:
    return {
        name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for name, value in vars(recipe).items()
    }
