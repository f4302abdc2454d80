"""Numbers as people read them."""

from render_farm.run.planning import Plan
from render_farm.run.progress import Summary


def duration(seconds: float) -> str:
    """Return 45 s, 12 min, 3.5 h or 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def size(count: float) -> str:
    """Return bytes in kB, MB, GB or TB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def plan_text(plan: Plan) -> str:
    """Return an estimate as a few lines."""
    lines = [
        f"objects        {plan.objects:,} to render, {plan.refused:,} refused before rendering",
        f"sample         {plan.sampled} rendered, {plan.sample_failed} failed; {plan.slot_s:.1f} s of a worker each, "
        f"{100 * plan.render_share:.0f} % of it inside Cycles",
        f"rate           {plan.objects_per_h:,.0f} objects/h with {plan.slots} workers",
        f"time           {duration(3600 * plan.hours)} (standard error {duration(3600 * plan.hours_error)})",
        f"stored         {size(plan.bytes)}",
        f"compute        {plan.cpu_hours:,.1f} core hours",
    ]
    if plan.cost is not None:
        lines.append(f"cost           {plan.cost:,.2f}")
    return "\n".join(lines)


def summary_text(summary: Summary) -> str:
    """Return what a session did, in one line."""
    rate = 3600 * summary.rendered / summary.wall_s if summary.wall_s else 0.0
    text = (
        f"{summary.done} of {summary.total} objects done, {summary.failed} failed; {summary.rendered} in this session of "
        f"{duration(summary.wall_s)} ({rate:,.0f}/h), {100 * summary.render_share:.1f} % of the workers' time inside Cycles"
    )
    if summary.reasons:
        text += "; failures: " + ", ".join(f"{reason} {count}" for reason, count in sorted(summary.reasons.items()))
    return text
