"""The operations that a native backend may take over, each with its plain-torch definition."""

from varbnn.kernels.backend import BackendInfo, backend_info, usable_backends, using_backend
from varbnn.kernels.draws import draw_relaxed, draw_signs, signs_from
from varbnn.kernels.reference import opposite, uniform, wide

__all__ = [
    "BackendInfo",
    "backend_info",
    "draw_relaxed",
    "draw_signs",
    "opposite",
    "signs_from",
    "uniform",
    "usable_backends",
    "using_backend",
    "wide",
]
