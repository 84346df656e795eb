"""Predictions of many sampled networks: averaged, measured, calibrated, shown.

The torchmetrics classes are in `varbnn.predict.metrics`, imported only by name because torchmetrics brings matplotlib.
"""

from varbnn.predict.average import predict
from varbnn.predict.calibration import TemperatureScaling
from varbnn.predict.consistency import CalibrationTest, calibration_test
from varbnn.predict.evaluation import Evaluation, evaluate
from varbnn.predict.noise_scaling import NoiseScaling
from varbnn.predict.regression import RegressionPrediction
from varbnn.predict.selective import RiskCoverage, risk_coverage
from varbnn.predict.shift import SeverityCurves, severity_curves
from varbnn.predict.uncertainty import Prediction

__all__ = [
    "predict",
    "Prediction",
    "RegressionPrediction",
    "evaluate",
    "Evaluation",
    "TemperatureScaling",
    "calibration_test",
    "CalibrationTest",
    "risk_coverage",
    "RiskCoverage",
    "severity_curves",
    "SeverityCurves",
    "NoiseScaling",
]
