"""Which engine encodes, what it is made of, and what happens where it cannot be trusted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece

from bc2_data import train_tokenizer
from bc2_data.checksum import sha256
from bc2_data.engines.base import FlatIds
from bc2_data.engines.checked import SAMPLE_CHARACTERS, CheckedEncoder, EngineDiffersError
from bc2_data.engines.sentencepiece import SentencePieceEngine
from bc2_data.engines.sentencepiece_model import PieceType, read_sentencepiece_model
from bc2_data.engines.tokenizer_json import NoEquivalentError, tokenizer_json
from bc2_data.errors import DataError
from bc2_data.tokenizer import load_tokenizer


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory; the tokenizers in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bc2" / "tokenizers"


@pytest.fixture
def without_fastokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bc2_data.engines.fastokens.find_spec", lambda name: None)


@pytest.fixture
def with_fastokens() -> None:
    pytest.importorskip("fastokens")


def train(texts: Sequence[str], directory: Path, **settings: Any) -> Path:
    """Trains a tokenizer with other settings than Baichuan2's."""
    directory.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(directory / "tokenizer"),
        minloglevel=2,
        **{
            "model_type": "bpe",
            "vocab_size": 360,
            "normalization_rule_name": "identity",
            "add_dummy_prefix": False,
            "remove_extra_whitespaces": False,
            "byte_fallback": True,
            **settings,
        },
    )
    return directory / "tokenizer.model"


@pytest.mark.usefixtures("with_fastokens")
def test_auto_takes_the_fast_engine(fast_tokenizer_dir: Path) -> None:
    fast = load_tokenizer(fast_tokenizer_dir)
    slow = load_tokenizer(fast_tokenizer_dir, engine="sentencepiece")
    assert (fast.engine, slow.engine) == ("fastokens", "sentencepiece")
    assert fast.special == slow.special
    texts = ["the dog", "", "北京 <reserved_106>\n", "é"]
    for ours, theirs in zip(fast.encode(texts), slow.encode(texts), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert fast.special_literals == slow.special_literals == {"<reserved_106>": 1}


@pytest.mark.usefixtures("without_fastokens")
def test_auto_does_without_the_library(fast_tokenizer_dir: Path) -> None:
    assert load_tokenizer(fast_tokenizer_dir).engine == "sentencepiece"
    with pytest.raises(DataError, match=r"pip install 'bc2-data\[fast\]'"):
        load_tokenizer(fast_tokenizer_dir, engine="fastokens")


@pytest.mark.usefixtures("with_fastokens")
def test_auto_takes_the_reference_for_other_models(corpus: Sequence[str], tmp_path: Path) -> None:
    model = train(corpus, tmp_path / "llama", add_dummy_prefix=True)
    assert load_tokenizer(model).engine == "sentencepiece"
    with pytest.raises(DataError, match="it changes text before cutting it"):
        load_tokenizer(model, engine="fastokens")


ALL_CHARACTERS = {"required_chars": "<0123456789ABCDEFx>"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model_type": "unigram", "vocab_size": 350}, "its algorithm is not BPE"),
        ({"normalization_rule_name": "nfkc"}, "it changes text before cutting it"),
        ({"add_dummy_prefix": True}, "it changes text before cutting it"),
        ({"remove_extra_whitespaces": True}, "it changes text before cutting it"),
        ({"treat_whitespace_as_suffix": True}, "it changes text before cutting it"),
        ({"byte_fallback": False, "vocab_size": 110}, "it has no pieces for single bytes"),
        ({"user_defined_symbols": ["▁the"]}, "spaces in its pieces"),
        ({}, "the text <0x00> could be taken for a byte"),
        (ALL_CHARACTERS, None),
    ],
)
def test_models_without_an_equivalent_are_refused(
    corpus: Sequence[str], tmp_path: Path, settings: dict[str, Any], reason: str | None
) -> None:
    model = train(corpus, tmp_path / "model", **settings)
    if reason is None:
        assert json.loads(tokenizer_json(model))["model"]["type"] == "BPE"
        return
    with pytest.raises(NoEquivalentError, match=reason):
        tokenizer_json(model)


