"""What a SentencePiece model file says about how text is cut into pieces.

The sentencepiece library tells neither the type of every piece nor all settings, and its Python
classes for the file need protobuf, so the few fields wanted here are read from the wire format.
Source: sentencepiece_model.proto of the sentencepiece project.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

# Field numbers of TrainerSpec and NormalizerSpec, and one value.
_MODEL_TYPE, _TREAT_WHITESPACE_AS_SUFFIX, _BYTE_FALLBACK = 3, 24, 35
_CHARSMAP, _ADD_DUMMY_PREFIX, _REMOVE_EXTRA_WHITESPACES, _ESCAPE_WHITESPACES = 2, 3, 4, 5
_BPE = 2


class PieceType(IntEnum):
    """ModelProto.SentencePiece.Type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Piece(NamedTuple):
    """One entry of the vocabulary; its id is its place.

    Attributes:
        text: With ``▁`` for a space.
        score: The higher, the earlier a merge that makes this piece; a float32's value.
        type: What sort of piece.
    """

    text: str
    score: float
    type: PieceType


@dataclass(frozen=True, kw_only=True)
class SentencePieceModel:
    """A model file.

    Attributes:
        pieces: The vocabulary in the order of ids.
        is_bpe: Whether the model merges pairs; other models choose pieces by probability.
        byte_fallback: Whether a character outside the vocabulary becomes its UTF-8 bytes.
        keeps_text: Whether text is encoded as it is, but for spaces, which become ``▁``.
    """

    pieces: list[Piece]
    is_bpe: bool
    byte_fallback: bool
    keeps_text: bool


def read_sentencepiece_model(path: Path) -> SentencePieceModel:
    """Reads a model file that the sentencepiece library can load."""
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for field, value in _fields(path.read_bytes()):
        if not isinstance(value, bytes):
            continue
        if field == 1:
            pieces.append(_piece(value))
        elif field == 2:
            trainer = dict(_fields(value))
        elif field == 3:
            normalizer = dict(_fields(value))
    changes_text = (
        normalizer.get(_CHARSMAP),
        normalizer.get(_ADD_DUMMY_PREFIX, 1),
        normalizer.get(_REMOVE_EXTRA_WHITESPACES, 1),
        not normalizer.get(_ESCAPE_WHITESPACES, 1),
        trainer.get(_TREAT_WHITESPACE_AS_SUFFIX),
    )
    return SentencePieceModel(
        pieces=pieces,
        is_bpe=trainer.get(_MODEL_TYPE) == _BPE,
        byte_fallback=bool(trainer.get(_BYTE_FALLBACK)),
        keeps_text=not any(changes_text),
    )


def _piece(message: bytes) -> Piece:
    text, score, kind = "", 0.0, int(PieceType.NORMAL)
    for field, value in _fields(message):
        if field == 1 and isinstance(value, bytes):
            text = value.decode("utf-8")
        elif field == 2 and isinstance(value, bytes):
            (score,) = struct.unpack("<f", value)
        elif field == 3 and isinstance(value, int):
            kind = value
    return Piece(text, score, PieceType(kind))


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields number and value of each field: an integer for a varint, bytes for all else."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        wire_type = key & 7
        if wire_type == 0:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        if wire_type == 2:
            size, position = _varint(message, position)
        else:
            size = {1: 8, 5: 4}[wire_type]
        yield key >> 3, message[position : position + size]
        position += size


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Returns a variable-length integer and the position behind it."""
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
