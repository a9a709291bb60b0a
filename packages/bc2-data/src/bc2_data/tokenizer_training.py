"""A tiny tokenizer with Baichuan2's settings, for demonstrations and tests.

Its first 197 pieces are those of the official tokenizer.model, so the ids of ``<s>``, ``</s>``,
newline, ``<reserved_106>`` (195) and ``<reserved_107>`` (196) are the same; the settings (identity
normaliser, byte fallback, split digits, white space kept) are those in the official model's
trainer_spec. Text therefore behaves as it does with the official tokenizer, on any vocabulary from
about 500 pieces.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bc2_data.atomic import new_files, refuse_existing
from bc2_data.errors import DataError

_TAGS = (
    "img",
    "h2",
    "td",
    "strong",
    "table",
    "tr",
    "li",
    "b",
    "h3",
    "br",
    "h4",
    "h5",
    "p",
    "h1",
    "tbody",
)
# ruff: noqa: RUF001 - full-width characters are meant
_USER_DEFINED = [
    *("<SEP>", "<CLS>", "\n", "\t"),
    *(piece for tag in _TAGS for piece in (f"<{tag}>", f"<{tag}/>", f"</{tag}>")),
    *"０１２３４５６７８９+-=，。！？、：￥.!?",
    *("...", "。。。", "。。。。。。"),
    *"《》【】『』",
    *("```", "<!--", "-->", "---", "<!DOCTYPE>"),
    *"；．＝＜＞－＋％‼㊣／｜",
    *(f"<reserved_{number}>" for number in range(12, 108)),
]

# Four bytes a character at most, and the trainer skips sentences of more bytes than the official
# model's max_sentence_length.
_MAX_SENTENCE_BYTES = 12_282
_MAX_SENTENCE_CHARACTERS = _MAX_SENTENCE_BYTES // 4


def train_tokenizer(texts: Iterable[str], directory: Path, vocab_size: int) -> None:
    """Trains a BPE tokenizer and writes it as the official files are laid out.

    Args:
        texts: What to train on.
        directory: Receives tokenizer.model, tokenizer_config.json and special_tokens_map.json;
            made where it does not exist.
        vocab_size: Pieces; at least 453 (special tokens and bytes) plus the characters in texts.

    Raises:
        DataError: The files exist already, or the texts do not allow that vocabulary size.
    """
    names = ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")
    paths = [directory / name for name in names]
    refuse_existing(*paths, overwrite=False)
    model = _train(texts, vocab_size)
    with new_files(*paths) as (model_file, config_file, map_file):
        model_file.write_bytes(model)
        config_file.write_text(_json(_tokenizer_config()), encoding="utf-8")
        map_file.write_text(_json(_special_tokens_map()), encoding="utf-8")


def _train(texts: Iterable[str], vocab_size: int) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            user_defined_symbols=_USER_DEFINED,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            byte_fallback=True,
            split_digits=True,
            character_coverage=0.9998,
            max_sentencepiece_length=32,
            max_sentence_length=_MAX_SENTENCE_BYTES,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(
            f"no tokenizer of {vocab_size} pieces can be trained on these texts: {error}",
            "give more text, or another vocabulary size",
        ) from error
    return model.getvalue()


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    """Yields lines: newline is a piece of its own, so no other piece crosses it."""
    for text in texts:
        for line in text.split("\n"):
            for start in range(0, len(line), _MAX_SENTENCE_CHARACTERS):
                yield line[start : start + _MAX_SENTENCE_CHARACTERS]


def _special_tokens_map() -> dict[str, Any]:
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": True}
    return {name: {"content": content, **flags} for name, content in names.items()}


def _tokenizer_config() -> dict[str, Any]:
    tokens = {
        name: {"__type": "AddedToken", **token} for name, token in _special_tokens_map().items()
    }
    return {
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        "sp_model_kwargs": {},
        "tokenizer_class": "BaichuanTokenizer",
        **tokens,
    }


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"
