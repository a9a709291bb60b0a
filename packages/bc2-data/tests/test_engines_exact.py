"""Both engines give sentencepiece's ids on adversarial text, and on real text.

BC2_FUZZ_STRINGS says how many strings (20,000), BC2_FUZZ_SEED which ones (0).
"""

from __future__ import annotations

import json
import os
import random
import struct
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from bc2_data.checksum import sha256
from bc2_data.engines.base import Encoder
from bc2_data.engines.bpe_merges import AmbiguousOrderError, ordered_merges
from bc2_data.engines.sentencepiece import SentencePieceEngine
from bc2_data.engines.sentencepiece_model import (
    PieceType,
    SentencePieceModel,
    read_sentencepiece_model,
)

STRINGS = int(os.environ.get("BC2_FUZZ_STRINGS", "20000"))
SEED = int(os.environ.get("BC2_FUZZ_SEED", "0"))
BATCH = 5000

Make = Callable[[], str]

CONTROL = "\0\a\b\t\n\v\f\r\x1b\x7f\x85\xa0\xad\u200b\u200d\u2028\u202e\u3000\ufeff\ufffd▁"
COMBINING = "\u0301\u0308\u0327\u0345\u05b0\u064b\u093c\u0e31\u20e3\u3099\ufe0f\U0001f3fd"
LITERALS = ["<s>", "</s>", "<unk>", "<SEP>", "<CLS>", "<reserved_106>", "<reserved_107>", "<0x41>"]


class Adversary:
    """Makes strings that a tokenizer may get wrong.

    Args:
        model: Whose pieces the strings are made of.
        seed: Equal seeds give equal strings.
    """

    def __init__(self, model: SentencePieceModel, seed: int) -> None:
        self._rng = random.Random(seed)
        of_type = defaultdict(list)
        of_score = defaultdict(list)
        for text, score, kind in model.pieces:
            spelled = text.replace("▁", " ")
            of_type[kind].append(spelled)
            if kind == PieceType.NORMAL and len(text) > 1:
                of_score[score].append(spelled)
        self._pieces = of_type[PieceType.NORMAL]
        self._user_defined = of_type[PieceType.USER_DEFINED]
        self._names = of_type[PieceType.BYTE] + of_type[PieceType.CONTROL] + LITERALS
        self._tied = [pieces for pieces in of_score.values() if len(pieces) > 1]

    def strings(self, number: int) -> list[str]:
        kinds: list[Make] = [
            *(self._characters, self._words, self._words, self._mixture, self._two_letters),
            *(self._run, self._repeated_piece, self._name),
        ]
        if self._tied:
            kinds.append(self._ties)
        return [self._rng.choice(kinds)() for _ in range(number)]

    def _length(self) -> int:
        return self._rng.choice([1, 2, 3, 5, 8, 13, 40, 150])

    def _join(self, make: Make) -> str:
        return "".join(make() for _ in range(self._length()))

    def _character(self) -> str:
        rng = self._rng
        sort = rng.randrange(9)
        if sort == 0:
            return rng.choice(CONTROL)
        if sort == 1:
            return rng.choice(COMBINING)
        if sort == 2:
            return chr(rng.randrange(0x1F300, 0x1FB00))  # emoji
        if sort == 3:
            return chr(rng.randrange(0xA0, 0x700))
        if sort in (4, 5):
            return chr(rng.randrange(0x4E00, 0xA000))
        if sort in (6, 7):
            return chr(rng.randrange(0x20, 0x7F))
        character = rng.randrange(1, 0x110000 - 0x800)
        return chr(character if character < 0xD800 else character + 0x800)  # no surrogates

    def _piece(self) -> str:
        return self._rng.choice(self._pieces)

    def _anything(self) -> str:
        of_sort: list[Make] = [self._piece, self._character]
        for pieces in (self._user_defined, self._names):
            of_sort.append(lambda pieces=pieces: self._rng.choice(pieces))
        return self._rng.choice(of_sort)()

    def _characters(self) -> str:
        return self._join(self._character)

    def _words(self) -> str:
        return self._join(self._piece)

    def _mixture(self) -> str:
        return self._join(self._anything)

    def _two_letters(self) -> str:
        letters = self._rng.choice(["ab ", "的 ", "an", "e.", "0 ", "\n ", self._piece() + "a"])
        return self._join(lambda: self._rng.choice(letters))

    def _run(self) -> str:
        character = self._rng.choice(
            [" ", "  ", "=", "-", "a", "哈", "。", "\n", "0", "#", "\t", "."]
        )
        return self._character() + character * self._rng.randrange(1, 300) + self._character()

    def _repeated_piece(self) -> str:
        return self._piece() * self._rng.randrange(2, 30)

    def _name(self) -> str:
        """A text that is the name of a piece, or begins or ends with one."""
        name = self._rng.choice(self._names)
        return self._rng.choice([name, name + name, name + self._piece(), self._piece() + name])

    def _ties(self) -> str:
        """Pieces of one score, as neighbours and with something between them."""
        tied = self._rng.choice(self._tied)
        between = self._rng.choice(["", "", " ", self._piece(), self._character()])
        return self._join(lambda: self._rng.choice(tied) + between)


