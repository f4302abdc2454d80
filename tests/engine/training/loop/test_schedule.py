"""Learning rates against torch's own schedules, and how a time budget stretches them."""

import pytest
import torch

from engine.training.loop.schedule import Budget, rate_at
from engine.training.plans import Optimisation

PLAN = Optimisation(steps=100, batch_size=1, learning_rate=1e-3)


def torch_rates(make, steps: int, betas=(0.9, 0.999)) -> list[tuple[float, tuple[float, float]]]:
    """What a scheduler of torch's gives the optimiser for each of its steps."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=PLAN.learning_rate, betas=betas)
    scheduler, found = make(optimizer), []
    for _ in range(steps):
        found.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"]))
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("warmup", [0, 10, 30])
def test_one_cycle_is_that_of_torch(warmup):
    """Rate and first beta at every step; no warm-up means torch's own share of 0.3."""
    rise = warmup / 100 or 0.3
    expected = torch_rates(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=1e-3, total_steps=100, pct_start=rise), 100
    )
    plan = Optimisation(steps=100, batch_size=1, learning_rate=1e-3, schedule="onecycle", warmup_steps=warmup)
    for step, (rate, betas) in enumerate(expected):
        found = rate_at(plan, Budget(100), step)
        assert found.learning_rate == pytest.approx(rate, rel=1e-9)  # the same formula in other order
        assert found.betas == pytest.approx(betas, rel=1e-9)


def test_cosine_is_that_of_torch_behind_the_warm_up():
    plan = Optimisation(steps=100, batch_size=1, learning_rate=1e-3, schedule="cosine", warmup_steps=20)
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=80), 80)
    found = [rate_at(plan, Budget(100), 20 + step).learning_rate for step in range(80)]
    assert found == pytest.approx([rate for rate, _ in expected], rel=1e-6)  # torch's is recursive and drifts a little


def test_the_warm_up_rises_to_the_peak_and_a_constant_stays():
    plan = Optimisation(steps=100, batch_size=1, learning_rate=1e-3, warmup_steps=4)
    found = [rate_at(plan, Budget(100), step).learning_rate for step in range(6)]
    assert found == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3, 1e-3])


def test_a_schedule_may_be_longer_than_the_run():
    """VideoMV's cosine has a million steps, of which a run makes some hundred: its rate stays all but constant."""
    plan = Optimisation(steps=875, batch_size=1, learning_rate=1.0, schedule="cosine", schedule_steps=1_000_000)
    assert rate_at(plan, Budget(875), 874).learning_rate == pytest.approx(1.0, abs=1e-5)


def test_with_a_time_budget_the_clock_moves_the_schedule():
    plan = Optimisation(steps=100, batch_size=1, learning_rate=1.0, schedule="cosine")
    budget = Budget(100, seconds=60.0)
    assert budget.share(3, 30.0) == 0.5
    assert rate_at(plan, budget, 3, 30.0).learning_rate == pytest.approx(0.5)
    assert not budget.over(5000, 59.9)
    assert budget.over(1, 60.0)


def test_a_slow_machine_gets_through_the_warm_up_all_the_same():
    """Four steps in half of the time: by steps the warm-up of 20 would never end, by time it is over."""
    plan = Optimisation(steps=100, batch_size=1, learning_rate=1.0, warmup_steps=20)
    assert rate_at(plan, Budget(100, seconds=60.0), 4, 30.0).learning_rate == 1.0


def test_without_a_time_budget_steps_end_the_run():
    assert Budget(10).over(10, 0.0)
    assert not Budget(10).over(9, 1e9)
