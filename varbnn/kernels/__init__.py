"""The operations that a native backend may take over, each with its plain-torch definition."""

from varbnn.kernels.reference import draw_signs, opposite, signs_from, uniform

__all__ = ["draw_signs", "opposite", "signs_from", "uniform"]
