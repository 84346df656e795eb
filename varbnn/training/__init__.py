"""The training loop people write anyway, with a progress bar, posterior health, validation, and exact resume."""

from varbnn.training.loop import fit

__all__ = ["fit"]
