"""Asking on a stream: the budget holds at every moment, and what is skipped leaves no trace."""

from __future__ import annotations

import copy
import io
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import varbnn as vb
from tests.oracles.queries import follow
from varbnn import active
from varbnn.errors import CheckpointError, InputError
from varbnn.predict import Prediction


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def votes(scores: list[float], num_samples: int = 10) -> Prediction:
    """Predictions of two classes whose variation ratios are `scores`, multiples of 1 / num_samples up to a half."""
    against = (torch.tensor(scores) * num_samples).round()
    rows = torch.arange(num_samples).unsqueeze(1) < against  # S×N: these vote for class 1, by less than they doubt
    ones = torch.where(rows, 0.6, 0.1)
    return Prediction(torch.stack([1 - ones, ones], -1))


def levels(rng: np.random.Generator, count: int, num_samples: int, doubt: float) -> list[float]:
    return (rng.binomial(num_samples // 2, doubt, count) / num_samples).tolist()


STREAMS = {
    "doubt everywhere": lambda rng: levels(rng, 8000, 10, 0.9),
    "doubt nowhere": lambda rng: [0.0] * 8000,
    "rare doubt": lambda rng: np.where(rng.random(8000) < 0.02, 0.5, 0.0).tolist(),
    "five networks": lambda rng: levels(rng, 8000, 5, 0.4),
    "learning": lambda rng: [x for step in range(8) for x in levels(rng, 1000, 10, 0.9 / (1 + step))],
    "changes": lambda rng: [x for step in range(16) for x in levels(rng, 500, 10, 0.8 if step % 8 == 0 else 0.02)],
    "bursts": lambda rng: [x for step in range(80) for x in [0.5] * 10 + [0.0] * 90],
}


@pytest.mark.parametrize("budget", [0.005, 0.03, 0.2, 1.0])
@pytest.mark.parametrize("name", STREAMS)
def test_the_budget_holds_at_every_moment(name, budget):
    query, used = active.StreamQuery(budget=budget), 0
    scores = STREAMS[name](np.random.default_rng(1))
    for start in range(0, len(scores), 41):
        part = scores[start : start + 41]
        asked = query.ask(votes(part))
        used += int(asked.sum())
        assert used == query.labels_used <= budget * query.seen + 1e-9
        assert 0 <= query.saved <= query.reserve
        assert not any(hit for hit, score in zip(asked.tolist(), part, strict=True) if score == 0)
    assert query.seen == len(scores)


@pytest.mark.parametrize("budget", [0.005, 0.03, 0.2])
@pytest.mark.parametrize("name", ["doubt everywhere", "five networks"])
def test_a_budget_is_used_up_where_enough_is_worth_asking(name, budget):
    query = active.StreamQuery(budget=budget)
    scores = STREAMS[name](np.random.default_rng(2))
    query.ask(votes(scores))
    assert query.labels_used >= budget * len(scores) - query.reserve
    assert query.labels_used >= 0.8 * budget * len(scores)


def test_the_best_of_a_stream_are_asked():
    """A tenth of the inputs is in doubt, and the budget is for half of them."""
    rng = np.random.default_rng(3)
    scores = np.where(rng.random(8000) < 0.1, 0.5, rng.choice([0.0, 0.1, 0.2], 8000))
    query = active.StreamQuery(budget=0.05)
    asked = query.ask(votes(scores.tolist())).numpy()
    assert (scores[asked] == 0.5).mean() > 0.95  # the bar falls while a long time none comes
    assert asked.sum() > 0.95 * 400


def test_labels_saved_in_a_quiet_time_serve_the_next_change():
    query = active.StreamQuery(budget=0.01, reserve=20)
    query.ask(votes([0.0] * 5000))
    assert query.saved == 20
    assert query.ask(votes([0.5] * 100)).sum() >= 15
    assert query.ask(votes([0.5] * 1000)).sum() <= 15


@pytest.mark.parametrize("budget, every", [(0.1, 10), (0.05, 20), (0.01, 100)])
def test_no_label_is_lost_to_rounding(budget, every):
    query = active.StreamQuery(budget=budget, threshold=0.0, reserve=1.0)
    asked = query.ask(votes([0.5] * 100 * every))
    assert (asked.nonzero().flatten() + 1).tolist() == [every * (label + 1) for label in range(100)]


@pytest.mark.parametrize("score", active.ACQUISITIONS)
@pytest.mark.parametrize("options", [dict(budget=0.05), dict(budget=0.1, threshold=0.2), dict(threshold=0.25)])
def test_decisions_are_those_of_the_rule_written_down_again(score, options):
    if score in ("margin", "entropy") and "threshold" in options:
        options = options | {"threshold": {"margin": -0.4, "entropy": 1.1}[score]}
    probs = torch.rand(6, 3000, 4, dtype=torch.float64, generator=seeded(1)).mul(5).softmax(-1)
    query = active.StreamQuery(acquisition=score, generator=seeded(2), **options)
    asked = torch.cat([query.ask(Prediction(part)) for part in probs.split(37, dim=1)])
    generator = seeded(2)
    scores = [active.ACQUISITIONS[score](Prediction(part), generator) for part in probs.split(37, dim=1)]
    highest = {"bald": math.log(4), "entropy": math.log(4), "margin": 0.0}.get(score, 1.0)
    lowest = -1.0 if score == "margin" else 0.0
    expected = follow(torch.cat(scores).tolist(), lowest, highest, 20.0, **options)
    assert asked.tolist() == expected
    assert 0 < sum(expected) < 3000


def test_a_threshold_of_three_tenths_is_three_networks_of_ten():
    scores = [0.2, 0.3, 0.4]
    assert active.StreamQuery(threshold=0.3).ask(votes(scores)).tolist() == [False, True, True]
    probs = torch.zeros(10, 10, 11)
    for against in range(10):
        probs[against:, against, 0] = 1
        for row in range(against):
            probs[row, against, 1 + row] = 1
    found = active.variation_ratio(Prediction(probs)).tolist()
    assert found == [against / 10 for against in range(10)]


@pytest.mark.parametrize("score", ["variation_ratio", "random"])
def test_a_stream_goes_on_where_it_was(score):
    def query() -> active.StreamQuery:
        generator = seeded(5) if score == "random" else None
        return active.StreamQuery(budget=0.1, acquisition=score, generator=generator)

    scores = levels(np.random.default_rng(4), 1000, 10, 0.5)
    whole, first, second = query(), query(), query()
    expected = whole.ask(votes(scores)).tolist()
    found = first.ask(votes(scores[:617])).tolist()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert found + second.ask(votes(scores[617:])).tolist() == expected
    assert (second.seen, second.labels_used, second.saved) == (whole.seen, whole.labels_used, whole.saved)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s | {"settings": s["settings"] | {"budget": 0.2}}, "saved with .*0.2"),
        (lambda s: s | {"seen": 3, "labels_used": 4}, "cannot have seen 3 inputs, used 4 labels"),
        (lambda s: s | {"seen": -1}, "cannot have seen -1"),
        (lambda s: s | {"saved": math.nan}, "saved nan"),
        (lambda s: s | {"saved": "3"}, "saved '3'"),
        (lambda s: s | {"generator": seeded().get_state()}, "the other has none"),
        (lambda s: {k: v for k, v in s.items() if k != "saved"}, "is a dict of"),
        (lambda s: 3, "is a dict of"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change, message):
    query = active.StreamQuery(budget=0.1)
    query.ask(votes([0.5] * 50))
    before = copy.deepcopy(query.state_dict())
    with pytest.raises(CheckpointError, match=message):
        query.load_state_dict(change(query.state_dict()))
    assert query.state_dict() == before


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: active.StreamQuery(), "needs a budget .* a threshold"),
        (lambda: active.StreamQuery(budget=0), "budget must be a finite number > 0 and ≤ 1"),
        (lambda: active.StreamQuery(budget=1.1), "got 1.1"),
        (lambda: active.StreamQuery(budget=math.nan), "got nan"),
        (lambda: active.StreamQuery(budget=True), "got True"),
        (lambda: active.StreamQuery(budget="3 %"), "got '3 %'"),
        (lambda: active.StreamQuery(threshold=math.inf), "finite number in the unit"),
        (lambda: active.StreamQuery(threshold=0.3, acquisition="variance"), "variation_ratio, random, got 'variance'"),
        (lambda: active.StreamQuery(budget=0.1, reserve=0.5), "reserve must be a finite number ≥ 1 .*got 0.5"),
        (lambda: active.StreamQuery(budget=0.1, reserve=math.inf), "got inf"),
        (lambda: active.StreamQuery(threshold=0.3).ask(torch.rand(3, 4, 2)), "got Tensor"),
    ],
)
def test_queries_that_mean_nothing_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


