"""What people do in a training loop works on beliefs as on any parameter."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, parametrize
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.data import DataLoader, TensorDataset

import varbnn as vb
from tests.torch_life.networks import assert_same, batch, bayes, gradients, normalised, plain, train_step
from varbnn.posteriors import Bernoulli, Point, belief_of

# --- gradient accumulation ---


def accumulate(model, parts, before_each=lambda: None):
    model.zero_grad()
    total = sum(len(y) for _, y in parts)
    for x, y in parts:
        before_each()
        (F.cross_entropy(model(x), y) * len(y) / total).backward()
    return gradients(model)


def parts_of(x, y, sizes=(5, 12, 7)):
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


@pytest.mark.parametrize("estimator", ["straight-through", "concrete"])
def test_accumulated_gradients_equal_one_big_batch_when_every_part_sees_the_same_draw(estimator):
    model = plain(Bernoulli(estimator=estimator)).double()
    x, y = batch()
    big = accumulate(model, [(x.double(), y)], lambda: torch.manual_seed(1))
    small = accumulate(model, parts_of(x.double(), y), lambda: torch.manual_seed(1))
    assert_same(small, big, rtol=1e-11, atol=1e-13)


def test_accumulated_gradients_equal_one_big_batch_for_a_point_which_draws_nothing():
    model = plain(Point()).double()
    x, y = batch()
    assert_same(
        accumulate(model, parts_of(x.double(), y)), accumulate(model, [(x.double(), y)]), rtol=1e-11, atol=1e-13
    )


def test_accumulated_gradients_equal_one_big_batch_in_eval_mode_with_batch_norm():
    model = normalised().double().eval()
    x, y = batch()
    assert_same(
        accumulate(model, parts_of(x.double(), y)), accumulate(model, [(x.double(), y)]), rtol=1e-11, atol=1e-13
    )


def test_accumulated_gradients_of_fresh_draws_are_the_mean_of_each_draws_own_natural_gradient():
    model = plain(Bernoulli(estimator="concrete")).double()
    x, y = batch()
    torch.manual_seed(2)
    together = accumulate(model, [(x.double(), y)] * 3)
    torch.manual_seed(2)
    own = [accumulate(model, [(x.double(), y)]) for _ in range(3)]
    assert not torch.equal(own[0]["0.natural"], own[1]["0.natural"])
    assert_same(together, {key: sum(g[key] for g in own) / 3 for key in together}, rtol=1e-11, atol=1e-13)


# --- clipping ---


def test_clip_grad_norm_scales_beliefs_and_real_parameters_together():
    model = normalised()
    optimizer = bayes(model, momentum=0.0)
    x, y = batch()
    F.cross_entropy(model(x), y).backward()
    raw, before = gradients(model), model[0].natural.detach().clone()
    norm = clip_grad_norm_(model.parameters(), 0.01)
    torch.testing.assert_close(norm, torch.cat([g.ravel() for g in raw.values()]).norm())
    optimizer.step()
    expected = 0.99 * before - 0.01 * 100 * raw["0.natural"] * 0.01 / (norm + 1e-6)
    torch.testing.assert_close(model[0].natural.detach(), expected)


def test_clip_grad_value_bounds_the_move_of_a_belief():
    model = plain()
    optimizer = bayes(model, momentum=0.0)
    x, y = batch()
    F.cross_entropy(model(x), y).backward()
    assert model[0].natural.grad.abs().max() > 1e-3
    before = model[0].natural.detach().clone()
    clip_grad_value_(model.parameters(), 1e-3)
    optimizer.step()
    assert (model[0].natural - 0.99 * before).abs().max() <= 0.01 * 100 * 1e-3 * 1.0001


# --- precision ---


def assert_beliefs_are_float32(model, optimizer):
    for p in optimizer.param_groups[0]["params"]:
        assert p.dtype == p.grad.dtype == torch.float32
        assert {v.dtype for v in optimizer.state[p].values()} == {torch.float32}


@pytest.mark.parametrize("posterior", [Bernoulli(), Bernoulli(estimator="concrete")], ids=repr)
def test_under_bfloat16_autocast_beliefs_gradients_and_state_stay_float32(posterior):
    model = normalised(posterior)
    optimizer = bayes(model)
    x, y = batch()
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model[0](x)
            assert outputs.dtype == torch.bfloat16
            loss = F.cross_entropy(model(x), y)
        assert torch.isfinite(loss)
        loss.backward()
        optimizer.step()
    assert_beliefs_are_float32(model, optimizer)


def test_in_a_bfloat16_model_beliefs_gradients_and_state_stay_float32():
    model = normalised().bfloat16()
    optimizer = bayes(model)
    x, y = batch()
    for _ in range(3):
        train_step(model, optimizer, x.bfloat16(), y)
    assert_beliefs_are_float32(model, optimizer)
    assert model[1].weight.dtype == torch.bfloat16


def test_a_grad_scaler_changes_nothing_but_skips_the_step_after_an_overflow():
    x, y = batch()
    runs = []
    for scaled in (False, True):
        torch.manual_seed(3)
        model = plain()
        optimizer = bayes(model)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=scaled)
        for _ in range(3):
            optimizer.zero_grad()
            scaler.scale(F.cross_entropy(model(x), y)).backward()
            scaler.step(optimizer)
            scaler.update()
        runs.append({name: p.detach() for name, p in model.named_parameters()})
    assert_same(runs[0], runs[1], rtol=1e-6, atol=1e-7)  # scaling by a power of two is exact but for subnormals

    optimizer.zero_grad()
    (scaler.scale(F.cross_entropy(model(x), y)) * float("inf")).backward()
    before = copy.deepcopy(runs[1])
    scaler.step(optimizer)
    scaler.update()
    assert_same({name: p.detach() for name, p in model.named_parameters()}, before)
    assert scaler.get_scale() == 2.0**9


# --- loaders, copies, averages ---


def test_a_loader_with_workers_gives_the_run_of_a_loader_without():
    data = TensorDataset(*batch(48))
    runs = []
    for workers in (0, 2):
        torch.manual_seed(4)
        model = normalised()
        optimizer = bayes(model)
        loader = DataLoader(data, batch_size=16, shuffle=True, num_workers=workers)
        runs.append([train_step(model, optimizer, x, y) for _ in range(2) for x, y in loader])
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))], ids=["deepcopy", "pickle"]
)
def test_a_copy_in_the_middle_of_training_continues_alike_and_on_its_own(copied):
    x, y = batch()
    model = normalised()
    optimizer = bayes(model)
    train_step(model, optimizer, x, y)
    other, other_optimizer = copied((model, optimizer))
    frozen = copy.deepcopy(model.state_dict())
    torch.manual_seed(5)
    losses = [train_step(other, other_optimizer, x, y) for _ in range(3)]
    assert_same(dict(model.state_dict()), dict(frozen))
    torch.manual_seed(5)
    assert [train_step(model, optimizer, x, y) for _ in range(3)] == losses
    assert all(belief_of(layer.natural) for layer in (other[0], other[3]))


@pytest.mark.parametrize("average", ["mean", "exponential"])
def test_an_averaged_model_averages_natural_parameters_and_stays_binary(average):
    x, y = batch()
    model = normalised()
    optimizer = bayes(model)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5) if average == "exponential" else None)
    seen = []
    for _ in range(3):
        train_step(model, optimizer, x, y)
        averaged.update_parameters(model)
        seen.append(model[0].natural.detach().clone())
    weights = [0.25, 0.25, 0.5] if average == "exponential" else [1 / 3] * 3
    expected = sum(w * s for w, s in zip(weights, seen, strict=True))
    torch.testing.assert_close(averaged.module[0].natural.detach(), expected)
    update_bn([x], averaged)
    averaged.eval()
    assert averaged.module[0].weight.abs().eq(1).all()
    assert torch.isfinite(averaged(x)).all()
    assert [g["kind"] for g in bayes(averaged).param_groups] == ["belief", "real"]


# --- other machinery on the same model ---


def test_a_parametrization_on_a_real_layer_and_on_a_bias_trains_beside_beliefs():
    class Doubled(nn.Module):
        def forward(self, value):
            return 2 * value

    model = vb.binarize(nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)), skip=["2"])
    parametrize.register_parametrization(model[2], "weight", Doubled())
    parametrize.register_parametrization(model[0], "bias", Doubled())
    optimizer = bayes(model)
    assert [(g["kind"], len(g["params"])) for g in optimizer.param_groups] == [("belief", 1), ("real", 3)]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train_step(model, optimizer, *batch())
    assert not any(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert model[0].weight.abs().eq(1).all()


def test_binarize_leaves_a_parametrized_layer_real():
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    nn.utils.parametrizations.weight_norm(model[2])
    vb.binarize(model)
    train_step(model, bayes(model), *batch())
    assert [name for name, _ in vb.nn.binary_layers(model)] == ["0"]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_functional_call_with_grad_gives_the_gradient_of_backward(training):
    model = plain(Bernoulli(estimator="concrete")).train(training)
    x, y = batch()

    def loss(parameters):
        return F.cross_entropy(torch.func.functional_call(model, parameters, (x,)), y)

    torch.manual_seed(6)
    functional = torch.func.grad(loss)(dict(model.named_parameters()))
    torch.manual_seed(6)
    F.cross_entropy(model(x), y).backward()
    assert_same(functional, gradients(model))
    assert functional["0.natural"].any()


def test_vmap_over_stacked_beliefs_draws_a_network_for_each():
    model = plain()
    stacked = {name: p.detach().expand(3, *p.shape) for name, p in model.named_parameters()}
    x, _ = batch()

    def outputs(randomness):
        return torch.func.vmap(lambda p: torch.func.functional_call(model, p, (x,)), randomness=randomness)(stacked)

    same, different = outputs("same"), outputs("different")
    assert torch.equal(same[0], same[1])
    assert not torch.equal(different[0], different[1])


def test_any_torch_optimizer_trains_beliefs():
    x, y = batch()
    for make in (torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop):
        model = normalised()
        optimizer = make(model.parameters(), lr=1e-2)
        before = model[0].natural.detach().clone()
        train_step(model, optimizer, x, y)
        assert not torch.equal(model[0].natural, before)


def test_lbfgs_sees_one_function_in_eval_mode():
    model = plain(Bernoulli(init_scale=1.0)).eval()
    x, y = batch()
    optimizer = torch.optim.LBFGS([model[0].bias, model[2].bias], max_iter=5)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    first = optimizer.step(closure)
    assert F.cross_entropy(model(x), y) < first


def test_a_replaced_parameter_is_still_a_belief():
    model = plain()
    model.load_state_dict(plain().state_dict(), assign=True)
    model[2].natural = nn.Parameter(torch.zeros_like(model[2].natural))
    optimizer = bayes(model)
    assert [(g["kind"], len(g["params"])) for g in optimizer.param_groups] == [("belief", 2), ("real", 2)]
