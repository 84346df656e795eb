"""Point: the sign of a latent, and a gradient that passes straight through or is clipped."""

import math

import pytest
import torch

from varbnn.errors import InputError
from varbnn.posteriors import Point

LATENT = [-2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0]


def test_the_weight_is_the_sign_with_both_zeros_up():
    assert Point().draw(torch.tensor(LATENT)).tolist() == [-1, -1, -1, 1, 1, 1, 1, 1]


def test_without_clip_the_gradient_passes_everywhere_unchanged():
    latent, incoming = torch.tensor(LATENT, requires_grad=True), torch.randn(8)
    Point().draw(latent).backward(incoming)
    assert torch.equal(latent.grad, incoming)


def test_with_clip_the_gradient_passes_up_to_and_including_the_bound():
    latent, incoming = torch.tensor(LATENT, requires_grad=True), torch.randn(8)
    Point(clip=1.0).draw(latent).backward(incoming)
    assert torch.equal(latent.grad, incoming * torch.tensor([0.0, 1, 1, 1, 1, 1, 1, 0]))


def test_a_point_is_certain():
    latent = torch.tensor(LATENT)
    assert Point().entropy(latent).tolist() == [0.0] * 8
    assert torch.equal(Point().mean(latent), Point().draw(latent))
    torch.testing.assert_close(Point().kl(latent), torch.full((8,), math.log(2)))


def test_the_divergence_of_opposite_points_is_infinite():
    assert Point().kl(torch.tensor([1.0, 1.0]), prior=(torch.tensor([-1.0, 2.0]),)).tolist() == [math.inf, 0.0]


def test_training_starts_from_the_weight_of_the_ordinary_layer():
    weight = torch.randn(3, 2)
    (latent,) = Point().initial(weight)
    assert torch.equal(latent, weight)


@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan")])
def test_a_clip_that_is_not_positive_is_refused(clip):
    with pytest.raises(InputError, match="clip"):
        Point(clip=clip)
