"""Packed networks say what the user's own model says in float64, holding the same draws; what cannot be is refused."""

from __future__ import annotations

import copy
from unittest.mock import Mock

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import varbnn as vb
from tests.packed.models import ZOO, Net, answers, built, mlp, seeded, settled
from varbnn.errors import BackendError, InputError
from varbnn.nn.batchnorm import batchnorms
from varbnn.nn.draws import holding
from varbnn.packed import ensemble, statistics
from varbnn.packed.build import _draw
from varbnn.packed.layout import weight_of
from varbnn.packed.statistics import measured

X = torch.randn(6, 20, generator=seeded(1))


def assert_close(found: torch.Tensor, expected: torch.Tensor, relative: float = 1e-5) -> None:
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=relative * expected.abs().max().item())


# --- every shape of model ---


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("num_samples", [3, 1, 0])
@pytest.mark.parametrize("name", ZOO)
def test_every_network_says_what_the_model_says_with_its_weights(name, num_samples):
    model, x = built(name)
    before = copy.deepcopy(model.state_dict())
    packed = vb.pack(model, num_samples, generator=seeded(5))
    found, expected = packed(x), answers(model, x, num_samples, seeded(5))
    assert found.dtype == torch.float32
    assert_close(found, expected)
    for s in range(len(expected)):
        assert_close(packed.member(s)(x), expected[s])
    assert packed(x[:0]).shape == found[:, :0].shape
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


POSTERIORS = {
    "bernoulli": vb.posteriors.Bernoulli(),
    "concrete": vb.posteriors.Bernoulli(estimator="concrete"),
    "mean": vb.posteriors.Bernoulli(estimator="mean"),
    "moments": vb.posteriors.Bernoulli(estimator="moments"),
    "point": vb.posteriors.Point(),
    "gaussian": vb.posteriors.Gaussian(),
}


@pytest.mark.parametrize("name", POSTERIORS)
@pytest.mark.parametrize("training", [True, False])
def test_any_posterior_can_be_packed(name, training):
    torch.manual_seed(0)
    model = vb.binarize(settled(mlp()), POSTERIORS[name]).train(training)
    assert_close(vb.pack(model, 4, generator=seeded(3))(X), answers(model, X, 4, seeded(3)))
    assert model.training == training


@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "point"])
def test_the_draws_follow_the_posterior(name):
    layer = vb.binarize(nn.Linear(6, 5, bias=False), POSTERIORS[name])
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.7)
    found = vb.pack(layer, 4000, generator=seeded())(torch.eye(6)).mean(0).T  # the mean weight
    expected = layer.posterior.mean(*layer.belief).detach()
    assert (found - expected).abs().max() < 5 / 4000**0.5


