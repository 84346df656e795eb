"""refresh_batchnorm: statistics of the weights in use, and nothing else about the model changes."""

import numpy as np
import pytest
import torch
from torch import nn

import varbnn as vb
from varbnn.errors import InputError
from varbnn.nn import batchnorm_preserved


def network(**options):
    model = vb.binarize(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, **options), nn.Dropout(0.5), nn.Linear(6, 2)))
    for _ in range(3):
        model(torch.randn(9, 4))
    return model


def statistics(model):
    return {name: buffer.clone() for name, buffer in model[1].named_buffers()}


def pooled_statistics(model, batches):
    """Mean and unbiased variance of all batches together, in float64."""
    weight, bias = model[0].weight.detach().double().numpy(), model[0].bias.detach().double().numpy()
    hidden = torch.cat(batches).double().numpy() @ weight.T + bias
    return hidden.mean(0), hidden.var(0, ddof=1)


@pytest.mark.parametrize("sizes", [[50], [10, 10, 10], [30, 7, 2]], ids=str)
@pytest.mark.parametrize("momentum", [0.1, 0.9, None])
def test_statistics_are_those_of_all_batches_together(momentum, sizes):
    model = network(momentum=momentum).eval()
    batches = [3 * torch.randn(n, 4) + 1 for n in sizes]
    assert vb.refresh_batchnorm(model, batches) == sum(sizes)
    mean, variance = pooled_statistics(model, batches)
    np.testing.assert_allclose(model[1].running_mean, mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model[1].running_var, variance, rtol=1e-5)


def test_sorted_inputs_have_the_statistics_of_mixed_ones():
    model, x = network(), torch.arange(4000.0)[:, None].repeat(1, 4)
    mean, variance = pooled_statistics(model.eval(), [x])
    for data in (x, [x[:1000], x[1000:]]):
        vb.refresh_batchnorm(model, data)
        np.testing.assert_allclose(model[1].running_mean, mean, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(model[1].running_var, variance, rtol=1e-4, atol=1e-3)  # opposite signs give 0


def test_a_batch_norm_used_twice_pools_both_uses():
    norm = nn.BatchNorm1d(4, affine=False)
    model = vb.binarize(nn.Sequential(norm, nn.Linear(4, 4, bias=False), norm)).eval()
    x = 5 * torch.randn(60, 4) + 2
    vb.refresh_batchnorm(model, x)
    first = (x - x.mean(0)) / (x.var(0, correction=0) + norm.eps).sqrt()
    both = torch.cat([x, first @ model[1].weight.detach().T]).double()
    np.testing.assert_allclose(norm.running_mean, both.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.running_var, both.var(0), rtol=1e-4)


def test_inside_sampled_they_are_those_of_the_sample():
    model, x = network(), torch.randn(40, 4)
    with vb.sampled(model):
        vb.refresh_batchnorm(model, x)
        mean, variance = pooled_statistics(model, [x])
    np.testing.assert_allclose(model[1].running_mean, mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model[1].running_var, variance, rtol=1e-5)


def test_outside_sampled_they_are_those_of_the_mode_even_in_train_mode():
    model, x = network().train(), torch.randn(40, 4)
    vb.refresh_batchnorm(model, x)
    mean, _ = pooled_statistics(model.eval(), [x])
    np.testing.assert_allclose(model[1].running_mean, mean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("momentum", [0.3, None])
def test_options_counters_modes_and_parameters_stay(momentum):
    model = network(momentum=momentum, eps=1e-3)
    model[1].eval()
    modes = [m.training for m in model.modules()]
    parameters = [p.clone() for p in model.parameters()]
    count = model[1].num_batches_tracked.clone()
    vb.refresh_batchnorm(model, [torch.randn(8, 4), torch.randn(8, 4)])
    assert (model[1].momentum, model[1].eps) == (momentum, 1e-3)
    assert torch.equal(model[1].num_batches_tracked, count)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_refreshing_twice_is_refreshing_once():
    model, x = network(), torch.randn(20, 4)
    vb.refresh_batchnorm(model, x)
    first = statistics(model)
    vb.refresh_batchnorm(model, x)
    assert all(torch.equal(first[name], value) for name, value in statistics(model).items())


@pytest.mark.parametrize(
    "data",
    [
        lambda x: x.numpy(),
        lambda x: [x[:12], x[12:]],
        lambda x: [(x[:12], 0), [x[12:], 0]],
        lambda x: iter([x.numpy()[:12], x.numpy()[12:]]),
        lambda x: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x), batch_size=12),
    ],
    ids=["array", "list", "pairs", "iterator of arrays", "loader"],
)
def test_data_may_come_in_any_usual_form(data):
    model, x = network(), torch.randn(24, 4)
    assert vb.refresh_batchnorm(model, data(x)) == 24


def broken_loader():
    yield torch.randn(8, 4)
    raise OSError("disk")


@pytest.mark.parametrize(
    "data, error, match",
    [
        ([], InputError, "nothing"),
        (torch.zeros(0, 4), InputError, "empty"),
        ([torch.randn(8, 4), torch.zeros(0, 4)], InputError, "batch 1 is empty"),
        ([torch.randn(8, 4), torch.full((8, 4), torch.nan)], InputError, "batch 1 .* NaN"),
        ([torch.randn(8, 4), torch.full((8, 4), torch.inf)], InputError, "infinite"),
        ([torch.randn(8, 4), torch.randn(1, 4)], InputError, "batch of 1 has no variance"),
        ([{"x": torch.randn(8, 4)}], InputError, "dict"),
        ([torch.randn(8, 4), torch.randn(8, 5)], RuntimeError, "shapes"),
        (broken_loader(), OSError, "disk"),
    ],
    ids=["nothing", "empty", "second empty", "nan", "inf", "single", "dict", "shape", "loader fails"],
)
def test_a_failure_leaves_the_model_as_it_was(data, error, match):
    model = network(momentum=0.3)
    before, modes = statistics(model), [m.training for m in model.modules()]
    with pytest.raises(error, match=match):
        vb.refresh_batchnorm(model, data)
    assert all(torch.equal(before[name], value) for name, value in statistics(model).items())
    assert [m.training for m in model.modules()] == modes
    assert model[1].momentum == 0.3


