"""Training data: datasets of samples, and the order in which every parallel layout sees them."""

from bc2_train.data.batches import Batch, BatchLoader, Padding
from bc2_train.data.build import build_datasets, padding

__all__ = ["Batch", "BatchLoader", "Padding", "build_datasets", "padding"]
