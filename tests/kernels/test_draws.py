"""Training draws by the compiled operation keep what torch's own random numbers promise."""

import numpy as np
import pytest
import torch

from tests.oracles import coins
from tests.tolerance import assert_within_standard_errors
from varbnn.kernels import draw_relaxed, draw_signs, reference, signs_from, using_backend
from varbnn.kernels.backend import REFERENCE, usable_backends
from varbnn.kernels.draws import LEAST
from varbnn.posteriors import SignedBernoulli

pytestmark = pytest.mark.skipif(usable_backends() == [REFERENCE], reason="no compiled library")

FAIR = torch.zeros(40, 30)  # large enough to be drawn by the compiled operation


def test_compiled_and_plain_draws_are_different_streams():
    """Otherwise the tests below would test torch alone."""
    torch.manual_seed(0)
    compiled = draw_signs(FAIR)
    torch.manual_seed(0)
    with using_backend(REFERENCE):
        plain = draw_signs(FAIR)
    torch.manual_seed(0)
    assert torch.equal(plain, reference.draw_signs(FAIR))
    assert not torch.equal(plain, compiled)


def test_torchs_seed_and_state_reproduce_and_every_draw_is_new():
    torch.manual_seed(3)
    first, second = draw_signs(FAIR), draw_signs(FAIR)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(draw_signs(FAIR), first)
    state = torch.get_rng_state()
    with torch.random.fork_rng():
        assert torch.equal(draw_signs(FAIR), second)
    torch.set_rng_state(state)
    assert torch.equal(draw_signs(FAIR), second)


def test_a_generator_of_ones_own_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    one, other = (draw_signs(FAIR, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shape", [(LEAST,), (3, 5, 7, 11), (2, 4000), (4000, 1)])
def test_any_shape_has_the_law(shape):
    natural = torch.linspace(-2, 2, int(np.prod(shape))).reshape(shape)
    draws = torch.stack([draw_signs(natural) for _ in range(400)])
    assert draws.shape == (400, *shape)
    assert bool((draws.abs() == 1).all())
    plus = coins.probability_of_plus(natural.numpy().astype(float))
    assert_within_standard_errors((draws > 0).double().mean(0), plus, np.sqrt(plus * (1 - plus) / 400), z=6)


@pytest.mark.parametrize(
    "turn, dense",
    [
        pytest.param(lambda t: t.to(memory_format=torch.channels_last), True, id="channels_last"),
        pytest.param(lambda t: t.permute(3, 1, 0, 2), True, id="permuted"),
        pytest.param(lambda t: t[:1].expand_as(t), False, id="expanded"),
        pytest.param(lambda t: t[:, ::2], False, id="strided"),
    ],
)
def test_any_layout_has_the_law_and_without_gaps_is_kept(turn, dense):
    natural = turn(torch.linspace(-2, 2, 20 * 6 * 5 * 4).reshape(20, 6, 5, 4))
    draws = torch.stack([draw_signs(natural) for _ in range(400)])
    plus = coins.probability_of_plus(natural.numpy().astype(float))
    assert_within_standard_errors((draws > 0).double().mean(0), plus, np.sqrt(plus * (1 - plus) / 400), z=6)
    weight, factor = draw_relaxed(natural, 0.5, euclidean=True)
    torch.testing.assert_close(factor, (1 - weight.square()) / 0.5, rtol=1e-4, atol=1e-5)
    if dense:
        assert all(t.stride() == natural.stride() for t in (draw_signs(natural), weight, factor))


def test_signs_from_a_threshold_have_its_law_to_the_ends():
    threshold = torch.linspace(0, 1, 2 * LEAST + 1)
    draws = torch.stack([signs_from(threshold) for _ in range(400)]).double()
    expected = threshold.double().numpy()
    assert_within_standard_errors((draws < 0).double().mean(0), expected, np.sqrt(expected * (1 - expected) / 400), z=6)


def test_nan_shows_and_noise_that_is_given_is_used():
    natural = FAIR.clone()
    natural[7, 7] = float("nan")
    assert draw_signs(natural).isnan().nonzero().tolist() == [[7, 7]]
    noise = torch.rand_like(FAIR)
    assert torch.equal(draw_signs(FAIR, noise=noise), reference.draw_signs(FAIR, noise=noise))
    assert draw_signs(FAIR.double()).dtype == torch.float64


def test_vmap_draws_for_each_or_once_for_all():
    batch = FAIR.expand(4, 40, 30)
    each = torch.vmap(draw_signs, randomness="different")(batch)
    assert len({tuple(draw.flatten().tolist()) for draw in each}) == 4
    same = torch.vmap(draw_signs, randomness="same")(batch)
    assert all(torch.equal(draw, same[0]) for draw in same)
    count = torch.arange(4)
    alone = torch.vmap(lambda i: draw_signs(FAIR) + i, randomness="different")(count)
    assert len({tuple((draw - i).flatten().tolist()) for i, draw in enumerate(alone)}) == 4
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(draw_signs)(batch)


def test_a_compiled_graph_draws_afresh_and_follows_the_seed():
    compiled = torch.compile(lambda natural: draw_signs(natural) * 2, backend="aot_eager", fullgraph=True)
    compiled(FAIR)
    torch.manual_seed(11)
    first, second = compiled(FAIR), compiled(FAIR)
    assert not torch.equal(first, second)
    assert bool((first.abs() == 2).all())
    torch.manual_seed(11)
    assert torch.equal(compiled(FAIR), first)


def test_samples_of_one_law_lie_in_order_in_memory():
    coin = SignedBernoulli(natural=torch.zeros(2048))
    assert coin.sample((5,)).is_contiguous()