@pytest.mark.parametrize("names", [["natural"], ["location", "factors"]])
def test_tied_layers_have_one_weight_in_every_network(names):
    posterior = vb.posteriors.LowRankGaussian(2) if len(names) > 1 else vb.posteriors.Bernoulli()
    model = vb.binarize(nn.Sequential(*(nn.Linear(20, 20, bias=False) for _ in range(3))), posterior)
    for name in names:
        setattr(model[2], name, getattr(model[0], name))
    drawn = _draw(list(model), 4, seeded(3))
    assert torch.equal(drawn[model[0]], drawn[model[2]])
    assert not torch.equal(drawn[model[0]], drawn[model[1]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_models_of_other_precisions_are_packed_in_float32(dtype):
    model = vb.binarize(settled(nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Hardtanh(), nn.Linear(8, 3))))
    model.to(dtype)
    found = vb.pack(model, 3, generator=seeded(3))(X.to(dtype))
    assert found.dtype == torch.float32
    assert_close(found, answers(model, X.to(dtype), 3, seeded(3)), 2e-5)


def test_a_forward_may_change_the_precision_on_its_way():
    model = vb.binarize(Net(lambda m, x: m.b(m.a(x.double().float()).double().relu().float()).half(),
                            a=nn.Linear(20, 9), b=nn.Linear(9, 3)))  # fmt: skip
    assert_close(vb.pack(model, 2, generator=seeded(3))(X), answers_float(model, 2), 1e-2)


def answers_float(model: nn.Module, num_samples: int) -> torch.Tensor:
    layers = [layer for _, layer in vb.nn.binary_layers(model)]
    drawn = _draw(layers, num_samples, seeded(3))
    results = []
    for s in range(num_samples):
        with holding(layers, [weight_of(layer, drawn[layer][s]) for layer in layers]), torch.no_grad():
            results.append(model(X).double())
    return torch.stack(results)


def test_layers_that_stay_real_stay_real():
    model = vb.binarize(mlp(), skip=["0", "6"])
    packed = vb.pack(model, 3, generator=seeded(3))
    assert_close(packed(X), answers(model, X, 3, seeded(3)))
    assert packed.nbytes > 37 * 20 * 4


def test_a_thousand_networks_in_one():
    model = vb.binarize(nn.Sequential(nn.Linear(20, 9), nn.ReLU(), nn.Linear(9, 3)))
    packed = vb.pack(model, 1000, generator=seeded(3))
    assert_close(packed(X), answers(model, X, 1000, seeded(3)))
    assert_close(packed(X, reduce="mean").mean, answers(model, X, 1000, seeded(3)).softmax(-1).mean(0))


def test_more_networks_begin_with_the_same_ones():
    model, _ = built("mlp")
    few, many = (vb.pack(model, s, generator=seeded(3))(X) for s in (2, 5))
    torch.testing.assert_close(many[:2], few)


def test_inputs_may_lie_in_memory_as_they_like():
    for name in ("mlp", "conv", "tokens"):
        model, x = built(name)
        packed = vb.pack(model, 2)
        strided = torch.stack([x, x], -1)[..., 0].transpose(0, -1).contiguous().transpose(0, -1)
        torch.testing.assert_close(packed(strided), packed(x), rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(packed(x[1:3]), packed(x)[:, 1:3], rtol=1e-5, atol=1e-3)


def test_a_large_batch_in_parts_is_the_whole(monkeypatch):
    model, x = built("conv")
    packed = vb.pack(model, 3)
    whole, mean = packed(x), packed(x, reduce="mean")
    monkeypatch.setattr("varbnn.packed.ensemble.WORKING_BYTES", 1)
    torch.testing.assert_close(packed(x), whole)
    torch.testing.assert_close(packed(x, reduce="mean").mean, mean.mean)


# --- batch norm ---


@pytest.mark.parametrize("together", [2**25, 1])
@pytest.mark.parametrize("name", [name for name in ZOO if batchnorms(ZOO[name][0]())])
def test_statistics_of_all_networks_are_those_that_each_finds_alone(name, together, monkeypatch):
    monkeypatch.setattr(statistics, "WORKING_BYTES", together)
    model, x = built(name)
    model.eval()
    data = list((torch.randn(64, *x.shape[1:], generator=seeded(9)) * 3 + 1).split(30))
    layers = [layer for _, layer in vb.nn.binary_layers(model)]
    drawn = _draw(layers, 3, seeded(4))
    with torch.no_grad():
        found, _ = measured(model, drawn, data, False)
    for s in range(3):
        with holding(layers, [weight_of(layer, drawn[layer][s]) for layer in layers]):
            twin = copy.deepcopy(model)
        with holding([layer for _, layer in vb.nn.binary_layers(twin)], [weight_of(m, drawn[m][s]) for m in layers]):
            vb.refresh_batchnorm(twin, data)
        for norm, own in zip(batchnorms(model), batchnorms(twin), strict=True):
            for all_networks, one in zip(found[norm], (own.running_mean, own.running_var), strict=True):
                torch.testing.assert_close(all_networks[s].float(), one, rtol=1e-5, atol=1e-5 * one.abs().max().item())


def test_fresh_statistics_are_used():
    model, _ = built("mlp")
    data = torch.randn(1500, 20) * 2 + 1
    packed = vb.pack(model, 2, refresh_bn=data, generator=seeded(3))
    layers, expected = [layer for _, layer in vb.nn.binary_layers(model)], []
    drawn = _draw(layers, 2, seeded(3))
    for s in range(2):
        with holding(layers, [weight_of(layer, drawn[layer][s]) for layer in layers]):
            vb.refresh_batchnorm(model, data)
            with torch.no_grad():
                expected.append(model.eval()(X).double())
    assert_close(packed(X), torch.stack(expected), 1e-4)


def test_the_data_are_gone_through_once():
    model, _ = built("mlp")
    vb.pack(model, 5, refresh_bn=iter(torch.randn(60, 20).split(20)))


def test_the_model_keeps_its_own_statistics():
    model, _ = built("mlp")
    before = copy.deepcopy(model.state_dict())
    vb.pack(model, 5, refresh_bn=torch.randn(60, 20))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "data, message",
    [
        ([], "nothing to re-estimate"),
        ([X * torch.nan], "NaN or infinite"),
        ([X[:0]], "batch 0 is empty"),
        ([X[:1]], "no variance to estimate"),
        ([X[:, None, 1:]], r"inputs of shape N × \d+, got \d+ × 1 × \d+"),
        ([X.long()], "floating inputs, got torch.int64"),
    ],
)
def test_data_without_statistics_are_refused(data, message):
    with pytest.raises(InputError, match=message):
        vb.pack(built("mlp")[0], 2, refresh_bn=data)


# --- 8 bits ---


def test_8_bit_inputs_are_near_and_on_request_only():
    model, _ = built("mlp")
    exact = vb.pack(model, 3, generator=seeded(3))
    rounded = vb.pack(model, 3, generator=seeded(3), int8=True)
    assert "int8" in repr(rounded)
    assert "int8" not in repr(exact)
    error = (rounded(X) - exact(X)).pow(2).mean().sqrt() / exact(X).pow(2).mean().sqrt()
    assert 1e-4 < error < 0.05
    torch.testing.assert_close(rounded(X, reduce="mean").mean, rounded(X).softmax(-1).mean(0))


def test_signs_are_never_rounded():
    model, _ = built("sign of the input")
    layers = [step.int8 for step in vb.pack(model, 2, int8=True).program.steps if hasattr(step, "int8")]
    assert layers == [True, True]
    only = vb.binarize(nn.Sequential(vb.nn.Sign(), nn.Linear(20, 3)))
    both = [vb.pack(only, 2, generator=seeded(3), int8=rounded)(X) for rounded in (False, True)]
    assert torch.equal(*both)


# --- what is refused ---

ACROSS = {
    "mean(0)": lambda m, x: m.a(x) - m.a(x).mean(0),
    "mean()": lambda m, x: m.a(x) - m.a(x).mean(),
    "sum(dim=(0, 1))": lambda m, x: m.a(x) / m.a(x).abs().sum(dim=(0, 1)),
    "softmax(0)": lambda m, x: torch.softmax(m.a(x), dim=0),
    "cat along the batch": lambda m, x: torch.cat([m.a(x), m.a(x)])[:, :3],
    "stack": lambda m, x: torch.stack([m.a(x), m.a(x)]).mean(1),
    "the first row": lambda m, x: m.a(x) - m.a(x)[:1],
    "one row": lambda m, x: m.a(x) - m.a(x)[0],
    "the last rows": lambda m, x: m.a(x) - m.a(x)[-1:, :],
    "transposed": lambda m, x: m.a(x).T,
    "t()": lambda m, x: m.a(x).t(),
    "permuted": lambda m, x: m.a(x).permute(1, 0),
    "sorted": lambda m, x: m.a(x).sort(0)[0],
    "rolled": lambda m, x: m.a(x).roll(1, 0),
    "softmax module": lambda m, x: m.softmax(m.a(x)),
    "recurrent, batch second": lambda m, x: m.rnn(m.a(x).unsqueeze(1))[0],
}
UNSAID = {
    "product of the batch": (lambda m, x: m.a(x) @ (m.a(x).mT @ m.a(x)), "mT"),
    "transposed by another name": (lambda m, x: m.a(x).swapdims(0, 1) * 1.0, "swapdims"),
    "reshaped": (lambda m, x: m.a(x).reshape(3, -1), "reshape"),
    "kept dropping": (lambda m, x: nn.functional.dropout(m.a(x), 0.5), "dropout"),
    "cumulated": (lambda m, x: torch.cummax(m.a(x), 0)[0], "getitem"),
    "standardised": (lambda m, x: torch.nn.functional.instance_norm(m.a(x).T).T, "works across"),
    "mean over all but the last": (lambda m, x: m.a(x).mean(-2, keepdim=True) + m.a(x), "mean"),
}


def across(run) -> nn.Module:
    parts = dict(a=nn.Linear(20, 3), softmax=nn.Softmax(0), rnn=nn.RNN(3, 3))
    return vb.binarize(Net(run, **parts))


@pytest.mark.parametrize("name", ACROSS)
def test_what_says_that_it_works_across_the_batch_is_refused_at_once(name):
    with pytest.raises(InputError, match=r"works across the batch.*varbnn.predict runs any model"):
        vb.pack(across(ACROSS[name]), 3)


@pytest.mark.parametrize("name", UNSAID)
@pytest.mark.parametrize("batch", [1, 5])
def test_what_turns_out_to_work_across_the_batch_is_refused_at_the_first_call(name, batch):
    run, operation = UNSAID[name]
    with pytest.raises(InputError, match=operation):
        vb.pack(across(run), 3)(X[:batch])


EQUAL = {"zeros": torch.zeros(2, 20), "a lone half": torch.full((1, 20), 0.5), "near it": torch.full((3, 20), 0.501)}


@pytest.mark.parametrize("rows", EQUAL)
@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: nn.functional.scaled_dot_product_attention(m.a(x), m.a(x), m.a(x)),
        lambda m, x: nn.functional.batch_norm(m.a(x), None, None, training=True),
    ],
    ids=["attention", "batch norm"],
)
def test_equal_inputs_do_not_hide_it(run, rows):
    with pytest.raises(InputError, match="works across the batch"):
        vb.pack(across(run), 3)(EQUAL[rows])


