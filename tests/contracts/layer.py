"""What every binary layer promises. A new one needs an entry in CASES, and nothing else, to be held to it."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from varbnn import nn as binary
from varbnn.errors import InputError
from varbnn.nn import BinaryConv1d, BinaryConv2d, BinaryConv3d, BinaryLayer, BinaryLinear
from varbnn.posteriors import Bernoulli, Gaussian, LowRankGaussian, Point, Posterior, belief_of


@dataclass(frozen=True)
class Case:
    """A layer with some options, and the shape of an input for it."""

    kind: type[BinaryLayer]
    arguments: tuple[Any, ...]
    shape: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, posterior: Posterior | None = None) -> BinaryLayer:
        return self.kind(*self.arguments, posterior=posterior, **self.options)

    def twin(self, weight: Tensor, bias: Tensor | None) -> torch.nn.Module:
        """The ordinary torch layer with this weight and bias."""
        twin = self.kind.twin(*self.arguments, **self.options).to(weight.dtype)
        with torch.no_grad():
            twin.weight.copy_(weight)
            if bias is not None:
                twin.bias.copy_(bias)
        return twin

    def __str__(self) -> str:
        options = [f"{name}={value}" for name, value in self.options.items()]
        return "-".join([self.kind.__name__, *(options or ["plain"])])


def _conv(kind: type[BinaryLayer], dimensions: int) -> list[Case]:
    shape = (2, 4, *[7, 6, 5][:dimensions])
    options: list[dict[str, Any]] = [
        {},
        dict(bias=False),
        dict(stride=2, padding=1),
        dict(dilation=2),
        dict(groups=2),
        dict(groups=4, bias=False, padding="valid"),
        dict(padding="same", dilation=2),
        dict(padding=1, dtype=torch.float64),
    ]
    modes = ["circular", "replicate", "reflect"]
    options += [dict(padding=2, padding_mode=mode, stride=2) for mode in modes]
    options += [dict(padding="same", padding_mode=mode) for mode in modes]
    return [Case(kind, (4, 8, 3), shape, o) for o in options] + [
        Case(kind, (4, 6, tuple([3, 2, 1][:dimensions])), shape, dict(padding=tuple([1, 0, 2][:dimensions])))
    ]


CASES: dict[type[BinaryLayer], list[Case]] = {
    BinaryLinear: [
        Case(BinaryLinear, (5, 3), (4, 5)),
        Case(BinaryLinear, (5, 3), (2, 6, 5), dict(bias=False)),
        Case(BinaryLinear, (5, 3), (5,), dict(dtype=torch.float64)),
    ],
    BinaryConv1d: _conv(BinaryConv1d, 1),
    BinaryConv2d: _conv(BinaryConv2d, 2),
    BinaryConv3d: _conv(BinaryConv3d, 3),
}
POSTERIORS = [
    Bernoulli(),
    Bernoulli(estimator="concrete", relaxation=0.5),
    Bernoulli(estimator="concrete", numerics="reference", init="sign"),
    Bernoulli(estimator="moments"),
    Bernoulli(estimator="mean"),
    Point(),
    Gaussian("learned", init_precision=2.0),
    LowRankGaussian(rank=2, scale=0.1),
    LowRankGaussian(rank=3, scale=0.1, scope="neuron", rounding="homogeneous", constraint="unit"),
]
WITHOUT_A_DRAW = (Bernoulli(estimator="mean"), Point())


def every_layer() -> list[type[BinaryLayer]]:
    """Every subclass of BinaryLayer that some module of varbnn.nn defines."""
    for module in pkgutil.walk_packages(binary.__path__, binary.__name__ + "."):
        importlib.import_module(module.name)
    found, waiting = [], [BinaryLayer]
    while waiting:
        below = waiting.pop().__subclasses__()
        waiting += below
        found += [kind for kind in below if kind.__module__.startswith("varbnn.")]
    return sorted(found, key=lambda kind: kind.__name__)


def lacking_a_case() -> list[str]:
    return [kind.__name__ for kind in every_layer() if not CASES.get(kind)]


for_every_case = pytest.mark.parametrize("case", [c for cases in CASES.values() for c in cases], ids=str)
for_every_kind = pytest.mark.parametrize("case", [cases[0] for cases in CASES.values()], ids=str)
for_every_posterior = pytest.mark.parametrize("posterior", POSTERIORS, ids=repr)


def input_for(case: Case) -> Tensor:
    return torch.randn(case.shape, dtype=case.options.get("dtype", torch.float32), requires_grad=True)


class LayerContract:
    def test_has_a_case_for_every_layer(self):
        assert every_layer(), "no layer was found"
        assert lacking_a_case() == [], "enter a Case for each of these in tests/contracts/layer.py"

    def test_every_layer_is_public_and_binarize_knows_it(self):
        from varbnn.nn.binarize import TWINS

        assert [kind.__name__ for kind in every_layer() if kind.__name__ not in binary.__all__] == []
        assert {kind: kind.twin for kind in every_layer()} == {ours: theirs for theirs, ours in TWINS.items()}


@for_every_case
class TwinContract:
    """The layer is its torch twin with ±1 weights, whatever the options."""

    def test_a_training_forward_and_its_gradients_are_those_of_the_twin_with_the_drawn_weight(self, case):
        layer, x = case.make(), input_for(case)
        torch.manual_seed(5)
        twin = case.twin(layer.weight.detach(), layer.bias)  # the draw that the next forward repeats
        torch.manual_seed(5)
        y, expected = layer(x), twin(x)
        torch.testing.assert_close(y, expected)
        incoming = torch.randn_like(expected)
        (dx,) = torch.autograd.grad(expected, x, incoming, retain_graph=True)
        expected.backward(incoming, inputs=list(twin.parameters()))
        (x_gradient,) = torch.autograd.grad(y, x, incoming, retain_graph=True)
        y.backward(incoming, inputs=list(layer.parameters()))
        torch.testing.assert_close(x_gradient, dx)
        torch.testing.assert_close(layer.natural.grad, twin.weight.grad)
        if layer.bias is not None:
            torch.testing.assert_close(layer.bias.grad, twin.bias.grad)

    def test_an_eval_forward_is_that_of_the_twin_with_the_mode(self, case):
        layer, x = case.make().eval(), input_for(case)
        mode = layer.posterior.mode(*layer.belief).detach()
        assert mode.abs().unique().tolist() == [1.0]
        torch.testing.assert_close(layer(x), case.twin(mode, layer.bias)(x))
        assert torch.equal(layer(x), layer(x))


@for_every_kind
@for_every_posterior
class WeightContract:
    def test_the_weight_is_shaped_like_the_twins_and_so_is_the_belief(self, case, posterior):
        layer = case.make(posterior)
        shape = case.kind.twin(*case.arguments).weight.shape
        assert layer.weight.shape == shape
        assert layer.belief[0].shape == shape
        assert all(tensor.shape[tensor.dim() - len(shape) :] == shape for tensor in layer.belief)

    def test_eval_weights_are_exactly_plus_or_minus_one_and_the_mode(self, case, posterior):
        layer = case.make(posterior).eval()
        assert torch.equal(layer.weight, posterior.mode(*layer.belief))
        assert bool((layer.weight.abs() == 1).all())

    def test_every_training_forward_draws_afresh_unless_the_posterior_draws_nothing(self, case, posterior):
        layer, x = case.make(posterior), input_for(case)
        if isinstance(posterior, Bernoulli) and posterior.init == "sign":
            layer.reset_parameters()
        different = not torch.equal(layer(x), layer(x))
        assert different == (posterior not in WITHOUT_A_DRAW)

    def test_belief_parameters_are_marked_and_others_are_not(self, case, posterior):
        layer = case.make(posterior)
        marks = {name: belief_of(p) for name, p in layer.named_parameters()}
        assert marks.pop("bias") is None
        assert {name: (mark.posterior, mark.name) for name, mark in marks.items()} == {
            name: (posterior, name) for name in posterior.names
        }

    def test_the_state_keys_are_those_of_the_belief_and_the_bias(self, case, posterior):
        layer = case.make(posterior)
        assert set(layer.state_dict()) == {"bias", *posterior.names, *posterior.buffer_names}
        assert "weight" not in dict(layer.named_parameters())

    def test_the_state_comes_back(self, case, posterior):
        layer, other, x = case.make(posterior), case.make(posterior), input_for(case)
        other.load_state_dict(layer.state_dict())
        torch.manual_seed(1)
        y = layer(x)
        torch.manual_seed(1)
        assert torch.equal(other(x), y)
        assert torch.equal(layer.eval()(x), other.eval()(x))

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
    def test_a_copy_draws_the_same_and_owns_its_belief(self, case, posterior, copied):
        layer, x = case.make(posterior), input_for(case)
        other = copied(layer)
        torch.manual_seed(1)
        y = layer(x)
        torch.manual_seed(1)
        assert torch.equal(other(x), y)
        for name in posterior.names:
            mine, theirs = layer.get_parameter(name), other.get_parameter(name)
            assert mine.data_ptr() != theirs.data_ptr()
            assert belief_of(theirs) == belief_of(mine)

    def test_reset_parameters_starts_belief_and_bias_afresh_in_place(self, case, posterior):
        layer = case.make(posterior)
        tensors = [*layer.belief, layer.bias]
        with torch.no_grad():
            for tensor in tensors:
                tensor.fill_(1e6)
        layer.reset_parameters()
        assert all(a is b for a, b in zip(tensors, [*layer.belief, layer.bias], strict=True))
        assert all(bool((tensor.abs() < 100).all()) for tensor in tensors)
        assert set(layer.state_dict()) == {"bias", *posterior.names, *posterior.buffer_names}
        assert layer(input_for(case)).isfinite().all()

    def test_an_empty_batch_is_refused_in_training_and_allowed_in_eval(self, case, posterior):
        layer = case.make(posterior)
        empty = torch.zeros(0, *case.shape[1:])
        with pytest.raises(InputError, match="empty batch"):
            layer(empty)
        assert len(layer.eval()(empty)) == 0

    def test_the_repr_shows_the_options_and_the_posterior(self, case, posterior):
        text = repr(case.make(posterior))
        assert text.startswith(case.kind.__name__)
        assert repr(posterior) in text
        assert case.kind.twin(*case.arguments).extra_repr() in text
