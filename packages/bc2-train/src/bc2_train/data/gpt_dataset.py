"""megatron-core's GPTDataset, which also says where the documents of a sample end."""

from __future__ import annotations

from typing import Any

import numpy as np
from megatron.core.datasets.gpt_dataset import GPTDataset


class DocumentAwareGPTDataset(GPTDataset):
    """Gives the tokens of a sample as they are, with the lengths of the documents they come from.

    megatron-core finds documents by their EOS, which data without ``--append-eos`` does not have.
    """

    def __getitem__(self, index: int | None) -> dict[str, Any]:
        """Returns ``text``, (seq + 1,) tokens, and ``document_lengths``, whose sum is seq + 1."""
        sample = 0 if index is None else index  # a blend asks for None to fill up
        text, documents = self._query_document_sample_shuffle_indices(sample)
        number = self.shuffle_index[sample]
        (first, offset), (last, end) = self.sample_index[number], self.sample_index[number + 1]
        lengths = self.dataset.sequence_lengths[documents].astype(np.int64)
        if first == last:
            lengths[0] = end - offset + 1
        else:
            lengths[0] -= offset
            lengths[-1] = end + 1
        # The last sample of a run may be filled up, which counts to its last document.
        lengths[-1] += len(text) - lengths.sum()
        return {"text": text, "document_lengths": lengths}
