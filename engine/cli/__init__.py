"""The command `turntable`: arguments in, results on stdout, everything else on stderr; exit status as command_line says.

command        main: all commands by name
generate       a picture or a sentence to an asset        reconstruct    an orbit to an asset
evaluate       how good a preset is on stored orbits     train          orbit shards to weights
weights        released checkpoints into our layout       looking        summary, doctor
running        what commands that compute share: threads, progress bars
"""

from engine.cli.command import main

__all__ = ["main"]
