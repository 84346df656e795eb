"""predict: the loop over held draws, what it leaves behind (nothing), and what it refuses."""

from __future__ import annotations

import importlib
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

import varbnn as vb
from tests.predict.allocations import allocations
from varbnn.errors import InputError, VarbnnWarning
from varbnn.predict import Prediction, RegressionPrediction, calibration_test, predict, risk_coverage
from varbnn.predict.inputs import RepeatedInputs

X = torch.randn(23, 4, generator=torch.Generator().manual_seed(1))
TRAIN = torch.randn(64, 4, generator=torch.Generator().manual_seed(2)) * 2 + 1


def with_batchnorm(classes: int = 3, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, classes)]
    return vb.binarize(nn.Sequential(*layers).to(dtype))


def without_batchnorm(outputs: int = 3) -> nn.Module:
    torch.manual_seed(3)
    return vb.binarize(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, outputs)))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def state_of(model: nn.Module) -> dict[str, object]:
    """All that predict could leave changed in a model."""
    return {
        "training": [module.training for module in model.modules()],
        "tensors": {name: value.clone() for name, value in model.state_dict().items()},
        "momentum": [module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm1d)],
        "gradients": [parameter.grad for parameter in model.parameters()],
        "trainable": [parameter.requires_grad for parameter in model.parameters()],
        "held": [layer._held for _, layer in vb.nn.binary_layers(model)],
    }


def assert_unchanged(model: nn.Module, before: dict[str, object]) -> None:
    torch.testing.assert_close(state_of(model), before, rtol=0, atol=0)


# --- what it computes ---


def test_it_is_the_loop_over_held_draws_with_their_own_batchnorm_statistics():
    model = with_batchnorm()
    found = predict(model, X, 5, refresh_bn=TRAIN, generator=seeded())
    generator, expected = seeded(), []
    model.eval()
    for _ in range(5):
        with vb.sampled(model, generator), torch.no_grad():
            vb.refresh_batchnorm(model, TRAIN)
            expected.append(model(X).softmax(-1))
    assert torch.equal(found.probs, torch.stack(expected))
    assert found.epistemic.max() > 0.01  # the draws did differ


def test_no_samples_is_the_mode_as_one_sample():
    model = with_batchnorm().train()
    with pytest.warns(VarbnnWarning, match="refresh_bn"):
        found = predict(model, X, num_samples=0)
    assert torch.equal(found.probs, model.eval()(X).softmax(-1)[None].detach())


def test_the_mode_has_its_own_batchnorm_statistics_too():
    model = with_batchnorm()
    found = predict(model, X, num_samples=0, refresh_bn=TRAIN)
    vb.refresh_batchnorm(model, TRAIN)
    assert torch.equal(found.probs[0], model.eval()(X).softmax(-1).detach())


