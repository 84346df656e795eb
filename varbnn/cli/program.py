"""The program: its commands, its exit codes, and one line for every mistake."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from tqdm import tqdm

import varbnn
from varbnn.cli import about, bench, continual, demonstration, evaluating, packing, predicting, training
from varbnn.errors import InputError, VarbnnError, VarbnnWarning


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
        sys.stdout.flush()
        print(f"varbnn: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        print("varbnn: not enough memory for what was asked for; choose smaller numbers", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:  # a command that can go on says so
        print(f"\nvarbnn: {str(stop) or 'interrupted, nothing was written'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has seen enough, as in `varbnn info | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _out_of_memory(error: Exception) -> bool:
    """Whether this is what Python, numpy or torch say where memory, or the size of an array, does not suffice."""
    known = ("can't allocate memory", "not enough memory", "out of memory", "Storage size calculation overflowed")
    return isinstance(error, MemoryError) or any(text in str(error) for text in known)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="varbnn", description=varbnn.__doc__)
    parser.add_argument("--version", action="version", version=f"varbnn {varbnn.__version__}")
    parser.set_defaults(command=lambda chosen: parser.print_help())
    commands = parser.add_subparsers(title="commands", metavar="command")
    for command in (demonstration, training, evaluating, continual, packing, predicting, bench, about):
        command.add(commands)
    return parser


def _one_line(show: Callable[..., None]) -> Callable[..., None]:
    """Warnings of ours as one line that a progress bar makes room for; all others as `show` shows them."""

    def shown(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, VarbnnWarning):
            tqdm.write(f"varbnn: warning: {message}", file=sys.stderr)
        else:
            show(message, category, *where, **more)

    return shown
