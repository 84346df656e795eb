"""What every method may choose from in `accuracy.py`: trials by study and method, equally many for each method."""

from __future__ import annotations

from collections.abc import Sequence

Settings = dict[str, float]
Choices = dict[str, tuple[Settings, ...]]


def each(real_lrs: Sequence[float], settings: Sequence[Settings]) -> list[Settings]:
    """Settings of the rule, each with every rate of the batch norms' scales and shifts."""
    return [{**chosen, "real_lr": real_lr} for chosen in settings for real_lr in real_lrs]


def study(
    points: Choices, real: Sequence[float], draws: Choices, real_drawing: Sequence[float]
) -> dict[str, list[Settings]]:
    """Trials of methods that train one network, and of those that draw, whose gradients are noisier."""
    return {method: each(real, choices) for method, choices in points.items()} | {
        method: each(real_drawing, choices) for method, choices in draws.items()
    }


def cold(*pairs: tuple[float, float]) -> tuple[Settings, ...]:
    """Pairs of a learning rate and of what one is divided by for the temperature."""
    return tuple({"lr": lr, "temperature": 1 / divisor} for lr, divisor in pairs)


POINTS: Choices = {
    "ste": ({"lr": 1e-3}, {"lr": 3e-3}, {"lr": 1e-2}),
    "bop": (
        {"gamma": 1e-3, "threshold": 1e-8},
        {"gamma": 1e-3, "threshold": 1e-6},
        {"gamma": 1e-4, "threshold": 1e-8},
    ),
    "bop2": (
        {"gamma": 1e-2, "sigma": 1e-3, "threshold": 1e-3},
        {"gamma": 1e-3, "sigma": 1e-3, "threshold": 1e-3},
        {"gamma": 1e-3, "sigma": 1e-3, "threshold": 1e-2},
    ),
    "filter": ({"alpha": 1e-3, "gamma": 1e-1}, {"alpha": 1e-3, "gamma": 1e-2}, {"alpha": 1e-4, "gamma": 1e-1}),
}
DIGITS_POINTS: Choices = {
    "ste": ({"lr": 3e-3}, {"lr": 1e-2}),
    "bop": ({"gamma": 1e-3, "threshold": 1e-8}, {"gamma": 1e-4, "threshold": 1e-8}),
    "bop2": ({"gamma": 1e-2, "sigma": 1e-3, "threshold": 1e-3}, {"gamma": 1e-3, "sigma": 1e-3, "threshold": 1e-3}),
    "filter": ({"alpha": 1e-3, "gamma": 1e-1}, {"alpha": 1e-4, "gamma": 1e-1}),
    "vispa": ({"lr": 10.0, "weight_decay": 1e-5}, {"lr": 30.0, "weight_decay": 1e-5}),
}
DIGITS_DRAWS: Choices = {
    "posterior": cold((3e-3, 1000), (3e-3, 300)),
    "moments": cold((3e-3, 1000), (3e-3, 300)),
    "gaussian": cold((1e-2, 1000), (1e-2, 300)),
}
MNIST_DRAWS: Choices = {
    "posterior": cold((1e-3, 200), (3e-3, 100), (3e-3, 300)),
    "moments": cold((1e-3, 200), (3e-3, 100), (3e-3, 300)),
    "gaussian": cold((3e-3, 100), (3e-3, 200), (1e-2, 200)),
}
DIGITS_RELU_DRAWS: Choices = {
    "posterior": cold((3e-3, 1000), (3e-3, 2000), (1e-3, 1000)),
    "moments": cold((3e-3, 1000), (3e-3, 500), (1e-3, 1000)),
    "gaussian": cold((3e-3, 1000), (1e-2, 1000), (1e-2, 2000)),
}
MNIST_RELU_DRAWS: Choices = {
    "posterior": cold((1e-3, 100), (1e-3, 200), (3e-3, 300)),
    "moments": cold((1e-3, 60), (1e-3, 100), (3e-3, 100)),
    "gaussian": cold((1e-3, 100), (3e-3, 100), (1e-2, 100)),
}
CONVOLUTIONS_POINTS = POINTS | {"ste": ({"lr": 1e-2}, {"lr": 3e-2}, {"lr": 1e-1})}
CONVOLUTIONS_DRAWS = DIGITS_RELU_DRAWS | {"posterior": cold((3e-3, 100), (3e-3, 300), (3e-3, 1000))}

TRIALS = {
    "digits": study(DIGITS_POINTS, (1e-2, 3e-2, 1e-1), DIGITS_DRAWS, (2e-2, 6e-2, 2e-1)),
    "mnist": study(POINTS, (3e-3, 1e-2, 3e-2), MNIST_DRAWS, (1e-2, 3e-2, 1e-1)),
    "digits, relu": study(POINTS, (1e-2, 2e-2, 3e-2), DIGITS_RELU_DRAWS, (1e-2, 2e-2, 3e-2)),
    "mnist, relu": study(POINTS, (1e-3, 3e-3, 1e-2), MNIST_RELU_DRAWS, (3e-3, 1e-2, 3e-2)),
    "digits, convolutions": study(CONVOLUTIONS_POINTS, (1e-2, 3e-2, 1e-1), CONVOLUTIONS_DRAWS, (3e-2, 1e-1, 3e-1)),
}
TRIALS["fashion, relu"] = TRIALS["mnist, relu"]
