"""From a name of a data set to a directory with the answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import varbnn as vb
from varbnn.checks import whole_number
from varbnn.data import Dataset, load
from varbnn.demo import words
from varbnn.demo.methods import METHODS, Outcome, train
from varbnn.demo.output import DEMO, REPORT, as_json, output
from varbnn.demo.pictures import draw
from varbnn.demo.recipes import RECIPES, SIGNS, Recipe
from varbnn.errors import InputError, MissingExtraError

NETWORKS = {"relu": RECIPES, "sign": SIGNS}
"""Recipes by activation and data set."""


def run(
    data: str = "digits",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    methods: Iterable[str] = ("ste", "posterior"),
    num_samples: int = 32,
    epochs: int | None = None,
    activation: str | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] = "varbnn-demo",
    quiet: bool = False,
) -> dict[str, Any]:
    """Train `methods` with the same budget, compare them, and write pictures, packed networks and `report.json`.

    Args:
        data: see `varbnn.data.load`.
        data_dir: where the files of mnist and fashion lie.
        methods: keys of `METHODS`.
        num_samples: networks that a posterior predicts with.
        epochs: instead of the recipe's.
        activation: between the layers: ``"sign"``, networks of bits throughout, or ``"relu"``. When absent signs, but
            for moons, for which there are no such settings.
        seed: of initial weights, batches and draws.
        out: a directory, made if need be; files of an earlier run in it are replaced, and only when everything is done.
        quiet: print the table and the files, nothing else.

    Returns:
        What `report.json` holds.

    Raises:
        InputError: an unknown name, a number out of range, data that cannot be read, a directory that cannot be written
            to or holds a run of `varbnn train` or `varbnn continual`. Nothing is trained then.
        MissingExtraError: what the data are read with is not installed.
    """
    methods = _known(data, methods)
    asked, activation = activation, _activation(data, activation)
    num_samples = whole_number("num_samples", num_samples)
    epochs = None if epochs is None else whole_number("epochs", epochs)
    seed = whole_number("seed", seed, 0, 2**63 - 1)
    data_dir, out = None if data_dir is None else os.fspath(data_dir), os.fspath(out)
    say: Callable[[str], None] = (lambda text: None) if quiet else partial(print, flush=True)
    recipe = NETWORKS[activation][data]
    recipe = recipe if epochs is None else replace(recipe, epochs=epochs)
    with output(Path(out), DEMO):
        pass  # better to hear now that it cannot be written to than after the training
    with alone(recipe.threads):
        dataset = load(data, data_dir, seed)
        say(words.opening(dataset, recipe))
        outcomes: dict[str, Outcome] = {}
        for name in methods:
            method, label = METHODS[name], name.ljust(max(map(len, methods)))
            say(f"\n{method.title}")
            settings = recipe.settings[name]
            outcomes[name] = train(
                method, dataset, recipe, settings, num_samples=num_samples, seed=seed, progress=not quiet, label=label
            )
        measures = {name: outcome.measures for name, outcome in outcomes.items()}
        say(f"\n{methods[-1]}, layer by layer:\n{vb.summary(outcomes[methods[-1]].model, dataset.test_x[:1])}\n")
        print(words.table(measures), flush=True)
        say(f"\n{words.reading(dataset, measures, num_samples)}")
        with output(Path(out), DEMO) as place:
            try:
                draw(dataset, outcomes, num_samples, place.draft)
            except MissingExtraError as error:
                say(f"\nNo pictures: {error}")
            packed = _pack(outcomes, dataset, recipe, num_samples, seed, place.draft)
            made = sorted(path.name for path in place.draft.iterdir())
            report = {"program": DEMO} | words.report(recipe, dataset, seed, num_samples, outcomes, made)
            (place.draft / REPORT).write_text(as_json(report), encoding="utf-8")
            files = place.publish()
    print(f"\nWritten to {out}: {', '.join(files)}")
    say(f"\n{words.suggestions(data, data_dir, out, packed, asked)}")
    return report


def _pack(
    outcomes: Mapping[str, Outcome], data: Dataset, recipe: Recipe, num_samples: int, seed: int, folder: Path
) -> list[str]:
    """Write the sampled networks of every method that draws; returns the names of the files."""
    drawing = [name for name in outcomes if METHODS[name].draws]
    for name in drawing:
        generator = torch.Generator().manual_seed(seed)
        inputs = data.train_x[: recipe.refresh]
        packed = vb.pack(outcomes[name].model, num_samples, refresh_bn=inputs, generator=generator)
        packed.save(folder / f"{name}.vbnn")
    return [f"{name}.vbnn" for name in drawing]


@contextmanager
def alone(threads: int | None) -> Iterator[None]:
    """With so many threads, and with torch's random state and number of threads put back afterwards."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads or before)
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)


def _known(data: str, methods: Iterable[str]) -> list[str]:
    """The methods, if these and the data set are known."""
    if not isinstance(data, str) or data not in RECIPES:
        raise InputError(f"there is no data set {data!r}; known are {', '.join(RECIPES)}")
    known = ", ".join(METHODS)
    if isinstance(methods, str) or not isinstance(methods, Iterable):
        raise InputError(f"methods must be a list of names, got {methods!r}; known are {known}")
    names = list(methods)
    unknown = [name for name in names if not isinstance(name, str) or name not in METHODS]
    if unknown or not names:
        raise InputError(f"there is no method {unknown[0] if unknown else ''!r}; known are {known}")
    return names


def _activation(data: str, activation: str | None) -> str:
    """The one asked for, if there are settings for it; else the first there are."""
    if activation is None:
        return "sign" if data in SIGNS else "relu"
    if not isinstance(activation, str) or activation not in NETWORKS:
        raise InputError(f"activation must be one of {', '.join(map(repr, NETWORKS))}, got {activation!r}")
    if data not in NETWORKS[activation]:
        raise InputError(
            f"there are no settings for {data} with activation={activation!r}, only for {', '.join(SIGNS)}"
        )
    return activation
