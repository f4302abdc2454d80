"""`python -m render_farm.cli`: the same as `turntable-farm`."""

import sys

from render_farm.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
