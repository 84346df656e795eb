"""predict packs where that is faster; both ways say the same about the same networks, and refuse the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import varbnn as vb
from tests.packed.models import answers
from tests.predict.allocations import allocations
from varbnn.errors import InputError, VarbnnWarning
from varbnn.kernels import usable_backends, using_backend
from varbnn.packed import draw_packed
from varbnn.predict import predict, route

CPU = torch.device("cpu")
X = torch.randn(23, 20, generator=torch.Generator().manual_seed(1))
TRAIN = torch.randn(64, 20, generator=torch.Generator().manual_seed(2)) * 2 + 1

needs_fast = pytest.mark.skipif(
    not route.FASTER_LEVELS & set(usable_backends()), reason="no compiled kernels of AVX2 or AVX-512 here"
)


@pytest.fixture(autouse=True)
def small_enough(monkeypatch):
    """Small models are packed too, on the best backend of this machine whatever the environment asks for."""
    monkeypatch.setattr(route, "LEAST_WEIGHTS", 1)
    best = usable_backends()[-1]
    with using_backend(best):
        yield


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(norm: bool = False) -> nn.Module:
    torch.manual_seed(3)
    between = [nn.BatchNorm1d(16)] if norm else []
    return vb.binarize(nn.Sequential(nn.Linear(20, 16), *between, nn.ReLU(), nn.Linear(16, 3)))


def gated() -> nn.Module:
    """As continual learners have it: layer norms without scale, and gates."""
    torch.manual_seed(3)
    gate = vb.nn.Gate("bits", reverse=True)
    norms = [nn.LayerNorm(width, elementwise_affine=False) for width in (16, 3)]
    return vb.binarize(nn.Sequential(nn.Linear(20, 16, bias=False), norms[0], gate, nn.Linear(16, 3), norms[1]))


@pytest.fixture
def packings(monkeypatch):
    """How many ensembles were packed."""
    made = []

    def counted(*args, **kwargs):
        made.append(draw_packed(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(route, "draw_packed", counted)
    return made


@needs_fast
@pytest.mark.parametrize("make", [model, gated])
def test_packed_networks_say_what_the_model_says_with_their_weights(make, packings):
    net = make()
    found = predict(net, X, 9, generator=seeded(), batch_size=10)
    assert len(packings) == 1
    expected = answers(net, X, 9, seeded()).softmax(-1)
    torch.testing.assert_close(found.probs.double(), expected, rtol=1e-4, atol=1e-6)


@needs_fast
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_both_ways_agree_about_the_same_networks(task, packings):
    net = model(norm=True)
    packed = predict(net, X, 9, refresh_bn=TRAIN, generator=seeded(), task=task)
    rows = torch.stack([packings[0].member(s)(X) for s in range(9)])
    expected = rows.softmax(-1) if task == "classification" else rows
    found = packed.probs if task == "classification" else packed.means
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@needs_fast
def test_both_ways_follow_the_same_law():
    net = model(norm=True)
    fast = predict(net, X, 2000, refresh_bn=TRAIN, generator=seeded()).mean
    with using_backend("reference"):
        slow = predict(net, X, 2000, refresh_bn=TRAIN, generator=seeded()).mean
    assert (fast - slow).abs().max() < 0.06  # five standard errors of a share


@needs_fast
@pytest.mark.parametrize("inputs", [X, X.numpy(), list(X.split(10)), DataLoader(X, batch_size=10)])
def test_tensors_arrays_and_loaders_are_the_same_inputs(inputs, packings):
    expected = predict(model(), X, 9, batch_size=10, generator=seeded()).probs
    torch.testing.assert_close(predict(model(), inputs, 9, batch_size=10, generator=seeded()).probs, expected)
    assert len(packings) == 2


@needs_fast
def test_the_same_seed_gives_the_same_prediction_and_the_generator_moves_on():
    net, generator = model(), seeded()
    first, second = (predict(net, X, 9, generator=generator).probs for _ in range(2))
    assert torch.equal(predict(net, X, 9, generator=seeded()).probs, first)
    assert not torch.equal(first, second)
    before = torch.get_rng_state()
    predict(net, X, 9, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


@needs_fast
def test_more_samples_begin_with_the_same_networks():
    few, many = (predict(model(), X, s, generator=seeded()).probs for s in (9, 12))
    torch.testing.assert_close(many[:9], few)


@needs_fast
def test_the_bar_shows_only_on_request(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    predict(model(), X, 9)
    assert capsys.readouterr().err == ""
    predict(model(), X, 9, progress=True)
    assert "sampled networks" in capsys.readouterr().err


@needs_fast
def test_a_shuffling_loader_is_still_refused():
    with pytest.raises(InputError, match="shuffle=False"):
        predict(model(), DataLoader(X, batch_size=23, shuffle=True), 9)


@needs_fast
@pytest.mark.parametrize("inputs, message", [(X * torch.nan, "NaN or infinite"), (X[:0], "no example|empty")])
def test_bad_inputs_are_still_refused(inputs, message):
    with pytest.raises(InputError, match=message):
        predict(model(), inputs, 9)


@needs_fast
def test_the_model_is_left_as_it_was_and_the_warning_comes(packings):
    net = model(norm=True).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.warns(VarbnnWarning, match="pass refresh_bn="):
        predict(net, X, 9)
    predict(net, X, 9, refresh_bn=TRAIN)
    assert len(packings) == 2
    assert net.training
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)


class Across(nn.Module):
    """Mixes the rows of a batch in a way that only shows when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = vb.nn.BinaryLinear(20, 3)

    def forward(self, x):
        h = self.layer(x)
        return h - h.mean(-2, keepdim=True)


