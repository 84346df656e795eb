"""One draw per layer and forward pass of the model, whatever happens in between."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import varbnn as vb
from varbnn.errors import InputError
from varbnn.nn import BinaryLinear, draw_once_per_forward

DYNAMO = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # to trace one
X = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))


class Twice(nn.Module):
    """Uses one layer twice and remembers the weights it saw."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 16)
        self.seen = []
        self.fail_with = None

    def forward(self, x):
        self.seen = []
        for _ in range(2):
            self.seen.append(self.layer.weight)
            x = self.layer(x)
            if self.fail_with is not None:
                raise self.fail_with
        self.seen.append(self.layer.weight)
        return x


class Outer(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        first = self.inner(x)
        weight = self.inner.seen[0]
        second = self.inner(x)
        self.same = torch.equal(weight, self.inner.seen[0])
        return first + second


def same_everywhere(model, x=X):
    model(x)
    return all(torch.equal(weight, model.seen[0]) for weight in model.seen)


def test_a_layer_used_twice_has_one_weight_per_forward_and_a_new_one_in_the_next():
    model = vb.binarize(Twice())
    assert same_everywhere(model)
    first = model.seen[0]
    assert same_everywhere(model)
    assert not torch.equal(first, model.seen[0])


def test_both_uses_send_their_gradient_to_the_belief():
    model = vb.binarize(Twice())
    y = model(X)
    weight = model.seen[0].detach().requires_grad_()
    bias = model.layer.bias.detach()
    y.sum().backward()
    nn.functional.linear(nn.functional.linear(X, weight, bias), weight, bias).sum().backward()
    torch.testing.assert_close(model.layer.natural.grad, weight.grad)


@pytest.mark.parametrize("binarize_inner_first", [True, False])
def test_a_model_inside_a_model_draws_once_per_forward_of_the_outermost(binarize_inner_first):
    inner = Twice()
    if binarize_inner_first:
        vb.binarize(inner)
    outer = vb.binarize(Outer(inner))
    outer(X)
    assert outer.same
    first = inner.seen[0]
    outer(X)
    assert not torch.equal(first, inner.seen[0])


def test_a_bare_layer_draws_for_every_use():
    layer = vb.binarize(nn.Linear(16, 16))
    assert not torch.equal(layer(X), layer(X))
    assert not torch.equal(layer.weight, layer.weight)


def test_a_model_built_by_hand_draws_once_after_being_told_so_and_telling_it_again_is_harmless():
    model = Twice()
    model.layer = BinaryLinear(16, 16)
    assert not same_everywhere(model)
    for _ in range(2):
        draw_once_per_forward(model)
        assert same_everywhere(model)
    assert len(model._forward_pre_hooks) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt], ids=["error", "interrupt"])
def test_after_a_forward_that_broke_off_the_next_ones_draw_afresh(error):
    model = vb.binarize(Twice())
    model.fail_with = error()
    with pytest.raises(error):
        model(X)
    broken = model.seen[0]
    model.fail_with = None
    assert same_everywhere(model)
    first = model.seen[0]
    model(X)
    assert not torch.equal(broken, first)
    assert not torch.equal(first, model.seen[0]), "the draw of one forward is kept forever"


def test_after_an_interrupt_in_an_inner_model_the_outer_one_draws_afresh():
    inner = Twice()
    outer = vb.binarize(Outer(vb.binarize(inner)))
    inner.fail_with = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        outer(X)
    inner.fail_with = None
    weights = []
    for _ in range(2):
        outer(X)
        assert outer.same
        weights.append(inner.seen[0])
    assert not torch.equal(*weights)


def test_after_an_interrupt_a_model_can_still_be_copied():
    model = vb.binarize(Twice())
    model.fail_with = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        model(X)
    model.fail_with, model.seen = None, []
    assert same_everywhere(copy.deepcopy(model))


def test_a_hook_that_fails_before_ours_does_not_upset_the_count():
    model = vb.binarize(Twice())

    def refuse(module, args):
        raise ValueError

    handle = model.register_forward_pre_hook(refuse, prepend=True)
    with pytest.raises(ValueError):
        model(X)
    handle.remove()
    assert same_everywhere(model)
    first = model.seen[0]
    model(X)
    assert not torch.equal(first, model.seen[0])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_a_copy_draws_once_per_forward_and_on_its_own(copied):
    model = vb.binarize(Twice())
    other = copied(model)
    assert same_everywhere(other)
    first = other.seen[0]
    other(X)
    assert not torch.equal(first, other.seen[0])
    assert model.seen == []


