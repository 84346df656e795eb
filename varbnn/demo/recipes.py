"""The settings of every data set, chosen on its validation part and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Network, budget and step sizes for one data set.

    Attributes:
        widths: of the hidden layers.
        epochs, batch_size: the budget, the same for every method.
        lr, temperature: of the posterior.
        real_lr: of the batch norms' scales and shifts beside it.
        ste_lr, ste_real_lr: the same two for the latent weights.
        refresh: training inputs, at most, from which one network's batch norms are re-estimated.
        threads: of torch, or None for its own choice. More than one gain little for networks this small and lose a
            factor of ten where the cores are shared; one also makes the result the same on any number of cores.
    """

    widths: tuple[int, ...]
    epochs: int
    batch_size: int
    lr: float
    temperature: float
    real_lr: float
    ste_lr: float
    ste_real_lr: float
    refresh: int = 10_000
    threads: int | None = 1


RECIPES = {
    "digits": Recipe((256, 256), 100, 100, lr=3e-3, temperature=1 / 1000, real_lr=3e-2, ste_lr=3e-3, ste_real_lr=1e-2),
    "moons": Recipe((64, 64), 100, 50, lr=1e-3, temperature=1 / 10, real_lr=1e-2, ste_lr=1e-2, ste_real_lr=1e-2),
    "mnist": Recipe((400, 400), 20, 100, lr=1e-3, temperature=1 / 100, real_lr=1e-2, ste_lr=3e-3, ste_real_lr=1e-3),
    "fashion": Recipe((400, 400), 20, 100, lr=1e-3, temperature=1 / 100, real_lr=1e-2, ste_lr=3e-3, ste_real_lr=1e-3),
}
"""Those of digits and mnist are the best of `benchmarks/accuracy.py`; fashion takes mnist's, moons are by eye."""
