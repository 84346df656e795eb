"""Binary networks with a posterior as scikit-learn estimators; needs the extra `sklearn`, scikit-learn 1.6 or newer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

import varbnn as vb
from varbnn.bridges.estimator import Array, Network, base, constant, validation
from varbnn.errors import InputError, import_extra

multiclass: Any = import_extra("sklearn.utils.multiclass", "sklearn")
utils: Any = import_extra("sklearn.utils", "sklearn")

SMALLEST_SPREAD = 1e-150
"""Of targets; squares of smaller numbers lose their digits in float64."""

__all__ = ["VariationalBNNClassifier", "VariationalBNNRegressor"]


class VariationalBNNClassifier(base.ClassifierMixin, Network):
    """A classifier whose hidden weights are ±1, with a posterior over them.

    The network has a real factor per feature, hidden layers of ±1 weights between real scales and shifts with ReLU,
    and a real linear head. The posterior over the ±1 weights is trained by the Bayesian learning rule with rates that
    fall along a cosine. Predictions are means over networks drawn from it, the same ones in every call.

    Inputs are standardised inside, feature by feature: no scaler is needed in front. A feature that is constant in
    training becomes 0 for every input. Labels may be anything scikit-learn takes, of two classes or more. Fits and
    answers in threads of one process wait for each other, those of several estimators too; side by side they go in
    processes (joblib's default).

    Args:
        hidden_layer_sizes: widths of the hidden layers; a number is one layer.
        posterior: ``"bernoulli"``; ``"gaussian"``, signs of normal latents; ``"point"``, one binary network trained
            straight-through, which has no epistemic uncertainty.
        temperature: of the posterior, positive; 1 is Bayes' rule, less is colder (surer). Unused for a point.
        learning_rate_init: of the beliefs, at the start; at most 1 unless for a point.
        real_learning_rate_init: of factors, scales, shifts and head, at the start.
        batch_size: rows per step; "auto" is a tenth of the rows, at least 4 and at most 32.
        max_iter: passes over the data. All are made: there is no test of convergence.
        num_samples: networks that predict together.
        random_state: of initial weights, batches and draws. Torch's global random state is left alone.
        warm_start: `fit` goes on with the network of the last one, and its standardisation, for `max_iter` passes more.
        verbose: show a progress bar, where there is a terminal or a notebook.

    Attributes:
        classes_, n_features_in_, feature_names_in_, n_iter_, loss_, loss_curve_: as everywhere in scikit-learn; the
            loss is the mean cross entropy of single draws, in nats.
        model_: the network, float64, for all of varbnn: ``varbnn.pack(classifier.model_)``.
        scaler_: scikit-learn's `StandardScaler` that its inputs have gone through; ``scale_`` of a constant feature is
            the largest number.

    Raises:
        InputError (a ValueError): an option out of range, one class only, features too large to be standardised.
        ValueError, TypeError: scikit-learn's own, for NaN, shapes that do not fit and the like, and for a sparse `X`.
        MissingExtraError: this module was imported without scikit-learn.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = VariationalBNNClassifier(max_iter=20, random_state=0).fit(X, y)
    >>> classifier.predict_proba(X[:2]).shape, classifier.score(X, y) > 0.9
    ((2, 3), True)
    """

    classes_: Array

    def _fit(self, X: Any, y: Any) -> None:
        self._check_options()
        X, y = validation.validate_data(self, X, y, reset=not self._goes_on, dtype=np.float64, ensure_min_samples=2)
        multiclass.check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise InputError(
                f"{type(self).__name__} needs samples of at least 2 classes in the data, but the data contains only "
                f"one class: {classes.tolist()[0]!r}"
            )
        known = getattr(self, "classes_", classes)
        if self.warm_start and not np.array_equal(known, classes):
            raise InputError(f"warm_start needs the classes of the last fit, {known}, got {classes}")
        self._train(X, torch.from_numpy(labels.astype(np.int64)), len(classes), (), nn.functional.cross_entropy)
        self.classes_ = classes

    def prediction(self, X: Any) -> vb.Prediction:
        """What each network says, S×n×C float64, for `varbnn.evaluate` and `varbnn.plots`.

        Classes are numbered as in `classes_`. The other methods never hold all of it.
        """
        found: vb.Prediction = super().prediction(X)
        return found

    def _answer(self, X: Array) -> vb.Prediction:
        found: vb.Prediction = self._asked(X, "classification")
        return found

    def predict_proba(self, X: Any) -> Array:
        """Class probabilities averaged over the networks, n×C float64, in the order of `classes_`."""
        mean = self._measured(X, "mean")["mean"]
        return mean / mean.sum(1, keepdims=True)

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of `predict_proba`."""
        with np.errstate(divide="ignore"):  # minus infinity where the probability is 0
            return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> Array:
        """The most probable labels, n."""
        chosen = self.predict_proba(X).argmax(1)  # first, for what it says of an estimator that is not fitted
        return self.classes_[chosen]

    def predict_uncertainty(self, X: Any) -> Any:
        """How unsure each answer is, in nats: a `Bunch` of `total`, `aleatoric` and `epistemic`, n each.

        The total is the entropy of `predict_proba`; epistemic is the part by which the networks disagree, and aleatoric
        the rest. Disagreement grows with the distance from the mean of the training rows; a gap among them it does not
        see.
        """
        return utils.Bunch(**self._measured(X, "total", "aleatoric", "epistemic"))


class VariationalBNNRegressor(base.RegressorMixin, Network):
    """A regressor whose hidden weights are ±1, with a posterior over them and a learned Gaussian noise.

    Network, inputs and options are those of `VariationalBNNClassifier`; one real target, standardised inside. After
    training, the noise is fitted once more to the mean of the drawn networks (`varbnn.NoiseScaling`), on the training
    data: what training itself learns also holds the scatter of single draws.

    For targets that bend with a feature, scikit-learn's ``SplineTransformer(8, degree=1)`` in front can help much.

    Attributes:
        noise_: standard deviation of the noise, in units of the target.
        model_: gives means and log noise variances of the standardised target (``predict(..., task="gaussian")``).
        target_mean_, target_scale_: the standardisation; the scale of a constant target is 1.
        n_features_in_, feature_names_in_, n_iter_, loss_, loss_curve_, scaler_: as for the classifier; the loss is the
            mean Gaussian NLL of single draws for the standardised target.

    Raises:
        InputError (a ValueError): an option out of range, features or targets too large, targets too small.
        ValueError, TypeError: as for the classifier.

    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> regressor = VariationalBNNRegressor(max_iter=20, random_state=0).fit(X, y)
    >>> mean, std = regressor.predict(X[:3], return_std=True)
    >>> mean.shape, std.shape, regressor.score(X, y) > 0.4
    ((3,), (3,), True)
    """

    target_mean_: float
    target_scale_: float
    noise_factor_: float
    noise_: float

    def _fit(self, X: Any, y: Any) -> None:
        self._check_options()
        X, y = validation.validate_data(
            self, X, y, reset=not self._goes_on, dtype=np.float64, ensure_min_samples=2, y_numeric=True
        )
        again, y = self._goes_on, y.astype(np.float64)  # which says what is wrong with text
        with np.errstate(over="ignore", invalid="ignore"):  # said below
            center, spread = (self.target_mean_, self.target_scale_) if again else (float(y.mean()), float(y.std()))
            if not again and constant(y):  # met by the shift of the head; its deviation is rounding
                y, spread = np.full_like(y, center), 1.0
        if not (np.isfinite(center) and np.isfinite(spread)):
            raise InputError("y is too large to be standardised; give it in larger units")
        if spread < SMALLEST_SPREAD:
            raise InputError(f"y is too small to be standardised, its deviation {spread:g}; give it in smaller units")
        targets = torch.from_numpy((y - center) / spread)[:, None]
        self._train(X, targets.float(), 1, (vb.nn.LearnedNoise(),), vb.nn.gaussian_nll)
        noise: Any = self.model_[-1]
        self.target_mean_, self.target_scale_, self.noise_factor_ = center, spread, 1.0
        self.noise_factor_ = vb.NoiseScaling().fit(self._standard_prediction(X), targets).factor
        self.noise_ = float(noise.variance[0].sqrt()) * self.noise_factor_**0.5 * spread

    def _standard_prediction(self, X: Array) -> vb.RegressionPrediction:
        return vb.NoiseScaling(self.noise_factor_)(self._asked(X, "gaussian"))

    def prediction(self, X: Any) -> vb.RegressionPrediction:
        """What each network says, S×n×1 in units of the target, for `varbnn.evaluate` and its `interval`."""
        found: vb.RegressionPrediction = super().prediction(X)
        return found

    def _answer(self, X: Array) -> vb.RegressionPrediction:
        return self._standard_prediction(X).in_units(self.target_scale_, self.target_mean_)

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The mean of the networks, n; with `return_std` also the standard deviation of an observation, n."""
        found = self._measured(X, "mean", "std")
        mean = found["mean"][:, 0]
        return (mean, found["std"][:, 0]) if return_std else mean

    def predict_uncertainty(self, X: Any) -> Any:
        """How unsure each answer is: a `Bunch` of `mean`, `std` and the variances `total`, `aleatoric`, `epistemic`.

        All have n numbers. `mean` and `std` are what ``predict(X, return_std=True)`` gives, in units of the target.
        The others are as in `varbnn.RegressionPrediction`, in its squared units: total = std² = aleatoric, the noise,
        + epistemic, what the networks disagree about (not in gaps, as for the classifier).
        """
        found = self._measured(X, "mean", "std", "total", "aleatoric", "epistemic")
        return utils.Bunch(**{name: column[:, 0] for name, column in found.items()})