def test_the_same_seed_gives_the_same_prediction_bit_for_bit():
    model = with_batchnorm()
    shuffled = DataLoader(TensorDataset(TRAIN, torch.zeros(64)), batch_size=16, shuffle=True)
    first, second, other = (predict(model, X, 3, refresh_bn=shuffled, generator=seeded(s)).probs for s in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_without_a_generator_torchs_global_one_decides():
    model = without_batchnorm()
    torch.manual_seed(5)
    first, second = predict(model, X, 3).probs, predict(model, X, 3).probs
    torch.manual_seed(5)
    assert torch.equal(predict(model, X, 3).probs, first)
    assert not torch.equal(first, second)


def test_more_samples_begin_with_the_same_networks():
    model = without_batchnorm()
    few, many = (predict(model, X, s, generator=seeded()).probs for s in (2, 5))
    assert torch.equal(many[:2], few)


@pytest.mark.parametrize(
    "inputs",
    [
        X.numpy(),
        X.double().numpy(),
        list(X.split(10)),
        [x.numpy() for x in X.split(10)],
        DataLoader(X, batch_size=10),
        DataLoader(TensorDataset(X, torch.zeros(23)), batch_size=10),
    ],
    ids=["array", "float64 array", "list", "list of arrays", "loader of x", "loader of (x, y)"],
)
def test_tensors_arrays_and_loaders_are_the_same_inputs(inputs):
    model = without_batchnorm()
    expected = predict(model, X, 3, batch_size=10, generator=seeded()).probs
    assert torch.equal(predict(model, inputs, 3, batch_size=10, generator=seeded()).probs, expected)


@pytest.mark.parametrize("batch_size", [1, 7, 23, 1000])
def test_the_batch_size_does_not_change_the_prediction(batch_size):
    model = with_batchnorm()
    expected = predict(model, X, 3, refresh_bn=TRAIN, generator=seeded()).probs
    found = predict(model, X, 3, refresh_bn=TRAIN, batch_size=batch_size, generator=seeded()).probs
    torch.testing.assert_close(found, expected)  # matrix products round differently by size


def test_every_sample_of_an_input_comes_from_that_input():
    model = without_batchnorm()
    whole = predict(model, X, 4, batch_size=5, generator=seeded())
    alone = predict(model, X[17:18], 4, generator=seeded())
    torch.testing.assert_close(whole[17].probs, alone.probs)


def test_real_outputs_become_means():
    model = without_batchnorm(outputs=2)
    found = predict(model, X, 4, task="regression", noise_variance=0.5, generator=seeded())
    generator = seeded()
    with torch.no_grad():
        for sample in found.means:
            with vb.sampled(model, generator):
                assert torch.equal(sample, model(X))
    assert isinstance(found, RegressionPrediction)
    assert found.aleatoric.unique().item() == 0.5


def test_a_regression_model_may_drop_its_last_axis():
    model = nn.Sequential(without_batchnorm(outputs=1), nn.Flatten(0))
    assert predict(model, X, 2, task="regression").means.shape == (2, 23)


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_precision_is_the_models_whatever_the_default(default, dtype):
    model = with_batchnorm(dtype=dtype)
    torch.set_default_dtype(default)
    try:
        found = predict(model, X.numpy(), 2, refresh_bn=TRAIN.numpy())
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.probs.dtype == dtype


def test_half_precision_logits_are_normalised_in_float32():
    model = without_batchnorm().to(torch.bfloat16)
    found = predict(model, X.to(torch.bfloat16), 2)
    assert found.probs.dtype == torch.float32
    torch.testing.assert_close(found.probs.sum(-1), torch.ones(2, 23))


def test_labels_as_inputs_are_fine_where_the_model_embeds_them():
    model = nn.Sequential(nn.Embedding(10, 4), without_batchnorm())
    assert predict(model, DataLoader(torch.arange(10), batch_size=4), 2).probs.shape == (2, 10, 3)


def test_the_progress_bar_shows_only_on_request(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    predict(without_batchnorm(), X, 2)
    assert capsys.readouterr().err == ""
    predict(without_batchnorm(), X, 2, progress=True)
    assert "sampled networks" in capsys.readouterr().err


# --- what it leaves behind ---


def mixed(model: nn.Module) -> nn.Module:
    """Train mode with one frozen part, a flag pattern that neither train() nor eval() would bring back."""
    model.train()[1].eval()
    model[4].bias.requires_grad_(False)
    return model


@pytest.mark.parametrize("num_samples", [0, 3])
@pytest.mark.parametrize("refresh", [TRAIN, None], ids=["refresh", "keep"])
@pytest.mark.filterwarnings("ignore::varbnn.errors.VarbnnWarning")
def test_the_model_comes_out_as_it_went_in(num_samples, refresh):
    model = mixed(with_batchnorm())
    before = state_of(model)
    predict(model, X, num_samples, refresh_bn=refresh)
    assert_unchanged(model, before)


class Interruption(Exception):
    pass


@pytest.mark.parametrize("error", [Interruption, KeyboardInterrupt])
@pytest.mark.parametrize("call", [1, 2, 4, 7])  # of the forward passes: refresh, predict, predict, refresh, ...
def test_the_model_comes_out_as_it_went_in_also_after_an_interruption(error, call):
    model = mixed(with_batchnorm())
    before, calls = state_of(model), []

    def interrupt(*_):
        calls.append(1)
        if len(calls) == call:
            raise error

    handle = model[4].register_forward_hook(interrupt)
    global_state = torch.get_rng_state()
    with pytest.raises(error):
        predict(model, X, 3, refresh_bn=TRAIN, batch_size=12, generator=seeded())
    handle.remove()
    assert len(calls) == call
    assert_unchanged(model, before)
    assert torch.equal(torch.get_rng_state(), global_state)
    assert torch.is_grad_enabled()


def test_a_draw_that_the_caller_holds_is_still_held_afterwards():
    model = without_batchnorm()
    with vb.sampled(model):
        before = model(X)
        predict(model, X, 2)
        assert torch.equal(model(X), before)


def test_with_a_generator_the_global_one_is_left_alone():
    model, shuffled = with_batchnorm(), DataLoader(TRAIN, batch_size=16, shuffle=True)
    before = torch.get_rng_state()
    predict(model, DataLoader(X, batch_size=5), 2, refresh_bn=shuffled, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_generator_moves_on_so_that_the_next_prediction_has_other_networks():
    model, generator = without_batchnorm(), seeded()
    first, second = (predict(model, X, 2, generator=generator).probs for _ in range(2))
    assert not torch.equal(first, second)


def test_threads_that_ask_the_same_model_get_what_each_would_alone():
    model, x = vb.binarize(nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 3))), torch.randn(50, 20)

    around = nn.Sequential(model, nn.Identity())  # as torch.compile and DDP are

    def ask(seed: int) -> torch.Tensor:
        return predict(around if seed % 2 else model, x, 7, generator=torch.Generator().manual_seed(seed)).probs

    alone = [ask(seed) for seed in range(16)]
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-5)
        with ThreadPoolExecutor(8) as threads:
            together = list(threads.map(ask, range(16)))
    finally:
        sys.setswitchinterval(before)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert model.training
    assert not torch.equal(model(x), model(x)), "a draw is still held"


