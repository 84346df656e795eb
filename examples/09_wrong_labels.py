"""How many labels are wrong, and does a network that asks itself learn more from the others?

Of the digits to learn from, four in ten get a label drawn at random. A program in Pyro says so, without the number: a
label is the network's with probability 1 - r and any with r, and r is unknown. The network has ±1 weights with a
posterior; Pyro's bound trains it and the posterior of r together. Beside it, the same network that believes all labels.

    python examples/09_wrong_labels.py            under a minute
    python examples/09_wrong_labels.py --smoke    a size for tests

The last line printed is one JSON object with the results.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import varbnn as vb
from varbnn import data
from varbnn.data import Dataset

try:
    import pyro
    from pyro import distributions as dist

    from varbnn.bridges.pyro import PyroNetwork
except ImportError:
    sys.exit('this example needs Pyro: pip install "varbnn[pyro]"')


@dataclass(frozen=True)
class Settings:
    """Everything that can be changed. `lr` and temperature were chosen by eye; r is better found the warmer it is."""

    seed: int = 0
    share: float = 0.4
    width: int = 256
    epochs: int = 60
    batch_size: int = 64
    lr: float = 3e-3
    temperature: float = 0.1
    real_lr: float = 1e-2
    num_samples: int = 32


SMOKE = dict(width=16, epochs=2, num_samples=4)


class Share(nn.Module):
    """A belief in a share between 0 and 1: the sigmoid of a normal number, at first around a tenth."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(-2.0))
        self.log_scale = nn.Parameter(torch.tensor(-2.0))

    @property
    def law(self) -> dist.TransformedDistribution:
        normal = dist.Normal(self.loc, self.log_scale.exp())
        return dist.TransformedDistribution(normal, dist.transforms.SigmoidTransform())


def train(digits: Dataset, labels: Tensor, settings: Settings, doubting: bool) -> tuple[PyroNetwork, Share]:
    torch.manual_seed(settings.seed)
    pyro.clear_param_store()
    hidden = (nn.Linear(64, settings.width), nn.BatchNorm1d(settings.width), nn.ReLU())
    net = vb.binarize(nn.Sequential(*hidden, nn.Linear(settings.width, 10), nn.BatchNorm1d(10)))
    network, share = PyroNetwork(net, temperature=settings.temperature), Share()

    def model(x: Tensor, y: Tensor) -> None:
        wrong = pyro.sample("wrong", dist.Beta(1.0, 4.0)) if doubting else 0.0
        probs = (1 - wrong) * network(x).softmax(1) + wrong / 10
        with pyro.plate("data", len(labels), subsample_size=len(x)):
            pyro.sample("y", dist.Categorical(probs=probs), obs=y)

    def guide(x: Tensor, y: Tensor) -> None:
        network.guide()
        if doubting:
            pyro.sample("wrong", share.law)

    beliefs = [p for name, p in net.named_parameters() if name.endswith("natural")]
    others = [p for name, p in net.named_parameters() if not name.endswith("natural")]
    optimizers = (
        torch.optim.SGD(beliefs, lr=settings.lr / settings.temperature),  # on this bound the step of BayesBiNN
        torch.optim.Adam([*others, *share.parameters()], lr=settings.real_lr),
    )
    loader = data.batches(digits.train_x, labels, settings.batch_size)
    for _ in range(settings.epochs):
        for x, y in loader:
            for optimizer in optimizers:
                optimizer.zero_grad()
            pyro.infer.Trace_ELBO().differentiable_loss(model, guide, x, y).backward()
            for optimizer in optimizers:
                optimizer.step()
    return network, share


def main(settings: Settings) -> dict[str, Any]:
    begun = time.perf_counter()
    torch.set_num_threads(1)
    digits = data.load("digits")
    random = torch.Generator().manual_seed(settings.seed)
    size = digits.train_y.shape
    drawn = torch.randint(10, size, generator=random)
    labels = torch.where(torch.rand(size, generator=random) < settings.share, drawn, digits.train_y)
    wrong = int((labels != digits.train_y).sum())
    print(f"{settings.share:.0%} of {len(labels)} labels are drawn at random, {wrong} are wrong")
    results: dict[str, Any] = {}
    for name in ("believing", "doubting"):
        network, share = train(digits, labels, settings, doubting=name == "doubting")
        pred = vb.predict(network.network, digits.test_x, settings.num_samples, refresh_bn=digits.train_x)
        measured = vb.evaluate(pred, digits.test_y)
        results[name] = {key: round(measured[key], 4) for key in ("accuracy", "nll", "ece")}
        print(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in results[name].items()))
    r = share.law.sample((10_000,))
    low, middle, high = (r.quantile(q).item() for q in (0.05, 0.5, 0.95))
    print(f"share of labels that are random: {middle:.2f}, 90 % between {low:.2f} and {high:.2f}")
    results["share"] = [round(x, 3) for x in (low, middle, high)]
    return results | {"seconds": round(time.perf_counter() - begun, 1)}


if __name__ == "__main__":
    print(json.dumps(main(replace(Settings(), **SMOKE) if "--smoke" in sys.argv else Settings())))
