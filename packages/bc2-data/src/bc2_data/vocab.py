"""Facts about Baichuan2's vocabulary that every package needs.

Source: the tokenizer_config.json, generation_config.json and config.json of the official release.
"""

from __future__ import annotations

VOCAB_SIZE = 125_696
"""Rows of the embedding and of the output layer."""

PAD_ID = 0
"""`<unk>`, which Baichuan2 also pads with."""

BOS_ID = 1
"""`<s>`; never added by Baichuan2's tokenizer (add_bos_token is false)."""

EOS_ID = 2
"""`</s>`: ends a document and an assistant's turn."""

USER_ID = 195
"""`<reserved_106>`: opens a user's turn."""

ASSISTANT_ID = 196
"""`<reserved_107>`: opens an assistant's turn."""

IGNORE_INDEX = -100
"""The label of a position whose prediction is not trained."""

VOCAB_DIVISOR = 128
"""In our megatron-core model the rows of one tensor-parallel rank are a multiple of this, as matrix
units like it."""


def padded_vocab_size(vocab_size: int, divisor: int, tensor_parallel: int) -> int:
    """Returns the vocabulary size padded to a multiple of divisor * tensor_parallel.

    Source: AscendSpeed's ``vocab_size_with_padding``; 125,696 with divisor 128 becomes 125,952 at
    tensor-parallel size 8.

    Args:
        vocab_size: True rows, at least 1.
        divisor: ``--make-vocab-size-divisible-by``, at least 1.
        tensor_parallel: Tensor-parallel size, at least 1.
    """
    multiple = divisor * tensor_parallel
    return -(-vocab_size // multiple) * multiple