def test_results_carry_no_gradient_and_lie_on_the_cpu():
    found = predict(without_batchnorm(), X, 2)
    assert not found.probs.requires_grad
    assert found.probs.device.type == "cpu"


@pytest.mark.parametrize("inputs", ["tensor", "loader"])
def test_the_result_is_the_only_large_array(inputs):
    model, x = without_batchnorm(outputs=10), torch.randn(200, 4)
    data = x if inputs == "tensor" else DataLoader(x, batch_size=50)
    predict(model, data, 2)
    result = 16 * 200 * 10 * 4
    large = [size for size in allocations(lambda: predict(model, data, 16, batch_size=50)) if size > result // 8]
    assert large == [result]  # N×C is result // 16


# --- batch norm without its statistics ---


def test_batchnorm_without_fresh_statistics_warns_once_and_says_what_to_pass():
    with pytest.warns(VarbnnWarning, match="pass refresh_bn=") as caught:
        predict(with_batchnorm(), X, 5)
    assert len(caught) == 1
    assert caught[0].filename == __file__  # points at the caller


@pytest.mark.parametrize(
    "model, options",
    [
        (with_batchnorm(), dict(refresh_bn=TRAIN)),
        (vb.binarize(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), vb.posteriors.Point()), dict(num_samples=0)),
        (without_batchnorm(), {}),
        (without_batchnorm(), dict(refresh_bn=TRAIN)),
        (vb.binarize(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False))), {}),
    ],
)
def test_nothing_else_warns(model, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict(model, X, **options)


# --- what it refuses ---


class Changing:
    """A loader whose passes differ: `passes[i]` is what pass i yields, the last one for ever."""

    def __init__(self, *passes):
        self.passes, self.count = passes, 0

    def __iter__(self):
        self.count += 1
        return iter(self.passes[min(self.count, len(self.passes)) - 1])


BROKEN = X.clone()
BROKEN[7, 2] = torch.nan
INFINITE = X.clone()
INFINITE[7, 2] = torch.inf


@pytest.mark.parametrize(
    "inputs, message",
    [
        (X[:0], "no example|empty"),
        ([], "no example"),
        ([X, X[:0]], "batch 1 is empty"),
        (BROKEN, "NaN or infinite"),
        (INFINITE, "NaN or infinite"),
        ([X, BROKEN], "batch 1 .*NaN or infinite"),
        (iter([X]), "used up after one pass"),
        ((x for x in [X]), "used up after one pass"),
        ((X, torch.zeros(23)), "got tuple"),
        ({"x": X}, "got dict"),
        ("digits", "got str"),
        (None, "got NoneType"),
        (TensorDataset(X), "DataLoader"),
        ([["a"]], "give tensors"),
        (Changing([X], [X[:20]]), "23 inputs on the first pass and 20 on a later one"),
        (Changing([X], [X, X]), "23 inputs on the first pass and more on a later one"),
        (Changing([X], []), "23 inputs on the first pass and 0 on a later one"),
        (Changing([X], [X.flip(0)]), "another order"),
        (Changing([X], [X + 0.1 * torch.randn_like(X)]), "random augmentation"),
        (DataLoader(X, batch_size=23, shuffle=True), "shuffle=False"),
    ],
)
def test_inputs_that_cannot_be_predicted_are_refused_and_the_model_stays(inputs, message):
    model = mixed(with_batchnorm())
    before = state_of(model)
    with pytest.raises(InputError, match=message):
        predict(model, inputs, 3, refresh_bn=TRAIN, generator=seeded())
    assert_unchanged(model, before)


@pytest.mark.parametrize("num_samples", [0, 1])
def test_an_iterator_is_enough_for_one_pass(num_samples):
    found = predict(with_batchnorm(), iter(X.split(10)), num_samples, refresh_bn=iter([TRAIN]), generator=seeded())
    expected = predict(with_batchnorm(), X, num_samples, batch_size=10, refresh_bn=TRAIN, generator=seeded())
    assert torch.equal(found.probs, expected.probs)


@pytest.mark.parametrize(
    "refresh_bn, message",
    [
        ([], "nothing to re-estimate"),
        (iter([TRAIN]), "refresh_bn is used up after one pass"),
        ([TRAIN * torch.nan], "NaN or infinite"),
        ((TRAIN, TRAIN), "refresh_bn must be .* got tuple"),
        (TensorDataset(TRAIN), "DataLoader"),
        (Changing([TRAIN], []), "nothing to re-estimate"),
    ],
)
def test_data_that_cannot_refresh_batchnorm_is_refused_and_the_model_stays(refresh_bn, message):
    model = mixed(with_batchnorm())
    before = state_of(model)
    with pytest.raises(InputError, match=message):
        predict(model, X, 3, refresh_bn=refresh_bn)
    assert_unchanged(model, before)


class Returning(nn.Module):
    """A binary layer, and an output that the test chooses."""

    def __init__(self, output):
        super().__init__()
        self.layer = vb.nn.BinaryLinear(4, 3)
        self.output = output

    def forward(self, x):
        return self.output(self.layer(x))


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize(
    "output, message",
    [
        (lambda z: z * torch.nan, "outputs hold NaN or inf"),
        (lambda z: z / 0, "outputs hold NaN or inf"),
        (lambda z: z[None], "one row per input, 23 here"),
        (lambda z: z[:-1], "one row per input"),
        (lambda z: z.sum(), "one row per input"),
        (lambda z: (z, z), "got tuple"),
        (lambda z: z[:, None, :].repeat(1, 2, 1), r"got \(23, 2, 3\)"),
    ],
)
def test_outputs_that_mean_nothing_are_refused(output, message, task):
    with pytest.raises(InputError, match=message):
        predict(Returning(output), X, 2, task=task)


@pytest.mark.parametrize("output", [lambda z: z[:, :1], lambda z: z[:, 0]])
def test_a_single_logit_is_refused_with_the_way_to_write_it(output):
    with pytest.raises(InputError, match="two columns 0, z"):
        predict(Returning(output), X, 2)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(num_samples=-1), "num_samples must be a whole number ≥ 0"),
        (dict(num_samples=2.5), "num_samples must be"),
        (dict(num_samples=True), "num_samples must be"),
        (dict(batch_size=0), "batch_size must be a whole number ≥ 1"),
        (dict(batch_size=2.0), "batch_size must be"),
        (dict(task="ranking"), "'classification', 'regression' or 'gaussian', got 'ranking'"),
        (dict(noise_variance=1.0), "belongs to task='regression'"),
        (dict(task="regression", noise_variance=-1.0), "must be > 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        predict(without_batchnorm(), X, **options)


def test_a_model_without_binary_layers_has_nothing_to_sample():
    model = nn.Linear(4, 3)
    with pytest.raises(InputError, match=r"varbnn.binarize\(model\) first, or pass num_samples=0"):
        predict(model, X)
    assert isinstance(predict(model, X, num_samples=0), Prediction)


@pytest.mark.parametrize("data", [X, [X], X.numpy()], ids=["tensor", "loader", "array"])
@pytest.mark.parametrize("device, expected", [(None, "meta"), ("cpu", "cpu")])
def test_inputs_go_where_the_model_is_unless_another_device_is_named(data, device, expected):
    model = without_batchnorm().to("meta")
    batches = RepeatedInputs(data, model, batch_size=10, num_passes=1, device=device).one_pass()
    assert {batch.device.type for batch in batches} == {expected}


def test_bool_and_integer_arrays_keep_their_type():
    model = Returning(lambda z: z)
    model.layer.register_forward_pre_hook(lambda _, args: (args[0].float(),))
    inputs = np.arange(12).reshape(3, 4)
    assert torch.equal(
        predict(model, inputs, 2, generator=seeded()).probs,
        predict(model, torch.tensor(inputs).float(), 2, generator=seeded()).probs,
    )


def shuffled(x, how):
    if how == "one-hot":
        return torch.eye(8)[torch.arange(64) % 8]
    return x.softmax(1)  # rows that sum to 1


@pytest.mark.parametrize("how", ["probabilities", "one-hot"])
def test_a_shuffled_loader_is_noticed_though_all_rows_have_the_same_sum(how):
    x = shuffled(torch.randn(64, 8, generator=torch.Generator().manual_seed(0)), how)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=16, shuffle=True)
    with pytest.raises(InputError, match="another order"):
        vb.predict(vb.binarize(nn.Sequential(nn.Linear(8, 3))), loader, 4)


