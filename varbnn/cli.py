"""The command `varbnn`: reads arguments, calls the library, and says in one line what went wrong."""

from __future__ import annotations

import argparse
import io
import os
import platform
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, NoReturn

import torch
from tqdm import tqdm

import varbnn
from varbnn import demo
from varbnn.errors import InputError, VarbnnError, VarbnnWarning

SHORTHANDS = {"both": ("ste", "posterior"), "all": tuple(demo.METHODS)}
"""Values of --method that stand for several."""

EXTRAS = {
    "plot": ("matplotlib",),
    "sdp": ("cvxpy",),
    "pyro": ("pyro-ppl",),
    "sklearn": ("scikit-learn",),
    "lightning": ("lightning",),
    "demo": ("matplotlib", "scikit-learn", "pillow"),
}
"""The distributions each optional extra brings."""

LARGEST_SEED = 2**63 - 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0, or 2 for anything the user can mend (one line on stderr), or 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ± shows ? instead of failing
    try:
        chosen = _parser().parse_args(arguments)
        with warnings.catch_warnings():
            warnings.showwarning = _one_line(warnings.showwarning)
            chosen.command(chosen)
            sys.stdout.flush()
    except VarbnnError as error:
        print(f"varbnn: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nvarbnn: interrupted, nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has seen enough, as in `varbnn info | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="varbnn", description=varbnn.__doc__)
    parser.add_argument("--version", action="version", version=f"varbnn {varbnn.__version__}")
    parser.set_defaults(command=lambda chosen: parser.print_help())
    commands = parser.add_subparsers(title="commands", metavar="command")
    _add_demo(commands)
    _add_info(commands)
    return parser


def _add_demo(commands: Any) -> None:
    about = "train one binary network and a posterior over binary networks on real data, and compare them"
    add = commands.add_parser("demo", help=about, description=about).add_argument
    add("--data", choices=list(demo.RECIPES), default="digits", help="default: digits, which come with scikit-learn")
    add("--data-dir", metavar="DIR", help="where the files of mnist and fashion lie")
    add("--method", choices=[*demo.METHODS, *SHORTHANDS], default="both", help="default: both")
    add("--samples", type=_at_least(1), default=32, metavar="N", help="networks that predict together; default: 32")
    add("--epochs", type=_at_least(1), metavar="N", help="default: what suits the data")
    add("--seed", type=_at_least(0), default=0, metavar="N", help="default: 0")
    add("--out", default="varbnn-demo", metavar="DIR", help="for pictures and report.json; default: varbnn-demo")
    add("--quiet", action="store_true", help="only the table and the names of the files")
    commands.choices["demo"].set_defaults(command=_demo)


def _demo(chosen: argparse.Namespace) -> None:
    demo.run(
        chosen.data,
        data_dir=chosen.data_dir,
        methods=SHORTHANDS.get(chosen.method, (chosen.method,)),
        num_samples=chosen.samples,
        epochs=chosen.epochs,
        seed=chosen.seed,
        out=chosen.out,
        quiet=chosen.quiet,
    )


def _add_info(commands: Any) -> None:
    about = "show versions, threads, kernels and optional extras"
    commands.add_parser("info", help=about, description=about).set_defaults(command=_info)


def _info(chosen: argparse.Namespace) -> None:
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    print(f"varbnn       {varbnn.__version__}")
    print(f"python       {platform.python_version()} on {platform.system()} {platform.machine()}")
    print(f"torch        {torch.__version__}, CPU {torch.backends.cpu.get_cpu_capability()}")
    print(f"threads      {torch.get_num_threads()} of {os.cpu_count()} cores")
    print(f"accelerator  {accelerator}")
    print("kernels")
    print(textwrap.indent(str(varbnn.backend_info()), "  "))
    print("extras")
    for extra, distributions in EXTRAS.items():
        print(f"  {extra:<9}  {_presence(extra, distributions)}")


def _presence(extra: str, distributions: Sequence[str]) -> str:
    found = {name: _version(name) for name in distributions}
    if all(found.values()):
        return ", ".join(f"{name} {version}" for name, version in found.items())
    missing = ", ".join(name for name, version in found.items() if version is None)
    return f'- {missing} absent: pip install "varbnn[{extra}]"'


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _at_least(smallest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
        if not smallest <= value <= LARGEST_SEED:
            limit = " and below 2**63" if value > 0 else ""
            raise argparse.ArgumentTypeError(f"must be at least {smallest}{limit}, got {text}")
        return value

    return read


def _one_line(show: Callable[..., None]) -> Callable[..., None]:
    """Warnings of ours as one line that a progress bar makes room for; all others as `show` shows them."""

    def shown(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, VarbnnWarning):
            tqdm.write(f"varbnn: warning: {message}", file=sys.stderr)
        else:
            show(message, category, *where, **more)

    return shown
