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
from varbnn.data.files import reason_of
from varbnn.errors import InputError, VarbnnError, VarbnnWarning

WORDS = {
    "data_dir= (--data-dir)": "--data-dir",
    "download=True fetches them into it": "varbnn.data.load(NAME, DIR, download=True) in Python fetches them",
    "validation=True sets a sixth of every class aside": "a sixth of every class is set aside then (varbnn continual: "
    "with --validation)",
    "pass refresh_bn=training inputs": "pass --refresh-bn with training inputs",
}
"""What the library calls its arguments, and what a terminal has instead."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0, or 2 for anything the user can mend (one line on stderr), or 130 after Ctrl-C.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as in `varbnn info >&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ± shows ? instead of failing
    try:
        return _outcome(arguments)
    except OSError as error:
        if not _stdout_fails():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes when it ends
        if isinstance(error, BrokenPipeError):  # the reader has seen enough, as in `varbnn info | head -1`
            return 1
        print(f"varbnn: cannot write to standard output: {reason_of(error)}", file=sys.stderr)
        return 2


def _outcome(arguments: Sequence[str] | None) -> int:
    try:
        chosen = _parser().parse_args(arguments)
        with warnings.catch_warnings():
            warnings.showwarning = _one_line(warnings.showwarning)
            chosen.command(chosen)
            sys.stdout.flush()
    except VarbnnError as error:
        sys.stdout.flush()
        print(f"varbnn: {_printable(_of_terminals(str(error)))}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        print("varbnn: not enough memory for what was asked for; choose smaller numbers", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:  # a command that can go on says so
        print(f"\nvarbnn: {str(stop) or 'interrupted, nothing was written'}", file=sys.stderr)
        return 130
    return 0


def _stdout_fails() -> bool:
    """Whether standard output takes nothing any more."""
    try:
        print(flush=True)
    except OSError:
        return True
    return False


def _of_terminals(message: str) -> str:
    """`message` of the library with options of commands in the place of arguments.

    >>> _of_terminals("say where they are with data_dir= (--data-dir)")
    'say where they are with --data-dir'
    """
    for of_python, of_terminals in WORDS.items():
        message = message.replace(of_python, of_terminals)
    return message


def _printable(message: str) -> str:
    """`message` on one line, with the control characters that names in files may have as escapes.

    >>> _printable("there is no é\\x1b[31m")
    'there is no é\\\\x1b[31m'
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in message)


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
            tqdm.write(f"varbnn: warning: {_of_terminals(str(message))}", file=sys.stderr)
        else:
            show(message, category, *where, **more)

    return shown
