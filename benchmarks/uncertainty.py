"""Fashion-MNIST: what a living posterior knows about its errors, beside every binary baseline and the float twin.

    python benchmarks/uncertainty.py --data-dir DIR                   (10,000 images, 784-200-200-10, 20 epochs)
    python benchmarks/uncertainty.py --data-dir DIR --scale medium --stages 1 2     (the same, 40 epochs)
    python benchmarks/uncertainty.py --data-dir DIR --scale long --stages 1 3       (the same, 80 epochs)
    python benchmarks/uncertainty.py --data-dir DIR --scale full --stages 1 2       (50,000 images, 784-400-400-10)
    python benchmarks/uncertainty.py --data-dir DIR --scale conv --stages 1 2       (50,000 images, convolutions)
    python benchmarks/uncertainty.py --data-dir DIR --scale signs --stages 1 2 --seeds 10   (the first, all of it ±1)

Batches of 100, the same epochs, batches, start and cosine for every method. 10,000 other training images are kept aside
throughout: settings are chosen by their NLL, and calibration temperatures and the prior
of Laplace are fitted on them. Then every seed is trained and tested once. Methods that draw predict with 16 draws;
those that do not also as what their last epochs, or networks of their own, say together.

Results are written after every run and a run that is there is not repeated, so the script can be stopped and started.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
import uncertainty_methods as methods
from record import RESULTS, machine, read, say, write
from torch import Tensor
from uncertainty_methods import MEMBERS, METHODS, SAMPLES, SCALES, Result, Scale, Settings
from uncertainty_summary import summarise

import varbnn as vb
from varbnn.data import Dataset, load
from varbnn.data.files import pixels_of
from varbnn.predict.evaluation import UNCERTAINTY, Score
from varbnn.predict.metrics import ood_auroc

TUNING_SEED = 100
PRECISIONS = (1.0, 10.0, 100.0, 300.0, 1e3, 3e3, 1e4, 1e5)
"""Of the prior of Laplace's last layer."""

MEASURES = ("accuracy", "nll", "ece", "brier")
FOREIGN = {"mnist": "mnist", "notmnist": "notmnist_test", "letters": "emnist_letters_test"}
"""Their files. Letters are for choosing by what each way tells foreign inputs: they are not tested."""
SCORES: tuple[Score, ...] = ("total", "epistemic")
ENSEMBLE = "deep ensemble"

STAGES = (
    ("posterior", "ste", "bop", ENSEMBLE),
    ("vispa", "published"),
    ("float", "dropout"),
)
"""Each is tuned and run with every seed before the next begins."""
SNAPSHOTS = (2, 4, 8)
"""Of the last epochs; how many is chosen by the validation NLL of each seed."""


@dataclass(frozen=True)
class Asked:
    """All inputs in one tensor, so that each network is made ready once."""

    data: Dataset
    scale: Scale
    x: Tensor
    parts: dict[str, slice]

    @classmethod
    def of(cls, data: Dataset, scale: Scale, foreign: dict[str, Tensor]) -> Asked:
        assert data.val_x is not None
        inputs = {"val": data.val_x, "test": data.test_x, **foreign}
        parts, start = {}, 0
        for name, x in inputs.items():
            parts[name] = slice(start, start + len(x))
            start += len(x)
        return cls(data, scale, torch.cat(list(inputs.values())), parts)

    def scores(self, prediction: vb.Prediction) -> Result:
        """Measures on test data, raw and with logits divided by the temperature that suits the validation data."""
        assert self.data.val_y is not None
        scaling = vb.TemperatureScaling().fit(prediction[self.parts["val"]], self.data.val_y)
        val = vb.evaluate(prediction[self.parts["val"]], self.data.val_y)
        return {
            "networks": prediction.num_samples,
            "val_nll": val["nll"],
            "ece_if_calibrated": self.least_error(prediction[self.parts["test"]]),
            "raw": self._measures(prediction),
            "scaled": {"temperature": scaling.temperature, **self._measures(scaling(prediction))},
        }

    def least_error(self, test: vb.Prediction) -> float:
        """The ECE that a calibrated network with these confidences would have on as many images."""
        generator = torch.Generator().manual_seed(0)
        return vb.calibration_test(test, self.data.test_y, generator=generator).expected

    def _measures(self, prediction: vb.Prediction) -> dict[str, float]:
        test = prediction[self.parts["test"]]
        found = dict(vb.evaluate(test, self.data.test_y))
        detected = {}
        for score in SCORES if prediction.num_samples > 1 else SCORES[:1]:
            known = UNCERTAINTY[score](test)
            for name in FOREIGN:
                detected[f"{name}_{score}"] = ood_auroc(known, UNCERTAINTY[score](prediction[self.parts[name]]))
        return {key: found[key] for key in MEASURES} | detected


