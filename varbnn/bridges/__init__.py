"""Doors to other libraries, each in its own module, each an extra: ``from varbnn.bridges.sklearn import ...``."""
