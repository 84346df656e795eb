"""The network's state, its belief, and that the torch model of it says the same, to the bit."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch import nn

import varbnn as vb
from varbnn.errors import CheckpointError, InputError
from varbnn.integer import IntegerNetwork, as_model, step

pytestmark = pytest.mark.filterwarnings("ignore::varbnn.errors.VarbnnWarning")


def generator(seed):
    return torch.Generator().manual_seed(seed)


def codes(count, width, seed=0):
    return torch.randint(2, (count, width), generator=generator(seed), dtype=torch.int8) * 2 - 1


def trained(widths=(40, 24, 16, 5), **settings):
    network = IntegerNetwork(widths, **settings, generator=generator(0))
    own = generator(1)
    for number in range(40):
        step(network, codes(32, widths[0], number), torch.arange(32) % widths[-1], 1, own)
    return network


def expected(network, x):
    """Scores by numpy in int64."""
    values = x.numpy().astype(np.int64)
    for layer in network.counters:
        weight = np.where(layer.counter.numpy() >= 0, 1, -1)
        sums = values @ weight.T - (0 if layer.threshold is None else layer.threshold.numpy())
        values = np.where(sums >= 0, 1, -1)
    return sums


@pytest.mark.parametrize("products", ["float32", "int32"])
def test_scores_are_the_sums_of_signs(products):
    network = trained(products=products)
    assert any(bool(layer.threshold.any()) for layer in network.counters[:-1])
    np.testing.assert_array_equal(network(codes(50, 40)).numpy(), expected(network, codes(50, 40)))
    assert network(codes(0, 40)).shape == (0, 5)


def test_the_first_counters_fill_the_middle_quarter_of_their_range():
    for bits in range(3, 9):
        counter = IntegerNetwork([300, 300], bits=bits, generator=generator(bits)).counters[0].counter
        assert (counter.min(), counter.max()) == (-(2 ** (bits - 3)), 2 ** (bits - 3) - 1)


@pytest.mark.parametrize("spread", [1, 3, 16])
def test_a_weight_is_drawn_with_the_probability_of_its_counter(spread):
    network = IntegerNetwork([6, 3], bits=8, spread=spread)
    values = torch.tensor([-128, -spread - 1, -spread, 1 - spread, -1, 0, 1, spread - 1, spread, 127])
    network.counters[0].counter = values.to(torch.int8).repeat(20_000, 1)
    found = (network.drawn(generator(spread))[0] > 0).double().mean(0)
    chance = ((values.double() + spread) / (2 * spread)).clamp(0, 1)
    error = (chance * (1 - chance) / 20_000).sqrt()
    assert bool(((found - chance).abs() <= 5 * error).all())


def test_samples_are_settled_networks_with_the_drawn_weights():
    network = trained(spread=16)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first, second = network.sample(2, generator(5))
    own = generator(5)
    for one in (first, second):
        for layer, weight in zip(one.counters, network.drawn(own), strict=True):
            assert torch.equal(layer.mode(), weight)
            assert set(layer.counter.unique().tolist()) == {-128, 127}
    assert not torch.equal(first.counters[0].counter, second.counters[0].counter)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    with pytest.raises(InputError, match="num_samples must be a whole number ≥ 1, got 0"):
        network.sample(0)


def test_without_spread_every_sample_is_the_mode():
    network = trained()
    (one,) = network.sample(1)
    assert torch.equal(one(codes(20, 40)), network(codes(20, 40)))


class TestState:
    def test_it_is_integers_that_torch_reads_without_code(self):
        network, file = trained(bits=4, spread=4), io.BytesIO()
        torch.save(network.state_dict(), file)
        file.seek(0)
        other = IntegerNetwork(network.widths, bits=4, spread=4)
        other.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(other(codes(20, 40)), network(codes(20, 40)))

    def test_counters_of_more_bits_are_refused(self):
        state = trained(bits=8).state_dict()
        other = IntegerNetwork((40, 24, 16, 5), bits=3)
        with pytest.raises(
            CheckpointError, match=r"layers.0.counter goes from .* and here from -4 to 3; make a network"
        ):
            other.load_state_dict(state)

    def test_floats_are_refused(self):
        state = {name: value.float() for name, value in trained().state_dict().items()}
        with pytest.raises(
            CheckpointError, match=r"layers.0.counter is torch.float32 \(24, 40\) in the state, and torch.int8 \(24"
        ):
            trained().load_state_dict(state)

    @pytest.mark.parametrize(
        "widths, inside, match",
        [
            (
                (40, 24, 16, 4),
                False,
                r"layers.2.counter is torch.int8 \(4, 16\) in the state, and torch.int8 \(5, 16\)",
            ),
            (
                (40, 24, 16, 4),
                True,
                r"1.layers.2.counter is torch.int8 \(4, 16\) in the state, and torch.int8 \(5, 16\)",
            ),
            ((40, 24, 5), True, r"1.layers.1.counter is torch.int8 \(5, 24\) in the state, and torch.int8 \(16, 24\)"),
            ((40, 24, 16, 5, 5), False, r"lacks nothing and has .*layers.2.threshold.*layers.3.counter"),
            ((40, 24, 5), False, r"lacks .*layers.2.counter.* and has nothing besides"),
        ],
    )
    def test_a_network_of_other_sizes_is_refused_whole(self, widths, match, inside):
        network, other = trained(), IntegerNetwork(widths)
        if inside:
            network, other = nn.Sequential(nn.Identity(), network), nn.Sequential(nn.Identity(), other)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        with pytest.raises(CheckpointError, match=match):
            network.load_state_dict(other.state_dict())
        assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())

    def test_what_a_state_lacks_is_kept_where_that_is_asked_for(self):
        network, other = trained(), IntegerNetwork((40, 24, 16, 5), generator=generator(9))
        head = network.layers[2].counter.clone()
        network.load_state_dict({"layers.0.counter": other.layers[0].counter}, strict=False)
        assert torch.equal(network.layers[0].counter, other.layers[0].counter)
        assert torch.equal(network.layers[2].counter, head)

    @pytest.mark.parametrize("here, there", [(0, 64), (64, 0), (16, 64)])
    def test_counters_of_another_spread_are_refused(self, here, there):
        network = trained(spread=here)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        with pytest.raises(CheckpointError, match=f"a network with spread={there}, this one has {here}"):
            network.load_state_dict(IntegerNetwork((40, 24, 16, 5), spread=there).state_dict())
        assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


class TestModel:
    @pytest.mark.parametrize("bits, spread", [(8, 0), (3, 0), (8, 16), (4, 8)])
    def test_its_logits_are_the_scores_by_a_power_of_two(self, bits, spread):
        network = trained(bits=bits, spread=spread)
        logits = as_model(network)(codes(100, 40).float())
        assert torch.equal(logits * (network.margin // 4), network(codes(100, 40)).float())
        assert network.margin == 16

    @pytest.mark.parametrize("widths", [(70, 33, 4), (33, 2)])
    def test_packed_and_from_a_file_it_says_the_same_to_the_bit(self, tmp_path, widths):
        network = trained(widths)
        x = codes(100, widths[0])
        packed = vb.pack(as_model(network), 0)
        packed.save(tmp_path / "network.vbnn")
        for ensemble in (packed, vb.load_packed(tmp_path / "network.vbnn")):
            logits = ensemble(x.float())
            assert logits.shape == (1, 100, widths[-1])
            assert torch.equal(logits[0] * (network.margin // 4), network(x).float())

    def test_each_sample_as_a_model_says_what_the_sample_says(self):
        network, x = trained(spread=16), codes(60, 40)
        for one in network.sample(4, generator(3)):
            prediction = vb.predict(as_model(one), x.float(), 0)
            assert torch.equal(as_model(one)(x.float()) * 4, one(x).float())
            assert torch.equal(prediction.labels, one(x).argmax(1))

    def test_its_belief_has_the_probabilities_of_the_counters(self):
        network = trained(spread=16)
        for layer, (_, binary) in zip(network.counters, vb.nn.binary_layers(as_model(network)), strict=True):
            mean = (layer.counter.double() / 16).clamp(-1, 1)
            torch.testing.assert_close(binary.posterior.mean(*binary.belief).double(), mean, atol=1e-6, rtol=0)
            assert torch.equal(binary.weight, layer.mode().float())

    def test_drawn_networks_of_the_model_and_of_the_counters_have_one_law(self):
        network, x, draws = trained(spread=16), codes(40, 40), 600
        ours = torch.stack([one(x) for one in network.sample(draws, generator(1))]).double() / 4
        model = as_model(network)
        with torch.no_grad():
            theirs = []
            for seed in range(draws):
                with vb.sampled(model, generator(10_000 + seed)):
                    theirs.append(model(x.float()).double())
        theirs = torch.stack(theirs)
        error = ((ours.var(0) + theirs.var(0)) / draws).sqrt()
        assert float(((ours.mean(0) - theirs.mean(0)).abs() / error.clamp_min(1e-9)).max()) < 5

    def test_sure_weights_are_never_drawn_otherwise(self):
        network = IntegerNetwork([500, 400], spread=8, generator=generator(0))
        network.counters[0].counter = torch.where(network.counters[0].mode() > 0, 8, -8).to(torch.int8)
        model, mode = as_model(network), network.counters[0].mode().float()
        for seed in range(5):
            with vb.sampled(model, generator(seed)):
                assert torch.equal(model[0].weight, mode)

    @pytest.mark.parametrize("spread", [0, 16])
    def test_to_look_moves_no_generator(self, spread):
        network, before = trained(spread=spread), torch.get_rng_state()
        as_model(network)
        assert torch.equal(torch.get_rng_state(), before)

    def test_predict_evaluate_and_health_take_it(self):
        network, x, y = trained(spread=16), codes(60, 40).float(), torch.arange(60) % 5
        prediction = vb.predict(as_model(network), x, 8, generator=generator(0))
        assert prediction.probs.shape == (8, 60, 5)
        assert vb.evaluate(prediction, y)["nll"] > 0
        assert 0 < vb.health(as_model(network)).entropy_bits < 1
        assert float(vb.predict(as_model(network.sample(1)[0]), x, 0).total.mean()) > 0


def test_a_state_that_does_not_fit_in_its_last_layer_changes_none():
    network, wider = IntegerNetwork([4, 8, 3], bits=4), IntegerNetwork([4, 8, 3], bits=8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    wider.layers[0].counter.fill_(1)
    wider.layers[1].counter.fill_(100)
    with pytest.raises(CheckpointError, match=r"layers\.1\.counter"):
        network.load_state_dict(wider.state_dict())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    state = network.state_dict()
    state["layers.0.threshold"] = torch.full((8,), 5, dtype=torch.int32)
    with pytest.raises(CheckpointError, match="threshold goes beyond ±4"):
        network.load_state_dict(state)