def test_flips_of_images_are_noticed():
    images = torch.rand(32, 1, 4, 4, generator=torch.Generator().manual_seed(0))

    class Flipping(torch.utils.data.Dataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return images[index].flip(-1) if torch.rand(()) < 0.5 else images[index]

    loader = torch.utils.data.DataLoader(Flipping(), batch_size=8)
    with pytest.raises(InputError, match="random augmentation"):
        vb.predict(vb.binarize(nn.Sequential(nn.Flatten(), nn.Linear(16, 3))), loader, 4)


@pytest.mark.parametrize("width", [8, 2048])
def test_statistics_are_warned_of_once(width):
    """The wide one takes the packed road."""
    model = vb.binarize(nn.Sequential(nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3)))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        vb.predict(model, torch.randn(20, 64), 16)
    assert [str(w.message)[:25] for w in seen] == ["this model has batch norm"]
    assert seen[0].filename == __file__


def test_packed_networks_are_asked_in_batches_and_measured():
    torch.manual_seed(0)
    model = vb.binarize(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)))
    packed, x = vb.pack(model, 5), torch.randn(20, 4)
    expected = packed(x).softmax(-1)
    torch.testing.assert_close(vb.predict(packed, x, batch_size=6).probs, expected)
    torch.testing.assert_close(vb.predict(packed, [x[:8], x[8:]]).probs, expected)
    torch.testing.assert_close(vb.predict(packed, iter([x[:8], x[8:]])).probs, expected)
    assert vb.predict(packed, x, task="regression").mean.shape == (20, 3)
    with pytest.raises(InputError, match=r"varbnn\.pack\(model, 0\)"):
        vb.predict(packed, x, num_samples=0)
    with pytest.raises(InputError, match=r"give refresh_bn to varbnn\.pack"):
        vb.predict(packed, x, refresh_bn=x)
    with pytest.raises(InputError, match=r"AveragePrediction; .*varbnn.predict\(packed, x\)"):
        vb.TemperatureScaling().fit(packed(x, reduce="mean"), torch.zeros(20, dtype=torch.int64))
    assert repr(packed(x, reduce="mean")) == "AveragePrediction(20 inputs × 3 classes)"


