"""The two pictures of docs/the-one-rule.md, drawn from runs of the rules themselves; half a minute on one core.

python docs/figures/one_rule.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from common import save
from torch import Tensor, nn
from torch.nn import functional as F

import varbnn as vb
from varbnn.bits import sign
from varbnn.data import load
from varbnn.optim import BayesBiNN, Bop, GaussianBLR, GradientFilter, Rule, StraightThrough
from varbnn.posteriors import Bernoulli, Gaussian, Point, Posterior, mark_belief
from varbnn.predict.style import BLUE, GREEN, INK, ORANGE, PALE, PINK, SKY, VERMILION, new_panels

STEPS, RATE = 300, 0.03
SIZE, RELAXATION, KAPPA = 1437, 1e-10, 5.0  # examples; the published relaxation; latents have no scale, so any κ
# weights of pixels that are always blank only decay, by 0.97³⁰⁰; they too are to stay above 20
SATURATED = Bernoulli("concrete", relaxation=RELAXATION, numerics="reference", init="sign", init_scale=1e6)


def network(posterior: Posterior) -> nn.Module:
    """64-64-10, every weight binary and every parameter a weight."""
    norms = [nn.BatchNorm1d(width, affine=False) for width in (64, 10)]
    layers = [nn.Linear(64, 64, bias=False), norms[0], nn.ReLU(), nn.Linear(64, 10, bias=False), norms[1]]
    return vb.binarize(nn.Sequential(*layers), posterior).double()


def runs() -> dict[str, tuple[nn.Module, Rule, Any]]:
    """Four methods from one start, each with what its evidence for +1 is, in units of the gradient."""
    torch.manual_seed(0)
    bayes = network(SATURATED)
    naturals = [p.detach().clone() for p in bayes.parameters()]
    averages = [-v * RELAXATION / SIZE for v in naturals]  # what λ stands for before the first step

    def start(values: list[Tensor]) -> nn.Module:
        model = network(Point())
        with torch.no_grad():
            for p, value in zip(model.parameters(), values, strict=True):
                p.copy_(value)
        return model

    latent, flips, filtered = start([-KAPPA * m for m in averages]), *(start([sign(v) for v in naturals]) for _ in "ab")
    bop = Bop(flips.parameters(), gamma=RATE, threshold=0.0)
    bop.set_state("exp_avg", averages)
    cascade = GradientFilter(filtered.parameters(), alpha=RATE, gamma=1.0)
    cascade.set_state("slow", averages)
    sgd = StraightThrough(latent.parameters(), base="sgd", lr=KAPPA * RATE, weight_decay=1 / KAPPA, clip=None)
    # p.grad arrives with the factor 1 / relaxation, so the gain is to be the rest of N / T
    rule = BayesBiNN(bayes.parameters(), lr=RATE, dataset_size=SIZE)
    return {
        "BayesBiNN, saturated: λ T / N": (bayes, rule, lambda p, state: p * RELAXATION / SIZE),
        "latent SGD with decay: r · weight_decay": (latent, sgd, lambda p, state: p / KAPPA),
        "gradient filter, γ = 1: −m": (filtered, cascade, lambda p, state: -state["slow"]),
        "Bop, threshold 0: −m": (flips, bop, lambda p, state: -state["exp_avg"]),
    }


def train() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Evidence of every first-layer weight after every step, by method (all signs agree), and its gradients."""
    data = load("digits")
    x, y = torch.as_tensor(data.train_x).double(), torch.as_tensor(data.train_y)
    batches = torch.Generator().manual_seed(1)
    methods, gradients = runs(), []
    evidence: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    for _ in range(STEPS):
        rows = torch.randint(len(x), (400,), generator=batches)
        signs = []
        for name, (model, optimizer, evidence_of) in methods.items():
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            first = next(model.parameters())
            evidence[name].append(evidence_of(first.detach(), optimizer.state[first]).flatten().numpy().copy())
            signs.append(torch.cat([sign(p.detach()).flatten() for p in model.parameters()]))
        assert all(torch.equal(signs[0], other) for other in signs[1:]), "the methods have parted"
        gradients.append(first.grad.flatten().numpy().copy())
    print(f"{len(signs[0])} signs agree in {len(methods)} methods after each of {STEPS} steps")
    return {name: np.stack(values) for name, values in evidence.items()}, np.stack(gradients)


def strips(panel: Any, rows: dict[str, tuple[np.ndarray, str]]) -> None:
    """A strip per method: coloured while its weight is +1, white while it is −1."""
    for row, (weight, colour) in enumerate(rows.values()):
        edges = np.flatnonzero(np.diff(weight > 0, prepend=False, append=False))
        spans = [(left + 0.5, right - left) for left, right in zip(edges[::2], edges[1::2], strict=True)]
        panel.broken_barh(spans, (row - 0.34, 0.68), facecolor=colour, linewidth=0)
    panel.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, STEPS))
    panel.set_yticks(range(len(rows)), list(rows))
    panel.tick_params(axis="y", length=0, labelsize=9)
    panel.spines[["left"]].set_visible(False)


