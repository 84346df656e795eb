"""`varbnn demo`."""

from __future__ import annotations

import argparse
from typing import Any

from varbnn import demo
from varbnn.cli.arguments import at_least, destination

SHORTHANDS = {"both": ("ste", "posterior"), "all": tuple(demo.METHODS)}
"""Values of --method that stand for several."""


def add(commands: Any) -> None:
    about = "train one binary network and a posterior over binary networks on real data, and compare them"
    add = commands.add_parser("demo", help=about, description=about).add_argument
    add("--data", choices=list(demo.RECIPES), default="digits", help="default: digits, which come with scikit-learn")
    add("--data-dir", metavar="DIR", help="where the files of mnist and fashion lie")
    add("--method", choices=[*demo.METHODS, *SHORTHANDS], default="both", help="default: both")
    add("--samples", type=at_least(1), default=32, metavar="N", help="networks that predict together; default: 32")
    add("--epochs", type=at_least(1), metavar="N", help="default: what suits the data")
    about = "between the layers; sign, all but the inputs is ±1, is the default except for moons"
    add("--activation", choices=list(demo.ACTIVATIONS), help=about)
    add("--seed", type=at_least(0), default=0, metavar="N", help="default: 0")
    about = "for pictures, packed networks and report.json; default: varbnn-demo"
    add("--out", type=destination, default="varbnn-demo", metavar="DIR", help=about)
    add("--quiet", action="store_true", help="only the table and the names of the files")
    commands.choices["demo"].set_defaults(command=_run)


def _run(chosen: argparse.Namespace) -> None:
    demo.run(
        chosen.data,
        data_dir=chosen.data_dir,
        methods=SHORTHANDS.get(chosen.method, (chosen.method,)),
        num_samples=chosen.samples,
        epochs=chosen.epochs,
        activation=chosen.activation,
        seed=chosen.seed,
        out=chosen.out,
        quiet=chosen.quiet,
    )