def test_switching_between_train_and_eval_never_mixes_draw_and_mode():
    model = vb.binarize(Twice())
    model(X)
    model.eval()
    assert same_everywhere(model)
    assert torch.equal(model.seen[0], model.layer.posterior.mode(model.layer.natural))
    model.train()
    assert same_everywhere(model)


def test_a_first_use_without_gradient_does_not_cut_the_gradient_of_the_second():
    class Target(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 16)

        def forward(self, x):
            with torch.no_grad():
                target = self.layer(x)
            assert not target.requires_grad
            return self.layer(x + 1) - target

    model = vb.binarize(Target())
    model(X).sum().backward()
    torch.testing.assert_close(model.layer.natural.grad, (X + 1).sum(0).expand(16, 16))


@DYNAMO
def test_one_draw_per_forward_survives_compilation_without_a_graph_break():
    model = vb.binarize(nn.Sequential(shared := nn.Linear(16, 16), nn.Tanh(), shared))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    x = torch.eye(16)
    for _ in range(2):
        torch.manual_seed(4)
        expected = model(x)
        torch.manual_seed(4)
        assert torch.equal(compiled(x), expected)
    assert not torch.equal(compiled(x), compiled(x))


def tied(posterior=None, names=("natural",)):
    model = vb.binarize(
        nn.Sequential(nn.Linear(16, 16, bias=False), nn.Tanh(), nn.Linear(16, 16, bias=False)), posterior
    )
    for name in names:
        setattr(model[2], name, getattr(model[0], name))
    return model


def watched(model):
    """The weights that the layers had in the last forward pass of `model`."""
    seen = {}
    for layer in (model[0], model[2]):
        layer.register_forward_pre_hook(lambda layer, args: seen.update({layer: layer.weight}))
    return seen


@pytest.mark.parametrize(
    "posterior, names",
    [
        (vb.posteriors.Bernoulli(), ["natural"]),
        (vb.posteriors.Bernoulli("concrete"), ["natural"]),
        (vb.posteriors.Gaussian("learned"), ["location", "precision"]),
        (vb.posteriors.LowRankGaussian(2), ["location", "factors"]),
    ],
    ids=repr,
)
def test_layers_tied_by_one_belief_have_one_draw_per_forward_and_a_new_one_in_the_next(posterior, names):
    model = tied(posterior, names)
    seen = watched(model)
    model(X).sum().backward()
    first = seen[model[0]]
    assert seen[model[2]] is first
    shared = vb.binarize(nn.Sequential(inner := nn.Linear(16, 16, bias=False), nn.Tanh(), inner), posterior)
    with torch.no_grad():
        for mine, theirs in zip(shared.parameters(), model.parameters(), strict=True):
            mine.copy_(theirs)
    gradients = []
    for each in (model, shared):
        each.zero_grad()
        torch.manual_seed(6)
        each(X).sum().backward()
        gradients.append(each[0].belief[0].grad)
    assert torch.equal(*gradients)
    model(X)
    assert not torch.equal(seen[model[0]], first)


def test_layers_of_which_a_part_of_the_belief_is_tied_or_the_posterior_differs_draw_for_themselves():
    for model in (tied(vb.posteriors.Gaussian("learned"), ["location"]), tied()):
        if model[0].posterior == vb.posteriors.Bernoulli():
            model[2].posterior = vb.posteriors.Bernoulli("concrete")
        seen = watched(model)
        model(X)
        assert not torch.equal(seen[model[0]], seen[model[2]])


@pytest.mark.parametrize("numerics", ["exact", "reference"])
def test_tied_layers_whose_posterior_keeps_buffers_have_the_modes_that_training_made(numerics):
    posterior = vb.posteriors.Bernoulli("concrete", numerics=numerics)
    model = vb.binarize(nn.Sequential(nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)), posterior)
    model[1].natural = model[0].natural
    rule = vb.optim.BayesBiNN(model.parameters(), lr=0.5, dataset_size=3, temperature=0.1)
    for _ in range(5):
        rule.zero_grad()
        model(X).square().mean().backward()
        rule.step()
    assert torch.equal(model.eval()[0].weight, model[1].weight)


