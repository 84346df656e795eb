"""Modules that are an optional package's own are collected, for their doctests, only where it is there."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("sklearn") else ["varbnn/bridges/estimator.py", "varbnn/bridges/sklearn.py"]
