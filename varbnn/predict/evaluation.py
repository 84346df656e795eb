"""A prediction against the truth, in one flat table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from varbnn.checks import Values
from varbnn.errors import InputError
from varbnn.packed import AveragePrediction
from varbnn.predict.checks import as_labels, as_real_targets
from varbnn.predict.mixture import distribution, log_density
from varbnn.predict.regression import RegressionPrediction
from varbnn.predict.uncertainty import Averaged, Prediction, count, mean64, mean_of, require_classes

Score = Literal["total", "epistemic", "aleatoric", "confidence"]

UNCERTAINTY: dict[Score, Callable[[Averaged], Tensor]] = {
    "total": lambda prediction: prediction.total,
    "epistemic": lambda prediction: prediction.epistemic,
    "aleatoric": lambda prediction: prediction.aleatoric,
    "confidence": lambda prediction: -prediction.confidence,
}
MEANING = {
    "accuracy": "share of inputs labelled right",
    "nll": "nats per input, lower is better",
    "brier": "0 to 2, lower is better",
    "ece": "gap between confidence and accuracy",
    "ood_auroc": "foreign inputs are less sure; 0.5 is chance",
    "ood_fpr95": "foreign inputs accepted when 95 % of familiar ones are",
    "rmse": "units of the target",
    "coverage": "share of targets within the central 95 % interval",
}
LEVEL = 0.95


class Evaluation(dict[str, float]):
    """Measures by name, plain floats: prints as a table, goes into JSON as it is.

    >>> print(Evaluation(accuracy=0.975, nll=0.11, num_samples=32))
    accuracy    0.9750    share of inputs labelled right
    nll         0.1100    nats per input, lower is better
    (mean of 32 samples)
    """

    def __str__(self) -> str:
        lines = [
            f"{name:<11} {value:.4f}    {MEANING.get(name, '')}".rstrip()
            for name, value in self.items()
            if name != "num_samples"
        ]
        if "num_samples" in self:
            lines.append(f"(mean of {count(int(self['num_samples']), 'sample')})")
        return "\n".join(lines)


def evaluate(
    prediction: Prediction | AveragePrediction | RegressionPrediction,
    targets: Values,
    ood: Prediction | AveragePrediction | None = None,
    *,
    bins: int = 15,
    score: Score = "total",
) -> Evaluation:
    """Measure the mean of a prediction's samples against the truth.

    Classification gives `accuracy`, `nll` (nats per input), `brier` (summed over classes), `ece` and, with `ood`,
    `ood_auroc` and `ood_fpr95`; regression gives `rmse` and, where a noise variance is known, `nll`: minus the log
    density of the equally weighted mixture of the S Gaussians, joint over outputs, nats per input, and `coverage`, the
    share of targets in the central 95 % interval of that mixture, each output by itself. All have `num_samples`. The
    definitions are those of `varbnn.predict.metrics`.

    Args:
        prediction: S samples for N inputs; of classes also their average, as packed networks give it with
            ``reduce="mean"``.
        targets: N class labels (integers), or real targets shaped like one sample.
        ood: the same networks' prediction for foreign inputs.
        bins: of the calibration error.
        score: by which foreign inputs are told from familiar ones; "confidence" counts downwards. "epistemic" leaves
            out the doubt that every network shares, as where familiar classes overlap.

    Raises:
        InputError: targets that do not fit the prediction, another number of classes in `ood`, an unknown `score`, or
            "epistemic" with `ood` for one sample.

    >>> prediction = Prediction([[[0.9, 0.1], [0.2, 0.8]]])
    >>> print(evaluate(prediction, [0, 1]))
    accuracy    1.0000    share of inputs labelled right
    nll         0.1643    nats per input, lower is better
    brier       0.0500    0 to 2, lower is better
    ece         0.1500    gap between confidence and accuracy
    (mean of 1 sample)
    """
    if isinstance(prediction, RegressionPrediction):
        if ood is not None:
            raise InputError("ood= compares class probabilities; for regression compare prediction.total by yourself")
        return _evaluate_regression(prediction, targets)
    require_classes(prediction)
    mean = mean_of(prediction)
    labels = as_labels(targets, len(prediction), prediction.num_classes).to(mean.device)
    if ood is not None:
        require_same_classes(prediction, ood)
    require_score(score, *([] if ood is None else [prediction, ood]))
    result = _evaluate_classes(mean, labels, bins)
    if ood is not None:
        familiar, foreign = UNCERTAINTY[score](prediction), UNCERTAINTY[score](ood).to(mean.device)
        result |= _evaluate_detection(familiar, foreign)
    return Evaluation(result, num_samples=prediction.num_samples)


def require_same_classes(prediction: Averaged, ood: object) -> None:
    """Raise InputError unless `ood` is a prediction of as many classes."""
    if isinstance(ood, Averaged) and ood.num_classes == prediction.num_classes:
        return
    shape = getattr(ood, "shape", None)
    given = repr(ood) if isinstance(ood, Averaged) else type(ood).__name__
    raise InputError(
        f"ood must be a Prediction over the same {prediction.num_classes} classes, as of "
        f"varbnn.predict(model, foreign_inputs, …), got {given}{'' if shape is None else f' of shape {tuple(shape)}'}"
    )


def require_score(score: Score, *predictions: Averaged) -> None:
    """Raises: InputError for a score that does not exist, or that one of `predictions`, of one network, cannot have."""
    if score not in get_args(Score):
        raise InputError(f"score must be one of {', '.join(get_args(Score))}, got {score!r}")
    for prediction in predictions:
        require_classes(prediction)
    if score == "epistemic" and any(prediction.num_samples == 1 for prediction in predictions):
        raise InputError(
            "score='epistemic' is how much networks disagree, and one network has nobody to disagree with; predict "
            "with num_samples ≥ 2, or take score='total'"
        )


def _evaluate_classes(mean: Tensor, labels: Tensor, bins: int) -> dict[str, float]:
    # imported late: torchmetrics brings matplotlib and a second of start-up
    from varbnn.predict.metrics import Brier, ExpectedCalibrationError, NegativeLogLikelihood

    metrics = {"nll": NegativeLogLikelihood(), "brier": Brier(), "ece": ExpectedCalibrationError(bins)}
    for metric in metrics.values():
        metric.to(mean.device).update(mean, labels)
    accuracy = (mean.argmax(1) == labels).double().mean().item()
    return {"accuracy": accuracy} | {name: float(metric.compute()) for name, metric in metrics.items()}


def _evaluate_detection(familiar: Tensor, foreign: Tensor) -> dict[str, float]:
    from varbnn.predict.metrics import FPR95, ood_auroc

    fpr95 = FPR95().to(familiar.device)
    fpr95.update(familiar, torch.zeros(len(familiar), dtype=torch.bool))
    fpr95.update(foreign, torch.ones(len(foreign), dtype=torch.bool))
    return {"ood_auroc": ood_auroc(familiar, foreign), "ood_fpr95": float(fpr95.compute())}


def _evaluate_regression(prediction: RegressionPrediction, targets: Values) -> Evaluation:
    truth = as_real_targets(targets, prediction.means.shape[1:]).to(prediction.means.device)
    error = mean64(prediction.means) - truth
    result = Evaluation(rmse=error.square().mean().sqrt().item())
    if prediction.noise_variance is not None:
        result["nll"] = -log_density(prediction.means, prediction.noise_variance, truth).mean().item()
        place = distribution(prediction.means, prediction.noise_variance, truth)
        result["coverage"] = ((place - 0.5).abs() <= LEVEL / 2).double().mean().item()
    return Evaluation(result, num_samples=prediction.num_samples)