def test_an_opened_file_is_asked_as_its_networks(tmp_path):
    packed, x = vb.pack(vb.binarize(nn.Linear(4, 3)), 5), torch.randn(20, 4)
    packed.save(tmp_path / "a.vbnn")
    with vb.Predictor(tmp_path / "a.vbnn") as predictor:
        assert torch.equal(vb.predict(predictor, x).probs, vb.predict(packed, x).probs)


def test_probabilities_where_logits_belong_earn_a_warning():
    torch.manual_seed(0)
    model = vb.binarize(nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1)))
    with pytest.warns(VarbnnWarning, match="look like probabilities") as caught:
        vb.predict(model, torch.randn(8, 4), 2)
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vb.predict(vb.binarize(nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(-1))), torch.randn(8, 4), 2)


def test_several_labels_for_an_input_are_refused_with_the_way_out():
    with pytest.raises(InputError, match=r"one label for each input.*varbnn.sampled"):
        vb.predict(vb.binarize(nn.Linear(4, 3)), torch.randn(8, 5, 4), 2)


class Shuffled:
    """A loader of somebody's own, with another order in every pass."""

    def __iter__(self):
        return iter(X[torch.randperm(23)].split(10))


LOADERS = {
    "shuffle": lambda: DataLoader(X, batch_size=4, shuffle=True),
    "random sampler": lambda: DataLoader(X, sampler=RandomSampler(X)),
    "batch sampler": lambda: DataLoader(X, batch_sampler=BatchSampler(RandomSampler(X), 4, drop_last=False)),
    "own": Shuffled,
}