# --- learning from a stream ---


def network() -> nn.Module:
    torch.manual_seed(0)
    return vb.binarize(nn.Sequential(nn.Linear(6, 20), nn.LayerNorm(20), vb.nn.Gate(), nn.Linear(20, 3)))


def windowed(model: nn.Module, batch_size: int = 1) -> vb.optim.WindowedBayes:
    return vb.optim.WindowedBayes(model.parameters(), lr=0.7, window=100, batch_size=batch_size, decay="plain")


def beliefs(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


class Mask(active.StreamQuery):
    """Asks where it is told to."""

    def __init__(self, mask: list[bool]) -> None:
        super().__init__(threshold=0.0)
        self.mask = torch.tensor(mask)

    def ask(self, prediction: Prediction) -> torch.Tensor:
        self.prediction = prediction
        return self.mask


X, Y = torch.randn(5, 6, generator=seeded(1)), torch.tensor([0, 1, 2, 1, 0])


def test_what_is_skipped_leaves_no_trace():
    model = network()
    optimizer = windowed(model)
    active.learn(model, optimizer, Mask([True] * 5), X, lambda asked: Y[asked])
    before, state = beliefs(model), copy.deepcopy(optimizer.state_dict()["state"])
    for _ in range(3):
        asked = active.learn(model, optimizer, Mask([False] * 5), X, lambda asked: pytest.fail("nothing was asked"))
    assert not asked.any()
    assert all(torch.equal(a, b) for a, b in zip(before, beliefs(model), strict=True))
    torch.testing.assert_close(optimizer.state_dict()["state"], state, rtol=0, atol=0)


@pytest.mark.parametrize("mask", [[True] * 5, [False, True, False, True, True], [False] * 4 + [True]])
def test_a_step_is_that_on_the_inputs_asked_alone_with_the_draws_that_were_judged(mask):
    """No batch norm: so the rows of a batch do not touch, and the same draws are made for fewer of them."""
    one, other, chosen = network(), network(), torch.tensor(mask)
    query, seen = Mask(mask), []
    torch.manual_seed(7)
    active.learn(one, windowed(one, 5), query, X, lambda asked: seen.append(asked) or Y[asked], num_samples=3)
    torch.manual_seed(7)
    logits = torch.stack([other(X[chosen]) for _ in range(3)])
    torch.mean(torch.stack([F.cross_entropy(rows, Y[chosen]) for rows in logits])).backward()
    windowed(other, sum(mask)).step()
    for a, b in zip(beliefs(one), beliefs(other), strict=True):
        torch.testing.assert_close(a, b)
    assert [asked.tolist() for asked in seen] == [mask]
    torch.testing.assert_close(query.prediction.probs[:, chosen], logits.softmax(-1))


@pytest.mark.parametrize("mask", [[False] * 5, [True, False, False, True, False]])
def test_forgetting_can_go_on_through_what_is_skipped(mask):
    one, other, chosen = network(), network(), torch.tensor(mask)
    torch.manual_seed(7)
    active.learn(one, windowed(one), Mask(mask), X, lambda asked: Y[asked], num_samples=2, forget_skipped=True)
    torch.manual_seed(7)
    logits = [other(X) for _ in range(2)]
    losses = [F.cross_entropy(rows[chosen], Y[chosen], reduction="sum") / 5 for rows in logits]
    torch.stack(losses).mean().backward()
    windowed(other, 5).step()
    for a, b in zip(beliefs(one), beliefs(other), strict=True):
        torch.testing.assert_close(a, b)
    if not any(mask):
        fresh = network()
        assert torch.allclose(one[0].natural, fresh[0].natural * (1 - 5 / 100))


@pytest.mark.parametrize("asks", [False, True])
def test_bimu_forgets_what_is_skipped_only_where_something_is_asked(asks):
    model = vb.binarize(nn.Linear(6, 3, bias=False), CONCRETE)
    before, lost = beliefs(model), 5 * 1.0 / 1000  # of an unsure weight: B · kl_multiplier / memory, at the pace lr_max
    optimizer = OPTIMIZERS["BiMU"](model.parameters())
    for group in optimizer.param_groups:
        group["likelihood_multiplier"] = 1e-12  # what is left is forgetting
    mask = Mask([False] * 4 + [asks])
    active.learn(model, optimizer, mask, X, lambda asked: Y[asked], forget_skipped=True)
    spread = 1 - torch.tanh(before[0]) ** 2
    expected = before[0] * (1 - asks * lost * spread / (spread + 1 / 0.1))
    torch.testing.assert_close(model.natural.detach(), expected, rtol=1e-6, atol=0)
    assert asks != torch.equal(model.natural, before[0])


def test_the_batch_size_of_a_rule_is_given_back_even_after_an_error():
    model = network()
    optimizer = vb.optim.WindowedBayes(model.parameters(), lr=0.7, window=3, batch_size=2)
    active.learn(model, optimizer, Mask([True] * 3 + [False] * 2), X, lambda asked: Y[asked])
    assert [group.get("batch_size", 2) for group in optimizer.param_groups] == [2, 2]
    with pytest.raises(InputError, match="window"):
        active.learn(model, optimizer, Mask([True] * 5), X, lambda asked: Y[asked])
    assert [group.get("batch_size", 2) for group in optimizer.param_groups] == [2, 2]


CONCRETE = vb.posteriors.Bernoulli(estimator="concrete", relaxation=1.0, gradient="euclidean")
OPTIMIZERS = {
    "BayesBiNN": lambda p: vb.optim.BayesBiNN(p, lr=0.02, dataset_size=2000),
    "BiMU": lambda p: vb.optim.BiMU(p, lr=5.0, likelihood_multiplier=10.0, kl_multiplier=1.0, lr_max=0.1, memory=1000),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.05),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_learns(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 50, bias=False), nn.LayerNorm(50), vb.nn.Sign(), nn.Linear(50, 3))
    vb.binarize(model, CONCRETE if name == "BiMU" else None)
    optimizer, query, generator = OPTIMIZERS[name](model.parameters()), active.StreamQuery(budget=0.5), seeded(3)
    for _ in range(150):
        x = torch.randn(10, 6, generator=generator)
        y = x[:, :3].argmax(1)
        active.learn(model, optimizer, query, x, lambda asked, y=y: y[asked], num_samples=4)
    x = torch.randn(500, 6, generator=generator)
    found = (vb.predict(model, x, 10).labels == x[:, :3].argmax(1)).float().mean()
    assert found > 0.6
    assert query.labels_used <= 750


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m, o, q: active.learn(m.eval(), o, q, X, lambda a: Y[a]), "train mode"),
        (lambda m, o, q: active.learn(m, o, q, X, lambda a: Y[a], num_samples=0), "num_samples must be"),
        (lambda m, o, q: active.learn(m, o, q, X, lambda a: Y), "3 labels were asked for"),
        (lambda m, o, q: active.learn(m[0], o, q, X[0], lambda a: Y[a]), "must give N×C"),
    ],
)
def test_learning_that_means_nothing_is_refused(call, message):
    model = network()
    with pytest.raises(InputError, match=message):
        call(model, windowed(model), Mask([True, False, True, False, True]))


