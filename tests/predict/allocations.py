"""How much memory torch asked for in one piece: promises about memory are counted, not timed."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def allocations(work: Callable[[], object]) -> list[int]:
    """Bytes of every CPU allocation that torch made during `work`, temporaries inside an operator included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        work()
    events = trace.profiler.kineto_results.events()
    return [event.nbytes() for event in events if event.name() == "[memory]" and event.nbytes() > 0]


def largest_allocation(work: Callable[[], object]) -> int:
    return max(allocations(work), default=0)