def with_ties(model_file: Path, directory: Path) -> Path:
    """Copies a model so that pieces share their scores two by two, where that is not ambiguous."""
    pieces = read_sentencepiece_model(model_file).pieces
    scores = {p.text: p.score for p in pieces if p.type == PieceType.NORMAL and len(p.text) > 1}
    content = model_file.read_bytes()
    for first, second in list(pairwise(scores))[::2]:
        tied = {**scores, second: scores[first]}
        try:
            ordered_merges(tied)
        except AmbiguousOrderError:
            continue
        text = second.encode()
        before = b"\x0a" + bytes([len(text)]) + text + b"\x15"  # field 1, then field 2
        old, new = (before + struct.pack("<f", value[second]) for value in (scores, tied))
        assert content.count(old) == 1
        content = content.replace(old, new)
        scores = tied
    copy = directory / "tokenizer.model"
    copy.write_bytes(content)
    return copy


@pytest.fixture(scope="module", params=["trained", "with ties", "official"])
def model_file(
    request: pytest.FixtureRequest,
    fast_tokenizer_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    if request.param == "official":
        shared: Path = request.getfixturevalue("shared")
        return shared / "baichuan2" / "tokenizer.model"
    trained = fast_tokenizer_dir / "tokenizer.model"
    if request.param == "trained":
        return trained
    return with_ties(trained, tmp_path_factory.mktemp("ties"))


@pytest.fixture(scope="module", params=["sentencepiece", "fastokens"])
def encoder(request: pytest.FixtureRequest, model_file: Path) -> Encoder:
    if request.param == "sentencepiece":
        return SentencePieceEngine(model_file)
    pytest.importorskip("fastokens")
    from bc2_data.engines.fastokens import FastokensEncoder

    return FastokensEncoder(model_file, sha256(model_file))


def assert_exact(encoder: Encoder, model_file: Path, texts: Sequence[str]) -> None:
    reference = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    for start in range(0, len(texts), BATCH):
        batch = list(texts[start : start + BATCH])
        flat = encoder.encode(batch)
        assert flat.ids.dtype == np.int32
        ends = np.cumsum(flat.lengths).tolist()
        for text, (begin, end) in zip(batch, pairwise([0, *ends]), strict=True):
            assert flat.ids[begin:end].tolist() == reference.encode(text), ascii(text)
        assert len(flat.ids) == ends[-1]


def test_adversarial_strings(encoder: Encoder, model_file: Path) -> None:
    adversary = Adversary(read_sentencepiece_model(model_file), SEED)
    assert_exact(encoder, model_file, adversary.strings(STRINGS))


def test_every_piece_alone_and_twice(encoder: Encoder, model_file: Path) -> None:
    pieces = read_sentencepiece_model(model_file).pieces
    texts = [piece.text.replace("▁", " ") for piece in pieces]
    step = max(1, len(texts) * 2 // STRINGS)
    assert_exact(encoder, model_file, [text * times for text in texts[::step] for times in (1, 2)])


def test_texts_of_no_length(encoder: Encoder, model_file: Path) -> None:
    assert_exact(encoder, model_file, ["", "a", "", ""])
    assert encoder.encode([]).ids.tolist() == encoder.encode([]).lengths.tolist() == []


def test_a_long_text_without_a_border(encoder: Encoder, model_file: Path) -> None:
    rng = random.Random(SEED)
    letters = "".join(rng.choices("abcdefghij", k=100_000))
    assert_exact(encoder, model_file, [letters, "a" * 100_000, " " * 100_000, "字" * 50_000])


@pytest.mark.parametrize("model_file", ["official"], indirect=True)
def test_real_text(encoder: Encoder, model_file: Path, shared: Path) -> None:
    samples = shared / "samples"
    lines = (samples / "text-4mb.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    texts += (samples / "moss-300.jsonl").read_text(encoding="utf-8").splitlines()
    assert_exact(encoder, model_file, texts[:: max(1, 20_000 // STRINGS)])