def test_a_parameter_that_is_frozen_stays_where_nothing_is_asked():
    model = network()
    model[0].natural.requires_grad_(False)
    before, rule = model[0].natural.detach().clone(), windowed(model)
    active.learn(model, rule, Mask([False] * 5), X, lambda asked: Y[asked], forget_skipped=True)
    assert torch.equal(model[0].natural, before)
    assert not torch.equal(model[-1].natural, network()[-1].natural)


def test_a_query_with_numpys_numbers_can_be_saved_and_read(tmp_path):
    query = active.StreamQuery(budget=np.float64(0.25), threshold=np.float64(0.5))
    query.ask(vb.Prediction(torch.full((2, 5, 3), 1 / 3)))
    torch.save(query.state_dict(), tmp_path / "query.pt")
    assert torch.load(tmp_path / "query.pt", weights_only=True) == query.state_dict()


@pytest.mark.parametrize("acquisition", ["bald", "variation_ratio"])
def test_one_network_disagrees_with_nobody_and_nothing_is_counted_or_trained(acquisition):
    query = active.StreamQuery(budget=0.5, acquisition=acquisition)
    with pytest.raises(InputError, match="nobody to disagree with"):
        query.ask(Prediction(torch.full((1, 5, 3), 1 / 3)))
    model = network().insert(2, nn.BatchNorm1d(20))
    before, optimizer = copy.deepcopy(model.state_dict()), windowed(model)
    model(X).sum().backward()
    model.load_state_dict(before)
    with pytest.raises(InputError, match="nobody to disagree with"):
        active.learn(model, optimizer, query, X, lambda asked: Y[asked], num_samples=1)
    assert query.state_dict()["seen"] == 0
    assert model[0].natural.grad is not None
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


