"""What every posterior promises. A new one needs an entry in CASES, and nothing else, to be held to it."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import numpy as np
import pytest
import torch

from tests.oracles import coins
from tests.tolerance import assert_within_standard_errors
from varbnn import posteriors
from varbnn.errors import InputError
from varbnn.posteriors import Bernoulli, Gaussian, LowRankGaussian, Point, Posterior, belief_of

VALUES = torch.tensor(
    [-2.5, -0.7, -0.05, 0.02, 0.4, 1.1, 3.0], dtype=torch.float64
)  # no tie: those differ by posterior
PRIOR = torch.tensor([0.3, -0.9, 0.6, -0.1, 0.8, 2.0, 1.5], dtype=torch.float64)


def _first(*belief: torch.Tensor) -> torch.Tensor:
    return belief[0]


@dataclass(frozen=True)
class Case:
    """A posterior, beliefs for it made from seven numbers, and P(+1) of each weight by the oracle.

    `coordinate` makes of a belief what the oracle takes and what `strength` is the size of.
    """

    posterior: Posterior
    plus: Callable[[np.ndarray], np.ndarray]
    coordinate: Callable[..., torch.Tensor] = _first

    def belief(self, values: torch.Tensor = VALUES) -> tuple[torch.Tensor, ...]:
        first, *others = self.posterior.from_weight(values.clone(), strength=float(values.square().mean().sqrt()))
        return first, *others

    def __str__(self) -> str:
        return repr(self.posterior)


def _low_rank(**options: Any) -> Case:
    posterior = LowRankGaussian(**options)
    certain, homogeneous = posterior.rank == 0, posterior.rounding == "homogeneous"
    plus = _certain if certain else coins.probability_of_plus_of_a_gain if homogeneous else _PROBIT
    return Case(posterior, plus, _first if certain else posterior.standardised)


def _certain(latent: np.ndarray) -> np.ndarray:
    return (latent >= 0).astype(float)


_PROBIT = coins.probability_of_plus_of_a_latent

CASES: dict[type[Posterior], list[Case]] = {
    Point: [Case(Point(), _certain), Case(Point(clip=0.5), _certain)],
    Bernoulli: [
        Case(Bernoulli(), coins.probability_of_plus),
        Case(Bernoulli(estimator="concrete", relaxation=0.5), coins.probability_of_plus),
        Case(Bernoulli(estimator="concrete", numerics="reference", init="sign"), coins.probability_of_plus),
        Case(Bernoulli(estimator="moments"), coins.probability_of_plus),
        Case(Bernoulli(estimator="mean"), coins.probability_of_plus),
        Case(Bernoulli(gradient="euclidean"), coins.probability_of_plus),
        Case(Bernoulli(estimator="concrete", relaxation=1.0, gradient="euclidean"), coins.probability_of_plus),
    ],
    Gaussian: [
        Case(Gaussian(), coins.probability_of_plus_of_a_latent),
        Case(Gaussian("natural"), coins.probability_of_plus_of_a_latent),
        Case(
            Gaussian("learned", init_precision=0.25),
            coins.probability_of_plus_of_a_latent,
            Gaussian("learned", init_precision=0.25).standardised,
        ),
    ],
    LowRankGaussian: [
        _low_rank(),
        _low_rank(rank=2, scale=4.0, constraint="unit", scope="neuron"),
        _low_rank(rank=1, scale=1.0, scope="network"),
        _low_rank(rank=3, rounding="homogeneous"),
        _low_rank(rank=0),
    ],
}


def every_posterior() -> list[type[Posterior]]:
    """Every concrete subclass of Posterior that some module of varbnn.posteriors defines."""
    for module in pkgutil.walk_packages(posteriors.__path__, posteriors.__name__ + "."):
        importlib.import_module(module.name)
    found, waiting = [], [Posterior]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if not kind.__abstractmethods__ and kind.__module__.startswith("varbnn."):
            found.append(kind)
    return sorted(found, key=lambda kind: kind.__name__)


def lacking_a_case() -> list[str]:
    return [kind.__name__ for kind in every_posterior() if not CASES.get(kind)]


for_every_case = pytest.mark.parametrize("case", [c for cases in CASES.values() for c in cases], ids=str)


class PosteriorContract:
    def test_has_a_case_for_every_posterior(self):
        assert every_posterior(), "no posterior was found"
        assert lacking_a_case() == [], "enter a Case for each of these in tests/contracts/posterior.py"

    def test_every_posterior_is_public(self):
        assert [kind.__name__ for kind in every_posterior() if kind.__name__ not in posteriors.__all__] == []


@for_every_case
class LawContract:
    """Each quantity against the sum over all 2^7 sign vectors."""

    def test_log_prob_is_that_of_the_joint_law(self, case):
        belief = case.belief()
        for vector, expected in zip(coins.sign_vectors(7), coins.log(coins.joint(self.plus(case))), strict=True):
            log_prob = case.posterior.log_prob(*belief, weight=torch.from_numpy(vector)).sum()
            np.testing.assert_allclose(log_prob, expected, rtol=1e-12, atol=1e-12)

    def test_mean_and_variance_are_those_of_the_joint_law(self, case):
        belief, plus = case.belief(), self.plus(case)
        np.testing.assert_allclose(case.posterior.mean(*belief), coins.mean(plus), rtol=1e-12, atol=1e-14)
        variance = case.posterior.distribution(*belief).variance
        np.testing.assert_allclose(variance, coins.variance(plus), rtol=1e-12, atol=1e-14)

    def test_mode_is_the_most_probable_vector(self, case):
        best = coins.sign_vectors(7)[coins.joint(self.plus(case)).argmax()]
        np.testing.assert_array_equal(case.posterior.mode(*case.belief()), best)

    def test_entropy_adds_up_to_that_of_the_joint_law(self, case):
        total = case.posterior.entropy(*case.belief()).sum()
        np.testing.assert_allclose(total, coins.entropy(self.plus(case)), rtol=1e-12, atol=1e-14)

    def test_kl_adds_up_to_that_of_the_joint_laws(self, case):
        belief, prior = case.belief(), case.belief(PRIOR)
        plus, prior_plus = self.plus(case), self.plus(case, PRIOR)
        np.testing.assert_allclose(
            case.posterior.kl(*belief, prior=prior).sum(), coins.kl(plus, prior_plus), rtol=1e-12, atol=1e-14
        )
        np.testing.assert_allclose(
            case.posterior.kl(*belief).sum(), coins.kl(plus, np.full(7, 0.5)), rtol=1e-12, atol=1e-14
        )

    def test_a_second_belief_without_its_name_is_refused_and_not_passed_over(self, case):
        belief = case.belief()
        own = len(case.posterior.names)
        for wrong in ((*belief, *belief), belief[: own - 1], (*belief, belief[0])):
            with pytest.raises(InputError, match=r"prior=\("):
                case.posterior.kl(*wrong)
            with pytest.raises(InputError, match=rf"got {len(wrong)} tensors"):
                case.posterior.kl(*belief, prior=wrong)
        with pytest.raises(InputError, match="prior is a tuple"):
            case.posterior.kl(*belief, prior=belief[0])

    def test_kl_to_itself_is_zero(self, case):
        kl = case.posterior.kl(*case.belief(), prior=case.belief())
        np.testing.assert_allclose(kl, 0, atol=1e-15)

    def test_samples_follow_the_joint_law(self, case):
        if not case.posterior.independent:
            pytest.skip("its draws hang together: its own tests know how")
        draws, belief = 40_000, tuple(t[..., None, 2:5].expand(*t.shape[:-1], 40_000, 3) for t in case.belief())
        sample = case.posterior.sample(*belief, generator=torch.Generator().manual_seed(3))
        assert set(sample.unique().tolist()) <= {-1.0, 1.0}
        number = ((sample > 0) * torch.tensor([4, 2, 1])).sum(1)  # the row of sign_vectors(3)
        share = torch.bincount(number, minlength=8).numpy() / draws
        expected = coins.joint(self.plus(case)[2:5])
        assert_within_standard_errors(share, expected, np.sqrt(expected * (1 - expected) / draws))

    @staticmethod
    def plus(case: Case, values: torch.Tensor = VALUES) -> np.ndarray:
        return case.plus(case.coordinate(*case.belief(values)).numpy())


@for_every_case
class DrawContract:
    def test_a_generator_decides_the_draw_and_the_global_state_is_not_touched(self, case):
        belief = tuple(t.repeat(*[1] * (t.dim() - 1), 50) for t in case.belief())
        before = torch.get_rng_state()
        for function in (case.posterior.draw, case.posterior.sample):
            first, again = (function(*belief, generator=torch.Generator().manual_seed(8)) for _ in range(2))
            assert torch.equal(first, again)
        assert torch.equal(torch.get_rng_state(), before)

    def test_noise_decides_the_draw_and_no_randomness_is_used(self, case):
        belief = case.belief()
        noise = torch.linspace(0.03, 0.97, 7, dtype=torch.float64)
        own = case.posterior.noise(belief[0])
        one_each = own.shape == noise.shape  # uniform numbers, one for each weight
        noise = noise if one_each else own
        before = torch.get_rng_state()
        assert torch.equal(case.posterior.draw(*belief, noise=noise), case.posterior.draw(*belief, noise=noise))
        sample = case.posterior.sample(*belief, noise=noise)
        assert torch.equal(torch.get_rng_state(), before)
        if one_each:
            expected = np.where(noise.numpy() >= 1 - case.plus(case.coordinate(*belief).numpy()), 1.0, -1.0)
            np.testing.assert_array_equal(sample, expected)

    def test_the_posteriors_own_noise_and_its_opposite_are_taken(self, case):
        belief, generator = case.belief(), torch.Generator().manual_seed(5)
        noise = case.posterior.noise(belief[0], generator)
        assert not torch.equal(noise, case.posterior.noise(belief[0], generator)) or noise.numel() == 0
        for one in (noise, case.posterior.opposite(noise)):
            assert bool((case.posterior.sample(*belief, noise=one).abs() == 1).all())

    def test_noise_that_decides_no_draw_is_refused(self, case):
        belief, generator = case.belief(), torch.Generator().manual_seed(5)
        own = case.posterior.noise(belief[0], generator)
        if not own.numel():
            pytest.skip("it takes no noise")
        uniform = torch.allclose(case.posterior.opposite(own), 1 - own)
        wrong = [(own.clone().index_fill_(0, torch.tensor(0), torch.nan), "noise must .*, got numbers from nan")]
        wrong += [(own + 1, r"noise must lie in \[0, 1\]"), (-own, r"noise must lie in \[0, 1\]")] if uniform else []
        wrong += [(torch.rand(2, 3, 5), "noise .*shape"), (own.tolist(), "noise must be a tensor, got a list")]
        sure = case.posterior.certain or getattr(case.posterior, "estimator", None) == "mean"  # draw takes no noise
        for draw in (case.posterior.sample, *([] if sure else [case.posterior.draw])):
            before = generator.get_state()
            with pytest.raises(InputError, match="give one of the two"):
                draw(*belief, noise=own, generator=generator)
            assert torch.equal(generator.get_state(), before)
            for noise, said in wrong:
                with pytest.raises(InputError, match=said):
                    draw(*belief, noise=noise)

    def test_a_sample_has_no_gradient(self, case):
        belief = case.belief()
        belief[0].requires_grad_()
        assert not case.posterior.sample(*belief).requires_grad

    def test_a_draw_lies_in_the_cube_and_sends_its_gradient_to_the_belief(self, case):
        belief = case.belief()
        parameters = [t for t in belief[: len(case.posterior.names)] if t.numel()]
        for parameter in parameters:
            parameter.requires_grad_()
        weight = case.posterior.draw(*belief)
        assert weight.shape == VALUES.shape
        assert weight.dtype == VALUES.dtype
        assert bool((weight.abs() <= 1).all())
        weight.sum().backward()
        for parameter in parameters:
            assert parameter.grad is not None
            assert bool(torch.isfinite(parameter.grad).all())
            assert bool((parameter.grad != 0).any())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_everything_keeps_the_dtype_of_the_belief(self, case, dtype):
        belief, posterior = case.belief(VALUES.to(dtype)), case.posterior
        made = (*belief, *posterior.initial(VALUES.to(dtype)), posterior.draw(*belief), posterior.sample(*belief))
        made += (posterior.mean(*belief), posterior.mode(*belief), posterior.entropy(*belief), posterior.kl(*belief))
        assert {t.dtype for t in made} == {dtype}

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_sure_weights_keep_their_law_in_half_precision(self, case, dtype):
        posterior, count = case.posterior, 200_000
        if not posterior.independent or getattr(posterior, "estimator", None) == "mean":
            pytest.skip("its weights are not drawn one by one")
        belief = [t.to(dtype) for t in case.belief(torch.tensor([3.5], dtype=torch.float64))]
        minus = 1 - case.plus(case.coordinate(*(t.double() for t in belief)).numpy())
        for draw in (posterior.sample, posterior.draw):
            found = (draw(*(t.repeat_interleave(count, -1) for t in belief)) < 0).double().mean()
            assert_within_standard_errors(found, minus, np.sqrt(minus * (1 - minus) / count))

    def test_a_nan_belief_is_not_hidden(self, case):
        belief = case.belief()
        belief[0][2] = torch.nan
        for weight in (case.posterior.draw(*belief), case.posterior.sample(*belief), case.posterior.mode(*belief)):
            assert bool(weight[2].isnan()), "a weight looks fine although its belief is NaN"

    def test_empty_beliefs_are_allowed(self, case):
        belief = tuple(t[..., :0] for t in case.belief())
        assert case.posterior.draw(*belief).shape == case.posterior.mode(*belief).shape == (0,)


@for_every_case
class ObjectContract:
    def test_a_belief_from_weights_has_their_sign_and_the_strength_asked_for(self, case):
        belief = case.posterior.from_weight(VALUES, strength=0.25, generator=torch.Generator())
        np.testing.assert_array_equal(case.posterior.mode(*belief), np.sign(VALUES.numpy()))
        np.testing.assert_allclose(case.coordinate(*belief).square().mean().sqrt(), 0.25, rtol=1e-12)

    @pytest.mark.parametrize("size", [1e-38, 1e-20, 1e20, 1e38])
    def test_a_belief_from_weights_of_any_size_has_their_sign_and_the_strength_asked_for(self, case, size):
        weights = size * VALUES.float()
        belief = case.posterior.from_weight(weights, strength=0.25, generator=torch.Generator())
        np.testing.assert_array_equal(case.posterior.mode(*belief), np.sign(VALUES.numpy()))
        np.testing.assert_allclose(case.coordinate(*belief).square().mean().sqrt(), 0.25, rtol=1e-6)

    def test_a_belief_from_zero_weights_is_finite(self, case):
        assert all(bool(torch.isfinite(t).all()) for t in case.posterior.from_weight(torch.zeros(3), strength=1.0))

    def test_the_first_belief_is_reproducible_new_memory_shaped_like_the_weight(self, case):
        weight = torch.randn(3, 4)
        first, again = (case.posterior.initial(weight, generator=torch.Generator().manual_seed(1)) for _ in range(2))
        assert len(first) == len(case.posterior.names) + len(case.posterior.buffer_names)
        for one, two in zip(first, again, strict=True):
            assert torch.equal(one, two)
            assert one.shape[one.dim() - weight.dim() :] == weight.shape
            assert one.data_ptr() != weight.data_ptr()
        assert first[0].shape == weight.shape
        assert len({t.data_ptr() for t in first}) == len(first)

    def test_no_name_is_that_of_a_real_weight(self, case):
        names = (*case.posterior.names, *case.posterior.buffer_names)
        assert not {"weight", "bias"} & set(names)
        assert len(set(names)) == len(names)

    def test_is_immutable_hashable_picklable_and_its_repr_makes_it_again(self, case):
        posterior = case.posterior
        name = next(iter(vars(posterior)))
        with pytest.raises(FrozenInstanceError):
            setattr(posterior, name, None)
        assert hash(posterior) == hash(pickle.loads(pickle.dumps(posterior)))
        assert pickle.loads(pickle.dumps(posterior)) == posterior
        assert eval(repr(posterior), vars(posteriors)) == posterior

    def test_marking_a_parameter_makes_it_a_belief(self, case):
        parameter = torch.nn.Parameter(torch.zeros(2))
        posteriors.mark_belief(parameter, case.posterior, case.posterior.names[0])
        mark = belief_of(parameter)
        assert mark is not None
        assert (mark.posterior, mark.name) == (case.posterior, case.posterior.names[0])
