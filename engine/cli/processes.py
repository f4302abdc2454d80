"""A command in several processes of this machine that learn together: what torchrun does, without another command."""

import logging
import signal
import sys
from collections.abc import Callable
from typing import Any

from engine.command_line import Answer, carry_out
from engine.errors import TrainingError

STOPPED = "a checkpoint is written; the same command goes on from there"


def spread(command: Any, perform: Callable[[Any], Answer], processes: int) -> None:
    """Perform a command in `processes` processes, each told its rank as torchrun tells it; return when all are done.

    The processes say themselves what goes wrong. SIGTERM and Ctrl-C are passed on to them, and waited for.

    Raises:
        SystemExit: one of them failed, with its status; the others were ended.
        TrainingError: a signal ended one of them.
        KeyboardInterrupt: they were stopped.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for library in ("torch.distributed.elastic", "torch.multiprocessing.spawn"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # their tracebacks say nothing of ours
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        local_addr="localhost", run_id="turntable", max_restarts=0, monitor_interval=1,
    )  # fmt: skip
    try:
        elastic_launch(config, _work)(command, perform)
    except SignalException as error:
        raise KeyboardInterrupt from error
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            raise TrainingError(
                f"process {rank} of {processes} was ended by {name}; if memory ran out: fewer --processes, or a smaller "
                "--micro-batch"
            ) from error
        sys.exit(failure.exitcode)  # it said itself why


def _work(command: Any, perform: Callable[[Any], Answer]) -> None:
    status = carry_out(command, perform, STOPPED)
    if status:
        sys.exit(status)
