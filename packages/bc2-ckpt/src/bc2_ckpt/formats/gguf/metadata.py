"""What a GGUF file says before the elements: the model, its tokenizer, its tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bc2_ckpt.config import ModelConfig
from bc2_ckpt.formats.gguf.vocabulary import Vocabulary
from bc2_ckpt.formats.protocol import TensorInfo

_ARCHITECTURE = "baichuan"
_TENSOR_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_FILE_TYPES = {
    torch.float32: "ALL_F32",
    torch.float16: "MOSTLY_F16",
    torch.bfloat16: "MOSTLY_BF16",
}


def write_head(
    path: Path, config: ModelConfig, vocabulary: Vocabulary, tensors: Mapping[str, TensorInfo]
) -> int:
    """Writes the part of a file that comes before the elements of its tensors.

    Args:
        path: The file to make.
        config: The model.
        vocabulary: Its tokenizer.
        tensors: What follows, by its name in llama.cpp, in order.

    Returns:
        The alignment in bytes: the first tensor, and each one after it, begins at a multiple of it.
    """
    from gguf import GGMLQuantizationType, GGUFWriter

    writer: Any = GGUFWriter(path, _ARCHITECTURE)
    try:
        _add_model(writer, config, tensors)
        _add_vocabulary(writer, vocabulary)
        for name, info in tensors.items():
            kind = GGMLQuantizationType[_TENSOR_TYPES[info.dtype]]
            writer.add_tensor_info(name, info.shape, None, info.num_bytes, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()
    alignment: int = writer.data_alignment
    return alignment


def _add_model(writer: Any, config: ModelConfig, tensors: Mapping[str, TensorInfo]) -> None:
    """Adds the dimensions, under the keys that llama.cpp asks a Baichuan model for."""
    from gguf import LlamaFileType

    sizes: Counter[torch.dtype] = Counter()
    for info in tensors.values():
        sizes[info.dtype] += info.num_elements
    [(dtype, _)] = sizes.most_common(1)
    writer.add_file_type(LlamaFileType[_FILE_TYPES[dtype]])
    writer.add_context_length(config.max_sequence_length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if config.position_embedding == "rotary":
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_rope_freq_base(config.rope_theta)


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    """Adds the tokenizer; "llama" is llama.cpp's name for merging pairs as SentencePiece does."""
    texts, scores, types = zip(*vocabulary.pieces, strict=True)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(vocabulary.bos)
    writer.add_eos_token_id(vocabulary.eos)
    writer.add_unk_token_id(vocabulary.unknown)
    writer.add_pad_token_id(vocabulary.unknown)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