@pytest.mark.parametrize("size", [1e20, 3e38], ids=["its square overflows", "it overflows"])
def test_an_overflow_before_a_batch_norm_is_told_and_changes_nothing(size):
    model = vb.binarize(nn.Sequential(*network(), nn.BatchNorm1d(2)))
    model(torch.randn(9, 4))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with pytest.raises(InputError, match="too large for their precision"):
        vb.refresh_batchnorm(model, torch.cat([torch.randn(20, 4), torch.full((1, 4), size)]))
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_statistics_that_an_overflow_in_training_broke_are_mended():
    model = network()
    model(torch.full((9, 4), 3e38) * torch.randn(9, 4))
    assert not model[1].running_var.isfinite().all()
    x = torch.randn(50, 4)
    vb.refresh_batchnorm(model, x)
    mean, _ = pooled_statistics(model.eval(), [x])
    np.testing.assert_allclose(model[1].running_mean, mean, rtol=1e-4, atol=1e-5)


def test_a_single_image_has_a_variance_and_is_accepted():
    model = vb.binarize(nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)))
    assert vb.refresh_batchnorm(model, torch.randn(1, 1, 8, 8)) == 1


def test_a_batchnorm_that_the_forward_does_not_reach_keeps_its_statistics():
    class WithAuxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.main, self.auxiliary = nn.Linear(4, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3)

        def forward(self, x):
            hidden = self.body(x)
            return (self.main(hidden), self.auxiliary(hidden)) if self.training else self.main(hidden)

    model = vb.binarize(WithAuxiliary())
    for _ in range(3):
        model(torch.randn(9, 4) + 2)
    before = model.auxiliary.running_mean.clone(), model.auxiliary.running_var.clone()
    vb.refresh_batchnorm(model, torch.randn(9, 4))
    assert torch.equal(model.auxiliary.running_mean, before[0])
    assert torch.equal(model.auxiliary.running_var, before[1])


def test_models_without_running_statistics_are_left_alone():
    model = vb.binarize(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)))
    assert vb.refresh_batchnorm(model, torch.randn(9, 4)) == 9
    assert model[1].running_mean is None


def test_preserved_statistics_come_back_also_after_an_exception():
    model = network()
    before = statistics(model)

    def refresh_and_fail():
        with batchnorm_preserved(model):
            vb.refresh_batchnorm(model, torch.randn(20, 4))
            assert not torch.equal(before["running_mean"], model[1].running_mean)
            raise KeyError

    with pytest.raises(KeyError):
        refresh_and_fail()
    assert all(torch.equal(before[name], value) for name, value in statistics(model).items())


def test_an_array_takes_the_precision_of_the_model():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    inputs = np.random.default_rng(0).normal(size=(50, 4))  # float64, as numpy makes them
    assert vb.refresh_batchnorm(model, inputs) == 50
    from_array = model[1].running_mean.clone()
    vb.refresh_batchnorm(model, torch.from_numpy(inputs).float())
    assert torch.equal(model[1].running_mean, from_array)


def test_batches_of_arrays_take_the_precision_of_the_model():
    torch.manual_seed(0)
    model = vb.binarize(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)))
    x = np.random.default_rng(0).standard_normal((20, 6))
    vb.refresh_batchnorm(model, x)
    expected = model[1].running_mean.clone()
    vb.refresh_batchnorm(model, [x[:10], x[10:]])
    torch.testing.assert_close(model[1].running_mean, expected)
    found = vb.predict(
        model, [x[:10], x[10:]], 2, refresh_bn=[x], task="regression", generator=torch.Generator().manual_seed(0)
    )
    whole = vb.predict(model, x, 2, refresh_bn=x, task="regression", generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.means, whole.means)


@pytest.mark.parametrize("refresh", [vb.refresh_batchnorm, lambda model, data: vb.freeze(model, refresh_bn=data)])
def test_a_dataset_is_no_loader(refresh):
    with pytest.raises(InputError, match=r"wrap it: DataLoader\(data, batch_size=256\)"):
        refresh(network(), torch.utils.data.TensorDataset(torch.randn(10, 4)))


def test_statistics_of_nan_are_no_matter_of_large_inputs():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    with torch.no_grad():
        model[0].bias[1] = torch.nan
    with pytest.raises(InputError, match="NaN or infinite, though the inputs are finite"):
        vb.refresh_batchnorm(model, torch.randn(8, 4))


class Frozen(nn.Sequential):
    def train(self, mode=True):
        return super().train(False)


def test_frozen_batch_norms_are_left_as_they_are_by_refresh_and_by_pack():
    torch.manual_seed(0)
    own = nn.BatchNorm1d(4)
    own.running_mean += 0.5
    own.running_var *= 3
    model = vb.binarize(nn.Sequential(Frozen(own), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)))
    x = torch.randn(64, 4)
    packed = vb.pack(model, 0, refresh_bn=x)
    vb.refresh_batchnorm(model, x)
    assert own.running_mean.tolist() == [0.5] * 4
    assert own.running_var.tolist() == [3] * 4
    normed = model.eval()[1](own(x))
    torch.testing.assert_close(model[2].running_mean, normed.mean(0).detach())
    torch.testing.assert_close(packed(x)[0], model(x), rtol=1e-4, atol=1e-4)
