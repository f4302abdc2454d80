"""Numbers as people read them."""

from render_farm.run.planning import Plan
from render_farm.run.progress import Summary


def duration(seconds: int | float) -> str:
    """Return 45 s, 12 min, 3.5 h or 2.1 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def size(number: int | float) -> str:
    """Return bytes in kB, MB, GB or TB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def count(number: int, thing: str) -> str:
    """Return 1 object, 2 objects, 1,000 batches."""
    plural = f"{thing}es" if thing.endswith("ch") else f"{thing}s"
    return f"{number:,} {thing if number == 1 else plural}"


def plan_text(plan: Plan, shard_objects: int) -> str:
    """Return an estimate as a few lines; a shard holds about so many objects."""
    shard = min(shard_objects, plan.objects)
    lines = [
        f"objects        {plan.objects:,} to render, {plan.refused:,} refused before rendering",
        f"sample         {plan.sampled} rendered, {plan.sample_failed} failed; {plan.slot_s:.1f} s of a worker each, "
        f"{100 * plan.render_share:.0f} % of it inside Cycles",
        f"rate           {plan.objects_per_h:,.0f} objects/h with {count(plan.slots, 'worker')}",
        f"time           {duration(3600 * plan.hours)} (standard error {duration(3600 * plan.hours_error)})",
        f"a shard        {duration(shard * plan.slot_s / plan.slots)} for {count(shard, 'object')}; a cluster's job must have "
        "time for one",
        f"stored         {size(plan.bytes)}",
        f"compute        {plan.cpu_hours:,.1f} core hours",
    ]
    if plan.cost is not None:
        lines.append(f"cost           {plan.cost:,.2f}")
    return "\n".join(lines)


def summary_text(summary: Summary) -> str:
    """Return what a session did, in one line."""
    text = f"{summary.done:,} of {count(summary.total, 'object')} done, {summary.failed:,} failed; "
    if not summary.attempts:
        return text + "none was finished in this session"
    rate = 3600 * summary.rendered / summary.wall_s if summary.wall_s else 0.0
    text += (
        f"{summary.rendered:,} in this session of {duration(summary.wall_s)} ({rate:,.0f}/h), "
        f"{100 * summary.render_share:.1f} % of the workers' time inside Cycles"
    )
    if summary.reasons:
        text += "; failures: " + ", ".join(f"{reason} {number}" for reason, number in sorted(summary.reasons.items()))
    return text
