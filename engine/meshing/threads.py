"""How many threads the kernels use: as many as were asked for, never more than numba was started with."""

import numba


def use_threads(count: int) -> None:
    """Set numba's threads for this process; results do not depend on it."""
    numba.set_num_threads(max(1, min(count, numba.config.NUMBA_NUM_THREADS)))  # type: ignore[attr-defined]
