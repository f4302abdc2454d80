"""Run a command that dies with its parent: ``python leash.py PARENT_PID COMMAND...``

The parent may be killed without a chance to clean up (SIGKILL, out of memory); the kernel then ends the child. It is a
program of its own because Python code between fork and exec (preexec_fn) is not safe beside threads. The setting
survives exec. Where there is no prctl (not Linux), the command simply runs. Standard library only.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> None:
    """Ask the kernel to end us with our parent, then become the command."""
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
