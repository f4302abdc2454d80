"""A scheduler to be killed: ``python farm_program.py ORDER``, ORDER being the JSON of a FarmOrder.

It imports the farm once, then forks a session for each line `start` on its stdin (answer: its process id) and waits for
it at `wait` (answer: its exit status). A session ends with 0 when all is done, 3 when it was stopped by Ctrl-C.
"""

import json
import logging
import os
import sys
from pathlib import Path

from render_farm.run.folder import Run
from render_farm.run.scheduler import FarmSettings, run_shards
from render_farm.run.signals import stop_on_signals
from render_farm.spec import Execution

log = logging.getLogger("farm")


def session(order: dict) -> int:
    logging.basicConfig(level=logging.INFO, format=f"{os.getpid()} %(relativeCreated)d %(levelname)s %(message)s")
    settings = FarmSettings(execution=Execution(**order["execution"]), **order["settings"])
    with stop_on_signals() as stop:
        summary = run_shards(
            Run.open(Path(order["run"])), None, settings, worker=tuple(order["worker"]), stop=stop,
            progress=lambda snapshot: log.info("%s", snapshot),
        )  # fmt: skip
    log.info("%s", summary)
    return 3 if summary.stopped else 0


def answer(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def main() -> None:
    order = json.loads(sys.argv[1])
    pid = 0
    while word := sys.stdin.readline().strip():
        if word == "start":
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    status = session(order)
                except BaseException:
                    log.exception("the session failed")
                os._exit(status)
            answer(pid)
        else:
            answer(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