class Noisy(nn.Module):
    """Draws by itself, where nobody can see it."""

    def forward(self, input):
        return input + torch.randn_like(input)


@pytest.mark.parametrize("acquisition", ["bald", "variation_ratio", "entropy"])
@pytest.mark.parametrize("noise", [None, nn.Dropout(0.5), Noisy()])
@pytest.mark.parametrize("posterior", [vb.posteriors.Point(), vb.posteriors.Bernoulli("mean")])
def test_networks_that_are_all_the_same_are_refused_for_scores_of_how_they_disagree(acquisition, noise, posterior):
    layers = [nn.Linear(6, 20, bias=False), nn.LayerNorm(20), *([noise] if noise else []), nn.Linear(20, 3)]
    model = vb.binarize(nn.Sequential(*layers), posterior)
    query = active.StreamQuery(threshold=0.0, acquisition=acquisition)
    optimizer, before = torch.optim.SGD(model.parameters(), lr=0.1), beliefs(model)
    if noise is not None or acquisition == "entropy":
        assert active.learn(model, optimizer, query, X, lambda asked: Y[asked]).all()
        return
    with pytest.raises(InputError, match=f"'{acquisition}' .* all 5 are the same one, .* or 'entropy'"):
        active.learn(model, optimizer, query, X, lambda asked: Y[asked])
    assert query.seen == 0
    assert all(torch.equal(a, b) for a, b in zip(before, beliefs(model), strict=True))