def test_with_data_for_batchnorm_it_is_refused_while_packing():
    run, operation = UNSAID["product of the batch"]
    model = across(lambda m, x: run(m, m.norm(x)))
    model.norm = nn.BatchNorm1d(20)
    with pytest.raises(InputError, match=operation):
        vb.pack(model, 2, refresh_bn=X)


class Twice(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class TwiceNorm(nn.BatchNorm1d):
    def forward(self, x):
        return 2 * super().forward(x)


class TwiceBinary(vb.nn.BinaryLinear):
    def forward(self, x):
        return 2 * super().forward(x)


def hooked(where: int | None) -> nn.Module:
    model = vb.binarize(mlp())
    (model if where is None else model[where]).register_forward_hook(lambda module, args, output: 2 * output)
    return model


REFUSED = {
    "no binary layer": (lambda: mlp(), "has no binary layer"),
    "a decision by value": (lambda: across(lambda m, x: m.a(x) if x.sum() > 0 else -m.a(x)), "cannot trace it"),
    "an average": (lambda: AveragedModel(vb.binarize(mlp())), "AveragedModel is .*pack model.module, what it wraps"),
    "data parallel": (lambda: nn.DataParallel(vb.binarize(mlp())), "DataParallel is .*pack model.module"),
    "two inputs": (lambda: TwoInputs(), "with one input"),
    "two outputs": (lambda: across(lambda m, x: (m.a(x), x)), "return one tensor"),
    "batch statistics": (
        lambda: vb.binarize(nn.Sequential(nn.Linear(20, 3), nn.BatchNorm1d(3, track_running_stats=False))),
        "statistics of each batch",
    ),
    "the weight used directly": (
        lambda: across(lambda m, x: nn.functional.linear(x, m.a.weight)), "weight .* directly"),
    "the weight transposed": (lambda: across(lambda m, x: m.a(x) @ m.a.weight.t()[:3]), "weight .* directly"),
    "a layer with a forward of its own": (lambda: TwiceBinary(20, 3), "forward of its own"),
    "a norm with a forward of its own": (
        lambda: vb.binarize(nn.Sequential(nn.Linear(20, 3), TwiceNorm(3))), "forward of its own"),
    "a hook on the model": (lambda: hooked(None), "forward hook"),
    "a hook on a layer": (lambda: hooked(0), "forward hook"),
    "a hook on a norm": (lambda: hooked(1), "forward hook"),
    "a hook on an activation": (lambda: hooked(2), "forward hook"),
}  # fmt: skip


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = vb.nn.BinaryLinear(20, 3)

    def forward(self, x, y):
        return self.a(x) + y


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_packed_is_refused_and_the_model_stays(name):
    make, message = REFUSED[name]
    model = make()
    before = set(vars(model)), copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=message):
        vb.pack(model, 2)
    assert set(vars(model)) == before[0]
    torch.testing.assert_close(model.state_dict(), before[1], rtol=0, atol=0)


