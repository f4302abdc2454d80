"""Starts children from one thread that lives as long as the process: a command in, a `Popen` out.

The kernel kills a leashed child when the *thread* that started it ends (prctl(2), PR_SET_PDEATHSIG), and callers come and
go in threads of their own. A daemon thread ends with the process and not before: not even while an ending interpreter
still waits for its other threads.
"""

import os
import queue
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

_Order = tuple[Callable[[], "subprocess.Popen[bytes]"], "Future[subprocess.Popen[bytes]]"]

_orders: dict[int, "queue.SimpleQueue[_Order]"] = {}
"""By process id: after a fork the thread is not there."""
_lock = threading.Lock()


def spawn(command: Sequence[str], env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a command with three pipes, in a session and process group of its own.

    Raises:
        OSError, ValueError: it cannot be started.
    """

    def start() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(env),
            start_new_session=True,
        )  # fmt: skip

    future: Future[subprocess.Popen[bytes]] = Future()
    _queue().put((start, future))
    return future.result()


def _queue() -> "queue.SimpleQueue[_Order]":
    with _lock:
        orders = _orders.get(os.getpid())
        if orders is None:
            orders = _orders[os.getpid()] = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(orders,), name="turntable-spawner", daemon=True).start()
        return orders


def _serve(orders: "queue.SimpleQueue[_Order]") -> None:
    while True:
        start, future = orders.get()
        try:
            future.set_result(start())
        except Exception as error:  # noqa: BLE001 - raised where the caller waits; this thread must live on
            future.set_exception(error)