@pytest.mark.parametrize("num_samples", [0, 1])
@pytest.mark.parametrize("kind", LOADERS)
def test_a_shuffling_loader_is_refused_for_one_network_too(kind, num_samples):
    with pytest.raises(InputError, match="shuffle=False"):
        predict(without_batchnorm(), LOADERS[kind](), num_samples)


@pytest.mark.parametrize(
    "data", [DataLoader(X, batch_size=4), list(X.split(4)), iter(X.split(4))], ids=["loader", "list", "iterator"]
)
def test_what_keeps_its_order_is_gone_through_once(monkeypatch, data):
    monkeypatch.setattr(RepeatedInputs, "check_again", lambda self: pytest.fail("a second pass"))
    torch.testing.assert_close(predict(without_batchnorm(), data, 0).probs, predict(without_batchnorm(), X, 0).probs)


def test_the_mode_is_the_mode_inside_sampled_too():
    model = with_batchnorm()
    expected = predict(model, X, 0, refresh_bn=TRAIN).probs
    with vb.sampled(model):
        held = model[0].weight
        assert torch.equal(predict(model, X, 0, refresh_bn=TRAIN).probs, expected)
        assert model[0].weight is held


@pytest.mark.parametrize("wrapped", [False, True])
def test_arrays_that_torch_cannot_share_are_copied_without_a_word(wrapped):
    model = without_batchnorm()
    expected = predict(model, X, 0).probs
    frozen = X.numpy().copy()
    frozen.flags.writeable = False
    backwards, swapped = X.numpy()[::-1].copy()[::-1], X.numpy().astype(">f4")
    for array in (frozen, backwards, swapped):
        assert torch.equal(predict(model, [array] if wrapped else array, 0).probs, expected)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64])
def test_whole_numbers_and_truths_keep_their_type(dtype):
    array, seen = np.ones((3, 4), dtype), []
    array.flags.writeable = False
    model = without_batchnorm()
    model.register_forward_pre_hook(lambda module, given: seen.append(given[0].dtype) or (given[0].float(),))
    predict(model, array, 0)
    assert set(seen) == {torch.from_numpy(np.ones(1, dtype)).dtype}


@pytest.mark.parametrize("array", [np.array([["a", "b"]]), np.array([[1.0, None]], dtype=object)], ids=str)
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_array_of_no_numbers_is_refused(array, wrapped):
    with pytest.raises(InputError, match=r"(inputs|batch 0) must be a tensor, an array or nested lists of numbers"):
        predict(without_batchnorm(), [array] if wrapped else array, 2)


@pytest.mark.parametrize("packs", [False, True])
@pytest.mark.parametrize("kind", ["tensor", "array", "loader", "refresh_bn"])
def test_inputs_of_another_precision_are_cast_whatever_way_networks_are_asked(kind, packs, monkeypatch):
    torch.manual_seed(0)
    model = vb.binarize(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)))
    x, train = torch.randn(20, 6), torch.randn(50, 6)
    monkeypatch.setattr(
        importlib.import_module("varbnn.predict.average"), "reason_for_loop", lambda *_: None if packs else "asked to"
    )
    want = vb.predict(model, x, 4, refresh_bn=train, generator=torch.Generator().manual_seed(1))
    given = {"tensor": x.double(), "array": x.double().numpy(), "loader": list(x.double().split(7))}.get(kind, x)
    wide = train.double() if kind == "refresh_bn" else train
    found = vb.predict(model, given, 4, refresh_bn=wide, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found.probs, want.probs)


