"""The command `turntable-farm`: arguments in, results on stdout, everything else on stderr.

Exit status: 0 something was produced (or was there already), 1 failure, 2 usage, 130 stopped by Ctrl-C.

objects    render, example                        options    flags that commands share
farming    plan, run, worker, slurm               sources    where objects come from
looking    status, failures, verify, manifest,    progress   bars
           report, export                         wording    numbers in words
again      retry, replay                          adopting   gobjaverse
"""

from render_farm.cli.command import main

__all__ = ["main"]
