"""Points in the plane: small enough to look at all of what a model believes."""

from __future__ import annotations

import numpy as np

from varbnn.data.dataset import Array, Raw

SIZE = 1000  # points to train on, as many to test, as many on the ring
NOISE = 0.2  # standard deviation, in units of the half circles' radius: the moons touch, so some doubt is right
RING = (4.0, 5.0)  # inner and outer radius: at least twice as far from the centre as any moon


def generate(seed: int) -> Raw:
    """Two interleaving half circles of radius 1 with Gaussian noise, and a ring far around them."""
    generator = np.random.default_rng(seed)
    train_x, train_y = _half_circles(generator)
    test_x, test_y = _half_circles(generator)
    return Raw(
        name="moons",
        train_x=train_x,
        train_y=train_y,
        test_x=test_x,
        test_y=test_y,
        ood_x=_ring(generator),
        ood_name="points on a far ring",
        shape=(2,),
        num_classes=2,
        validation_share=0.2,
        per_feature=True,
    )


def _half_circles(generator: np.random.Generator) -> tuple[Array, Array]:
    labels = generator.permutation(np.arange(SIZE) % 2)
    angle = generator.uniform(0, np.pi, SIZE)
    upper = np.stack([np.cos(angle), np.sin(angle)], 1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], 1)
    points = np.where(labels[:, None] == 0, upper, lower)
    return points + NOISE * generator.standard_normal((SIZE, 2)), labels


def _ring(generator: np.random.Generator) -> Array:
    angle = generator.uniform(0, 2 * np.pi, SIZE)
    radius = np.sqrt(generator.uniform(RING[0] ** 2, RING[1] ** 2, SIZE))  # uniform over the ring's area
    centre = np.array([0.5, 0.25])
    return centre + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
