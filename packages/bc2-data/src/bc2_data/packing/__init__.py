"""Packs conversations into rows of one training sample each.

A row of seq_length + 1 tokens gives seq_length predictions, which is what a training step computes
whether the row is full or not. Packing fills the rows: best-fit decreasing chooses which
conversations share one, the attention mask numbers them 1, 2, 3 ..., and ids and labels stay as
they are. The trainer keeps attention and loss within one number, so a packed run trains what an
unpacked one does.
"""

from bc2_data.packing.bins import Rows, best_fit_decreasing
from bc2_data.packing.datasets import pack

__all__ = ["Rows", "best_fit_decreasing", "pack"]
