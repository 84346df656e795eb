"""Every posterior keeps the contract, and the contract notices one without a case."""

import torch

from tests.contracts import posterior
from tests.contracts.posterior import DrawContract, LawContract, ObjectContract, PosteriorContract
from varbnn.posteriors import Bernoulli, Point


class TestPosteriors(PosteriorContract):
    pass


class TestLaw(LawContract):
    pass


class TestDraw(DrawContract):
    pass


class TestObject(ObjectContract):
    pass


def test_a_posterior_without_a_case_is_named(monkeypatch):
    monkeypatch.delitem(posterior.CASES, Point)
    assert posterior.lacking_a_case() == ["Point"]
    monkeypatch.setitem(posterior.CASES, Bernoulli, [])
    assert posterior.lacking_a_case() == ["Bernoulli", "Point"]


def test_the_cases_have_the_beliefs_they_say():
    for case in posterior.CASES[Bernoulli]:
        torch.testing.assert_close(case.belief()[0], posterior.VALUES, rtol=1e-12, atol=0)
