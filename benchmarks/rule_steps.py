"""What does `step()` of every rule cost, beside torch's fused Adam on the same tensors?

    python benchmarks/rule_steps.py

One parameter of 10 million weights, float32, one thread. Every rule runs as it is and compiled (`torch.compile` of its
step, which needs a C++ compiler). Rules and Adam take turns within one run; figures are processor seconds, ratios are
formed round by round and their median is quoted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, machine, say, write
from torch import nn

import varbnn as vb
from varbnn.optim import BayesBiNN, Bop, Bop2ndOrder, GaussianBLR, GradientFilter, Rule, StraightThrough
from varbnn.posteriors import Bernoulli, Gaussian, Point, Posterior

WEIGHTS = 10_000_000
BAYES = {"lr": 1e-4, "dataset_size": 60000, "temperature": 1 / 300}
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
}


def steps(names: list[str]) -> dict[str, tuple[Callable[[], None], int]]:
    """By name, what is timed and how many tensors of `WEIGHTS` its parameters are."""
    found: dict[str, tuple[Callable[[], None], int]] = {}
    for name in names:
        posterior, rule, settings = RULES[name]
        for kind in ("", ", compiled"):
            layer = vb.binarize(nn.Linear(WEIGHTS // 1000, 1000, bias=False), posterior)
            parameters = list(layer.parameters())
            for p in parameters:
                p.grad = 1e-4 * torch.randn_like(p)
            step = rule(parameters, **settings).step
            found[name + kind] = (torch.compile(step) if kind else step, len(parameters))
    return found


def adam(tensors: int) -> Callable[[], None]:
    parameters = [nn.Parameter(0.1 * torch.randn(1000, WEIGHTS // 1000)) for _ in range(tensors)]
    for p in parameters:
        p.grad = 1e-4 * torch.randn_like(p)
    return torch.optim.Adam(parameters, fused=True).step


def measure(name: str, rounds: int) -> dict[str, dict[str, float]]:
    """The rule as it is and compiled, in turns with Adam on as many tensors."""
    timed = steps([name])
    timed[ADAM] = (adam(next(iter(timed.values()))[1]), 0)
    seconds: dict[str, list[float]] = {key: [] for key in timed}
    for number in range(rounds + 3):
        for key, (step, _) in timed.items():
            start = time.process_time()
            step()
            if number >= 3:  # the first rounds allocate and compile
                seconds[key].append(time.process_time() - start)
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
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table: dict[str, Any] = {}
    for name in RULES:
        torch._dynamo.reset()
        rows = measure(name, args.rounds)
        table[name] = {"eager": rows[name], "compiled": rows[f"{name}, compiled"], "adam_ms": rows[ADAM]["median_ms"]}
        say(name, *(f"{kind} {table[name][kind]['ratio_to_fused_adam']:.2f}" for kind in ("eager", "compiled")))
    write(args.out, {"machine": machine(), "weights": WEIGHTS, "rounds": args.rounds, "table": table})
    for name, row in table.items():
        ratios = [f"{row[kind]['ratio_to_fused_adam']:.2f}" for kind in ("eager", "compiled")]
        print(f"{name:32} {row['eager']['median_ms']:6.1f} ms   x fused Adam: {ratios[0]}, compiled {ratios[1]}")


if __name__ == "__main__":
    main()
