"""Writes one GGUF file, block by block.

The gguf package writes what stands before the elements. It would want whole tensors for these, so
they are appended here: row by row, each tensor filled up to the alignment with zeros.
"""

from __future__ import annotations

from pathlib import Path

from bc2_ckpt.blocks import raw_bytes
from bc2_ckpt.filters.rounding import rounded
from bc2_ckpt.formats.gguf import support
from bc2_ckpt.formats.gguf.metadata import write_head
from bc2_ckpt.formats.gguf.tensors import gguf_tensors
from bc2_ckpt.formats.gguf.vocabulary import read_vocabulary
from bc2_ckpt.formats.protocol import CheckpointReader
from bc2_ckpt.hashing import HashedFile

FILE = "model.gguf"


def write(reader: CheckpointReader, directory: Path) -> dict[str, str]:
    """Fills an empty directory with one file that holds the weights and the tokenizer.

    Args:
        reader: The source; `bc2_ckpt.formats.gguf.support.check` passes.
        directory: It exists and is empty.

    Returns:
        The SHA-256 of the file.
    """
    tensors = list(gguf_tensors(reader))
    infos = {tensor.name: tensor.info(reader) for tensor in tensors}
    vocabulary = read_vocabulary(support.tokenizer(reader), reader.config.vocab_size)
    path = directory / FILE
    alignment = write_head(path, reader.config, vocabulary, infos)
    head = path.read_bytes()
    with HashedFile(path) as file:
        file.write(head)
        for tensor in tensors:
            _pad(file, alignment)
            for block in tensor.blocks(reader):
                file.write(raw_bytes(rounded(block, infos[tensor.name].dtype, tensor.hf)))
        _pad(file, alignment)
        return {FILE: file.sha256}


def _pad(file: HashedFile, alignment: int) -> None:
    """Fills a file up to a multiple of the alignment."""
    file.write(bytes(-file.tell() % alignment))
