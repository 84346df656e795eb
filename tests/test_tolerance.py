import numpy as np
import pytest
import torch

from tests.tolerance import assert_within_standard_errors, standard_error


def test_a_mean_within_its_standard_error_passes():
    draws = torch.randn(4000, 3)
    assert_within_standard_errors(draws.mean(0), 0.0, standard_error(draws))


def test_a_shifted_mean_fails_and_names_the_worst_entry():
    with pytest.raises(AssertionError, match=r"index \(2,\).*1 of 3 entries"):
        assert_within_standard_errors(torch.tensor([0.0, 0.0, 1.0]), torch.zeros(3), 0.1)


@pytest.mark.parametrize("mean, stderr", [(np.nan, 1.0), (0.0, np.nan), (1e-9, 0.0)])
def test_nan_and_a_miss_without_any_spread_fail(mean, stderr):
    with pytest.raises(AssertionError):
        assert_within_standard_errors(mean, 0.0, stderr)


def test_exact_agreement_without_any_spread_passes():
    assert_within_standard_errors(1.0, 1.0, 0.0)
