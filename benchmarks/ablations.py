"""The ablations of the papers in small: what do the numbers of Bop, Bop2ndOrder and the gradient filter do?

    python benchmarks/ablations.py

Network and data are those of ``varbnn demo --activation relu``, judged on the validation part, with constant rates
where no schedule is said. Signs are looked at after every step, so two runs are compared weight by weight over all of
training. Results are written after every run, and a run that is there already is not repeated.
"""

from __future__ import annotations

import argparse
import statistics
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import RESULTS, machine, read, say, write
from torch import Tensor, nn
from torch.nn import functional as F

import varbnn as vb
from varbnn import demo
from varbnn.bits import sign
from varbnn.data import Dataset, batches, load
from varbnn.demo.networks import network
from varbnn.optim import Bop, Bop2ndOrder, GradientFilter, Linear, Rule, Scheduler, StraightThrough, translate
from varbnn.optim.filters import NormalisedAverage
from varbnn.posteriors import Point, belief_of, mark_belief

EPOCHS, BATCH, REAL_LR, SEEDS = 40, 100, 1e-2, 3
WIDTHS = demo.RECIPES["digits"].widths

Settings = dict[str, Any]


@cache
def digits() -> Dataset:
    return load("digits", validation=True)


@cache
def steps() -> int:
    return EPOCHS * len(batches(digits().train_x, digits().train_y, BATCH))


# --- one run ---


POINT = Point()


@dataclass
class Trace:
    """A run that was watched.

    Attributes:
        measures: what is reported of it.
        signs: those of all weights, packed, before the first step and after each.
    """

    measures: dict[str, Any]
    signs: np.ndarray


@dataclass(frozen=True)
class Run:
    """How to train once.

    Attributes:
        optimizer: makes the rule from the model.
        seed: of the start and of the order of batches.
        posterior, dtype: of the network.
        start: what the initial latents are multiplied by.
        order: seed of the order alone.
        curves: of the rule's hyper-parameters, by step.
    """

    optimizer: Callable[[nn.Module], Rule]
    seed: int
    posterior: Point = POINT
    dtype: torch.dtype = torch.float32
    start: float = 1.0
    order: int | None = None
    curves: dict[str, Any] | None = None

    def train(self, look: Callable[[list[Tensor]], None] | None = None) -> Trace:
        """`look` sees the weights after each step, with the gradients it was made from."""
        data = digits()
        torch.manual_seed(self.seed)
        model = network(data, WIDTHS, self.posterior).to(self.dtype)
        beliefs = [p for p in model.parameters() if belief_of(p) is not None]
        with torch.no_grad():
            for p in beliefs:
                p.mul_(self.start)
        optimizer = self.optimizer(model)
        schedule = Scheduler(optimizer, **self.curves) if self.curves else None
        generator = torch.Generator().manual_seed(self.seed if self.order is None else self.order)
        loader = batches(data.train_x.to(self.dtype), data.train_y, BATCH, generator)
        signs = [packed(beliefs)]
        model.train()
        for _ in range(EPOCHS):
            for x, y in loader:
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
                if schedule is not None:
                    schedule.step()
                signs.append(packed(beliefs))
                if look is not None:
                    look(beliefs)
        return Trace(judged(model, np.stack(signs)), np.stack(signs))


def packed(beliefs: list[Tensor]) -> np.ndarray:
    return np.packbits(torch.cat([sign(p.detach()).flatten() for p in beliefs]).numpy() > 0)


def share(bits: np.ndarray) -> np.ndarray:
    """Of the weights, how many are marked; per row."""
    return np.unpackbits(bits, axis=-1).mean(-1)


