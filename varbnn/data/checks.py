"""What a count or a seed has to be."""

from __future__ import annotations

import numbers


def whole_number(value: object, least: int) -> bool:
    """Whether `value` is an integer (numpy's too, no bool) and not below `least`."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least
