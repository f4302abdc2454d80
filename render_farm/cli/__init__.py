"""The command `turntable-farm`: arguments in, results on stdout, everything else on stderr.

command    main                                   options    flags that commands share
verbs      all commands by name                   work       what they do; imported when it is known what is asked for
objects    render, example                        looking    status, failures, verify, manifest, report, export
farming    plan, run, worker, slurm               again      retry, replay
adopting   gobjaverse

Exit status: as engine.command_line says.
"""

from render_farm.cli.command import main

__all__ = ["main"]