def test_a_subclass_of_a_real_layer_is_read_by_its_forward():
    model = vb.binarize(nn.Sequential(Twice(20, 9), nn.ReLU(), nn.Linear(9, 3)))
    assert_close(vb.pack(model, 2, generator=seeded(3))(X), answers(model, X, 2, seeded(3)))


@pytest.mark.parametrize("number", [-1, 1.5, True, "3", None])
def test_a_number_of_networks_is_a_whole_number(number):
    with pytest.raises(InputError, match="num_samples must be a whole number"):
        vb.pack(vb.binarize(nn.Linear(2, 2)), number)


def test_beliefs_with_nan_are_refused():
    model = vb.binarize(nn.Linear(20, 3))
    with torch.no_grad():
        model.natural[0, 0] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        vb.pack(model, 2)


@pytest.mark.parametrize(
    "inputs, message",
    [
        (X * torch.nan, "NaN or inf"),
        (X / 0, "NaN or inf"),
        (X.int(), "floating inputs, got torch.int32"),
        (X > 0, "floating or whole numbers, got torch.bool"),
        (X + 0j, "floating or whole numbers, got torch.complex64"),
        (torch.tensor(1.0), "floating or whole numbers, got torch.float32"),
        (X.numpy(), "floating or whole numbers, got ndarray"),
        (X[:, :19], f"inputs of shape N × 20, got {len(X)} × 19"),
    ],
)
def test_inputs_that_mean_nothing_are_refused(inputs, message):
    with pytest.raises(InputError, match=message):
        vb.pack(vb.binarize(nn.Linear(20, 3)), 2)(inputs)


