"""What every method of `uncertainty.py` is tuned over: five settings each, six at full scale; dropout is among them."""

from __future__ import annotations

from collections.abc import Iterable

Settings = dict[str, float]

NETWORKS: dict[str, Settings] = {
    "none": {},
    "tenth": {"dropout": 0.1},
    "fifth": {"dropout": 0.2},
    "hidden": {"hidden_dropout": 0.2},
    "both": {"dropout": 0.2, "hidden_dropout": 0.1},
    "all": {"dropout": 0.1, "hidden_dropout": 0.2},
    "more": {"dropout": 0.1, "hidden_dropout": 0.4},
}
"""Shares of inputs and hidden units that are set to zero."""

NAMES = {
    "posterior": ("lr", "temperature", "real_lr"),
    "posterior ensemble": ("members", "lr", "temperature", "real_lr"),
    "ste": ("lr", "real_lr"),
    "deep ensemble": ("lr", "real_lr"),
    "bop": ("gamma", "threshold", "real_lr"),
    "vispa": ("lr", "real_lr"),
    "published": ("lr", "real_lr"),
    "float": ("lr",),
    "dropout": ("lr",),
}
"""Settings of each method, in the order in which the rows below give them."""

Row = tuple[str | float, ...]
SMALL: dict[str, tuple[Row, ...]] = {
    "posterior": (
        ("none", 3e-3, 1 / 60, 1e-2),
        ("none", 3e-3, 1 / 60, 3e-2),
        ("tenth", 3e-3, 1 / 60, 3e-2),
        ("tenth", 3e-3, 1 / 100, 3e-2),
        ("fifth", 3e-3, 1 / 60, 3e-2),
    ),
    "posterior ensemble": (
        ("none", 2, 6e-3, 1 / 60, 1e-2),
        ("tenth", 2, 6e-3, 1 / 60, 3e-2),
        ("none", 2, 6e-3, 1 / 120, 3e-2),
        ("tenth", 2, 6e-3, 1 / 120, 3e-2),
        ("none", 4, 1e-2, 1 / 60, 3e-2),
    ),
    "ste": (
        ("none", 1e-3, 3e-3),
        ("tenth", 1e-3, 3e-3),
        ("both", 1e-3, 3e-3),
        ("both", 3e-3, 3e-3),
        ("both", 1e-3, 1e-2),
    ),
    "deep ensemble": (
        ("none", 1e-3, 3e-2),
        ("tenth", 1e-3, 3e-2),
        ("none", 1e-3, 1e-2),
        ("tenth", 1e-3, 1e-2),
        ("both", 1e-3, 3e-2),
    ),
    "bop": (
        ("none", 3e-3, 1e-8, 3e-3),
        ("tenth", 3e-3, 1e-8, 3e-3),
        ("both", 3e-3, 1e-8, 3e-3),
        ("tenth", 1e-3, 1e-8, 3e-3),
        ("tenth", 3e-3, 1e-8, 1e-2),
    ),
    "vispa": (
        ("none", 10, 1e-2),
        ("tenth", 10, 1e-2),
        ("both", 10, 1e-2),
        ("tenth", 30, 3e-3),
        ("tenth", 10, 3e-3),
    ),
    "published": (
        ("none", 3e-4, 3e-3),
        ("tenth", 3e-4, 3e-3),
        ("both", 3e-4, 3e-3),
        ("tenth", 1e-4, 3e-3),
        ("tenth", 3e-4, 1e-2),
    ),
    "float": (("none", 1e-3), ("tenth", 1e-3), ("both", 1e-3), ("tenth", 3e-4), ("tenth", 3e-3)),
    "dropout": (("hidden", 1e-3), ("all", 1e-3), ("all", 3e-4), ("more", 1e-3), ("both", 1e-3)),
}
FULL: dict[str, tuple[Row, ...]] = {
    "posterior": (
        ("none", 1e-3, 1 / 60, 1e-2),
        ("tenth", 1e-3, 1 / 60, 3e-2),
        ("none", 1e-3, 1 / 30, 1e-2),
        ("none", 1e-3, 1 / 60, 3e-2),
        ("none", 1e-3, 1 / 30, 3e-2),
        ("tenth", 1e-3, 1 / 60, 1e-2),
    ),
    "posterior ensemble": (
        ("none", 2, 2e-3, 1 / 60, 1e-2),
        ("tenth", 2, 2e-3, 1 / 60, 3e-2),
        ("none", 2, 2e-3, 1 / 30, 1e-2),
        ("none", 2, 2e-3, 1 / 60, 3e-2),
        ("none", 4, 4e-3, 1 / 60, 3e-2),
        ("tenth", 2, 2e-3, 1 / 60, 1e-2),
    ),
    "ste": (
        ("none", 1e-3, 3e-3),
        ("tenth", 1e-3, 3e-3),
        ("none", 1e-3, 1e-3),
        ("none", 3e-3, 1e-3),
        ("tenth", 3e-3, 1e-3),
        ("fifth", 3e-3, 1e-3),
    ),
    "deep ensemble": (
        ("none", 1e-3, 1e-2),
        ("tenth", 1e-3, 1e-2),
        ("none", 1e-3, 3e-2),
        ("none", 1e-3, 3e-3),
        ("none", 3e-3, 1e-2),
        ("none", 3e-3, 3e-2),
    ),
    "bop": (
        ("none", 1e-3, 1e-8, 3e-3),
        ("tenth", 1e-3, 1e-8, 3e-3),
        ("none", 1e-3, 1e-8, 1e-3),
        ("none", 3e-3, 1e-8, 3e-3),
        ("none", 1e-4, 1e-8, 1e-3),
        ("tenth", 3e-3, 1e-8, 3e-3),
    ),
    "vispa": (
        ("none", 10, 1e-2),
        ("tenth", 10, 1e-2),
        ("none", 10, 3e-3),
        ("none", 30, 3e-3),
        ("none", 10, 3e-2),
        ("fifth", 10, 1e-2),
    ),
    "published": (
        ("none", 3e-4, 3e-3),
        ("tenth", 3e-4, 3e-3),
        ("none", 1e-4, 3e-3),
        ("none", 3e-4, 1e-2),
        ("none", 1e-3, 3e-3),
        ("fifth", 3e-4, 3e-3),
    ),
    "float": (("none", 1e-3), ("tenth", 1e-3), ("both", 1e-3), ("none", 3e-4), ("tenth", 3e-4), ("fifth", 1e-3)),
    "dropout": (("hidden", 1e-3), ("all", 1e-3), ("hidden", 3e-4), ("more", 1e-3), ("both", 1e-3), ("all", 3e-4)),
}


def settings_of(rows: dict[str, tuple[Row, ...]]) -> dict[str, list[Settings]]:
    """The rows with their names, and what is dropped."""
    return {name: [named(name, *row) for row in tried] for name, tried in rows.items()}


def named(name: str, dropped: str | float, *values: str | float) -> Settings:
    numbers: Iterable[float] = map(float, values)
    return NETWORKS[str(dropped)] | dict(zip(NAMES[name], numbers, strict=True))


TRIALS = {"small": settings_of(SMALL), "full": settings_of(FULL)}