def inputs(data_dir: str, scale: Scale) -> Asked:
    """Fashion-MNIST with a validation part, and foreign images, all standardised as its training images."""
    data = load("fashion", data_dir, validation=True)
    foreign = {}
    for name, file in FOREIGN.items():
        pixels = torch.from_numpy(pixels_of(Path(data_dir) / f"{file}.npz", "x_test", data.shape[0])).float()
        foreign[name] = (pixels - data.mean) / data.std
    chosen = torch.randperm(len(data.train_x), generator=torch.Generator().manual_seed(0))[: scale.train]
    return Asked.of(replace(data, train_x=data.train_x[chosen], train_y=data.train_y[chosen]), scale, foreign)


# --- one run of each kind: what it is called, and all that its networks say ---


def run(
    name: str, asked: Asked, settings: Settings, seed: int, tuning: bool
) -> tuple[Result, dict[str, vb.Prediction]]:
    """Train `name`, and ask its networks in every way there is, or in one."""
    method, data = METHODS[name], asked.data
    trained = methods.train(name, data, asked.scale, settings, seed, max(SNAPSHOTS) if method.snapshots else 0)
    ways = {name: methods.ask(name, trained.model, asked.x, data, seed)}
    result = {
        "entropy_bits": methods.entropy_bits(trained.model),
        "ms_per_step": trained.ms_per_step,
        "train_loss": trained.train_loss,
    }
    if tuning:
        return result, ways
    if method.draws:
        ways[f"{name}, mode"] = methods.ask(name, trained.model, asked.x, data, seed, 0)
    if method.snapshots:
        every = methods.together(name, trained.states, trained.model, asked.x, data)
        ways[f"{name}, snapshots"] = best((vb.Prediction(every[-count:]) for count in SNAPSHOTS), asked)
    if name == "float":
        sampled = methods.laplace(trained.model, asked.x, data, seed)
        ways["float, laplace"] = best(map(sampled, PRECISIONS), asked)
    return result, ways


def best(predictions: Iterable[vb.Prediction], asked: Asked) -> vb.Prediction:
    """That of the lowest NLL on validation data."""
    return min(predictions, key=lambda p: vb.evaluate(p[asked.parts["val"]], asked.data.val_y)["nll"])