def same(evidence: dict[str, np.ndarray], weight: int) -> Any:
    """Four methods on each other."""
    figure, (above, below) = new_panels(
        None, 2, figsize=(9.0, 5.4), sharex=True, gridspec_kw=dict(height_ratios=(3.2, 1))
    )
    styles = [
        dict(color=SKY, linewidth=9, solid_capstyle="butt"),
        dict(color=ORANGE, linewidth=5),
        dict(color=BLUE, linewidth=2),
        dict(color=INK, linestyle="none", marker="o", markersize=4.5, markevery=6),
    ]
    time = np.arange(1, STEPS + 1)
    above.axhline(0, color=PALE, linewidth=0.8)
    for (name, values), style in zip(evidence.items(), styles, strict=True):
        above.plot(time, 1e3 * values[:, weight], label=name, **style)
    above.set(ylabel="evidence for +1, 10⁻³", title="One weight, four methods")
    above.legend(frameon=False, loc="best", fontsize=9)
    short = ["BayesBiNN", "latent SGD", "filter", "Bop"]
    colours = [SKY, ORANGE, BLUE, INK]
    parts = zip(short, evidence.values(), colours, strict=True)
    strips(below, {name: (np.sign(values[:, weight]), colour) for name, values, colour in parts})
    below.set(xlabel="step")
    below.set_title("its weight: coloured is +1, white is −1", fontsize=9, loc="left")
    return figure


def replay(rule: type[Rule], gradient: np.ndarray, read: Any, posterior: Posterior | None = None, **settings: Any):
    """What `read(belief, state)` says after each step of one weight under given gradients of the loss."""
    posterior = posterior or rule.posterior()
    belief = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    mark_belief(belief, posterior, posterior.names[0])
    optimizer, values = rule([belief], **settings), []
    for g in gradient:
        before = belief.detach().clone().requires_grad_()
        posterior.draw(before, noise=torch.full((1,), 0.5, dtype=torch.float64)).backward(torch.tensor([g]))
        belief.grad = before.grad
        optimizer.step()
        values.append(float(read(belief.detach(), optimizer.state[belief])))
    return np.array(values)


def apart(gradient: np.ndarray) -> Any:
    """Each change that is no change of notation, on the gradients of one weight."""
    gradient = gradient / gradient.std()
    time, tau, gain = np.arange(1, STEPS + 1), 0.12, 6.0
    common = replay(Bop, gradient, lambda w, s: -s["exp_avg"], gamma=RATE, threshold=0.0)
    natural = gain * common
    drawn = vb.kernels.draw_signs(torch.as_tensor(natural), generator=torch.Generator().manual_seed(2)).numpy()
    cases = {
        "Bop with a threshold: τ w − m": (
            replay(Bop, gradient, lambda w, s: tau * w - s["exp_avg"], gamma=RATE, threshold=tau),
            BLUE,
        ),
        "latent SGD in a box, no decay": (
            replay(StraightThrough, gradient, lambda r, s: r, base="sgd", lr=RATE, clip=0.12),
            ORANGE,
        ),
        "latent Adam": (replay(StraightThrough, gradient, lambda r, s: r, base="adam", lr=RATE, clip=None), GREEN),
        "gradient filter, γ = 0.1": (
            replay(GradientFilter, gradient, lambda w, s: -s["slow"], alpha=RATE, gamma=0.1),
            PINK,
        ),
        "Gaussian latent, its window": (
            replay(
                GaussianBLR, gradient, lambda m, s: m, Gaussian("fixed"), lr=RATE, dataset_size=12, prior_precision=1.0
            ),
            VERMILION,
        ),
        "BayesBiNN, alive: draws from μ = tanh λ": (np.tanh(natural), SKY),
    }
    figure, panels = new_panels(
        None, 12, columns=3, figsize=(11.0, 6.6), sharex=True, gridspec_kw=dict(height_ratios=(3, 0.8, 3, 0.8))
    )
    for index, (title, (values, colour)) in enumerate(cases.items()):
        row, column = divmod(index, 3)
        above, below = panels[6 * row + column], panels[6 * row + 3 + column]
        alive = title.startswith("BayesBiNN")
        size = 1.0 if alive else np.sqrt((values**2).mean())
        base = np.tanh(natural) if alive else common / np.sqrt((common**2).mean())
        above.axhline(0, color=PALE, linewidth=0.8)
        above.plot(time, base, color="#CCCCCC", linewidth=5)
        above.plot(time, values / size, color=colour, linewidth=1.8)
        if alive:
            above.plot(time, drawn, ".", color=INK, markersize=3)
        above.set_title(title, fontsize=10, loc="left", color=INK)
        above.set_yticks([])
        above.set_ylabel("mean weight" if alive else "evidence", fontsize=9)
        weight = drawn if alive else np.sign(values)
        strips(below, {"common": (np.sign(common), "#BBBBBB"), "here": (weight, colour)})
        if row == 1:
            below.set(xlabel="step")
    return figure


def swing(evidence: np.ndarray) -> float:
    """How clearly a weight changes its mind: its second largest stay on either side, against its peak."""
    stays = np.split(evidence, np.flatnonzero(np.diff(np.sign(evidence))) + 1)
    areas = [float(stay.sum()) for stay in stays] + [0.0] * 4
    return min(sorted(areas)[-2], -sorted(areas)[1]) / float(np.abs(evidence).max())


def main() -> None:
    torch.set_num_threads(1)
    evidence, gradients = train()
    one = next(iter(evidence.values()))
    weight = max(range(one.shape[1]), key=lambda i: swing(one[:, i]))
    print(f"weight {weight} is shown")
    save(same(evidence, weight), "same.png", dpi=140, colours=64)
    save(apart(gradients[:, weight]), "apart.png", dpi=140, colours=64)


if __name__ == "__main__":
    main()
