"""Which rule is which other rule: what `varbnn.optim.translate` knows, one function for each pair.

A function takes a group of the source and the choices that the target leaves open, raises InputError where a condition
fails, and returns a `Mapping`. tests/optim/test_equivalences.py proves them step by step.
"""

from varbnn.optim.mappings import flips, latents, streams
from varbnn.optim.mappings.conditions import Source
from varbnn.optim.mappings.table import TABLE, Mapping
from varbnn.optim.mappings.words import explained

__all__ = ["TABLE", "Mapping", "Source", "explained", "flips", "latents", "streams"]
