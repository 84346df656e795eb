"""What every method of `uncertainty.py` is tuned over: five to eight settings each; dropout is among them."""

from __future__ import annotations

from collections.abc import Iterable

Settings = dict[str, float]

NETWORKS: dict[str, Settings] = {
    "none": {},
    "tenth": {"dropout": 0.1},
    "fifth": {"dropout": 0.2},
    "light": {"hidden_dropout": 0.1},
    "hidden": {"hidden_dropout": 0.2},
    "both": {"dropout": 0.2, "hidden_dropout": 0.1},
    "all": {"dropout": 0.1, "hidden_dropout": 0.2},
    "more": {"dropout": 0.1, "hidden_dropout": 0.4},
    "third": {"dropout": 0.3},
    "strong": {"dropout": 0.3, "hidden_dropout": 0.2},
    "stronger": {"dropout": 0.3, "hidden_dropout": 0.3},
    "strongest": {"dropout": 0.4, "hidden_dropout": 0.2},
}
"""Shares of inputs and hidden units that are set to zero."""

NAMES = {
    "posterior": ("lr", "temperature", "real_lr"),
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
MEDIUM: dict[str, tuple[Row, ...]] = {
    "posterior": (
        ("fifth", 3e-3, 1 / 60, 1e-2),
        ("fifth", 3e-3, 1 / 60, 3e-2),
        ("fifth", 3e-3, 1 / 40, 3e-2),
        ("third", 3e-3, 1 / 60, 3e-2),
        ("fifth", 2e-3, 1 / 60, 1e-2),
    ),
    "ste": (
        ("strong", 1e-3, 1e-3),
        ("strong", 1e-3, 3e-3),
        ("strong", 3e-3, 3e-3),
        ("both", 1e-3, 1e-2),
        ("both", 3e-3, 3e-3),
    ),
    "deep ensemble": (
        ("none", 1e-3, 1e-2),
        ("tenth", 1e-3, 1e-2),
        ("tenth", 1e-3, 3e-2),
        ("both", 1e-3, 1e-2),
        ("both", 3e-3, 1e-2),
    ),
    "bop": (
        ("both", 3e-3, 1e-8, 3e-3),
        ("both", 3e-3, 1e-8, 1e-3),
        ("both", 1e-3, 1e-8, 1e-3),
        ("strong", 3e-3, 1e-8, 3e-3),
        ("fifth", 3e-3, 1e-8, 1e-3),
    ),
    "vispa": (
        ("both", 10, 1e-2),
        ("both", 10, 3e-3),
        ("both", 30, 3e-3),
        ("strong", 10, 1e-2),
        ("strong", 10, 3e-3),
    ),
    "published": (
        ("both", 3e-4, 3e-3),
        ("both", 3e-4, 1e-3),
        ("both", 1e-4, 1e-3),
        ("strong", 3e-4, 3e-3),
        ("strong", 1e-4, 3e-3),
    ),
}
LONG: dict[str, tuple[Row, ...]] = {
    "posterior": (
        ("fifth", 3e-3, 1 / 60, 1e-2),
        ("fifth", 3e-3, 1 / 40, 1e-2),
        ("fifth", 3e-3, 1 / 40, 3e-2),
        ("third", 3e-3, 1 / 60, 1e-2),
        ("fifth", 1e-3, 1 / 60, 1e-2),
    ),
    "ste": (
        ("strong", 3e-3, 1e-3),
        ("strong", 1e-3, 1e-3),
        ("strong", 1e-2, 1e-3),
        ("stronger", 3e-3, 1e-3),
        ("strongest", 3e-3, 1e-3),
    ),
    "deep ensemble": (
        ("both", 1e-3, 1e-2),
        ("both", 3e-3, 1e-2),
        ("both", 3e-3, 3e-3),
        ("tenth", 1e-3, 1e-2),
        ("strong", 3e-3, 1e-2),
    ),
    "bop": (
        ("strong", 3e-3, 1e-8, 3e-3),
        ("strong", 1e-3, 1e-8, 3e-3),
        ("strong", 1e-3, 1e-8, 1e-3),
        ("both", 3e-3, 1e-8, 1e-3),
        ("strongest", 3e-3, 1e-8, 3e-3),
    ),
    "vispa": (
        ("strong", 10, 1e-2),
        ("strong", 10, 3e-3),
        ("both", 10, 3e-3),
        ("strong", 30, 3e-3),
        ("strongest", 10, 3e-3),
    ),
    "published": (
        ("strong", 3e-4, 3e-3),
        ("strong", 1e-4, 3e-3),
        ("strong", 1e-4, 1e-3),
        ("both", 3e-4, 1e-3),
        ("strongest", 3e-4, 3e-3),
    ),
    "float": (("strong", 1e-3), ("strong", 3e-4), ("strongest", 1e-3), ("both", 3e-4), ("strong", 3e-3)),
    "dropout": (("hidden", 1e-3), ("all", 3e-4), ("both", 1e-3), ("strong", 1e-3), ("strong", 3e-4)),
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
CONV: dict[str, tuple[Row, ...]] = {
    "posterior": (
        ("none", 1e-3, 1 / 60, 1e-2),
        ("none", 1e-3, 1 / 120, 1e-2),
        ("none", 1e-3, 1 / 30, 1e-2),
        ("none", 3e-3, 1 / 60, 1e-2),
        ("none", 1e-3, 1 / 20, 1e-2),
        ("none", 5e-4, 1 / 40, 1e-2),
    ),
    "ste": (
        ("light", 3e-2, 1e-2),
        ("light", 3e-2, 3e-3),
        ("light", 1e-2, 3e-3),
        ("hidden", 3e-2, 1e-2),
        ("none", 3e-2, 1e-2),
        ("none", 1e-1, 1e-2),
    ),
    "deep ensemble": (
        ("none", 1e-3, 1e-2),
        ("light", 1e-3, 1e-2),
        ("none", 3e-3, 1e-2),
        ("none", 1e-3, 3e-2),
        ("none", 1e-2, 1e-2),
        ("none", 3e-3, 3e-2),
    ),
    "bop": (
        ("light", 3e-3, 1e-8, 3e-3),
        ("light", 1e-3, 1e-8, 3e-3),
        ("light", 1e-2, 1e-8, 3e-3),
        ("light", 3e-3, 1e-8, 1e-2),
        ("light", 3e-4, 1e-8, 3e-3),
        ("none", 1e-3, 1e-8, 3e-3),
    ),
    "vispa": (
        ("none", 10, 1e-2),
        ("light", 10, 1e-2),
        ("none", 10, 3e-3),
        ("none", 30, 1e-2),
        ("none", 3, 1e-2),
        ("none", 1, 1e-2),
    ),
    "published": (
        ("none", 3e-4, 3e-3),
        ("light", 3e-4, 3e-3),
        ("light", 1e-4, 3e-3),
        ("light", 3e-4, 1e-2),
        ("light", 1e-3, 3e-3),
        ("none", 1e-3, 1e-2),
    ),
}
SIGNS: dict[str, tuple[Row, ...]] = {
    "posterior": (
        ("none", 3e-3, 1 / 200, 3e-2),
        ("tenth", 3e-3, 1 / 200, 3e-2),
        ("fifth", 3e-3, 1 / 200, 3e-2),
        ("tenth", 3e-3, 1 / 600, 3e-2),
        ("tenth", 1e-2, 1 / 200, 3e-2),
        ("tenth", 3e-3, 1 / 200, 1e-2),
        ("tenth", 3e-3, 1 / 200, 1e-1),
        ("tenth", 2e-3, 1 / 300, 3e-2),
    ),
    "ste": (
        ("tenth", 1e-3, 3e-3),
        ("fifth", 1e-3, 3e-3),
        ("both", 1e-3, 3e-3),
        ("fifth", 3e-3, 3e-3),
        ("fifth", 1e-3, 1e-2),
        ("light", 1e-3, 3e-3),
        ("fifth", 1e-2, 3e-3),
        ("fifth", 3e-3, 1e-2),
    ),
    "deep ensemble": (
        ("none", 1e-3, 3e-2),
        ("tenth", 1e-3, 3e-2),
        ("none", 3e-3, 3e-2),
        ("none", 3e-4, 3e-2),
        ("none", 1e-3, 1e-1),
        ("none", 1e-3, 1e-2),
        ("none", 1e-2, 3e-2),
        ("none", 3e-3, 1e-1),
    ),
    "bop": (
        ("tenth", 3e-3, 1e-8, 3e-3),
        ("fifth", 3e-3, 1e-8, 3e-3),
        ("both", 3e-3, 1e-8, 3e-3),
        ("fifth", 1e-3, 1e-8, 3e-3),
        ("fifth", 1e-2, 1e-8, 3e-3),
        ("fifth", 3e-3, 1e-8, 1e-2),
        ("fifth", 3e-3, 1e-8, 3e-2),
        ("tenth", 3e-3, 1e-8, 1e-2),
    ),
    "vispa": (
        ("tenth", 10, 1e-2),
        ("fifth", 10, 1e-2),
        ("tenth", 30, 1e-2),
        ("fifth", 30, 1e-2),
        ("tenth", 10, 3e-2),
        ("tenth", 30, 3e-2),
        ("tenth", 10, 1e-1),
        ("tenth", 3, 3e-2),
    ),
    "published": (
        ("tenth", 3e-4, 3e-3),
        ("fifth", 3e-4, 3e-3),
        ("both", 3e-4, 3e-3),
        ("tenth", 1e-4, 3e-3),
        ("tenth", 1e-3, 3e-3),
        ("tenth", 3e-4, 1e-2),
        ("both", 1e-3, 3e-3),
        ("both", 3e-4, 1e-2),
    ),
}


def settings_of(rows: dict[str, tuple[Row, ...]]) -> dict[str, list[Settings]]:
    """The rows with their names, and what is dropped."""
    return {name: [named(name, *row) for row in tried] for name, tried in rows.items()}


def named(name: str, dropped: str | float, *values: str | float) -> Settings:
    numbers: Iterable[float] = map(float, values)
    return NETWORKS[str(dropped)] | dict(zip(NAMES[name], numbers, strict=True))


BY_SCALE = {"small": SMALL, "medium": MEDIUM, "long": LONG, "full": FULL, "conv": CONV, "signs": SIGNS}
TRIALS = {scale: settings_of(rows) for scale, rows in BY_SCALE.items()}