def judged(model: nn.Module, signs: np.ndarray) -> dict[str, Any]:
    """Scores on validation data; flips per step, over all of training and over its last quarter; moved: share of the
    weights that ended on their other side."""
    data = digits()
    dtype = next(model.parameters()).dtype
    prediction = vb.predict(model, data.val_x.to(dtype), 0, refresh_bn=data.train_x.to(dtype))
    scores = vb.evaluate(prediction, data.val_y)
    flips = 8 * signs.shape[1] * share(signs[1:] ^ signs[:-1])
    return {
        "accuracy": scores["accuracy"],
        "nll": scores["nll"],
        "flips": float(flips.mean()),
        "late_flips": float(flips[-len(flips) // 4 :].mean()),
        "moved": float(share(signs[-1] ^ signs[0])),
        "fingerprint": f"{zlib.crc32(signs.tobytes()):08x}",
    }


def compared(signs: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Equal signs of two runs: after the last step, on average over the steps, at every step; and epoch by epoch."""
    unequal = signs ^ reference
    equal = 1 - share(unequal)
    apart = np.flatnonzero(equal < 1)
    return {
        "equal_at_end": float(equal[-1]),
        "equal_on_average": float(equal.mean()),
        "equal_throughout": float(1 - share(np.bitwise_or.reduce(unequal))),
        "first_difference": int(apart[0]) if len(apart) else None,
        "equal_by_epoch": [round(float(e), 6) for e in equal[:: steps() // EPOCHS]],
    }


# --- 1. Bop: how fast the average follows, and when a weight flips ---


def bop(settings: Settings, seed: int) -> dict[str, Any]:
    return Run(lambda model: Bop(model.parameters(), **settings, real_lr=REAL_LR), seed).train().measures


BOP = [
    {"gamma": gamma, "threshold": threshold}
    for gamma, threshold in product((1e-1, 1e-2, 1e-3, 1e-4, 1e-5), (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3))
]

# --- 2. Bop2ndOrder: forms and schedules ---

RATE = 1e-3
"""γ and σ where they are constant, and their means where they move."""


class Unfloored(NormalisedAverage):
    """Nothing worth mentioning is added to √v, so that dividing it by √σ changes the unit and nothing else."""

    eps = 1e-30


class WithoutFloor(Bop2ndOrder):
    """Bop2ndOrder with it."""

    filter = Unfloored()


FORMS: dict[str, tuple[type[Bop2ndOrder], str | None, torch.dtype]] = {
    "biased": (Bop2ndOrder, None, torch.float32),
    "released, matched": (Bop2ndOrder, "released", torch.float32),
    "released": (Bop2ndOrder, "released", torch.float32),
    "adam": (Bop2ndOrder, "adam", torch.float32),
    "biased, no floor": (WithoutFloor, None, torch.float64),
    "released, matched, no floor": (WithoutFloor, "released", torch.float64),
}
"""Rule, bias correction and arithmetic. Matched is a threshold that makes released what biased is."""


SCHEDULES = {"constant": (1.0, 1.0, 1.0), "published": (1e-3, 1e5, 1e-3), "published, γ constant": (1.0, 1e5, 1e-3)}
"""End over start of γ, σ and the threshold; the published one is that of the paper's CIFAR-10 runs."""


def course(mean: float, factor: float) -> Linear:
    """Linear over all steps, its end `factor` times its start: the published ratios around a mean of our own."""
    start = 2 * mean / (1 + factor)
    return Linear(start, factor * start, steps=steps())


def curves_of(settings: Settings) -> dict[str, Any]:
    means = (RATE, RATE, settings["threshold"])
    gamma, sigma, threshold = map(course, means, SCHEDULES[settings["schedule"]])
    if "matched" not in settings["form"]:
        return {"gamma": gamma, "sigma": sigma, "threshold": threshold}
    return {"gamma": gamma, "sigma": sigma, "threshold": lambda t: threshold(t) * sigma(t) ** 0.5 / gamma(t)}


@lru_cache(maxsize=SEEDS)
def second_trace(form: str, schedule: str, threshold: float, seed: int) -> Trace:
    rule, correction, dtype = FORMS[form]
    curves = curves_of({"form": form, "schedule": schedule, "threshold": threshold})

    def optimizer(model: nn.Module) -> Rule:
        return rule(model.parameters(), bias_correction=correction, real_lr=REAL_LR)

    return Run(optimizer, seed, dtype=dtype, curves=curves).train()


def second(settings: Settings, seed: int) -> dict[str, Any]:
    form = settings["form"]
    biased = "biased, no floor" if "no floor" in form else "biased"
    reference = second_trace(**{**settings, "form": biased}, seed=seed)
    if form == biased:
        return reference.measures
    found = second_trace.__wrapped__(**settings, seed=seed)
    same = compared(found.signs, reference.signs)
    del same["equal_by_epoch"]
    return {**found.measures, **same}


SECOND = [
    {"schedule": schedule, "threshold": threshold, "form": form}
    for schedule, threshold, form in product(("constant", "published"), (1e-4, 1e-3, 1e-2, 1e-1, 1.0), FORMS)
    if "no floor" not in form or threshold == 1e-2
]
SECOND += [{"schedule": "published, γ constant", "threshold": threshold, "form": "biased"} for threshold in (0.1, 1.0)]

# --- 3. Latents: which of their numbers mean something ---

SGD = {"base": "sgd", "lr": 1.0, "weight_decay": 1e-4, "momentum": 0.9, "clip": None}
ADAM = {"base": "adam", "lr": 3e-3, "weight_decay": 1e-4, "clip": None}
LATENTS: dict[str, tuple[Settings, Point]] = {
    "sgd": (SGD, Point()),
    "sgd, box": ({**SGD, "clip": 1.0}, Point()),
    "sgd, window": (SGD, Point(clip=1.0)),
    "adam": (ADAM, Point()),
    "adam, box": ({**ADAM, "clip": 1.0}, Point()),
}
"""The box clips latents at 1; the window lets a gradient pass only where the latent is within 1."""


def latent_run(form: str, start: float, lr: float, weight_decay: float, seed: int, dtype: str) -> Run:
    """A run of `form` whose three numbers are multiplied by these factors."""
    settings, posterior = LATENTS[form]
    settings = {**settings, "lr": lr * settings["lr"], "weight_decay": weight_decay * settings["weight_decay"]}
    return Run(
        lambda model: StraightThrough(model.parameters(), **settings, real_lr=REAL_LR),
        seed,
        posterior,
        getattr(torch, dtype),
        start,
    )


@lru_cache(maxsize=SEEDS)
def unchanged(form: str, seed: int, dtype: str, decay: float = 1.0) -> Trace:
    return latent_run(form, 1.0, 1.0, decay, seed, dtype).train()


def latent(settings: Settings, seed: int) -> dict[str, Any]:
    reference = unchanged(settings["form"], seed, settings["dtype"])
    if settings["start"] == settings["lr"] == settings["weight_decay"] == 1:
        found = reference
    else:
        found = latent_run(**settings, seed=seed).train()
    return {**found.measures, **compared(found.signs, reference.signs)}


def factors(form: str, start: float, lr: float, weight_decay: float, dtype: str = "float32") -> Settings:
    return {"form": form, "start": start, "lr": lr, "weight_decay": weight_decay, "dtype": dtype}


SCALES = (1 / 16, 1 / 4, 1.0, 4.0, 16.0)
LATENT = [
    *(factors("sgd", start, lr, 1 / lr) for start, lr in product(SCALES, SCALES)),
    *(factors("sgd", 1.0, 1.0, decay) for decay in (0.0, 0.1, 10.0, 100.0)),
    *(factors("sgd", 10.0, 10.0, 0.1, dtype) for dtype in ("float32", "float64")),
    *(factors(form, c, c, 1 / c) for form in list(LATENTS)[1:] for c in (1 / 16, 1.0, 16.0)),
    *(factors("adam", 1.0, 1.0, decay) for decay in (0.0, 0.1, 10.0)),
]

# --- 4. The filter's start ---


def translated(decay: float) -> dict[str, Any]:
    """Settings of the filter that is latent SGD."""
    source = {"rule": "StraightThrough", **SGD, "weight_decay": decay * SGD["weight_decay"], "real_lr": REAL_LR}
    return translate(source, "GradientFilter").settings


def on_given_gradients(decay: float, seed: int) -> np.ndarray:
    """The filter from zero, fed with the gradients of the latent run: nothing it does comes back to it."""
    run = latent_run("sgd", 1.0, 1.0, decay, seed, "float64")
    shadows: list[nn.Parameter] = []
    rules: list[Rule] = []
    signs: list[np.ndarray] = []

    def look(beliefs: list[Tensor]) -> None:
        if not shadows:
            shadows.extend(nn.Parameter(torch.ones_like(belief)) for belief in beliefs)
            for shadow in shadows:
                mark_belief(shadow, Point(), "latent")
            rules.append(GradientFilter(shadows, **translated(decay)))
        for shadow, belief in zip(shadows, beliefs, strict=True):
            shadow.grad = belief.grad
        rules[0].step()
        signs.append(packed(shadows))

    start = run.train(look).signs[:1]
    return np.concatenate([start, signs])


def filter_start(settings: Settings, seed: int) -> dict[str, Any]:
    decay, start = settings["weight_decay"], settings["start"]
    reference = unchanged("sgd", seed, "float64", decay)
    if start == "zero, given gradients":
        return compared(on_given_gradients(decay, seed), reference.signs)
    base = latent_run("sgd", 1.0, 1.0, decay, seed, "float64")

    def taken_over(model: nn.Module) -> Rule:
        return translate(base.optimizer(model), "GradientFilter").build(model.parameters())

    run = {
        "translated": replace(base, optimizer=taken_over),
        "zero": replace(base, optimizer=lambda model: GradientFilter(model.parameters(), **translated(decay))),
        "latents, other batches": replace(base, order=seed + 1000),
        "latents, other start": replace(base, seed=seed + 1000, order=seed),
    }[start]
    found = run.train()
    return {**found.measures, **compared(found.signs, reference.signs)}


STARTS = ("translated", "zero, given gradients", "zero", "latents, other batches", "latents, other start")
FILTER = [{"weight_decay": decay, "start": start} for decay, start in product((1.0, 10.0), STARTS)]

# --- all of it ---

ABLATIONS: dict[str, tuple[Callable[[Settings, int], dict[str, Any]], list[Settings]]] = {
    "bop": (bop, BOP),
    "second": (second, SECOND),
    "latent": (latent, LATENT),
    "filter": (filter_start, FILTER),
}


def summarise(runs: list[dict[str, Any]], cases: list[Settings]) -> list[dict[str, Any]]:
    """Mean, least and greatest over the seeds, a row per case."""
    table = []
    for settings in cases:
        of_case = [run for run in runs if run["settings"] == settings]
        numbers = [key for key, value in of_case[0].items() if isinstance(value, float)]
        row: dict[str, Any] = {"settings": settings, "seeds": len(of_case)}
        for key in numbers:
            values = [run[key] for run in of_case]
            row[key] = {"mean": statistics.fmean(values), "min": min(values), "max": max(values)}
        table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(ABLATIONS), default=list(ABLATIONS))
    parser.add_argument("--out", type=Path, default=RESULTS / "ablations.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = {"machine": machine(), "runs": {}, "table": {}} | read(args.out)
    results["network"] = {"hidden": WIDTHS, "epochs": EPOCHS, "steps": steps(), "batch_size": BATCH}
    results["weights"] = 64 * WIDTHS[0] + WIDTHS[0] * WIDTHS[1] + WIDTHS[1] * 10
    for name in args.only:
        function, cases = ABLATIONS[name]
        runs = results["runs"].setdefault(name, [])
        for settings in cases:
            for seed in range(SEEDS):
                if not any(run["settings"] == settings and run["seed"] == seed for run in runs):
                    runs.append({"settings": settings, "seed": seed, **function(settings, seed)})
                    say(name, settings, seed, {k: v for k, v in runs[-1].items() if isinstance(v, float)})
                    write(args.out, results)
        results["table"][name] = summarise(runs, cases)
        write(args.out, results)
        for row in results["table"][name]:
            print(
                name,
                row["settings"],
                *(f"{k} {v['mean']:.4g}" for k, v in row.items() if isinstance(v, dict) and "mean" in v),
            )


if __name__ == "__main__":
    main()