def ensemble(asked: Asked, settings: Settings, seed: int) -> tuple[Result, dict[str, vb.Prediction]]:
    """Straight-through networks from starts of their own, which together cost as much as one of the others."""
    every, results, share = [], [], replace(asked.scale, epochs=asked.scale.epochs // MEMBERS)
    for member in range(MEMBERS):
        own = 1000 + MEMBERS * seed + member
        trained = methods.train("ste", asked.data, share, settings, own)
        every.append(methods.ask("ste", trained.model, asked.x, asked.data, own).probs)
        results.append((trained.ms_per_step, trained.train_loss))
    measured = map(statistics.fmean, zip(*results, strict=True))
    result = {"entropy_bits": 0.0} | dict(zip(("ms_per_step", "train_loss"), measured, strict=True))
    return result, {ENSEMBLE: vb.Prediction(torch.cat(every))}


# --- all of it ---


def once(
    name: str, asked: Asked, settings: Settings, seed: int, tuning: bool = False
) -> tuple[Result, dict[str, vb.Prediction]]:
    """Train, and ask: in every way, or while tuning only in the first."""
    return ensemble(asked, settings, seed) if name == ENSEMBLE else run(name, asked, settings, seed, tuning)


def tune(names: Iterable[str], asked: Asked, results: Result, path: Path, most: int | None) -> None:
    """Fill in the missing trials and name each method's best."""
    few = replace(asked, x=asked.x[asked.parts["val"]])  # they come first, so that their part stays where it is
    for name in names:
        every = asked.scale.trials[name]
        done = results.setdefault("tuning", {}).setdefault(name, [])
        done[:] = [trial for trial in done if trial["settings"] in every]  # none of an earlier list
        for settings in every[:most]:
            if any(trial["settings"] == settings for trial in done):
                continue
            result, ways = once(name, few, settings, TUNING_SEED, tuning=True)
            found = vb.evaluate(ways[name][asked.parts["val"]], asked.data.val_y)
            row = {key: found[key] for key in ("accuracy", "nll", "ece")}
            done.append({"settings": settings, **row, "entropy_bits": result["entropy_bits"]})
            say(name, done[-1])
            write(path, results)
        results.setdefault("chosen", {})[name] = min(done, key=lambda trial: trial["nll"])["settings"]
    write(path, results)


def final(names: Iterable[str], asked: Asked, results: Result, path: Path, seeds: int, cache: Path) -> None:
    """Train the chosen settings with every seed, and test once; mean probabilities are kept for pictures."""
    cache.mkdir(parents=True, exist_ok=True)
    for seed, name in product(range(seeds), names):
        settings, runs = results["chosen"][name], results.setdefault("runs", {}).setdefault(name, [])
        runs[:] = [row for row in runs if row["settings"] == settings]  # of an earlier, shorter tuning
        if any(row["seed"] == seed for row in runs):
            continue
        result, ways = once(name, asked, settings, seed)
        for way, prediction in ways.items():
            torch.save(prediction.mean, cache / f"{way}-{seed}.pt")
        scores = {way: asked.scores(prediction) for way, prediction in ways.items()}
        runs.append({"seed": seed, "settings": settings, **result, "ways": scores})
        say(name, seed, *(f"{way} {row['raw']['nll']:.4f} {row['raw']['ece']:.4f}" for way, row in scores.items()))
        write(path, results)


def full_ensembles(asked: Asked, results: Result, path: Path, cache: Path) -> None:
    """Four straight-through networks of the full budget each, of the seeds after each seed: ensembles share members."""
    seeds = [row["seed"] for row in results.get("runs", {}).get("ste", [])]
    files = {seed: cache / f"ste-{seed}.pt" for seed in seeds}
    runs = results["runs"].setdefault("full ensemble", [])
    chosen = results.get("chosen", {}).get("ste")
    runs[:] = [row for row in runs if row["settings"] == chosen]
    if len(seeds) <= MEMBERS or len(runs) == len(seeds) or not all(file.exists() for file in files.values()):
        return
    runs.clear()  # of fewer seeds: the members are others
    probs = {seed: torch.load(file) for seed, file in files.items()}
    for place, seed in enumerate(seeds):
        others = [seeds[(place + step) % len(seeds)] for step in range(1, MEMBERS + 1)]
        prediction = vb.Prediction(torch.stack([probs[other] for other in others]))
        runs.append(
            {
                "seed": seed,
                "settings": chosen,
                "entropy_bits": 0.0,
                "ways": {"full ensemble": asked.scores(prediction)},
            }
        )
    write(path, results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add: Callable[..., Any] = parser.add_argument
    add("--data-dir", required=True, help="where fashion_mnist, mnist, notmnist_test and emnist_letters_test.npz lie")
    add("--seeds", type=int, default=5)
    add("--trials", type=int, help="of each method, at most; default: all")
    add(
        "--stages",
        type=int,
        nargs="+",
        choices=(1, 2, 3),
        default=[1, 2, 3],
        help="1: posterior, points, ensembles; 2: VISPA; 3: real",
    )
    add("--scale", choices=list(SCALES), default="small")
    add("--cache", type=Path, default=Path("build/uncertainty"), help="for mean probabilities; default: %(default)s")
    add("--out", type=Path, help="default: benchmarks/results/uncertainty-fashion-SCALE.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = args.out or RESULTS / f"uncertainty-fashion-{args.scale}.json"
    cache, scale = args.cache / args.scale, SCALES[args.scale]
    known = [number for number, stage in enumerate(STAGES, 1) if set(stage) <= scale.trials.keys()]
    if not set(args.stages) <= set(known):
        parser.error(f"--scale {args.scale} has trials for --stages {' '.join(map(str, known))}")
    asked = inputs(args.data_dir, scale)
    about = {"train": scale.train, "widths": scale.widths, "epochs": scale.epochs, "members": MEMBERS}
    about |= {"channels": scale.channels} if scale.channels else {}
    about |= {"activation": scale.activation} if scale.activation != "relu" else {}
    results = {"data": "fashion", "machine": machine(), "num_samples": SAMPLES, **about} | read(path)
    for stage in (STAGES[number - 1] for number in args.stages):
        tune(stage, asked, results, path, args.trials)
        final(stage, asked, results, path, args.seeds, cache)
        full_ensembles(asked, results, path, cache)
        summarise(results, asked.data, scale)
        write(path, results)
    for way, row in results["table"].items():
        print(f"{way:16}", *(f"{key} {v['mean']:.4f} ± {v['sd']:.4f}" for key, v in row["raw"].items()), sep="  ")


if __name__ == "__main__":
    main()
