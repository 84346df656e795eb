"""Packed ensembles as files: everything is checked before it is used, and nothing in a file is ever executed."""

from varbnn.packed.file.reading import Opened, read
from varbnn.packed.file.writing import save

__all__ = ["Opened", "read", "save"]
