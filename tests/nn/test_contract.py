"""Every binary layer keeps the contract, and the contract notices one without a case."""

from tests.contracts import layer
from tests.contracts.layer import LayerContract, TwinContract, WeightContract
from varbnn.nn import BinaryConv2d


class TestLayers(LayerContract):
    pass


class TestTwin(TwinContract):
    pass


class TestWeight(WeightContract):
    pass


def test_a_layer_without_a_case_is_named(monkeypatch):
    monkeypatch.delitem(layer.CASES, BinaryConv2d)
    assert layer.lacking_a_case() == ["BinaryConv2d"]
