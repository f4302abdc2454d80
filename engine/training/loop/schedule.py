"""Learning rates and the end of a run, as plain functions of how far it is: nothing to store, nothing to get wrong.

A run is measured in steps, or, with a time budget, in the share of the time that has passed; the recipe's schedule is
then stretched over the budget. Rates of a run with a time budget depend on the clock, so that exact resume (the same
losses as an undisturbed run) is promised for runs measured in steps alone.
"""

import math
from dataclasses import dataclass

from engine.training.plans import Optimisation

ONE_CYCLE_RISE = 0.3
"""Share of the steps over which OneCycle rises where the recipe names no warm-up: torch's own."""
FIRST_DIVISOR, LAST_DIVISOR = 25.0, 1e4
"""OneCycle begins at peak / 25 and ends at a ten-thousandth of that: torch's own."""
BETA_LOW, BETA_HIGH = 0.85, 0.95
"""OneCycle moves Adam's first beta against the rate: torch's own."""


@dataclass(frozen=True)
class Budget:
    """When a run is over."""

    steps: int
    """The recipe's steps: the end of a run without a time budget, the schedule's length in any."""
    seconds: float | None = None
    """Time budget; then steps do not end the run."""

    def share(self, step: int, seconds: float) -> float:
        """Return how much of the run is over, 0 to 1, after so many steps and seconds."""
        return min(1.0, step / self.steps if self.seconds is None else seconds / self.seconds)

    def over(self, step: int, seconds: float) -> bool:
        """Whether the run is at its end."""
        return step >= self.steps if self.seconds is None else seconds >= self.seconds

    def place(self, step: int, seconds: float) -> float:
        """Return the step of the recipe's schedule that the next update stands for."""
        return float(step) if self.seconds is None else self.share(step, seconds) * self.steps


@dataclass(frozen=True)
class Rate:
    """What the optimiser is told for one update."""

    learning_rate: float
    """Now."""
    betas: tuple[float, float]
    """Now; OneCycle moves the first one."""


def rate_at(plan: Optimisation, budget: Budget, step: int, seconds: float = 0.0) -> Rate:
    """Return the rate of the update that follows `step` updates and so many seconds of training."""
    place = budget.place(step, seconds)
    length = plan.schedule_steps or budget.steps
    if plan.schedule == "onecycle":
        return _one_cycle(plan, place, length)
    # With a time budget a slow machine may never make as many steps as the warm-up has: whichever comes first.
    risen = min(1.0, (max(step, place) + 1) / plan.warmup_steps) if plan.warmup_steps else 1.0
    if plan.schedule == "constant":
        return Rate(plan.learning_rate * risen, plan.betas)
    fallen = min(1.0, max(0.0, place - plan.warmup_steps) / max(1, length - plan.warmup_steps))
    return Rate(plan.learning_rate * risen * (1 + math.cos(math.pi * fallen)) / 2, plan.betas)


def _one_cycle(plan: Optimisation, place: float, length: int) -> Rate:
    """torch.optim.lr_scheduler.OneCycleLR with its defaults, at any place (LGM: warm-up over the first 3000 steps)."""
    rise = (plan.warmup_steps or ONE_CYCLE_RISE * length) - 1.0
    first = plan.learning_rate / FIRST_DIVISOR
    if place <= rise:
        at = place / rise
        rate, beta = _eased(first, plan.learning_rate, at), _eased(BETA_HIGH, BETA_LOW, at)
    else:
        at = min(1.0, (place - rise) / max(length - 1 - rise, 1e-9))
        rate, beta = _eased(plan.learning_rate, first / LAST_DIVISOR, at), _eased(BETA_LOW, BETA_HIGH, at)
    return Rate(rate, (beta, plan.betas[1]))


def _eased(start: float, end: float, at: float) -> float:
    return end + (start - end) / 2 * (math.cos(math.pi * at) + 1)