def test_tied_layers_share_a_draw_whichever_of_them_trains_and_has_which_posterior():
    model = vb.binarize(nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(4))))
    for layer in list(model)[1:]:
        layer.natural = model[0].natural
    model[0].eval()
    model[1].posterior = vb.posteriors.Bernoulli(init_scale=0.7)
    drawn = []
    for layer in model:
        layer.register_forward_hook(lambda layer, x, y: drawn.append(layer.weight))
    model(X)
    assert torch.equal(drawn[0], model[0].posterior.mode(model[0].natural))
    assert drawn[2] is drawn[3]
    assert not torch.equal(drawn[1], drawn[2])


def test_layers_whose_tie_was_broken_draw_apart():
    model = tied()
    seen = watched(model)
    model[2].natural = nn.Parameter(model[0].natural.detach().clone())
    model(X)
    assert not torch.equal(seen[model[0]], seen[model[2]])


@pytest.mark.parametrize("names", [["natural"], ["location", "factors"]])
def test_a_sample_of_tied_layers_is_one(names):
    model = tied(vb.posteriors.LowRankGaussian(2) if len(names) > 1 else None, names)
    with vb.sampled(model):
        assert torch.equal(model[0].weight, model[2].weight)
    frozen = vb.freeze(model, "sample")
    assert torch.equal(frozen[0].weight, frozen[2].weight)


@DYNAMO
def test_tied_layers_draw_once_in_a_compiled_graph_too():
    model = tied()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for _ in range(2):
        torch.manual_seed(4)
        expected = model(torch.eye(16))
        torch.manual_seed(4)
        assert torch.equal(compiled(torch.eye(16)), expected)


def test_checkpointing_a_tied_layer_alone_is_refused():
    model = tied()
    with pytest.raises(InputError, match=r"shares belief or noise.*checkpoint the whole model"):
        Between(model)(X.clone().requires_grad_()).sum().backward()


class Between(nn.Module):
    """The last layer of a model recomputed in the backward pass."""

    def __init__(self, model):
        super().__init__()
        self.inner = model
        draw_once_per_forward(self)

    def forward(self, x):
        return checkpoint(self.inner[2], self.inner[1](self.inner[0](x)), use_reentrant=False)


class Checkpointed(nn.Module):
    """Two blocks, the first recomputed in the backward pass; optionally both use the layer of the first."""

    def __init__(self, reentrant, shared=False, active=True):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Dropout(0.3))
        self.second = nn.Sequential(self.first[0] if shared else nn.Linear(16, 16), nn.Tanh())
        self.reentrant, self.active = reentrant, active

    def forward(self, x):
        run = self.first
        x = checkpoint(run, x, use_reentrant=self.reentrant) if self.active else run(x)
        return self.second(x)


@pytest.mark.parametrize("posterior", [vb.posteriors.Bernoulli(), vb.posteriors.Bernoulli("concrete", 0.5)], ids=repr)
@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "saved"])
def test_activation_checkpointing_changes_no_gradient(reentrant, posterior):
    model = vb.binarize(Checkpointed(reentrant), posterior)
    gradients = []
    for active in (False, True):
        model.active = active
        model.zero_grad()
        torch.manual_seed(3)
        model(X.clone().requires_grad_()).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "saved"])
def test_checkpointing_the_whole_model_changes_no_gradient_even_with_a_shared_layer(reentrant):
    model = vb.binarize(Twice())
    gradients = []
    for run in (model, lambda x: checkpoint(model, x, use_reentrant=reentrant)):
        model.zero_grad()
        torch.manual_seed(3)
        run(X.clone().requires_grad_()).square().sum().backward()
        gradients.append(model.layer.natural.grad.clone())
    assert torch.equal(*gradients)


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "saved"])
def test_a_shared_layer_inside_a_checkpointed_part_is_refused_with_an_explanation(reentrant):
    model = vb.binarize(Checkpointed(reentrant, shared=True))
    y = model(X.clone().requires_grad_())
    with pytest.raises(InputError, match=r"activation checkpointing.*checkpoint the whole model"):
        y.sum().backward()
