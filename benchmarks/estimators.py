"""The scikit-learn estimators as they come beside scikit-learn's networks as they come, on its own small data sets.

    python benchmarks/estimators.py [--out FILE.json]

Five-fold cross-validation (shuffled, seed 0; classes stratified), every estimator with its defaults and fold by fold
the same random state; scikit-learn's networks get a StandardScaler in front, its regressor also one for the target, as
ours have inside. The defaults were
chosen on other folds of the same data sets (seed 7). A fold that is there already is not repeated.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import RESULTS, machine, read, say, write
from sklearn import datasets
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import varbnn as vb
from varbnn.bridges.sklearn import VariationalBNNClassifier, VariationalBNNRegressor

CLASSES = ("iris", "wine", "breast_cancer", "digits")
CLASSIFIERS: dict[str, Callable[[int], Any]] = {
    "VariationalBNNClassifier": lambda seed: VariationalBNNClassifier(random_state=seed),
    "MLPClassifier": lambda seed: make_pipeline(StandardScaler(), MLPClassifier(random_state=seed)),
}
REGRESSORS: dict[str, Callable[[int], Any]] = {
    "VariationalBNNRegressor": lambda seed: VariationalBNNRegressor(random_state=seed),
    "MLPRegressor": lambda seed: TransformedTargetRegressor(
        make_pipeline(StandardScaler(), MLPRegressor(random_state=seed)), transformer=StandardScaler()
    ),
}


def classify(estimator: Any, X: Any, y: Any, train: Any, test: Any) -> dict[str, float]:
    """Fit on one part, measure on the other."""
    estimator.fit(X[train], y[train])
    return {
        "score": estimator.score(X[test], y[test]),
        "nll": log_loss(y[test], estimator.predict_proba(X[test]), labels=np.unique(y)),
    }


def regress(estimator: Any, X: Any, y: Any, train: Any, test: Any) -> dict[str, float]:
    """The same for a real target; a network without noise gets that of its own training residuals."""
    estimator.fit(X[train], y[train])
    if isinstance(estimator, VariationalBNNRegressor):
        prediction = estimator.prediction(X[test])
    else:
        noise = float(np.mean((estimator.predict(X[train]) - y[train]) ** 2))
        prediction = vb.RegressionPrediction(estimator.predict(X[test])[None, :, None], noise)
    measured = vb.evaluate(prediction, y[test][:, None])
    return {"score": estimator.score(X[test], y[test]), "nll": measured["nll"], "coverage": measured["coverage"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "estimators.json")
    path = parser.parse_args().out
    torch.set_num_threads(1)
    results = read(path) or {"runs": {}}
    for name in (*CLASSES, "diabetes"):
        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        folds = (StratifiedKFold if name in CLASSES else KFold)(5, shuffle=True, random_state=0)
        for title, make in (CLASSIFIERS if name in CLASSES else REGRESSORS).items():
            done = results["runs"].setdefault(name, {}).setdefault(title, [])
            for fold, (train, test) in list(enumerate(folds.split(X, y)))[len(done) :]:
                begun = time.process_time()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)  # as it comes
                    found = (classify if name in CLASSES else regress)(make(fold), X, y, train, test)
                done.append({**found, "seconds": time.process_time() - begun})
                say(name, title, done[-1])
                results["machine"] = machine()
                write(path, results)
    results["table"] = {
        name: {
            title: {
                key: {"mean": statistics.fmean(r[key] for r in runs), "sd": statistics.stdev(r[key] for r in runs)}
                for key in runs[0]
            }
            for title, runs in rows.items()
        }
        for name, rows in results["runs"].items()
    }
    write(path, results)


if __name__ == "__main__":
    main()
