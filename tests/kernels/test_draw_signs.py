"""What `noise` means, which every backend must keep."""

import numpy as np
import pytest
import torch

from tests.oracles import coins
from tests.tolerance import assert_within_standard_errors, standard_error
from varbnn.kernels import draw_signs, opposite, uniform

NATURAL = torch.tensor([-4.0, -1.0, -0.1, 0.0, 0.2, 0.9, 5.0], dtype=torch.float64)


def test_plus_one_exactly_where_the_noise_reaches_the_threshold():
    threshold = torch.sigmoid(-2 * NATURAL)
    below, above = np.nextafter(threshold.numpy(), 0), np.nextafter(threshold.numpy(), 1)
    assert draw_signs(NATURAL, noise=threshold).tolist() == [1.0] * 7
    assert draw_signs(NATURAL, noise=torch.from_numpy(above)).tolist() == [1.0] * 7
    assert draw_signs(NATURAL, noise=torch.from_numpy(below)).tolist() == [-1.0] * 7


def test_more_noise_never_turns_a_weight_down():
    noise = torch.linspace(0, 1, 1001, dtype=torch.float64)[:, None]
    weights = draw_signs(NATURAL.expand(1001, 7), noise=noise)
    assert bool((weights.diff(dim=0) >= 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_averaging_over_a_uniform_grid_of_noise_integrates_to_the_mean(dtype):
    points = 100_000
    noise = ((torch.arange(points, dtype=torch.float64) + 0.5) / points)[:, None]
    mean = draw_signs(NATURAL.to(dtype).expand(points, 7), noise=noise).double().mean(0)
    np.testing.assert_allclose(
        mean, np.tanh(NATURAL.numpy()), atol=2.5 / points
    )  # one step of the grid is worth 2 / points


def test_antithetic_noise_draws_opposite_signs_for_fair_coins_and_keeps_every_mean():
    noise = torch.rand(20_000, 7, dtype=torch.float64)
    weights, opposite = (draw_signs(NATURAL.expand(20_000, 7), noise=u) for u in (noise, 1 - noise))
    fair = NATURAL == 0
    assert torch.equal(weights[:, fair], -opposite[:, fair])
    pairs, products = (weights + opposite) / 2, weights * opposite
    assert_within_standard_errors(pairs.mean(0), np.tanh(NATURAL.numpy()), standard_error(pairs))
    plus = coins.probability_of_plus(NATURAL.numpy())
    agreement = 1 - 4 * np.minimum(plus, 1 - plus)  # the two differ whenever either shows the rarer face
    assert_within_standard_errors(products.mean(0), agreement, np.sqrt((1 - agreement**2) / 20_000))


def test_noise_is_broadcast_and_left_as_it_was():
    noise = torch.tensor(0.5, dtype=torch.float64)
    assert draw_signs(NATURAL, noise=noise).tolist() == [-1, -1, -1, 1, 1, 1, 1]
    assert noise.item() == 0.5


def test_fresh_noise_has_the_law():
    plus = (draw_signs(NATURAL.expand(20_000, 7)) > 0).double()
    expected = coins.probability_of_plus(NATURAL.numpy())
    assert_within_standard_errors(plus.mean(0), expected, np.sqrt(expected * (1 - expected) / 20_000))


def test_the_belief_is_not_changed_and_nan_draws_nan():
    natural = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.5])
    before = natural.clone()
    weights = draw_signs(natural)
    assert torch.equal(natural.nan_to_num(9), before.nan_to_num(9))
    assert weights.isnan().tolist() == [True, False, False, False]
    assert weights[1:3].tolist() == [1, -1]


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform_noise_never_reaches_the_ends_and_neither_does_its_opposite(dtype):
    noise = uniform(torch.empty(300_000, dtype=dtype))
    assert noise.dtype == torch.promote_types(dtype, torch.float32)
    for values in (noise, opposite(noise)):
        assert values.min().item() > 0
        assert values.max().item() < 1
        assert_within_standard_errors(values.double().mean(), 0.5, standard_error(values.double()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_opposite_of_the_ends_of_the_noise_stays_inside_and_sure_signs_stay_sure(dtype):
    step = torch.finfo(dtype).eps / 2
    ends = torch.tensor([step / 4, step, 1 - step], dtype=dtype)
    assert ends.min() > 0
    turned = opposite(ends)
    assert turned.tolist() == [1 - step, 1 - step, step]
    for noise in (ends, turned):
        assert draw_signs(torch.full((3,), -50.0, dtype=dtype), noise=noise).tolist() == [-1.0] * 3
        assert draw_signs(torch.full((3,), 50.0, dtype=dtype), noise=noise).tolist() == [1.0] * 3


def test_uniform_noise_follows_its_generator_and_the_shape_of_its_example():
    first, again = (uniform(NATURAL, torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == NATURAL.shape
