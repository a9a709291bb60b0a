"""Training data: datasets of samples, and the order in which every parallel layout sees them."""

from bc2_train.data.batches import Batch, BatchLoader
from bc2_train.data.build import build_datasets

__all__ = ["Batch", "BatchLoader", "build_datasets"]
