"""The libraries that turn text into ids, one module each.

Every kind of tokenizer file has a reference engine. A faster encoder may take its place where it
gives the same ids for every text.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from bc2_data.errors import DataError

if TYPE_CHECKING:
    from bc2_data.engines.base import Encoder, Engine

EngineChoice = Literal["auto", "sentencepiece", "fastokens"]
ENGINES: tuple[EngineChoice, ...] = get_args(EngineChoice)


def open_engine(file: Path) -> Engine:
    """Returns the reference engine of a tokenizer file.

    Args:
        file: A tokenizer.json of Hugging Face, or else a SentencePiece model.

    Raises:
        DataError: The file is damaged, or the library that reads it is missing.
    """
    if file.suffix == ".json":
        from bc2_data.engines.huggingface import HuggingFaceEngine

        return HuggingFaceEngine(file)
    from bc2_data.engines.sentencepiece import SentencePieceEngine

    return SentencePieceEngine(file)


def open_encoder(file: Path, sha256: str, reference: Engine, choice: EngineChoice) -> Encoder:
    """Returns what encodes the text of a run.

    Args:
        file: The tokenizer file.
        sha256: Its SHA-256.
        reference: Its reference engine.
        choice: ``auto`` takes fastokens where it is installed and gives the same ids, else the
            reference.

    Raises:
        DataError: The engine asked for cannot encode with this file.
    """
    from bc2_data.engines.checked import CheckedEncoder
    from bc2_data.engines.fastokens import FastokensEncoder
    from bc2_data.engines.tokenizer_json import NoEquivalentError

    if choice == reference.name:
        return reference
    try:
        if reference.name != "sentencepiece":
            raise NoEquivalentError("it is no SentencePiece model")
        return CheckedEncoder(FastokensEncoder(file, sha256), reference)
    except NoEquivalentError as error:
        if choice == "auto":
            return reference
        raise DataError(
            f"--engine {choice} cannot encode with {file}: {error}",
            "leave --engine out",
        ) from error
