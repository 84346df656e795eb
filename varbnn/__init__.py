"""Neural networks with ±1 weights that know how sure they are."""

from importlib.metadata import version

from varbnn import active, bits, continual, errors, integer, nn, optim, posteriors, presets
from varbnn.kernels import backend_info
from varbnn.nn import antithetic, binarize, freeze, health, refresh_batchnorm, sampled, summary
from varbnn.packed import AveragePrediction, PackedEnsemble, Predictor, load_packed, pack
from varbnn.posteriors import as_prior
from varbnn.predict import (
    NoiseScaling,
    Prediction,
    RegressionPrediction,
    TemperatureScaling,
    calibration_test,
    evaluate,
    plots,
    predict,
    risk_coverage,
    severity_curves,
)
from varbnn.training import fit

__version__ = version("varbnn")

__all__ = [
    "AveragePrediction",
    "NoiseScaling",
    "PackedEnsemble",
    "Prediction",
    "Predictor",
    "RegressionPrediction",
    "TemperatureScaling",
    "active",
    "antithetic",
    "as_prior",
    "backend_info",
    "binarize",
    "bits",
    "calibration_test",
    "continual",
    "errors",
    "evaluate",
    "fit",
    "freeze",
    "health",
    "integer",
    "load_packed",
    "nn",
    "optim",
    "pack",
    "plots",
    "posteriors",
    "predict",
    "presets",
    "refresh_batchnorm",
    "risk_coverage",
    "sampled",
    "severity_curves",
    "summary",
]