@pytest.mark.parametrize("reduce", ["sum", True, 1])
def test_reductions_are_known_by_name(reduce):
    with pytest.raises(InputError, match="reduce must be"):
        vb.pack(vb.binarize(nn.Linear(20, 3)), 2)(X, reduce=reduce)


def test_an_average_needs_classes():
    model, x = built("tokens")
    with pytest.raises(InputError, match="takes classifiers"):
        vb.pack(model, 2)(x, reduce="mean")


@pytest.mark.parametrize("together", [None, 1], ids=["in one go", "in parts"])
def test_an_input_that_overflows_is_named_and_not_called_sure(together, monkeypatch):
    model = vb.binarize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
    packed = vb.pack(model, 2)
    x = torch.rand(5, 4)
    x[3] = torch.finfo(torch.float32).max
    if together:
        monkeypatch.setattr(ensemble, "WORKING_BYTES", together)
    with pytest.raises(InputError, match=r"outputs for input 3 .* hold NaN or inf"):
        packed(x, reduce="mean")
    assert packed(x).isfinite().all(-1).all(0).tolist() == [True, True, True, False, True]  # as torch has it
    unknown = torch.tensor([torch.nan])
    assert ensemble.mutual_information(unknown, unknown).isnan().all()


@pytest.mark.parametrize("inputs", [torch.eye(4).to_sparse(), torch.empty(4, 4, device="meta")], ids=["sparse", "meta"])
def test_inputs_without_numbers_are_refused(inputs):
    packed = vb.pack(vb.binarize(nn.Sequential(nn.Linear(4, 3), nn.ReLU())), 2)
    with pytest.raises(InputError, match="the inputs must be dense numbers"):
        packed(inputs)


