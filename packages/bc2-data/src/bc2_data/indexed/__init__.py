"""Megatron's IndexedDataset on numpy: documents of token ids in a .bin and an .idx file.

The bytes are those of ``megatron.core.datasets.indexed_dataset.IndexedDatasetBuilder``.
"""

from bc2_data.indexed.layout import bin_path, idx_path
from bc2_data.indexed.reader import IndexedDataset, spans
from bc2_data.indexed.writer import IndexedWriter, write_index

__all__ = ["IndexedDataset", "IndexedWriter", "bin_path", "idx_path", "spans", "write_index"]