def test_one_network_is_asked_by_its_entropy():
    model, query = network(), active.StreamQuery(threshold=0.0, acquisition="entropy")
    asked = active.learn(model, windowed(model), query, X, lambda asked: Y[asked], num_samples=1)
    assert asked.all()


@pytest.mark.parametrize("broken", [torch.zeros(3, dtype=torch.uint8), "mt19937", torch.zeros(5056)])
def test_a_broken_generator_is_a_checkpoint_error_and_changes_nothing(broken):
    query = active.StreamQuery(budget=0.1, acquisition="random", generator=seeded())
    query.ask(votes([0.5] * 50))
    before = copy.deepcopy(query.state_dict())
    with pytest.raises(CheckpointError, match="the generator's state"):
        query.load_state_dict({**before, "seen": 60, "generator": broken})
    after = query.state_dict()
    assert torch.equal(after.pop("generator"), before.pop("generator"))
    assert after == before


def test_an_array_is_learned_from_as_its_tensor():
    one, other = network(), network()
    for model, inputs in ((one, X), (other, X.double().numpy())):
        torch.manual_seed(7)
        active.learn(model, windowed(model), Mask([True] * 5), inputs, lambda asked: Y[asked])
    for a, b in zip(beliefs(one), beliefs(other), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(InputError, match="one batch, a tensor or an array, got list"):
        active.learn(one, windowed(one), Mask([True] * 5), [X], lambda asked: Y[asked])
