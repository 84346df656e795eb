"""The scikit-learn estimators: scikit-learn's own checks, and that they say what varbnn says."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import varbnn as vb
from tests.surroundings import default_dtype

pytest.importorskip("sklearn", reason="the estimators need varbnn[sklearn]")

from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, log_loss, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

from varbnn.bridges import estimator as bridge_estimator
from varbnn.bridges.sklearn import VariationalBNNClassifier, VariationalBNNRegressor
from varbnn.errors import InputError, VarbnnWarning

ROOT = Path(__file__).resolve().parents[2]
BOTH = [VariationalBNNClassifier, VariationalBNNRegressor]
QUICK = dict(max_iter=5, num_samples=4, random_state=0)
UNUSABLE = {VariationalBNNClassifier: np.zeros(150), VariationalBNNRegressor: np.full(150, 1.5e308)}
"""Labels of one class, targets whose mean overflows: noticed once the features were checked."""


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def classifier(iris):
    return VariationalBNNClassifier(max_iter=30, num_samples=8, random_state=0).fit(*iris)


@pytest.fixture(scope="module")
def diabetes():
    return load_diabetes(return_X_y=True)


@pytest.fixture(scope="module")
def regressor(diabetes):
    return VariationalBNNRegressor(max_iter=10, num_samples=8, random_state=0).fit(*diabetes)


def checks():
    for kind in BOTH:
        for estimator, check in estimator_checks_generator(kind(max_iter=15, num_samples=8)):
            yield pytest.param(estimator, check, id=f"{kind.__name__}-{check.func.__name__}")


@pytest.mark.filterwarnings("ignore")  # scikit-learn provokes warnings on purpose
@pytest.mark.parametrize("estimator, check", list(checks()))
def test_it_passes_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of targets without a pattern it rightly says that it has learned nothing
@pytest.mark.parametrize("kind", BOTH)
def test_it_passes_the_checks_of_scikit_learn_as_it_comes(kind):
    check_estimator(kind())


# --- what it says is what varbnn says ---


def test_probabilities_are_those_of_predict_on_its_model(classifier, iris):
    scaled = torch.from_numpy((iris[0] - iris[0].mean(0)) / iris[0].std(0))
    generator = torch.Generator().manual_seed(classifier.seed_)
    said = vb.predict(classifier.model_, scaled, num_samples=8, generator=generator)
    assert_allclose(classifier.predict_proba(iris[0]), said.mean, rtol=1e-12)
    uncertainty = classifier.predict_uncertainty(iris[0])
    for name in ("total", "aleatoric", "epistemic"):
        assert_allclose(uncertainty[name], getattr(said, name), atol=1e-12)
    assert_allclose(uncertainty.total, uncertainty.aleatoric + uncertainty.epistemic, atol=1e-12)
    assert uncertainty.epistemic.max() > 0


def test_measures_agree_with_scikit_learn(classifier, iris):
    measured = vb.evaluate(classifier.prediction(iris[0]), iris[1])
    assert measured["accuracy"] == pytest.approx(accuracy_score(iris[1], classifier.predict(iris[0])))
    assert measured["nll"] == pytest.approx(log_loss(iris[1], classifier.predict_proba(iris[0])), rel=1e-6)
    assert classifier.score(*iris) == pytest.approx(measured["accuracy"])
    assert_allclose(classifier.predict_log_proba(iris[0]), np.log(classifier.predict_proba(iris[0])))


def test_a_regressor_answers_in_the_units_of_its_target(regressor, diabetes):
    X, y = diabetes
    generator = torch.Generator().manual_seed(regressor.seed_)
    scaled = torch.from_numpy((X - X.mean(0)) / X.std(0))
    said = vb.predict(regressor.model_, scaled, num_samples=8, task="gaussian", generator=generator)
    mean, std = regressor.predict(X, return_std=True)
    assert_allclose(mean, said.mean[:, 0] * y.std() + y.mean(), rtol=1e-9)
    assert regressor.score(X, y) == pytest.approx(r2_score(y, mean))
    uncertainty = regressor.predict_uncertainty(X)
    assert_allclose(uncertainty.aleatoric, regressor.noise_**2, rtol=1e-9)
    assert_allclose(uncertainty.epistemic, said.epistemic[:, 0] * y.var(), rtol=1e-6)
    assert_allclose(uncertainty.total, uncertainty.aleatoric + uncertainty.epistemic, rtol=1e-12)
    assert_allclose(uncertainty.total, std**2, rtol=1e-12)
    assert_array_equal(uncertainty.std, std)
    assert_array_equal(uncertainty.mean, mean)
    inside = regressor.prediction(X)
    for name in ("total", "aleatoric", "epistemic"):
        assert_array_equal(uncertainty[name], getattr(inside, name)[:, 0])


def test_the_noise_is_the_likeliest_for_the_training_data(regressor, diabetes):
    X, y = diabetes
    found = regressor.prediction(X)
    best = vb.evaluate(found, y[:, None])["nll"]
    for factor in (0.9, 1.1):
        assert vb.evaluate(vb.NoiseScaling(factor)(found), y[:, None])["nll"] > best


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_units_do_not_matter(diabetes, factor):
    X, y = diabetes
    plain = VariationalBNNRegressor(**QUICK).fit(X, y)
    other = VariationalBNNRegressor(**QUICK).fit(X * factor - 3, y * factor + 5 * factor)
    assert_allclose((other.predict(X * factor - 3) / factor - 5), plain.predict(X), rtol=1e-3)
    assert other.noise_ / factor == pytest.approx(plain.noise_, rel=1e-3)


def test_its_network_can_be_packed(classifier, iris):
    before = classifier.predict(iris[0])
    packed = vb.pack(classifier.model_, 64)
    assert_array_equal(classifier.predict(iris[0]), before)
    scaled = torch.from_numpy(classifier.scaler_.transform(iris[0])).float()
    assert (packed(scaled, reduce="mean").mean.argmax(1).numpy() == iris[1]).mean() > 0.9


def test_the_weights_are_signs(classifier, regressor):
    for estimator in (classifier, regressor):
        (layer,) = [layer for _, layer in vb.nn.binary_layers(estimator.model_)]
        assert layer.weight.abs().unique().tolist() == [1.0]


# --- the life of an estimator ---


@pytest.mark.parametrize("kind", BOTH)
def test_the_same_random_state_gives_the_same_answers_and_leaves_torchs_alone(kind, iris):
    before = torch.get_rng_state()
    first, second, other = (kind(**{**QUICK, "random_state": seed}).fit(*iris) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert_array_equal(first.predict_uncertainty(iris[0]).epistemic, second.predict_uncertainty(iris[0]).epistemic)
    assert (first.predict_uncertainty(iris[0]).epistemic != other.predict_uncertainty(iris[0]).epistemic).any()


def test_a_generator_of_numpy_is_a_random_state(iris):
    one = VariationalBNNClassifier(**{**QUICK, "random_state": np.random.RandomState(3)}).fit(*iris)
    two = VariationalBNNClassifier(**{**QUICK, "random_state": np.random.RandomState(3)}).fit(*iris)
    assert_array_equal(one.predict_proba(iris[0]), two.predict_proba(iris[0]))


def test_it_survives_pickling_and_cloning(classifier, regressor, iris, diabetes):
    for estimator, X in ((classifier, iris[0]), (regressor, diabetes[0])):
        again = pickle.loads(pickle.dumps(estimator))
        for name, values in estimator.predict_uncertainty(X).items():
            assert_array_equal(again.predict_uncertainty(X)[name], values)
        assert not hasattr(clone(estimator), "model_")
        assert clone(estimator).get_params() == estimator.get_params()


def test_it_works_in_pipelines_searches_and_cross_validation(iris):
    pipeline = make_pipeline(StandardScaler(), VariationalBNNClassifier(**QUICK))
    search = GridSearchCV(pipeline, {"variationalbnnclassifier__temperature": [1e-2, 1e-1]}, cv=2).fit(*iris)
    assert search.best_params_["variationalbnnclassifier__temperature"] in (1e-2, 1e-1)
    assert cross_val_score(VariationalBNNRegressor(**QUICK), *iris, cv=3).shape == (3,)


@pytest.mark.parametrize("kind", BOTH)
def test_warm_start_goes_on_where_it_was(kind, iris):
    X, y = iris
    estimator = kind(**QUICK, warm_start=True).fit(X, y)
    first, twin = list(estimator.loss_curve_), pickle.loads(pickle.dumps(estimator))
    estimator.fit(X, y)
    assert estimator.n_iter_ == 10 == len(estimator.loss_curve_)
    assert estimator.loss_curve_[:5] == first
    assert estimator.loss_ < first[-1]
    twin.set_params(hidden_layer_sizes=(7,))
    with pytest.raises(ValueError, match="warm_start goes on with the network of the last fit"):
        twin.fit(X, y)
    assert twin.n_iter_ == 5
    assert np.isfinite(twin.predict(X)).all()
    with pytest.raises(ValueError, match="X has 2 features"):
        twin.set_params(hidden_layer_sizes=(100,)).fit(X[:, :2], y)
    assert twin.n_features_in_ == 4
    assert np.isfinite(twin.predict(X)).all(), "a refusal has changed what the last fit knows"


def test_warm_start_needs_the_same_classes(iris):
    X, y = iris
    estimator = VariationalBNNClassifier(**QUICK, warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="warm_start needs the classes of the last fit"):
        estimator.fit(X, y + 1)


def test_a_fit_that_fails_leaves_the_last_one_in_force(iris):
    X, y = iris
    estimator = VariationalBNNClassifier(**QUICK).fit(X, y)
    before = estimator.predict_proba(X)
    with pytest.raises(ValueError, match="one class"):
        estimator.fit(X, np.zeros(150))
    with pytest.raises(ValueError, match="temperature"):
        estimator.set_params(temperature=0).fit(X, y)
    assert_array_equal(estimator.predict_proba(X), before)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("broken_off", [False, True])
def test_features_of_a_fit_that_fails_are_not_those_of_the_estimator(kind, broken_off, iris, monkeypatch):
    X, y = iris
    estimator = kind(**QUICK).fit(X, y)
    before, said = dict(vars(estimator)), estimator.predict(X)
    if broken_off:  # after features were checked, by hand
        monkeypatch.setattr("varbnn.bridges.estimator.train", interrupted)
    with pytest.raises((ValueError, KeyboardInterrupt)):
        estimator.fit(X[:, :2], y if broken_off else UNUSABLE[kind])
    monkeypatch.undo()
    assert vars(estimator).keys() == before.keys()
    assert all(vars(estimator)[name] is value for name, value in before.items())
    assert_array_equal(estimator.predict(X), said)
    fresh = kind(**QUICK)
    with pytest.raises(ValueError, match=r"one class|too large"):
        fresh.fit(X, UNUSABLE[kind])
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    assert not hasattr(fresh, "n_features_in_")


def interrupted(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize("kind", BOTH)
def test_threads_that_ask_one_estimator_hear_what_one_alone_hears(kind, iris):
    estimator = kind(**QUICK).fit(*iris)
    parts = [iris[0][start::10] for start in range(10)] * 8
    alone, before = [estimator.predict(part) for part in parts], torch.get_rng_state()
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(estimator.predict, parts))
    for found, expected in zip(together, alone, strict=True):
        assert_array_equal(found, expected)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(layer._held is None for _, layer in vb.nn.binary_layers(estimator.model_))


@pytest.mark.parametrize("kind", BOTH)
def test_fits_in_threads_are_those_of_one_alone_and_leave_torchs_state(kind, iris):
    def losses(seed):
        return kind(**{**QUICK, "random_state": seed}).fit(*iris).loss_curve_

    alone, before = [losses(seed) for seed in range(4)], torch.get_rng_state()
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(losses, range(4))) == alone
    assert torch.equal(torch.get_rng_state(), before)


def test_fit_leaves_generators_of_other_devices(iris, monkeypatch):
    reset = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", reset.append)
    VariationalBNNClassifier(**QUICK).fit(*iris)
    assert not reset


@pytest.mark.parametrize("kind", BOTH)
def test_the_form_that_others_are_told_to_answer_in_is_not_its_scalers(kind, iris):
    plain = kind(**QUICK).fit(*iris)
    with config_context(transform_output="pandas"):  # which need not be installed, as nothing is transformed for users
        told = kind(**QUICK).fit(*iris)
        assert_array_equal(told.predict(iris[0]), plain.predict(iris[0]))


@pytest.mark.parametrize("posterior", ["bernoulli", "gaussian", "point"])
def test_every_posterior_learns_and_only_a_point_is_never_torn(posterior, iris):
    options = dict(posterior=posterior, max_iter=30, num_samples=8, random_state=0)
    estimator = VariationalBNNClassifier(**options).fit(*iris)
    assert estimator.score(*iris) > 0.9
    assert (estimator.predict_uncertainty(iris[0]).epistemic.max() > 1e-6) == (posterior != "point")


def test_labels_may_be_words_and_features_have_names(iris):
    names = np.array(["setosa", "versicolor", "virginica"], dtype=object)
    estimator = VariationalBNNClassifier(max_iter=20, random_state=0).fit(iris[0], names[iris[1]])
    assert estimator.classes_.tolist() == names.tolist()
    assert set(estimator.predict(iris[0])) <= set(names)
    pandas = pytest.importorskip("pandas", reason="names of features come with pandas")
    frame = pandas.DataFrame(iris[0], columns=list("abcd"))
    assert VariationalBNNClassifier(**QUICK).fit(frame, iris[1]).feature_names_in_.tolist() == list("abcd")


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.filterwarnings("error:X does not have valid feature names")
def test_fit_asks_nothing_about_names_that_it_was_given(kind, iris, monkeypatch):
    names = np.array(list("abcd"), dtype=object)
    table = iris[0].tolist()  # stands for a data frame, whose library need not be here
    monkeypatch.setattr("sklearn.utils.validation._get_feature_names", lambda X: names if isinstance(X, list) else None)
    estimator = kind(**QUICK).fit(table, iris[1])
    assert estimator.feature_names_in_.tolist() == list("abcd")
    estimator.predict(table)


@pytest.mark.parametrize("kind", BOTH)
def test_what_is_set_after_fit_changes_no_answer_but_their_number_of_networks(kind, iris):
    X, y = iris
    estimator = kind(**QUICK).fit(X, y)
    before = estimator.predict(X)
    for posterior in ("point", "laplace"):
        assert_array_equal(estimator.set_params(posterior=posterior).predict(X), before)
    for number in (0, "x", 2.5):
        with pytest.raises(ValueError, match="num_samples must be a whole number ≥ 1"):
            estimator.set_params(num_samples=number).predict(X)
    assert estimator.set_params(num_samples=np.int64(3)).prediction(X[:2]).num_samples == 3


def test_widths_may_be_an_array(iris):
    by_array, by_tuple = (
        VariationalBNNClassifier(**QUICK, hidden_layer_sizes=sizes).fit(*iris) for sizes in (np.array([4, 3]), (4, 3))
    )
    assert_array_equal(by_array.predict_proba(iris[0]), by_tuple.predict_proba(iris[0]))


def test_verbose_shows_a_bar_and_nothing_else_does(iris, capfd, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    VariationalBNNClassifier(**QUICK).fit(*iris)
    assert capfd.readouterr() == ("", "")
    VariationalBNNClassifier(**QUICK, verbose=True).fit(*iris)
    assert "VariationalBNNClassifier" in capfd.readouterr().err


# --- data that are hard or bad ---


@pytest.mark.parametrize("kind", BOTH)
def test_constant_features_change_nothing_and_lists_and_float32_will_do(kind, iris):
    X, y = iris
    constant = np.column_stack([X, np.full(150, 7.0)])
    estimator = kind(**QUICK).fit(constant, y)
    assert np.isfinite(estimator.predict(constant)).all()
    moved = constant.copy()
    assert_allclose(estimator.predict(moved.tolist()), estimator.predict(constant))
    assert_allclose(estimator.predict(constant.astype(np.float32)), estimator.predict(constant), rtol=1e-4)
    assert np.isfinite(kind(**QUICK).fit((10 * X).astype(int), y).predict((10 * X).astype(int))).all()


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("values", [[2024.0], [0.0], [0.3, 0.1 + 0.2], [1e100]])
def test_a_feature_that_is_constant_in_training_says_nothing_later(kind, values, iris):
    X, y = iris
    wide = np.column_stack([X, np.resize(values, 150)])
    estimator = kind(**QUICK).fit(wide, y)
    moved = np.column_stack([X, np.linspace(-9, 3000, 150)])
    assert_allclose(estimator.predict(moved), estimator.predict(wide), rtol=1e-12)
    scaled = estimator.scaler_.transform(moved)
    assert np.abs(scaled[:, -1]).max() < 1e-200
    assert_allclose(estimator.scaler_.inverse_transform(scaled)[:, :-1], X)
    assert np.isfinite(estimator.scaler_.inverse_transform(scaled)).all()


def test_a_constant_target_is_learned():
    X = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.warns(VarbnnWarning, match="hardly left the prior"):  # rightly: the data say nothing about the weights
        regressor = VariationalBNNRegressor(random_state=0).fit(X, np.full(20, 4.0))
    assert_allclose(regressor.predict(X), 4.0, atol=0.2)


@pytest.mark.parametrize("values", [[0.3], [0.1], [1 / 3], [1e6 + 0.1], [1e-8], [-1e20 / 3], [0.0], [0.3, 0.1 + 0.2]])
@pytest.mark.filterwarnings("ignore:.*hardly left the prior")
def test_every_constant_target_has_the_scale_and_the_noise_of_any_other(values, iris):
    """The deviation of 150 numbers .1 is 3e-17, for their mean is rounded."""
    X, y = iris[0], np.resize(values, 150)
    seven = VariationalBNNRegressor(**QUICK).fit(X, np.full(150, 7.0))
    found = VariationalBNNRegressor(**QUICK).fit(X, y)
    assert found.target_scale_ == seven.target_scale_ == 1
    assert found.noise_ == seven.noise_
    assert_allclose(found.predict(X) - y, seven.predict(X) - 7, atol=1e-9 * max(1, abs(y[0])))


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "X, y, message",
    [
        (np.zeros((0, 3)), np.zeros(0), "0 sample"),
        (np.zeros((1, 3)), np.zeros(1), "1 sample"),
        (np.zeros((5, 0)), np.arange(5) % 2, "0 feature"),
        (np.full((4, 2), np.nan), np.arange(4) % 2, "NaN"),
        (np.full((4, 2), np.inf), np.arange(4) % 2, "infinity"),
        (np.zeros((4, 2)), np.arange(3) % 2, "inconsistent numbers of samples"),
        (np.zeros(4), np.arange(4) % 2, "Expected 2D array"),
        (np.array([[1e308], [-1e308], [1e308], [-1e308]]), np.arange(4) % 2, "too large"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_bad_data_are_refused_with_a_reason(kind, X, y, message):
    estimator = kind(**QUICK)
    with pytest.raises(ValueError, match=message):
        estimator.fit(X, y)
    assert not hasattr(estimator, "model_")


def test_bad_targets_are_refused_with_a_reason(iris):
    X = iris[0][:4]
    for label in ("a", 0.0):
        with pytest.raises(ValueError, match=f"contains only one class: {label!r}"):
            VariationalBNNClassifier(**QUICK).fit(X, [label] * 4)
    with pytest.raises(ValueError, match="continuous"):
        VariationalBNNClassifier(**QUICK).fit(X, [0.1, 0.2, 0.3, 0.4])
    with pytest.raises(ValueError, match="NaN"):
        VariationalBNNRegressor(**QUICK).fit(X, [0.1, np.nan, 0.3, 0.4])
    with pytest.raises(ValueError, match="y is too large"):
        VariationalBNNRegressor(**QUICK).fit(X, [1e308, -1e308, 1e308, -1e308])
    with pytest.raises(ValueError, match="y is too small"):
        VariationalBNNRegressor(**QUICK).fit(X, np.arange(4) * 1e-170)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(hidden_layer_sizes=()), "no binary weights"),
        (dict(hidden_layer_sizes=(10, 0)), "whole number ≥ 1"),
        (dict(hidden_layer_sizes="10"), "whole number ≥ 1"),
        (dict(posterior="laplace"), "'bernoulli', 'gaussian', 'point', got 'laplace'"),
        (dict(temperature=0), "temperature must be a finite number > 0"),
        (dict(temperature=None), "temperature must be a finite number > 0"),
        (dict(learning_rate_init=1.5), r"in \(0, 1\]"),
        (dict(real_learning_rate_init=-1), "real_learning_rate_init"),
        (dict(batch_size=0), "whole number ≥ 1 or 'auto'"),
        (dict(batch_size="all"), "whole number ≥ 1 or 'auto'"),
        (dict(max_iter=0), "max_iter must be a whole number ≥ 1"),
        (dict(num_samples=2.5), "num_samples must be a whole number ≥ 1"),
        (dict(random_state="x"), "cannot be used to seed"),
    ],
)
@pytest.mark.parametrize("kind", BOTH)
def test_bad_options_are_refused_by_fit(kind, options, message, iris):
    with pytest.raises(ValueError, match=message):
        kind(**options).fit(*iris)


@pytest.mark.parametrize("kind", BOTH)
def test_nothing_can_be_asked_before_fit(kind, iris):
    for question in ("predict", "predict_uncertainty", "prediction"):
        with pytest.raises(NotFittedError):
            getattr(kind(), question)(iris[0])


@pytest.mark.parametrize("kind", BOTH)
def test_sparse_data_are_refused_in_scikit_learns_words(kind):
    from scipy.sparse import csr_array

    with pytest.raises(TypeError, match=r"[Ss]parse") as refused:
        kind(**QUICK).fit(csr_array(np.eye(4)), [0, 1, 0, 1])
    assert not isinstance(refused.value, InputError)


def test_without_scikit_learn_one_line_names_the_extra(tmp_path):
    (tmp_path / "sklearn.py").write_text("raise ModuleNotFoundError('blocked', name='sklearn')\n")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import varbnn.bridges.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last == 'varbnn.errors.MissingExtraError: sklearn is not installed; pip install "varbnn[sklearn]"'


@pytest.mark.slow
def test_defaults_do_well_on_small_data():
    for load, least in ((load_iris, 0.9), (load_wine, 0.93)):
        X, test, y, truth = train_test_split(*load(return_X_y=True), random_state=0)
        assert VariationalBNNClassifier(random_state=0).fit(X, y).score(test, truth) >= least
    X, test, y, truth = train_test_split(*load_diabetes(return_X_y=True), random_state=0)
    assert VariationalBNNRegressor(random_state=0).fit(X, y).score(test, truth) > 0.3


@pytest.mark.parametrize("kind", BOTH)
def test_many_rows_are_asked_in_parts_and_answered_as_together(kind, monkeypatch):
    generator = np.random.default_rng(0)
    X = generator.normal(size=(2500, 3))
    estimator = kind((20,), max_iter=2, num_samples=5, random_state=0).fit(X[:100], np.sign(X[:100, 0]))
    together, asked, predict = estimator.prediction(X), [], vb.predict
    monkeypatch.setattr(bridge_estimator, "NUMBERS_AT_ONCE", 1)
    monkeypatch.setattr(vb, "predict", lambda *a, **k: asked.append(len(k["inputs"])) or predict(*a, **k))
    for name, found in estimator.predict_uncertainty(X).items():
        expected = getattr(together, name).numpy()
        np.testing.assert_array_equal(found, expected if expected.ndim == 1 else expected[:, 0])
    if kind is VariationalBNNClassifier:
        mean = together.mean.numpy()
        np.testing.assert_array_equal(estimator.predict_proba(X), mean / mean.sum(1, keepdims=True))
    else:
        np.testing.assert_array_equal(estimator.predict(X), together.mean[:, 0].numpy())
    assert asked == [1000, 1000, 500] * 2


SURROUNDINGS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "float64": partial(default_dtype, torch.float64),
    "bfloat16": partial(default_dtype, torch.bfloat16),
}


@pytest.mark.parametrize("surroundings", SURROUNDINGS.values(), ids=SURROUNDINGS)
@pytest.mark.parametrize("posterior", ["bernoulli", "gaussian", "point"])
@pytest.mark.parametrize("kind", BOTH)
def test_a_fit_does_not_depend_on_the_modes_and_the_default_dtype_of_torch(kind, posterior, surroundings, iris):
    def estimator():
        return kind(hidden_layer_sizes=(8, 4), posterior=posterior, warm_start=True, **QUICK)

    X, y = iris
    expected, found = estimator().fit(X, y), estimator()
    with surroundings():
        found.fit(X, y)
    assert_array_equal(found.predict_uncertainty(X).total, expected.predict_uncertainty(X).total)
    expected.fit(X, y)
    with surroundings():
        within = found.fit(X, y).predict_uncertainty(X)
    assert_array_equal(within.total, expected.predict_uncertainty(X).total)


@pytest.mark.parametrize("posterior", [["bernoulli"], None, "normal"])
def test_what_is_no_posterior_is_refused_by_its_name(posterior, iris):
    with pytest.raises(InputError, match="posterior must be one of 'bernoulli', 'gaussian', 'point', got"):
        VariationalBNNClassifier(posterior=posterior).fit(*iris)
