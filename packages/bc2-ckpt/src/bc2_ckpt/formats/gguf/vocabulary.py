"""The tokenizer as llama.cpp wants it: pieces, scores and types of a SentencePiece model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bc2_ckpt.errors import MismatchError
from bc2_data.engines.sentencepiece_model import Piece, PieceType, read_sentencepiece_model
from bc2_data.tokenizer import load_tokenizer

_NEVER = -1000.0
"""The score of what is no piece, as llama.cpp's converter gives it."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What stands for every row of the embedding.

    Attributes:
        pieces: One a row; rows beyond the tokenizer's pieces are `PieceType.UNUSED`.
        bos: Id of ``<s>``, which is never added.
        eos: Id of ``</s>``, which ends an answer.
        unknown: Id of ``<unk>``, with which Baichuan2 also pads.
    """

    pieces: list[Piece]
    bos: int
    eos: int
    unknown: int


def read_vocabulary(path: Path, rows: int) -> Vocabulary:
    """Reads a tokenizer.model.

    Args:
        path: The file.
        rows: Rows of the embedding and of the output layer.

    Raises:
        DataError: It is no SentencePiece model, or lacks the control tokens.
        MismatchError: It has more pieces than the model has rows, or llama.cpp would cut text in
            another way than it does.
    """
    special = load_tokenizer(path, engine="sentencepiece").special
    model = read_sentencepiece_model(path)
    if not (model.is_bpe and model.byte_fallback and model.keeps_text):
        raise MismatchError(
            f"{path} does not merge pairs, lacks bytes or changes text before it cuts it: "
            "llama.cpp would not give its ids",
            "use the tokenizer.model of a Baichuan2 release",
        )
    surplus = rows - len(model.pieces)
    if surplus < 0:
        raise MismatchError(
            f"{path} has {len(model.pieces):,} pieces, but the model has {rows:,} rows for them, "
            "with which llama.cpp loads neither",
            "use the tokenizer that the model was trained with",
        )
    unused = [Piece(f"[PAD{i}]", _NEVER, PieceType.UNUSED) for i in range(surplus)]
    unknown = next(i for i, p in enumerate(model.pieces) if p.type is PieceType.UNKNOWN)
    assert special.bos is not None  # the engine for SentencePiece models asks for it
    return Vocabulary(
        pieces=model.pieces + unused, bos=special.bos, eos=special.eos, unknown=unknown
    )