def test_the_model_file_is_read_as_the_library_reads_it(fast_tokenizer_dir: Path) -> None:
    file = fast_tokenizer_dir / "tokenizer.model"
    model = read_sentencepiece_model(file)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
    ids = range(processor.vocab_size())
    assert [piece.text for piece in model.pieces] == [processor.id_to_piece(i) for i in ids]
    assert [piece.score for piece in model.pieces] == [processor.get_score(i) for i in ids]
    for is_type, types in (
        (processor.is_unknown, {PieceType.UNKNOWN}),
        (processor.is_control, {PieceType.CONTROL}),
        (processor.is_byte, {PieceType.BYTE}),
        (processor.is_unused, {PieceType.UNUSED}),
    ):
        assert [piece.type in types for piece in model.pieces] == [is_type(i) for i in ids]
    user_defined = [p.text for p in model.pieces if p.type == PieceType.USER_DEFINED]
    assert user_defined[:4] == ["<SEP>", "<CLS>", "\n", "\t"]
    assert user_defined[-1] == "<reserved_107>"


def test_what_text_never_becomes_has_no_name_that_text_can_have(fast_tokenizer_dir: Path) -> None:
    vocab = json.loads(tokenizer_json(fast_tokenizer_dir / "tokenizer.model"))["model"]["vocab"]
    assert {"<s>", "</s>", "<unk>"}.isdisjoint(vocab)
    assert (vocab["▁<unk>"], vocab["▁<s>"], vocab["▁</s>"]) == (0, 1, 2)
    assert " " in vocab
    assert "▁" not in vocab


@pytest.mark.usefixtures("with_fastokens")
def test_the_tokenizer_json_is_kept(fast_tokenizer_dir: Path, cache: Path) -> None:
    tokenizer = load_tokenizer(fast_tokenizer_dir)
    (expected,) = tokenizer.encode(["the dog"])
    (kept,) = cache.iterdir()
    assert kept.name == f"{tokenizer.sha256}-1.json"
    assert kept.read_text(encoding="utf-8") == tokenizer_json(tokenizer.path)

    before = kept.stat().st_mtime_ns
    load_tokenizer(fast_tokenizer_dir).encode(["the dog"])
    assert kept.stat().st_mtime_ns == before

    for damage in (b"", b'{"version": "1.0", "added_tok', b"\xff\xfe"):
        kept.write_bytes(damage)
        np.testing.assert_array_equal(
            load_tokenizer(fast_tokenizer_dir).encode(["the dog"])[0], expected
        )
        assert kept.read_text(encoding="utf-8") == tokenizer_json(tokenizer.path)

    loaded = load_tokenizer(fast_tokenizer_dir)
    kept.unlink()
    np.testing.assert_array_equal(loaded.encode(["the dog"])[0], expected)
    assert [path.name for path in cache.iterdir()] == [kept.name]


