"""Real data in one shape: standardised float32 tensors, with inputs of another kind to be unsure about."""

from varbnn.data.corruptions import corrupt
from varbnn.data.dataset import Dataset
from varbnn.data.loading import NAMES, REGRESSION_NAMES, load, load_images
from varbnn.data.minibatches import Batches, batches, some_rows
from varbnn.data.own import from_files
from varbnn.data.real_targets import RegressionDataset

__all__ = [
    "NAMES",
    "REGRESSION_NAMES",
    "Batches",
    "Dataset",
    "RegressionDataset",
    "batches",
    "corrupt",
    "from_files",
    "load",
    "load_images",
    "some_rows",
]
