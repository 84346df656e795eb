"""Sign: ±1 forward, and the published surrogate gradients backward."""

import numpy as np
import pytest
import torch

from varbnn.errors import InputError
from varbnn.nn import Sign

X = [-3.0, -1.0, -0.75, -0.25, -0.0, 0.0, 0.25, 0.75, 1.0, 3.0]
SURROGATES = {
    "clipped": lambda x: np.where(np.abs(x) <= 1, 1.0, 0.0),
    "polynomial": lambda x: np.where(np.abs(x) < 1, 2 - 2 * np.abs(x), 0.0),
    "identity": np.ones_like,
}


@pytest.mark.parametrize("name", SURROGATES)
def test_forward_is_the_sign_with_both_zeros_up(name):
    assert Sign(name)(torch.tensor(X)).tolist() == [-1] * 4 + [1] * 6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", SURROGATES)
def test_backward_is_the_published_surrogate(name, dtype):
    x, incoming = torch.tensor(X, dtype=dtype, requires_grad=True), torch.arange(1, 11).to(dtype)
    y = Sign(name)(x)
    assert y.dtype == dtype
    y.backward(incoming)
    np.testing.assert_array_equal(x.grad.double(), incoming.double().numpy() * SURROGATES[name](np.array(X)))


@pytest.mark.parametrize("name", SURROGATES)
def test_nan_is_not_hidden(name):
    assert Sign(name)(torch.tensor([torch.nan, 1.0])).isnan().tolist() == [True, False]


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 2)])
def test_the_shift_moves_the_threshold_of_its_channel_and_learns(shape):
    layer = Sign("polynomial", channels=3)
    with torch.no_grad():
        layer.shift.copy_(torch.tensor([-0.5, 0.0, 0.5]))
    x = torch.full(shape, 0.25, requires_grad=True)
    y = layer(x)
    expected = torch.tensor([1.0, 1.0, -1.0]).reshape(1, 3, *[1] * (len(shape) - 2)).expand(shape)
    assert torch.equal(y, expected)
    y.sum().backward()
    per_entry = torch.tensor([0.5, 1.5, 1.5])  # 2 - 2 |x - shift|
    torch.testing.assert_close(layer.shift.grad, -per_entry * (x.numel() / 3))
    torch.testing.assert_close(x.grad, per_entry.reshape(1, 3, *[1] * (len(shape) - 2)).expand(shape))


def test_options_are_checked_and_shown():
    with pytest.raises(InputError, match="surrogate"):
        Sign("tanh")
    with pytest.raises(InputError, match="channels"):
        Sign(channels=0)
    assert repr(Sign("polynomial", channels=3)) == "Sign('polynomial', channels=3)"
