"""Each folding rule alone: what is folded gives the same numbers in fewer steps, and what may not be is left."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import varbnn as vb
from tests.packed.models import Net, seeded, settled
from varbnn.packed.build import _draw
from varbnn.packed.fuse import fold, fused, insert_bits, join_signs, pool_bits
from varbnn.packed.program import Program
from varbnn.packed.spread import spread
from varbnn.packed.statistics import now
from varbnn.packed.trace import Drawn, Plan, plan

S = 3
X = torch.randn(4, 20, generator=seeded(1))
IMAGES = torch.randn(4, 3, 6, 6, generator=seeded(1))


def plans(model: nn.Module, names: str) -> tuple[Plan, Plan]:
    """The plan of `model` as read, and after the rules in `names`; drawn twice, since folding writes into the steps."""
    rules = {"fold": fold, "bits": insert_bits, "pool": pool_bits, "join": join_signs}
    model = vb.binarize(settled(model)).eval()
    layers = [layer for _, layer in vb.nn.binary_layers(model)]
    both = [plan(model, Drawn(_draw(layers, S, seeded()), _own(now(model)))) for _ in range(2)]
    for name in names.split():
        both[1] = rules[name](both[1])
    return both[0], both[1]


def _own(statistics):
    """Statistics that differ between the networks."""
    factor = torch.tensor([[1.0], [1.5], [0.7]])
    return {norm: (mean * factor, variance * factor) for norm, (mean, variance) in statistics.items()}


def kinds(plan: Plan) -> list[str]:
    return [type(step).__name__ for step in plan.steps]


def run(plan: Plan, x: torch.Tensor) -> torch.Tensor:
    return Program.of(spread(plan, S))(x)


def same(before: Plan, after: Plan, x: torch.Tensor) -> None:
    expected = run(before, x)
    torch.testing.assert_close(run(after, x), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


FOLDS = {
    "bias": (lambda: nn.Linear(20, 9), ["PackedLinear"]),
    "batch norm": (lambda: nn.Sequential(nn.Linear(20, 9), nn.BatchNorm1d(9)), ["PackedLinear"]),
    "batch norm without scale": (
        lambda: nn.Sequential(nn.Linear(20, 9, bias=False), nn.BatchNorm1d(9, affine=False)), ["PackedLinear"]),
    "relu": (lambda: nn.Sequential(nn.Linear(20, 9), nn.ReLU()), ["PackedLinear"]),
    "batch norm and relu": (lambda: nn.Sequential(nn.Linear(20, 9), nn.BatchNorm1d(9), nn.ReLU()), ["PackedLinear"]),
    "two batch norms": (lambda: nn.Sequential(nn.Linear(20, 9), nn.BatchNorm1d(9), nn.BatchNorm1d(9)),
                        ["PackedLinear"]),
    "nothing after relu": (lambda: nn.Sequential(nn.Linear(20, 9), nn.ReLU(), nn.BatchNorm1d(9)),
                           ["PackedLinear", "Affine"]),
    "relu after batch norm after relu": (
        lambda: nn.Sequential(nn.Linear(20, 9), nn.ReLU(), nn.BatchNorm1d(9), nn.ReLU()), ["PackedLinear", "Affine"]),
    "batch norm before a layer stays": (lambda: nn.Sequential(nn.BatchNorm1d(20), nn.Linear(20, 9)),
                                        ["Affine", "PackedLinear"]),
    "dropout goes": (lambda: nn.Sequential(nn.Linear(20, 9), nn.Dropout(), nn.Identity(), nn.BatchNorm1d(9)),
                     ["PackedLinear"]),
    "not past a real module": (lambda: nn.Sequential(nn.Linear(20, 9), nn.Tanh(), nn.BatchNorm1d(9)),
                               ["PackedLinear", "Real", "Affine"]),
    "not where the value is used twice": (
        lambda: Net(lambda m, x: (lambda h: m.n(h) + h)(m.a(x)), a=nn.Linear(20, 9), n=nn.BatchNorm1d(9)),
        ["PackedLinear", "Affine", "Call"]),
    "what nobody uses goes": (
        lambda: Net(lambda m, x: (lambda h: (m.n(h), h)[1])(m.a(x)), a=nn.Linear(20, 9), n=nn.BatchNorm1d(9)),
        ["PackedLinear"]),
    "a sign stays": (lambda: nn.Sequential(nn.Linear(20, 9), nn.BatchNorm1d(9), vb.nn.Sign()),
                     ["PackedLinear", "Affine"]),
    "a layer used twice": (
        lambda: Net(lambda m, x: m.n(m.b(m.b(m.a(x)).relu())), a=nn.Linear(20, 9), b=nn.Linear(9, 9),
                    n=nn.BatchNorm1d(9)),
        ["PackedLinear", "PackedLinear", "PackedLinear"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDS)
def test_scale_shift_and_relu_go_into_the_layer_before(name):
    make, expected = FOLDS[name]
    before, after = plans(make(), "fold")
    assert kinds(after) == expected
    same(before, after, X)


def test_after_a_convolution_too():
    before, after = plans(nn.Sequential(nn.Conv2d(3, 9, 3), nn.BatchNorm2d(9), nn.ReLU()), "fold")
    assert kinds(after) == ["PackedConv"]
    assert after.steps[0].activation == "relu"
    same(before, after, IMAGES)


def test_not_past_a_pooling():
    before, after = plans(nn.Sequential(nn.Conv2d(3, 9, 3), nn.MaxPool2d(2), nn.BatchNorm2d(9), nn.ReLU()), "fold")
    assert kinds(after) == ["PackedConv", "Real", "Affine"]
    same(before, after, IMAGES)


def test_not_where_the_channel_is_another_dimension():
    tokens = torch.randn(4, 6, 20, generator=seeded(1))
    before, after = plans(nn.Sequential(nn.Linear(20, 9), nn.BatchNorm1d(6), nn.ReLU()), "fold")
    assert kinds(after) == ["PackedLinear", "Affine"]
    same(before, after, tokens)
    _, ambiguous = plans(nn.Sequential(nn.Linear(20, 6), nn.BatchNorm1d(6)), "fold")
    with pytest.raises(vb.errors.InputError, match="takes inputs"):  # as many tokens as features: refused, not guessed
        run(ambiguous, tokens)


SIGNS = nn.Sequential, vb.nn.Sign
BITS = {
    "between layers": (
        lambda: nn.Sequential(nn.Linear(20, 40), nn.BatchNorm1d(40), vb.nn.Sign(), nn.Linear(40, 3)),
        ["PackedLinear", "PackedLinear"], X),
    "with shifts": (
        lambda: nn.Sequential(nn.Linear(20, 40), vb.nn.Sign(channels=40), nn.Linear(40, 3)),
        ["PackedLinear", "PackedLinear"], X),
    "of the input": (
        lambda: nn.Sequential(vb.nn.Sign(), nn.Linear(20, 3)), ["Affine", "PackSigns", "PackedLinear"], X),
    "not through relu": (
        lambda: nn.Sequential(nn.Linear(20, 40), vb.nn.Sign(), nn.ReLU(), nn.Linear(40, 3)),
        ["PackedLinear", "Affine", "Affine", "PackedLinear"], X),
    "used by two layers": (
        lambda: Net(lambda m, x: (lambda h: m.b(h) + m.c(h))(m.s(m.a(x))), a=nn.Linear(20, 40), b=nn.Linear(40, 3),
                    c=nn.Linear(40, 3), s=vb.nn.Sign()),
        ["PackedLinear", "PackedLinear", "PackedLinear", "Call"], X),
    "also used as numbers": (
        lambda: Net(lambda m, x: (lambda h: m.b(h) + h)(m.s(m.a(x))), a=nn.Linear(20, 3), b=nn.Linear(3, 3),
                    s=vb.nn.Sign()),
        ["PackedLinear", "Affine", "PackSigns", "PackedLinear", "Call"], X),
    "another branch between": (
        lambda: Net(lambda m, x: (lambda h, z: m.b(h) + z)(m.s(m.a(x)), x[:, :3].tanh()), a=nn.Linear(20, 40),
                    b=nn.Linear(40, 3), s=vb.nn.Sign()),
        ["PackedLinear", "Call", "Call", "PackedLinear", "Call"], X),
    "a layer whose output is needed itself": (
        lambda: Net(lambda m, x: (lambda h: m.b(m.s(h)) + h)(m.a(x)), a=nn.Linear(20, 3), b=nn.Linear(3, 3),
                    s=vb.nn.Sign()),
        ["PackedLinear", "Affine", "PackSigns", "PackedLinear", "Call"], X),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), vb.nn.Sign(), nn.Conv2d(32, 5, 3, padding=1)),
        ["PackedConv", "PackedConv"], IMAGES),
    "pooled and flattened": (
        lambda: nn.Sequential(nn.Conv2d(3, 32, 3), vb.nn.Sign(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 3)),
        ["PackedConv", "Affine", "Real", "Real", "PackSigns", "PackedLinear"], IMAGES),
    "averaged: no signs any more": (
        lambda: nn.Sequential(nn.Conv2d(3, 32, 3), vb.nn.Sign(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 3)),
        ["PackedConv", "Affine", "Real", "Real", "PackedLinear"], IMAGES),
    "groups of less than a word": (
        lambda: nn.Sequential(nn.Conv2d(3, 32, 3), vb.nn.Sign(), nn.Conv2d(32, 4, 3, groups=2)),
        ["PackedConv", "Affine", "PackedConv"], IMAGES),
}  # fmt: skip


@pytest.mark.parametrize("name", BITS)
def test_signs_go_as_bits_where_only_packed_layers_look(name):
    make, expected, x = BITS[name]
    before, after = plans(make(), "fold bits join")
    assert kinds(after) == expected
    same(before, after, x)


def pooled(kind: int = 2, norm: bool = True, after: bool = False, **options: object) -> nn.Module:
    """A convolution, max pooling and a sign in either order, and a convolution of bits."""
    conv, pool, bn = (
        (nn.Conv1d, nn.MaxPool1d, nn.BatchNorm1d),
        (nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d),
        (nn.Conv3d, nn.MaxPool3d, nn.BatchNorm3d),
    )[kind - 1]
    sign = [*([bn(32)] if norm else []), vb.nn.Sign()]
    pooling = [pool(**{"kernel_size": 2, **options})]
    between = [*sign, *pooling] if after else [*pooling, *sign]
    return nn.Sequential(conv(3, 32, 3, padding=1), *between, conv(32, 5, 1))


def functional(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return m.b(m.s(m.n(F.max_pool2d(m.a(x), 3, padding=1, stride=2))))


PARTS = {"a": nn.Conv2d(3, 32, 3), "b": nn.Conv2d(32, 5, 1), "n": nn.BatchNorm2d(32), "s": vb.nn.Sign()}
POOLS = {
    "usual": (lambda: pooled(), 2),
    "without batch norm": (lambda: pooled(norm=False), 2),
    "after the sign": (lambda: pooled(after=True), 2),
    "overlapping": (lambda: pooled(kernel_size=3, stride=1), 2),
    "with room around": (lambda: pooled(kernel_size=3, stride=2, padding=1), 2),
    "with gaps": (lambda: pooled(kernel_size=2, stride=1, dilation=2), 2),
    "oblong": (lambda: pooled(kernel_size=(3, 1), stride=(1, 2), padding=(1, 0)), 2),
    "one dimension": (lambda: pooled(1, kernel_size=3, padding=1), 1),
    "three dimensions": (lambda: pooled(3), 3),
    "by a function": (lambda: Net(functional, **copy.deepcopy(PARTS)), 2),
}


@pytest.mark.parametrize("name", POOLS)
def test_pooling_in_front_of_a_sign_is_done_on_bits_behind_it(name):
    make, kind = POOLS[name]
    before, after = plans(make(), "fold bits pool join")
    assert kinds(after) == ["PackedConv", "PoolSigns", "PackedConv"]
    same(before, after, torch.randn(4, 3, *[7] * kind, generator=seeded(1)))


def test_channels_with_a_negative_scale_take_the_smallest_sign():
    _, after = plans(pooled(), "fold bits pool join")
    pool = after.steps[1]
    scale = after.steps[0].scale
    assert (scale < 0).any()
    assert (scale > 0).any()
    assert torch.equal(vb.bits.unpack(pool.turned, 32) > 0, scale < 0)


def hooked() -> nn.Module:
    pool = nn.MaxPool2d(2)
    pool.register_forward_hook(lambda module, inputs, output: -output)
    return pool


@pytest.mark.parametrize("pool", [lambda: nn.MaxPool2d(2, ceil_mode=True), lambda: nn.AvgPool2d(2), hooked])
def test_other_poolings_stay(pool):
    model = nn.Sequential(nn.Conv2d(3, 32, 3), pool(), nn.BatchNorm2d(32), vb.nn.Sign(), nn.Conv2d(32, 5, 1))
    before, after = plans(model, "fold bits pool join")
    assert kinds(after) == ["PackedConv", "Real", "Affine", "PackSigns", "PackedConv"]
    same(before, after, torch.randn(4, 3, 7, 7, generator=seeded(1)))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("pool", [lambda: nn.MaxPool2d(3, 1, 1), lambda: nn.MaxPool2d((1, 2))])
def test_a_pooling_of_channels_too_stays(pool, after):
    between = [vb.nn.Sign(), pool()] if after else [pool(), vb.nn.Sign()]
    before, done = plans(nn.Sequential(nn.Conv1d(3, 64, 3), *between, nn.Conv1d(64, 8, 1)), "fold bits pool join")
    assert "PoolSigns" not in kinds(done)
    same(before, done, torch.randn(4, 3, 12, generator=seeded(1)))


@pytest.mark.parametrize("options", [dict(kernel_size=(2,)), dict(kernel_size=2, stride=(2,))])
def test_options_that_torch_repeats_are_left_to_torch(options):
    before, after = plans(pooled(**options), "fold bits pool join")
    assert "PoolSigns" not in kinds(after)
    same(before, after, torch.randn(4, 3, 7, 7, generator=seeded(1)))


@pytest.mark.parametrize(
    "pool", [lambda x: torch.max_pool2d(x, 2, []), lambda x: F.max_pool2d(x, 2, ceil_mode=1)], ids=["stride", "ceil"]
)
def test_a_pooling_by_a_function_can_be_saved(pool, tmp_path):
    model = Net(lambda m, x: m.b(F.relu(pool(m.a(x)))), **copy.deepcopy(PARTS))
    x = torch.randn(4, 3, 7, 7, generator=seeded(1))
    packed = vb.pack(vb.binarize(model), S)
    packed.save(tmp_path / "a.vbnn")
    assert torch.equal(vb.load_packed(tmp_path / "a.vbnn")(x), packed(x))


def test_pooling_stays_where_something_else_looks_at_what_it_pools():
    def run(m, x):
        h = m.a(x)
        return m.b(m.s(m.n(m.p(h)))) + h.mean((1, 2, 3), keepdim=True)

    model = Net(run, p=nn.MaxPool2d(2), **copy.deepcopy(PARTS))
    before, after = plans(model, "fold bits pool join")
    assert "PoolSigns" not in kinds(after)
    same(before, after, torch.randn(4, 3, 7, 7, generator=seeded(1)))


def test_networks_share_what_comes_before_the_first_drawn_weight():
    model = vb.binarize(nn.Sequential(nn.Tanh(), nn.Linear(20, 9), nn.ReLU(), nn.Linear(9, 3)))
    steps = vb.pack(model, S).program.steps
    assert [getattr(step, "shared", None) for step in steps] == [None, True, False]


def test_shared_rows_are_repeated_once_where_they_meet_rows_of_their_own():
    model = Net(lambda m, x: (m.a(x) + x[:, :9]) * x[:, :9], a=nn.Linear(20, 9))
    assert kinds(fused(plans(model, "")[0], S)).count("Spread") == 2  # two slices
    late = Net(lambda m, x: m.a(x).relu() + m.b(x).relu(), a=nn.Linear(20, 9), b=nn.Linear(20, 9))
    assert "Spread" not in kinds(fused(plans(late, "")[0], S))


def test_a_size_of_the_shared_batch_used_on_own_rows_makes_everything_own():
    model = Net(lambda m, x: m.a(x).view(x.size(0), 3, 3).flatten(1), a=nn.Linear(20, 9))
    steps = fused(plans(model, "")[0], S)
    assert kinds(steps)[0] == "Spread"
    assert not steps.steps[1].shared
