"""Guidance: two forwards or one, which steps, and in what order x0 is refined and combined."""

import numpy as np
import pytest
import torch

from engine.multiview.denoiser import Branches, RefinementPlan
from engine.multiview.guidance import (
    ALWAYS,
    GuidanceInterval,
    Guided,
    branches_needed,
    clean_latents,
    combine,
    linear_scale,
    plan_at,
    refinement_steps,
    zeroed,
)
from engine.multiview.schedules import draw_noise
from tests.engine.multiview.toy_networks import Wavy

SHAPE = (2, 3, 4, 5, 6)
LATENTS, TOLD, OTHER = (draw_noise(SHAPE, seed) for seed in (1, 2, 3))
TIME = torch.tensor([100.0, 300.0])
PLAN = RefinementPlan(lambda x0: x0 + 1, [3])


def test_one_forward_says_what_two_say():
    network, unbatched = Wavy(), Wavy()
    together = Guided(network, {"told": TOLD}, {"told": OTHER})(LATENTS, TIME)
    apart = Guided(unbatched, {"told": TOLD}, {"told": OTHER}, batched=False)(LATENTS, TIME)
    assert [len(told) for _, _, told in network.calls] == [4]
    assert [told is TOLD for _, _, told in unbatched.calls] == [True, False]
    assert torch.equal(together.conditional, apart.conditional)
    assert together.unconditional is not None
    assert torch.equal(together.unconditional, apart.unconditional)
    assert not torch.equal(together.conditional, together.unconditional)


def test_one_branch_costs_one_forward_of_one_batch():
    network = Wavy()
    found = Guided(network, {"told": TOLD}, {"told": OTHER})(LATENTS, TIME, "conditional")
    assert found.unconditional is None
    assert [told is TOLD for _, _, told in network.calls] == [True]
    assert Guided(network, {"told": TOLD})(LATENTS, TIME, "both").unconditional is None


def test_the_network_may_compute_in_another_dtype():
    network = Wavy()
    told = {"told": TOLD}
    found = Guided(network, told, told, dtype=torch.bfloat16)(LATENTS, TIME)
    latents, time, condition = network.calls[0]
    assert (latents.dtype, condition.dtype, time.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    assert found.conditional.dtype == torch.float32


def test_conditions_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"must hold the conditions \['told'\], got \['tolt'\]"):
        Guided(Wavy(), {"told": TOLD}, {"tolt": TOLD})
    with pytest.raises(ValueError, match=r"told is \(2, 3, .* make them alike or pass batched=False"):
        Guided(Wavy(), {"told": TOLD}, {"told": TOLD[:, :1]})
    assert Guided(Wavy(), {"told": TOLD}, {"told": TOLD[:, :1]}, batched=False)(LATENTS, TIME)


def test_combination_extrapolates():
    branches = Branches(LATENTS, TOLD)
    # Float32.
    torch.testing.assert_close(combine(branches, 0.0), TOLD, rtol=0, atol=1e-6)
    torch.testing.assert_close(combine(branches, 1.0), LATENTS, rtol=0, atol=1e-6)
    torch.testing.assert_close(combine(branches, 3.0), 3 * LATENTS - 2 * TOLD, rtol=0, atol=1e-5)
    assert combine(Branches(LATENTS, None), 3.0) is LATENTS


def test_each_view_may_have_its_own_scale():
    scale = linear_scale(1.0, 2.5, 3)
    found = combine(Branches(LATENTS, TOLD), scale)
    for view, value in enumerate([1.0, 1.75, 2.5]):
        alone = combine(Branches(LATENTS[:, view : view + 1], TOLD[:, view : view + 1]), value)
        torch.testing.assert_close(found[:, view : view + 1], alone, rtol=0, atol=1e-6)  # float32


def test_the_linear_scale_is_the_published(oracles):
    published = np.load(oracles / "hi3d_stage1_small.npz")["cfg_scale_16"]
    assert np.array_equal(linear_scale(1.0, 2.5, 16).numpy(), published)


@pytest.mark.parametrize(
    ("interval", "held"),
    [(ALWAYS, range(10)), (GuidanceInterval(0.2, 0.7), range(2, 7)), (GuidanceInterval(0.5, 0.5), [])],
)
def test_the_interval_is_half_open(interval: GuidanceInterval, held: list[int]):
    assert [i for i in range(10) if interval.holds(i, 10)] == list(held)


@pytest.mark.parametrize(("start", "stop"), [(-0.1, 1), (0.5, 0.4), (0, 1.1)])
def test_an_interval_outside_of_0_to_1_is_refused(start: float, stop: float):
    with pytest.raises(ValueError, match="0 <= start <= stop <= 1"):
        GuidanceInterval(float(start), float(stop))


def test_the_unconditional_forward_is_left_out_where_it_says_nothing():
    alone = RefinementPlan(PLAN.refine, [3], branches="conditional")
    assert branches_needed(6.0, True, None) == branches_needed(6.0, True, PLAN) == "both"
    assert branches_needed(linear_scale(1.0, 2.0, 3), True, None) == "both"
    for scale, guided, plan in ((6.0, False, None), (1.0, True, None), (6.0, True, alone)):
        assert branches_needed(scale, guided, plan) == "conditional"


def test_the_plan_holds_at_its_steps_alone():
    assert [plan_at(PLAN, i) is PLAN for i in (2, 3, 4)] == [False, True, False]
    assert plan_at(None, 3) is None


def test_refinement_steps_are_the_released_and_never_the_last():
    assert refinement_steps(50) == refinement_steps(50, 0.4, 10) == (20, 30, 40)
    assert refinement_steps(25, 0.4, 5) == (10, 15, 20)
    assert refinement_steps(10, 0.0, 3) == (0, 3, 6)  # 9 is the last
    assert refinement_steps(1, 0.0, 10) == refinement_steps(50, 1.0, 1) == ()
    for share, every in ((0.4, 0), (1.1, 10), (-0.1, 10)):
        with pytest.raises(ValueError, match="every must be at least 1 and first_share from 0 to 1"):
            refinement_steps(50, share, every)


def test_each_branch_is_refined_before_guidance():
    """As the release: scale amplifies the difference of the two refined x0, the conditional one is refined first."""
    seen: list[torch.Tensor] = []

    def refine(x0: torch.Tensor) -> torch.Tensor:
        seen.append(x0)
        return x0**2

    branches = Branches(LATENTS, TOLD)
    found = clean_latents(branches, lambda f: 2 * f, 3.0, RefinementPlan(refine, [0]))
    assert [torch.equal(x0, 2 * one) for x0, one in zip(seen, (LATENTS, TOLD), strict=True)] == [True, True]
    expected = (2 * TOLD) ** 2 + 3.0 * ((2 * LATENTS) ** 2 - (2 * TOLD) ** 2)
    torch.testing.assert_close(found, expected)
    alone = clean_latents(Branches(LATENTS, None), lambda f: 2 * f, 3.0, RefinementPlan(refine, [0]))
    torch.testing.assert_close(alone, (2 * LATENTS) ** 2)
    assert len(seen) == 3


def test_named_conditions_are_zeroed():
    found = zeroed({"a": TOLD, "b": OTHER}, ["a"])
    assert found["a"].abs().max() == 0
    assert found["b"] is OTHER