@pytest.mark.usefixtures("with_fastokens")
def test_a_cache_that_cannot_be_written_is_done_without(
    fast_tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    tokenizer = load_tokenizer(fast_tokenizer_dir)
    assert tokenizer.engine == "fastokens"
    assert tokenizer.decode(tokenizer.encode(["the dog"])[0]) == "the dog"


@pytest.mark.usefixtures("with_fastokens")
def test_loading_and_decoding_wait_for_no_fast_engine(fast_tokenizer_dir: Path) -> None:
    code = (
        "import sys; from bc2_data.tokenizer import load_tokenizer; "
        f"tokenizer = load_tokenizer({str(fast_tokenizer_dir)!r}); "
        "assert tokenizer.engine == 'fastokens' and tokenizer.decode([300]); "
        "assert 'fastokens' not in sys.modules; tokenizer.encode(['a']); "
        "assert 'fastokens' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.usefixtures("with_fastokens")
def test_encoding_starts_no_threads(fast_tokenizer_dir: Path) -> None:
    code = (
        "import os; from bc2_data.tokenizer import load_tokenizer; "
        "threads = lambda: len(os.listdir('/proc/self/task')); before = threads(); "
        f"load_tokenizer({str(fast_tokenizer_dir)!r}).encode(['the dog ' * 1000] * 200); "
        "assert threads() == before, threads()"
    )
    # numpy's own threads are there before.
    subprocess.run([sys.executable, "-c", f"import numpy; {code}"], check=True)


class Erring:
    """Encodes as another engine does, but for texts with a certain character."""

    name = "erring"

    def __init__(self, engine: SentencePieceEngine, wrong: str) -> None:
        self._engine = engine
        self._wrong = wrong

    def encode(self, texts: Sequence[str]) -> FlatIds:
        return self._engine.encode([text.replace(self._wrong, "a") for text in texts])


@pytest.fixture
def reference(tokenizer_dir: Path) -> SentencePieceEngine:
    return SentencePieceEngine(tokenizer_dir / "tokenizer.model")


def test_an_engine_that_differs_is_caught(reference: SentencePieceEngine) -> None:
    checked = CheckedEncoder(Erring(reference, "?"), reference)
    assert checked.encode(["fine"]).lengths.shape == (1,)
    with pytest.raises(EngineDiffersError) as caught:
        checked.encode(["fine", "", "dog?"])
    error = caught.value
    assert error.index == 2
    same = len(reference.encode(["dog"]).ids)
    assert error.message.startswith(
        f"erring differs from sentencepiece from token {same} of the text on: ["
    )
    assert "--engine sentencepiece" in error.hint


@pytest.mark.parametrize("texts", [["ab?"], ["?"]])
def test_a_longer_or_shorter_result_is_caught(
    reference: SentencePieceEngine, texts: list[str]
) -> None:
    class Longer(Erring):
        def encode(self, texts: Sequence[str]) -> FlatIds:
            return self._engine.encode([text.replace("?", "?!") for text in texts])

    with pytest.raises(EngineDiffersError):
        CheckedEncoder(Longer(reference, "?"), reference).encode(texts)


def test_the_sample_is_bounded_and_of_many_texts(reference: SentencePieceEngine) -> None:
    late = ["x" * 5000 + "?"]  # beyond what is taken of one text
    checked = CheckedEncoder(Erring(reference, "?"), reference)
    assert checked.encode(late).lengths[0] > 0
    for _ in range(SAMPLE_CHARACTERS // 1024 - 2):
        checked.encode(late)
    with pytest.raises(EngineDiffersError):
        checked.encode(["?"])
    checked.encode(late)
    assert checked.encode(["?"]).lengths.tolist() == [1]  # the sample is large enough


def test_a_run_stops_where_the_engines_differ(
    cli: Any,
    write_rows: Any,
    fast_tokenizer_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("fastokens")
    from bc2_data.engines.fastokens import FastokensEncoder

    encode = FastokensEncoder.encode
    monkeypatch.setattr(
        FastokensEncoder,
        "encode",
        lambda self, texts: encode(self, [text.replace("dog", "god") for text in texts]),
    )
    rows = [{"instruction": "a <SEP> b", "output": "c"}, {"instruction": "x", "output": "the dog"}]
    path = write_rows("a.jsonl", rows)
    arguments = (
        *("tokenize", "--input", path, "--tokenizer", fast_tokenizer_dir),
        *("--output-prefix", tmp_path / "out" / "data", "--handler", "alpaca"),
    )
    outcome = cli(*arguments)
    assert outcome.status == 2
    assert f"error: {path}:2: fastokens differs from sentencepiece from token " in outcome.err
    assert "hint: choose --engine sentencepiece" in outcome.err
    assert not (tmp_path / "out" / "data.manifest.json").exists()
    assert cli(*arguments, "--engine", "sentencepiece", "--overwrite").status == 0


@pytest.mark.usefixtures("with_fastokens")
def test_both_engines_give_the_same_files(
    cli: Any, corpus_folder: Path, fast_tokenizer_dir: Path, tmp_path: Path
) -> None:
    written: dict[str, dict[str, bytes]] = {}
    for engine in ("fastokens", "sentencepiece"):
        folder = tmp_path / engine
        outcome = cli(
            *("tokenize", "--input", corpus_folder, "--tokenizer", fast_tokenizer_dir),
            *("--output-prefix", folder / "data", "--handler", "alpaca", "--engine", engine),
        )
        assert outcome.status == 0, outcome.err
        manifest = json.loads((folder / "data.manifest.json").read_text())
        assert manifest["tokenizer"]["engine"] == engine
        written[engine] = {path.name: path.read_bytes() for path in folder.glob("*.bin")}
    assert len(written["fastokens"]) == 3
    assert written["fastokens"] == written["sentencepiece"]


def test_training_again_gives_another_cache_file(
    fast_tokenizer_dir: Path, corpus: Sequence[str], tmp_path: Path, cache: Path
) -> None:
    pytest.importorskip("fastokens")
    train_tokenizer([*corpus, " ".join("<0123456789ABCDEFx>")], tmp_path / "other", vocab_size=600)
    texts = ["the dog and the fox", "模型读取文本"]
    for directory in (fast_tokenizer_dir, tmp_path / "other"):
        fast = load_tokenizer(directory).encode(texts)
        slow = load_tokenizer(directory, engine="sentencepiece").encode(texts)
        assert [ids.tolist() for ids in fast] == [ids.tolist() for ids in slow]
    assert {path.name.split("-")[0] for path in cache.iterdir()} == {
        sha256(directory / "tokenizer.model")
        for directory in (fast_tokenizer_dir, tmp_path / "other")
    }
