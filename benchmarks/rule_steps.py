"""What does `step()` of every rule cost, beside torch's fused Adam on the same tensors?

    python benchmarks/rule_steps.py
    python benchmarks/rule_steps.py --only BiMU Metaplastic      # the other rows stay as they are

One parameter of 10 million weights, float32, one thread. Every rule runs as it is (the compiled kernels), in plain
torch (``VARBNN_BACKEND=reference``), and through `torch.compile` of its plain step, which needs a C++ compiler. Rules
and Adam take turns within one run; figures are processor seconds, ratios are formed round by round and their median is
quoted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, read, say, write
from torch import nn

import varbnn as vb
from varbnn.kernels import using_backend
from varbnn.optim import (
    VISPA,
    BayesBiNN,
    BiMU,
    Bop,
    Bop2ndOrder,
    FollowingPrior,
    GaussianBLR,
    GradientFilter,
    Metaplastic,
    Rule,
    StraightThrough,
    WindowedBayes,
)
from varbnn.posteriors import Bernoulli, Gaussian, LowRankGaussian, Point, Posterior

WEIGHTS = 10_000_000
BAYES = {"lr": 1e-4, "dataset_size": 60000, "temperature": 1 / 300}
STREAM = {"lr": 0.77, "window": 300_000, "batch_size": 50}
BIMU = {"lr": 4.9, "likelihood_multiplier": 161.3, "kl_multiplier": 3.76, "lr_max": 0.0023, "memory": 700}
ADAM = "Adam(fused=True)"

RULES: dict[str, tuple[Posterior, type[Rule], dict[str, Any]]] = {
    "StraightThrough, Adam": (Point(), StraightThrough, {}),
    "StraightThrough, SGD": (Point(), StraightThrough, {"base": "sgd", "momentum": 0.9, "weight_decay": 1e-4}),
    "Bop": (Point(), Bop, {}),
    "Bop2ndOrder": (Point(), Bop2ndOrder, {}),
    "Bop2ndOrder, released": (Point(), Bop2ndOrder, {"bias_correction": "released"}),
    "Bop2ndOrder, adam": (Point(), Bop2ndOrder, {"bias_correction": "adam"}),
    "GradientFilter": (Point(), GradientFilter, {}),
    "BayesBiNN": (Bernoulli(), BayesBiNN, BAYES),
    "BayesBiNN, momentum": (Bernoulli(), BayesBiNN, {**BAYES, "momentum": 0.9}),
    "GaussianBLR, fixed": (Gaussian(), GaussianBLR, BAYES),
    "GaussianBLR, natural": (Gaussian(form="natural"), GaussianBLR, BAYES),
    "GaussianBLR, learned": (Gaussian(form="learned"), GaussianBLR, BAYES),
    "VISPA, rank 2": (LowRankGaussian(rank=2), VISPA, {"weight_decay": 1e-5}),
    "VISPA, rank 2, unit": (LowRankGaussian(rank=2, constraint="unit"), VISPA, {"weight_decay": 1e-5}),
    "WindowedBayes, plain": (Bernoulli(), WindowedBayes, {**STREAM, "decay": "plain"}),
    "WindowedBayes, variance": (Bernoulli(), WindowedBayes, STREAM),
    "FollowingPrior": (Bernoulli(), FollowingPrior, {**STREAM, "settling": 100_000}),
    "BiMU": (Bernoulli(gradient="euclidean"), BiMU, {**BIMU, "batch_size": 50}),
    "Metaplastic": (Point(), Metaplastic, {}),
}


KINDS = ("as it is", "plain torch", "torch.compile")


def steps(name: str) -> tuple[dict[str, Callable[[], None]], int]:
    """What is timed for each kind, and how many tensors of `WEIGHTS` numbers the rule's parameters amount to."""
    found: dict[str, Callable[[], None]] = {}
    posterior, rule, settings = RULES[name]
    for kind in KINDS:
        layer = vb.binarize(nn.Linear(WEIGHTS // 1000, 1000, bias=False), posterior)
        parameters = list(layer.parameters())
        for p in parameters:
            p.grad = 1e-4 * torch.randn_like(p)
        step = rule(parameters, **settings).step
        found[kind] = torch.compile(step) if kind == "torch.compile" else step
    return found, sum(p.numel() for p in parameters) // WEIGHTS


def adam(tensors: int) -> Callable[[], None]:
    parameters = [nn.Parameter(0.1 * torch.randn(1000, WEIGHTS // 1000)) for _ in range(tensors)]
    for p in parameters:
        p.grad = 1e-4 * torch.randn_like(p)
    return torch.optim.Adam(parameters, fused=True).step


def measure(name: str, rounds: int) -> dict[str, dict[str, float]]:
    """The rule in every kind, in turns with Adam on as many tensors."""
    timed, tensors = steps(name)
    timed[ADAM] = adam(tensors)
    seconds: dict[str, list[float]] = {key: [] for key in timed}
    for number in range(rounds + 3):
        for key, step in timed.items():
            with using_backend("reference" if key == "plain torch" else "best"):
                start = time.process_time()
                step()
                taken = time.process_time() - start
            if number >= 3:  # the first rounds allocate and compile
                seconds[key].append(taken)
    return {
        key: {
            "median_ms": 1e3 * statistics.median(taken),
            "min_ms": 1e3 * min(taken),
            "ratio_to_fused_adam": statistics.median(t / a for t, a in zip(taken, seconds[ADAM], strict=True)),
        }
        for key, taken in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULTS / "rule-steps.json")
    parser.add_argument("--only", nargs="+", choices=RULES, default=list(RULES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table: dict[str, Any] = read(args.out).get("table", {})
    for name in args.only:
        torch._dynamo.reset()
        rows = measure(name, args.rounds)
        table[name] = {**{kind: rows[kind] for kind in KINDS}, "adam_ms": rows[ADAM]["median_ms"]}
        say(name, *(f"{kind} {table[name][kind]['ratio_to_fused_adam']:.2f}" for kind in KINDS))
    level = vb.backend_info().cpu
    table = {name: table[name] for name in RULES if name in table}
    write(args.out, {"machine": machine(), "level": level, "weights": WEIGHTS, "rounds": args.rounds, "table": table})
    for name, row in table.items():
        ratios = [f"{kind} {row[kind]['ratio_to_fused_adam']:.2f}" for kind in KINDS]
        print(f"{name:32} {row['as it is']['median_ms']:6.1f} ms   x fused Adam: {', '.join(ratios)}")


if __name__ == "__main__":
    main()