def test_outputs_that_are_not_one_row_per_input_are_refused():
    with pytest.raises(InputError, match="one row per input"):
        vb.pack(across(lambda m, x: m.a(x).flatten()), 2)(X)


def test_an_answer_without_any_drawn_weight_is_the_same_from_all_networks():
    model = vb.binarize(Net(lambda m, x: m.real(x), a=nn.Linear(20, 3), real=nn.Linear(20, 3)), skip=["real"])
    assert_close(vb.pack(model, 3, generator=seeded(3))(X), answers(model, X, 3, seeded(3)))


class Encoder(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 512, batch_first=True)
        self.inside = layer if kind == "layer" else nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inside(x).mean(1))


@pytest.mark.parametrize("kind", ["layer", "stack"])
def test_draws_inside_containers_of_torch_are_not_lost(kind):
    model = vb.binarize(Encoder(kind), skip=["head"])
    x = torch.randn(5, 8, 64, generator=seeded(0))
    with pytest.raises(InputError, match="cannot be packed"):
        vb.pack(model, 2)
    with torch.no_grad():  # by far enough networks and weights to be packed, if it could be
        found = vb.predict(model, x, 32, generator=seeded(1))
        with vb.sampled(model, seeded(1)):
            first = model.eval()(x).softmax(-1)
    torch.testing.assert_close(found.probs[0], first)
    assert float(found.epistemic.min()) > 0


def test_a_compiled_model_is_packed_as_the_model_it_was_made_from():
    model = vb.binarize(mlp())
    found = vb.pack(torch.compile(model, backend="eager"), 3, generator=seeded(0))
    torch.testing.assert_close(found(X), vb.pack(model, 3, generator=seeded(0))(X))


UNFIT = {
    "a row": (lambda m, x: m.a(x.unflatten(1, (4, 5)).flatten(1)), torch.zeros(20)),
    "another width": (lambda m, x: m.a(x.reshape(-1, 4, 5).flatten(1)), torch.zeros(3, 21)),
    "no rows": (lambda m, x: m.a(x.unflatten(1, (4, 5)).flatten(1)), torch.zeros(0, 21)),
    "a second table": (lambda m, x: m.a(m.table(x[:, 0].long()) + x), torch.full((3, 20), 7.0)),
}


@pytest.mark.parametrize("name", UNFIT)
@pytest.mark.parametrize("used", [False, True])
def test_inputs_that_do_not_fit_are_refused_whenever_they_come(name, used):
    run, inputs = UNFIT[name]
    packed = vb.pack(vb.binarize(Net(run, a=nn.Linear(20, 3), table=nn.Embedding(5, 20))), 2)
    if used:
        packed(torch.rand(2, 20))
    with pytest.raises(InputError, match="fail"):
        packed(inputs)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("of the GPU"), BackendError("not built"), MemoryError(),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory")])  # fmt: skip
def test_what_is_no_fault_of_the_inputs_stays_what_it_is(error, monkeypatch):
    packed = vb.pack(vb.binarize(nn.Linear(20, 3)), 2)
    packed(X)
    monkeypatch.setattr(packed.program, "forward", Mock(side_effect=error))
    with pytest.raises(type(error)) as found:
        packed(X)
    assert found.value is error