@needs_fast
def test_rows_that_see_each_other_take_the_loop_with_the_networks_that_it_draws():
    net = Across()
    found = predict(net, X, 9, generator=seeded()).probs
    with using_backend("reference"):
        expected = predict(net, X, 9, generator=seeded()).probs
    assert torch.equal(found, expected)


def hooked() -> nn.Module:
    net = model()
    net[0].register_forward_hook(lambda *_: None)
    return net


@needs_fast
@pytest.mark.parametrize(
    "make, number, device, reason",
    [
        (model, 7, CPU, "fewer than 8 networks"),
        (model, 9, torch.device("meta"), "not on the CPU"),
        (lambda: model().double(), 9, CPU, "float64"),
        (lambda: model().half(), 9, CPU, "float16"),
        (lambda: nn.Sequential(nn.LayerNorm(4), model().half()), 9, CPU, "torch.float16"),
        (hooked, 9, CPU, "forward hook"),
        (lambda: nn.Sequential(model(), nn.Softmax(0)), 9, CPU, "works across the batch"),
        (model, 9, CPU, None),
        (gated, 9, CPU, None),
    ],
)
def test_the_condition_is_explicit(make, number, device, reason):
    found = route.reason_for_loop(make(), number, device)
    assert found is None if reason is None else reason in found


def test_plain_torch_is_asked_one_by_one():
    with using_backend("reference"):
        assert route.reason_for_loop(model(), 9, CPU) == "reference is not faster"


def test_few_weights_are_asked_one_by_one(monkeypatch):
    monkeypatch.setattr(route, "LEAST_WEIGHTS", 2**20)
    assert route.reason_for_loop(model(), 9, CPU) is not None


# --- memory, and how many inputs there are ---


def loaders(x: torch.Tensor) -> dict[str, object]:
    """By name: ways to give `x` in batches, of which not all say truly how many inputs are to come."""

    class Unsized(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(x)

    def every_other(rows):
        return torch.stack(rows)[::2]

    def doubled(rows):
        return torch.stack(rows).repeat_interleave(2, 0)

    return {
        "even": DataLoader(x, batch_size=20),
        "short last": DataLoader(x, batch_size=30),
        "drops the last": DataLoader(x, batch_size=30, drop_last=True),
        "fewer": DataLoader(x, batch_size=20, collate_fn=every_other),
        "more": DataLoader(x, batch_size=20, collate_fn=doubled),
        "unsized": DataLoader(Unsized(), batch_size=30),
        "unequal": [x[:60], x[60:61], x[61:]],
        "own batches": DataLoader(x, batch_sampler=[list(range(50)), list(range(50, 100))]),
    }


@needs_fast
@pytest.mark.parametrize("name", loaders(torch.zeros(100, 20)))
def test_a_loader_gives_what_its_rows_give_however_many_it_has(name, packings):
    x = torch.randn(100, 20, generator=seeded(4))
    data, network = loaders(x)[name], model()
    found = predict(network, data, 8, generator=seeded()).probs
    rows = torch.cat(list(data))
    torch.testing.assert_close(found, predict(network, rows, 8, generator=seeded()).probs)
    assert found.is_contiguous()
    assert len(packings) == 2


@needs_fast
@pytest.mark.parametrize("name", ["even", "short last"])
def test_packed_networks_hold_the_result_of_a_loader_once(name):
    x = torch.randn(3000, 20)
    data = DataLoader(x, batch_size=100 if name == "even" else 90)
    network = model()
    predict(network, data, 8)
    result = 8 * 3000 * 3 * 4
    large = [size for size in allocations(lambda: predict(network, data, 8)) if size >= result // 2]
    assert large == [result]
