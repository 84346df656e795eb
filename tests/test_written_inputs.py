"""A model that writes into its input learns and tells what its twin does that does not, and leaves the data alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import varbnn as vb
from varbnn import active, continual, sdp
from varbnn.continual.ewc import fisher_diagonal

pytestmark = pytest.mark.filterwarnings("ignore::varbnn.errors.VarbnnWarning")  # these runs are too short to learn


class Halved(nn.Module):
    """Half of its input, written into it where `writes`."""

    def __init__(self, writes: bool) -> None:
        super().__init__()
        self.writes = writes

    def forward(self, inputs):
        return inputs.div_(2) if self.writes else inputs / 2


def network(writes: bool) -> nn.Module:
    torch.manual_seed(1)
    return vb.binarize(nn.Sequential(Halved(writes), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)))


def real(writes: bool) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(Halved(writes), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def adam(model, task):
    return torch.optim.Adam(model.parameters(), lr=0.1)


def tasks(x, y):
    return continual.from_tasks([continual.Task(name, x, y, x, y, (0, 1)) for name in ("one", "two")], 2)


def fitted(writes, x, y, num_samples):
    model = network(writes)
    optimizer = vb.optim.BayesBiNN(model.parameters(), lr=0.1, dataset_size=len(x))
    vb.fit(model, optimizer, [(x, y)], epochs=2, num_samples=num_samples, progress=False)
    return list(model.state_dict().values())


def queried(writes, x, y):
    model = network(writes)
    active.learn(model, adam(model, None), active.StreamQuery(threshold=0.0), x, lambda asked: y[asked])
    return list(model.state_dict().values())


def refreshed(writes, x, y):
    model = network(writes)
    vb.refresh_batchnorm(model, x)
    vb.refresh_batchnorm(model, [x])
    return [model[2].running_mean, model[2].running_var]


def learned(writes, x, y, model, strategy):
    result = continual.learn(model(writes), tasks(x, y), strategy, epochs=2, num_samples=2, progress=False)
    return [matrix.nan_to_num() for matrix in result.nll.values()]


def layerwise(writes, x, y):
    binary, _ = sdp.binarize_layerwise(real(writes), x, progress=False)
    return list(binary.state_dict().values())


WAYS = {
    "fit": lambda writes, x, y: fitted(writes, x, y, 1),
    "fit with four draws": lambda writes, x, y: fitted(writes, x, y, 4),
    "active.learn": queried,
    "refresh_batchnorm": refreshed,
    "freeze": lambda writes, x, y: list(vb.freeze(network(writes), refresh_bn=x).state_dict().values()),
    "predict": lambda writes, x, y: [vb.predict(network(writes), x, 3, refresh_bn=x).probs],
    "pack": lambda writes, x, y: [vb.pack(network(writes), 3, refresh_bn=x)(x)],
    "summary": lambda writes, x, y: [torch.tensor([row.binary_macs for row in vb.summary(network(writes), x).layers])],
    "fisher": lambda writes, x, y: list(fisher_diagonal(network(writes), x, y).values()),
    "continual.learn": lambda writes, x, y: learned(writes, x, y, network, continual.FineTune(adam)),
    "EWC": lambda writes, x, y: learned(writes, x, y, network, continual.EWC(adam)),
    "MeanField": lambda writes, x, y: learned(
        writes, x, y, lambda writes: continual.mean_field(real(writes)), continual.MeanField(adam)
    ),
    "binarize_layerwise": layerwise,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_model_that_writes_into_its_input_changes_neither_data_nor_result(way):
    x, y = torch.randn(40, 4), torch.arange(40) % 2
    given = x.clone()
    expected = WAYS[way](False, x, y)
    found = WAYS[way](True, x, y)
    assert torch.equal(x, given)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
