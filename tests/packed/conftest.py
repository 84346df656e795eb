"""Packed networks are compared with the model they came from: fresh statistics would be beside the point."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:this model has batch norm"))
