"""torch.compile of the model and of the step: whole graphs, a fresh draw at every call, no second compilation."""

from __future__ import annotations

import copy
import threading
import warnings

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F

import varbnn as vb
from tests.torch_life.networks import Shared, assert_same, batch, bayes, gradients, normalised, plain, train_step
from varbnn.posteriors import Bernoulli, Gaussian, LowRankGaussian, Point

# what torch says about its own tracing, and only when warnings are errors
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Profiler record function"),
]

# the inductor run writes and builds C++, 20 s on a cold cache: one of them is in the default run, the rest trace only
BACKENDS = ["aot_eager", "inductor"]


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of inductor's own imports
def test_a_compiled_model_trains_in_one_graph_with_a_fresh_draw_per_call_and_no_recompilation(backend):
    model = vb.binarize(Shared())
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    optimizer = bayes(model)
    x, y = batch()
    with torch.no_grad():
        model.norm.momentum = 0.0  # so that outputs differ through the draw only
    outputs = []
    for _ in range(5):
        optimizer.zero_grad()
        outputs.append(compiled(x))
        F.cross_entropy(outputs[-1], y).backward()
        assert model.inner.natural.grad.any()
    assert all(not torch.equal(a, b) for i, a in enumerate(outputs) for b in outputs[:i])
    for _ in range(3):
        train_step(compiled, optimizer, x, y)
    assert counter.frame_count == 1
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize(
    "posterior",
    [
        Bernoulli(),
        Bernoulli("concrete"),
        Bernoulli("moments"),
        Point(clip=1.0),
        Gaussian("learned"),
        LowRankGaussian(2, 1.0),
        LowRankGaussian(2, 1.0, scope="network"),
        LowRankGaussian(2, 1.0, scope="neuron", rounding="homogeneous"),
    ],
    ids=repr,
)
def test_a_compiled_model_equals_the_eager_one_given_the_same_random_numbers(posterior):
    model = vb.binarize(Shared(), posterior=posterior)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x, y = batch()
    found = []
    for forward in (model, compiled):
        model.zero_grad()
        torch.manual_seed(1)
        F.cross_entropy(forward(x), y).backward()
        found.append(gradients(model))
    assert_same(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_a_layer_used_twice_draws_once_in_a_compiled_forward_pass():
    class Difference(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(8, 8)

        def forward(self, x):
            return self.layer(x) - self.layer(x)

    model = vb.binarize(Difference())
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for _ in range(3):
        assert not compiled(torch.randn(4, 8)).any()


@pytest.mark.parametrize("first", ["training", "prediction"])
@pytest.mark.parametrize("in_place", [False, True], ids=["wrapped", "in place"])
def test_statistics_are_estimated_uncompiled_and_training_keeps_its_graph(in_place, first):
    model = normalised()
    twin = copy.deepcopy(model)
    counter, runs = CompileCounterWithBackend("eager"), []

    def backend(graph, example):
        compiled = counter(graph, example)
        return lambda *inputs: runs.append(graph) or compiled(*inputs)

    if in_place:
        model.compile(backend=backend, fullgraph=True)
    asked = model if in_place else torch.compile(model, backend=backend, fullgraph=True)
    x, y = batch()

    def predicted(network):
        torch.manual_seed(3)
        return vb.predict(network, x, num_samples=4, refresh_bn=list(x.split(4))).probs

    def trained(network):
        train_step(network, bayes(network), x, y)

    if first == "training":
        trained(asked)
        twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(predicted(asked), predicted(twin))
    runs.clear()
    trained(asked)
    assert runs
    frames = counter.frame_count
    assert frames == 2  # of training, and of the networks that answer
    predicted(asked)
    trained(asked)
    assert counter.frame_count == frames


def test_work_is_counted_in_a_model_that_is_compiled_already():
    model, (x, _) = normalised().eval(), batch()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        compiled(x)
    assert [row.binary_macs for row in vb.summary(compiled, x).layers] == [8 * 16, 0, 16 * 4, 0]


def test_the_published_numerics_compile_with_their_buffers():
    model = plain(Bernoulli(estimator="concrete", numerics="reference"))
    counter = CompileCounterWithBackend("aot_eager")
    compiled, optimizer = torch.compile(model, backend=counter, fullgraph=True), bayes(model)
    other = copy.deepcopy(model)
    other_optimizer = bayes(other)
    x, y = batch()
    for trained, step in ((compiled, optimizer), (other, other_optimizer)):
        torch.manual_seed(2)
        for _ in range(4):
            train_step(trained, step, x, y)
    assert_same(dict(model.state_dict()), dict(other.state_dict()), rtol=1e-3, atol=1e-4)
    assert counter.frame_count == 1


STEPS = {
    "bayesbinn": (None, lambda p: vb.optim.BayesBiNN(p, lr=0.01, dataset_size=100)),
    "bayesbinn momentum prior": (
        None,
        lambda p: vb.optim.BayesBiNN(p, 0.01, dataset_size=100, momentum=0.9, prior=0.5),
    ),
    "straight-through adam": (Point(), lambda p: vb.optim.StraightThrough(p, lr=0.01)),
    "straight-through sgd": (Point(), lambda p: vb.optim.StraightThrough(p, lr=0.01, base="sgd", momentum=0.9)),
    "gaussian": (Gaussian(), lambda p: vb.optim.GaussianBLR(p, lr=0.01, dataset_size=100)),
    "gaussian learned": (
        Gaussian("learned"),
        lambda p: vb.optim.GaussianBLR(p, 0.01, dataset_size=10, momentum=0.9, prior=0.5),
    ),
    "vispa": (LowRankGaussian(2), lambda p: vb.optim.VISPA(p, weight_decay=0.1, factor_lr_scale=0.5)),
    "vispa unit": (LowRankGaussian(2, constraint="unit"), lambda p: vb.optim.VISPA(p, lr=0.1)),
    "windowed bayes": (None, lambda p: vb.optim.WindowedBayes(p, lr=0.1, window=1000, batch_size=10, prior=0.5)),
    "windowed bayes plain": (None, lambda p: vb.optim.WindowedBayes(p, 0.1, window=1000, batch_size=10, decay="plain")),
    "bimu": (
        Bernoulli("concrete", relaxation=1.0, gradient="euclidean"),
        lambda p: vb.optim.BiMU(p, 0.5, likelihood_multiplier=2.0, kl_multiplier=1.5, lr_max=0.3, memory=700),
    ),
    "metaplastic": (Point(), lambda p: vb.optim.Metaplastic(p, lr=0.01, weight_decay=0.1)),
    "gaussian natural": (Gaussian("natural"), lambda p: vb.optim.GaussianBLR(p, 0.01, dataset_size=100, prior=0.5)),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_compiled_step_is_one_graph_equals_the_eager_one_and_compiles_again_only_when_its_state_has_appeared(name):
    posterior, make = STEPS[name]
    model = normalised(posterior).double()
    other = copy.deepcopy(model)
    optimizer, eager = make(model.parameters()), make(other.parameters())
    counter = CompileCounterWithBackend("aot_eager")
    step, compilations = torch.compile(optimizer.step, backend=counter, fullgraph=True), []
    for _ in range(5):
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        step()
        eager.step()
        compilations.append(counter.frame_count)
    assert compilations == [1, 2, 2, 2, 2]
    for (key, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        # compiled, torch's AdamW forms 1 - βᵗ in float32, also for float64 parameters
        tolerance = 1e-12 if key.endswith(("natural", "latent", "location", "precision", "factors")) else 1e-6
        torch.testing.assert_close(p, q, rtol=0, atol=tolerance, msg=lambda m, k=key: f"{k}: {m}")


def test_batchnorm_statistics_and_summaries_inside_of_a_compiled_function():
    model = vb.binarize(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)))
    x = torch.randn(32, 6)

    @torch.compile(backend="eager")
    def judged(inputs: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return vb.predict(model, inputs, 3, refresh_bn=inputs, generator=generator).probs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells of the graph breaks
        found = judged(x)
    expected = vb.predict(model, x, 3, refresh_bn=x, generator=torch.Generator().manual_seed(0)).probs
    assert torch.equal(found, expected)


def test_statistics_of_one_model_may_be_estimated_from_what_another_says_in_threads():
    """The stance of the compiler is of the process, and was kept by a lock while the data were iterated."""
    teacher, student = (
        vb.binarize(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6))) for _ in range(2)
    )
    x = torch.randn(32, 6)
    torch.compile(nn.Linear(6, 6), backend="eager")(x)  # so that there is a compiler to be told

    class Told:
        def __iter__(self):
            yield vb.predict(teacher, x, 2, refresh_bn=x).mean

    def ask(number: int) -> None:
        vb.predict(student if number % 2 else teacher, x, 2, refresh_bn=Told() if number % 2 else x)

    threads = [threading.Thread(target=lambda n=n: [ask(n) for _ in range(30)], daemon=True) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert torch._dynamo.eval_frame._stance.stance == "default"
