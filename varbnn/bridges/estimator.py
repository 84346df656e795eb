"""What the scikit-learn estimators share: options, training, and the networks that answer."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import nn

import varbnn as vb
from varbnn.bridges.tabular import KINDS, Loss, network, train
from varbnn.checks import finite_number, whole_number
from varbnn.errors import InputError, import_extra

base: Any = import_extra("sklearn.base", "sklearn")
preprocessing: Any = import_extra("sklearn.preprocessing", "sklearn")
validation: Any = import_extra("sklearn.utils.validation", "sklearn")

Array = np.ndarray[Any, Any]

BATCH_SIZE = 1000
NUMBERS_AT_ONCE = 4_000_000
"""Of all networks' outputs, so that memory stays at some 100 MB; in whole batches, so that no answer depends on it."""

ROUNDING = 1e-12
"""Of the largest value of a feature or target; what varies by less is constant."""

ONE_AT_A_TIME = threading.RLock()
"""Held in training and asking: both move torch's global generator, and asking holds a draw in the network."""


class Network(base.BaseEstimator):
    """The estimator without a task; see `varbnn.bridges.sklearn.VariationalBNNClassifier` for its options."""

    scaler_: Any
    model_: nn.Sequential
    seed_: int
    loss_: float
    loss_curve_: list[float]
    n_iter_: int
    _shape: tuple[Any, ...]

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        *,
        posterior: str = "bernoulli",
        temperature: float = 0.1,
        learning_rate_init: float = 1e-2,
        real_learning_rate_init: float = 1e-2,
        batch_size: int | Literal["auto"] = "auto",
        max_iter: int = 100,
        num_samples: int = 32,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: bool = False,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.posterior = posterior
        self.temperature = temperature
        self.learning_rate_init = learning_rate_init
        self.real_learning_rate_init = real_learning_rate_init
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.num_samples = num_samples
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    def _widths(self) -> tuple[int, ...]:
        given: Any = self.hidden_layer_sizes
        several = isinstance(given, Sequence) or (isinstance(given, np.ndarray) and given.ndim == 1)
        if several and not len(given):
            raise InputError("hidden_layer_sizes is empty, but a network without a hidden layer has no binary weights")
        return tuple(whole_number("hidden_layer_sizes", width) for width in (given if several else (given,)))

    def _check_options(self) -> None:
        if not isinstance(self.posterior, str) or self.posterior not in KINDS:
            raise InputError(f"posterior must be one of {', '.join(map(repr, KINDS))}, got {self.posterior!r}")
        for name in ("temperature", "learning_rate_init", "real_learning_rate_init"):
            finite_number(name, getattr(self, name), above=0)
        if KINDS[self.posterior].draws and self.learning_rate_init > 1:
            raise InputError(f"learning_rate_init must be in (0, 1], got {self.learning_rate_init!r}")
        whole_number("max_iter", self.max_iter)
        whole_number("num_samples", self.num_samples)
        if self.batch_size != "auto":
            whole_number("batch_size", self.batch_size, note=" or 'auto'")

    @property
    def _goes_on(self) -> bool:
        """Whether `fit` goes on from the last one, whose number of features `X` must then have."""
        return bool(self.warm_start) and hasattr(self, "model_")

    def fit(self, X: Any, y: Any) -> Self:
        """Train on rows `X`, n×d, with labels or real targets `y`, n; when it fails, the last fit stays in force."""
        before = self.__dict__.copy()
        try:
            with torch.inference_mode(False), torch.enable_grad():
                self._fit(X, y)
        except BaseException:
            self.__dict__ = before
            raise
        return self

    def _fit(self, X: Any, y: Any) -> None:
        """What `fit` does, which puts all attributes back when this raises."""
        raise NotImplementedError

    def _train(self, X: Array, y: torch.Tensor, outputs: int, tail: Sequence[nn.Module], loss: Loss) -> None:
        """Set `model_` and what goes with it."""
        kind, widths = KINDS[self.posterior], self._widths()
        shape = (self.posterior, X.shape[1], *widths, outputs)
        seed = int(validation.check_random_state(self.random_state).randint(2**31 - 1))
        again = self._goes_on
        if again and shape != self._shape:
            raise InputError(
                f"warm_start goes on with the network of the last fit, {self._shape}, but options and data now ask for "
                f"{shape} (posterior, features, hidden widths, outputs); set warm_start=False"
            )
        scaler = self.scaler_ if again else _scaler(X)
        x = standardised(scaler, X).float()
        with ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # and not those of other devices, which are not put back
            if again:
                model = copy.deepcopy(self.model_).float()
            else:
                model = network(X.shape[1], widths, outputs, kind, tail)
            history = train(
                model,
                kind,
                x,
                y,
                loss,
                lr=float(self.learning_rate_init),
                real_lr=float(self.real_learning_rate_init),
                temperature=float(self.temperature),
                epochs=int(self.max_iter),
                batch_size=_batch(len(x)) if self.batch_size == "auto" else int(self.batch_size),
                generator=torch.Generator().manual_seed(seed),
                progress=bool(self.verbose),
                label=type(self).__name__,
            )
        self.loss_curve_ = (self.loss_curve_ if again else []) + [row["loss"] for row in history]
        self.loss_, self.n_iter_ = self.loss_curve_[-1], len(self.loss_curve_)
        self.model_ = model.eval().double()  # in which a row's answer does not depend on the rows beside it
        self.scaler_, self.seed_, self._shape = scaler, seed, shape

    def prediction(self, X: Any) -> Any:
        """What each network says, S×n×…, for `varbnn.evaluate`."""
        return self._answer(self._checked(X))

    def _answer(self, X: Array) -> Any:
        """The prediction for checked rows."""
        raise NotImplementedError

    def _measured(self, X: Any, *names: str) -> dict[str, Array]:
        """Properties of `prediction`, n×…, without holding what each network says of more than some rows."""
        X = self._checked(X)
        rows_at_once = BATCH_SIZE * max(1, NUMBERS_AT_ONCE // (BATCH_SIZE * int(self.num_samples) * self._shape[-1]))
        parts = []
        for start in range(0, len(X), rows_at_once):
            found = self._answer(X[start : start + rows_at_once])
            parts.append([getattr(found, name).numpy() for name in names])
        return {name: np.concatenate(part) for name, *part in zip(names, *parts, strict=True)}

    def _checked(self, X: Any) -> Array:
        """Rows that a user gives, once `fit` was called."""
        validation.check_is_fitted(self, "model_")
        whole_number("num_samples", self.num_samples)  # the one option that may change between fit and here
        rows: Array = validation.validate_data(self, X, dtype=np.float64, reset=False)
        return rows

    def _asked(self, X: Array, task: Literal["classification", "gaussian"]) -> Any:
        """What `varbnn.predict` gives for checked rows: from the same draws in every call."""
        posterior = self._shape[0]
        with ONE_AT_A_TIME:
            return vb.predict(
                model=self.model_,
                inputs=standardised(self.scaler_, X),
                num_samples=int(self.num_samples) if KINDS[posterior].draws else 0,
                batch_size=BATCH_SIZE,
                task=task,
                generator=torch.Generator().manual_seed(self.seed_),
            )


def _batch(rows: int) -> int:
    """Rows per step. Of few rows few at a time, as the rate falls with the epochs and a belief needs steps to move."""
    return min(32, max(4, rows // 10))


def constant(values: Array) -> Any:
    """Whether `values`, n or n×d, are all the same but for rounding: one answer, or one for each column."""
    with np.errstate(over="ignore"):  # what spans more than float64 holds is not constant
        return np.ptp(values, 0) <= ROUNDING * np.abs(values).max(0)


def _scaler(X: Array) -> Any:
    """A fitted StandardScaler, in which a feature that is constant in `X`, but for rounding, stays at 0."""
    scaler = preprocessing.StandardScaler().set_output(transform="default").fit(X)
    scaler.scale_[constant(X)] = np.finfo(np.float64).max
    return scaler


def standardised(scaler: Any, X: Array) -> torch.Tensor:
    """`X` as the network takes it, float64.

    Raises:
        InputError: numbers that are too large for it.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = scaler.transform(X)
    if not (np.abs(scaled) < np.finfo(np.float32).max).all():
        raise InputError("X is too large, or too far from the training inputs, to be standardised; clip its features")
    return torch.from_numpy(scaled)
