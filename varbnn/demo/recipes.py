"""The settings of every data set, chosen on its validation part and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from varbnn.presets import PRESETS

Settings = Mapping[str, float]


@dataclass(frozen=True)
class Recipe:
    """Network, budget and step sizes for one data set.

    Attributes:
        widths: of the fully connected hidden layers.
        epochs, batch_size: the budget, the same for every method.
        settings: of each method's rule, by the method's name.
        refresh: training inputs, at most, from which one network's batch norms are re-estimated.
        threads: of torch, or None for its own choice. More than one gain little for networks this small and lose a
            factor of ten where the cores are shared; one also makes the result the same on any number of cores.
        channels: of 3×3 convolutions in front of the fully connected layers, each with a 2×2 pooling.
        activation: between the layers, see `varbnn.demo.network`.
    """

    widths: tuple[int, ...]
    epochs: int
    batch_size: int
    settings: Mapping[str, Settings]
    refresh: int = 10_000
    threads: int | None = 1
    channels: tuple[int, ...] = ()
    activation: str = "relu"


DIGITS: dict[str, Settings] = {
    "ste": dict(lr=3e-3, real_lr=1e-2),
    "bop": dict(gamma=1e-3, threshold=1e-8, real_lr=2e-2),
    "bop2": dict(gamma=1e-2, sigma=1e-3, threshold=1e-3, real_lr=1e-2),
    "filter": dict(alpha=1e-4, gamma=0.1, real_lr=1e-2),
    "posterior": PRESETS["digits"].settings,
    "moments": dict(lr=3e-3, temperature=1 / 1000, real_lr=2e-2),
    "gaussian": dict(lr=1e-2, temperature=1 / 1000, real_lr=2e-2),
    "vispa": dict(lr=30.0, weight_decay=1e-5, real_lr=1e-2),
}
MNIST: dict[str, Settings] = {
    "ste": dict(lr=3e-3, real_lr=1e-3),
    "bop": dict(gamma=1e-3, threshold=1e-8, real_lr=1e-3),
    "bop2": dict(gamma=1e-3, sigma=1e-3, threshold=1e-3, real_lr=3e-3),
    "filter": dict(alpha=1e-3, gamma=1e-2, real_lr=3e-3),
    "posterior": PRESETS["mnist"].settings,
    "moments": dict(lr=1e-3, temperature=1 / 100, real_lr=3e-3),
    "gaussian": dict(lr=1e-3, temperature=1 / 100, real_lr=1e-2),
    "vispa": dict(lr=10.0, weight_decay=1e-5, real_lr=1e-2),
}
MOONS = DIGITS | {
    "ste": dict(lr=1e-2, real_lr=1e-2),
    "posterior": dict(lr=1e-3, temperature=1 / 10, real_lr=1e-2),
    "moments": dict(lr=1e-3, temperature=1 / 10, real_lr=1e-2),
    "gaussian": dict(lr=1e-3, temperature=1 / 10, real_lr=1e-2),
    "vispa": dict(lr=3.0, weight_decay=1e-5, real_lr=1e-2),
}

CONVOLUTIONS = DIGITS | {"ste": dict(lr=1e-1, real_lr=3e-2), "posterior": PRESETS["digits-conv"].settings}
FASHION_CONVOLUTIONS = MNIST | {
    "ste": dict(lr=1e-1, real_lr=1e-2),
    "bop": dict(gamma=1e-3, threshold=1e-8, real_lr=3e-3),
    "vispa": dict(lr=3.0, weight_decay=1e-5, real_lr=1e-2),
    "posterior": PRESETS["fashion-conv"].settings,
}
DIGITS_SIGNS: dict[str, Settings] = {
    "ste": dict(lr=3e-3, real_lr=1e-2),
    "bop": dict(gamma=1e-3, threshold=1e-8, real_lr=1e-1),
    "bop2": dict(gamma=1e-2, sigma=1e-3, threshold=1e-3, real_lr=1e-1),
    "filter": dict(alpha=1e-3, gamma=0.1, real_lr=3e-2),
    "posterior": PRESETS["digits-signs"].settings,
    "moments": dict(lr=3e-3, temperature=1 / 300, real_lr=2e-2),
    "gaussian": dict(lr=1e-2, temperature=1 / 1000, real_lr=2e-2),
    "vispa": dict(lr=30.0, weight_decay=1e-5, real_lr=3e-2),
}
MNIST_SIGNS: dict[str, Settings] = {
    "ste": dict(lr=3e-3, real_lr=3e-3),
    "bop": dict(gamma=1e-3, threshold=1e-8, real_lr=1e-2),
    "bop2": dict(gamma=1e-3, sigma=1e-3, threshold=1e-3, real_lr=3e-2),
    "filter": dict(alpha=1e-3, gamma=1e-2, real_lr=3e-3),
    "posterior": PRESETS["mnist-signs"].settings,
    "moments": dict(lr=1e-3, temperature=1 / 200, real_lr=1e-2),
    "gaussian": dict(lr=3e-3, temperature=1 / 200, real_lr=1e-2),
    "vispa": dict(lr=3.0, weight_decay=1e-5, real_lr=3e-2),
}
FASHION_SIGNS = MNIST_SIGNS | {
    "ste": dict(lr=3e-3, real_lr=1e-2),
    "bop": dict(gamma=3e-3, threshold=1e-8, real_lr=3e-2),
    "posterior": PRESETS["fashion-signs"].settings,
}
BY_PRESET = {
    "digits": DIGITS,
    "digits-signs": DIGITS_SIGNS,
    "digits-conv": CONVOLUTIONS,
    "mnist": MNIST,
    "mnist-signs": MNIST_SIGNS,
    "fashion": MNIST | {"posterior": PRESETS["fashion"].settings},
    "fashion-signs": FASHION_SIGNS,
    "fashion-conv": FASHION_CONVOLUTIONS,
}
"""Settings of every method by the name of a preset. With convolutions straight-through, the posterior and, for
fashion-conv, Bop and VISPA were tuned, the others have the settings of the multilayer perceptron with ReLU. With signs
all were tuned for digits; for mnist all but vispa, which has what fashion's was tuned to; for fashion straight-through,
Bop, VISPA and the posterior were tuned, the others have mnist's."""

RECIPES = {
    "digits": Recipe((256, 256), 100, 100, DIGITS),
    "moons": Recipe((64, 64), 100, 50, MOONS),
    "mnist": Recipe((400, 400), 20, 100, MNIST),
    "fashion": Recipe((400, 400), 20, 100, MNIST),
}
"""Those of digits and mnist are the best of `benchmarks/accuracy.py --activation relu`, vispa's lr that of the shorter
runs of `benchmarks/vispa.py`; fashion takes mnist's, moons are by eye."""

SIGNS = {
    "digits": replace(RECIPES["digits"], widths=(128, 128), settings=DIGITS_SIGNS, activation="sign"),
    "mnist": replace(RECIPES["mnist"], settings=MNIST_SIGNS, activation="sign"),
    "fashion": replace(RECIPES["fashion"], settings=FASHION_SIGNS, activation="sign"),
}
"""With activations of ±1, the best of `benchmarks/accuracy.py`; digits' is narrower, see `benchmarks/widths.py`."""

_LAYERS = PRESETS["digits-conv"]
CONVOLUTIONAL = {
    "digits": replace(RECIPES["digits"], widths=_LAYERS.widths, settings=CONVOLUTIONS, channels=_LAYERS.channels)
}
"""With convolutions in front: straight-through and posterior as `benchmarks/accuracy.py --convolutions` chose them."""
