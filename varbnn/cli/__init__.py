"""The command `varbnn`: reads arguments, calls the library, and says in one line what went wrong."""

from varbnn.cli.program import main

__all__ = ["main"]