def test_an_average_is_measured_as_the_samples_it_is_of():
    torch.manual_seed(0)
    model = vb.binarize(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)))
    packed, x, y = vb.pack(model, 5), torch.randn(40, 4), torch.arange(40) % 3
    whole, average = vb.predict(packed, x), packed(x, reduce="mean")
    far, far_average = vb.predict(packed, 3 * x), packed(3 * x, reduce="mean")
    assert (len(average), average.num_samples, average.num_classes) == (40, 5, 3)
    assert torch.equal(average.labels, whole.labels)
    torch.testing.assert_close(average.confidence, whole.confidence)
    assert vb.evaluate(average, y, far_average) == pytest.approx(vb.evaluate(whole, y, far), abs=1e-5)
    for score in ("total", "epistemic", "confidence"):
        found, expected = (risk_coverage(p, y, score=score) for p in (average, whole))
        assert found.area == pytest.approx(expected.area, abs=1e-6)
    first, second = (torch.Generator().manual_seed(0) for _ in range(2))
    found, expected = (calibration_test(p, y, generator=g) for p, g in ((average, first), (whole, second)))
    assert found.ece == pytest.approx(expected.ece, abs=1e-6)
    with pytest.raises(InputError, match="one network has nobody"):
        vb.evaluate(vb.pack(model, 1)(x, reduce="mean"), y, far_average, score="epistemic")


@pytest.mark.parametrize(
    "inputs, options, message",
    [
        (torch.tensor(1.0), {}, "inputs along the first axis, got a single number"),
        (np.array(1.0), {}, "inputs along the first axis, got a single number"),
        ([torch.tensor(1.0)], {}, "batch 0 must have its inputs along the first axis"),
        (torch.ones(5, 4, device="meta"), {}, "inputs must be dense numbers, got a tensor that is on the meta device"),
        (torch.ones(5, 4).to_sparse(), {}, "inputs must be dense .* torch.sparse_coo; give it .to_dense()"),
        ([torch.ones(5, 4).to_sparse()], {}, "batch 0 must be dense .* torch.sparse_coo"),
        (torch.ones(5, 4), {"refresh_bn": torch.tensor(1.0)}, "refresh_bn must have its inputs along the first axis"),
        (torch.ones(5, 4), {"refresh_bn": torch.ones(5, 4).to_sparse()}, "refresh_bn must be dense"),
        (torch.ones(5, 4), {"generator": 0}, "generator must be a torch.Generator or None, got 0"),
        (torch.ones(5, 4), {"task": ["x"]}, r"task must be .*, got \['x'\]"),
        (torch.ones(5, 4, dtype=torch.int64), {}, r"fails on inputs of torch.int64; .* call .float\(\)"),
        ([np.ones((5, 4), dtype=np.uint8)], {}, r"fails on inputs of torch.uint8; .* call .float\(\)"),
        (torch.ones(5, 4), {"refresh_bn": torch.ones(5, 4, dtype=torch.bool)}, r"fails on inputs of torch.bool"),
    ],
)
@pytest.mark.parametrize("num_samples", [0, 3])
def test_what_torch_would_stumble_over_is_refused_by_name(inputs, options, message, num_samples):
    model = vb.binarize(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)))
    with pytest.raises(InputError, match=message):
        predict(model, inputs, num_samples, **{"refresh_bn": torch.randn(9, 4), **options})


def test_a_model_without_numbers_is_refused():
    model = vb.binarize(nn.Linear(4, 3)).to("meta")
    with pytest.raises(InputError, match="the model is on the meta device"):
        predict(model, torch.ones(5, 4), 3)


def test_a_models_own_error_is_not_explained_away():
    model = vb.binarize(nn.Sequential(nn.Linear(4, 3)))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        predict(model, torch.ones(5, 7), 3)
