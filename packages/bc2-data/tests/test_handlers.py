"""Layouts and labels, against straight-line implementations written for these tests alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from bc2_data.documents import Document
from bc2_data.encoding import LengthLimit
from bc2_data.errors import DataError
from bc2_data.tokenizer import Tokenizer, load_tokenizer

Encode = Callable[[str], list[int]]
Expected = tuple[list[int], list[int]]

SYSTEM = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request. Please note that you "
    "need to think through your response logically and step by step."
)
# No "<", so that no literal of a special token arises, and the escape policy changes nothing.
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<"), max_size=30)
ANSWER = WORDS.filter(lambda text: text.strip() != "")


def expected_alpaca(row: dict[str, str], encode: Encode) -> Expected:
    user = row["instruction"]
    if row["input"]:
        user += "\n" + row["input"]
    question, answer = encode(user), encode(row["output"])
    ids = [195, *question, 196, *answer, 2]
    labels = [2] + [-100] * len(question) + [-100] + answer + [2]
    return ids, labels


def expected_moss(row: dict[str, Any], encode: Encode) -> Expected:
    ids: list[int] = []
    labels: list[int] = []
    for turn in row["chat"].values():
        user = encode(turn["Human"].replace("<eoh>", "").replace("<|Human|>: ", "").strip())
        answer = encode(turn["MOSS"].replace("<|MOSS|>:", "").replace("<eom>", "").strip())
        ids += [195, *user, 196, *answer]
        labels += [2] + [-100] * len(user) + [-100] + answer
    return [*ids, 2], [*labels, 2]


def expected_ascendspeed(row: dict[str, str], encode: Encode) -> Expected:
    """The whole prompt is encoded at once, as AscendSpeed does, and the prefix measured."""
    prompt = f"\n{SYSTEM}\n### Instruction:\n{row['instruction']}\n{row['input']}\n### Response:\n"
    ids = encode(f"{prompt}{row['output']}\n")
    untrained = len(encode(prompt))
    return ids, [-100] * untrained + ids[untrained:]


def plain(document: Document) -> Expected:
    return document.ids.tolist(), document.labels.tolist()


@pytest.fixture(scope="module")
def tiny(tokenizer_dir: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_dir)


@pytest.fixture(scope="module")
def encode(tokenizer_dir: Path) -> Encode:
    model = str(tokenizer_dir / "tokenizer.model")
    processor = sentencepiece.SentencePieceProcessor(model_file=model)
    return processor.encode  # type: ignore[no-any-return]


@given(row=st.fixed_dictionaries({"instruction": WORDS, "input": WORDS, "output": ANSWER}))
def test_alpaca(encode_rows: Any, tiny: Tokenizer, encode: Encode, row: dict[str, str]) -> None:
    (document,) = encode_rows(tiny, "alpaca", [row]).documents
    assert plain(document) == expected_alpaca(row, encode)


@given(row=st.fixed_dictionaries({"instruction": WORDS, "input": WORDS, "output": ANSWER}))
def test_alpaca_as_ascendspeed(
    encode_rows: Any, tiny: Tokenizer, encode: Encode, row: dict[str, str]
) -> None:
    (document,) = encode_rows(tiny, "alpaca", [row], template="ascendspeed").documents
    assert plain(document) == expected_ascendspeed(row, encode)


@pytest.mark.parametrize("given_input", ["", None, "1 + 1"])
@pytest.mark.parametrize("eos", [False, True])
def test_alpaca_for_pretraining(
    encode_rows: Any, tiny: Tokenizer, encode: Encode, given_input: str | None, eos: bool
) -> None:
    text = (
        "A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions.USER: Below is an "
        "instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n### Instruction:\nAdd.\n\n"
    )
    if given_input:
        text += "### Input:\n1 + 1\n\n"
    ids = encode(text + "### Response: ASSISTANT: 2") + [2] * eos
    row = {"instruction": "Add.", "input": given_input, "output": "2"}
    encoded = encode_rows(tiny, "alpaca-pretrain", [row], append_eos=eos)
    (document,) = encoded.documents
    assert plain(document) == (ids, ids)
    assert encoded.documents.labels is None  # one dataset of tokens


TURN = st.fixed_dictionaries(
    {
        "Human": WORDS.map(lambda text: f"<|Human|>: {text}<eoh>\n"),
        "Inner Thoughts": WORDS,
        "MOSS": ANSWER.map(lambda text: f"<|MOSS|>: {text}<eom>\n"),
    }
)


@given(turns=st.lists(TURN, min_size=1, max_size=4))
def test_moss(
    encode_rows: Any, tiny: Tokenizer, encode: Encode, turns: list[dict[str, str]]
) -> None:
    row = {"chat": {f"turn_{number}": turn for number, turn in enumerate(turns, start=1)}}
    (document,) = encode_rows(tiny, "moss", [row]).documents
    assert plain(document) == expected_moss(row, encode)


def test_moss_as_ascendspeed_trains_the_last_answer_alone(
    encode_rows: Any, tiny: Tokenizer, encode: Encode
) -> None:
    chat = {
        "turn_1": {"Human": "<|Human|>: hi<eoh>", "MOSS": "<|MOSS|>: hello<eom>"},
        "turn_2": {"Human": "<|Human|>: why<eoh>", "MOSS": "<|MOSS|>: because<eom>"},
    }
    options = {"template": "ascendspeed", "append_eos": True}
    (document,) = encode_rows(tiny, "moss", [{"chat": chat}], **options).documents
    prompt = encode(
        f"\n{SYSTEM}\n### Instruction:\nhi\n### Response:\nhello\n"
        "### Instruction:\nwhy\n### Response:\n"
    )
    answer = [*encode("because\n"), 2]
    assert plain(document) == (prompt + answer, [-100] * len(prompt) + answer)


def test_moss_skips_empty_turns(encode_rows: Any, tiny: Tokenizer, encode: Encode) -> None:
    chat = {"turn_1": {"Human": "hi", "MOSS": "hello"}, "turn_2": None, "turn_3": {}}
    (document,) = encode_rows(tiny, "moss", [{"chat": chat}]).documents
    assert plain(document) == expected_moss({"chat": {"turn_1": chat["turn_1"]}}, encode)


@pytest.mark.parametrize("eos", [False, True])
def test_text_keeps_white_space(
    encode_rows: Any, tiny: Tokenizer, encode: Encode, eos: bool
) -> None:
    texts = ["  two  spaces \n\n\t", "\n", " "]
    rows = [{"content": text} for text in texts]
    encoded = encode_rows(tiny, "text", rows, text_key="content", append_eos=eos)
    assert [ids.tolist() for ids, _ in encoded.documents] == [
        encode(text) + [2] * eos for text in texts
    ]


@pytest.mark.parametrize(
    ("handler", "row", "reason", "why"),
    [
        ("text", {"text": ""}, "no_text", "'text' is empty"),
        ("text", {"text": None}, "no_text", "'text' is empty"),
        ("text", {"txt": "a"}, "bad_row", "no column 'text'"),
        ("text", {}, "bad_row", "no column 'text'"),
        ("text", {"text": 5}, "bad_row", "'text' holds int, not text"),
        ("text", {"text": ["a"]}, "bad_row", "'text' holds list, not text"),
        ("text", {"text": "\ud800"}, "bad_row", "lone surrogate"),
        ("alpaca", {"instruction": "a", "output": ""}, "no_text", "'output' is empty"),
        ("alpaca", {"instruction": "a"}, "bad_row", "no column 'output'"),
        ("alpaca", {"instruction": "a", "input": 1, "output": "b"}, "bad_row", "'input' holds int"),
        ("alpaca-pretrain", {"instruction": "a", "output": ""}, "no_text", "'output' is empty"),
        ("alpaca-pretrain", {"output": "a"}, "bad_row", "no column 'instruction'"),
        ("moss", {"chats": {}}, "bad_row", "no column 'chat'"),
        ("moss", {"chat": "x"}, "bad_row", "'chat' holds str"),
        ("moss", {"chat": {}}, "no_text", "MOSS says nothing"),
        ("moss", {"chat": {"turn_1": {"Human": "a", "MOSS": " <eom>"}}}, "no_text", "nothing"),
        ("moss", {"chat": {"turn_1": {"Human": "a"}}}, "bad_row", "no column 'MOSS'"),
        ("moss", {"chat": {"turn_1": "a"}}, "bad_row", "'turn_1' holds str"),
    ],
)
def test_rows_without_a_sample(
    encode_rows: Any, tiny: Tokenizer, handler: str, row: dict[str, Any], reason: str, why: str
) -> None:
    good = {
        "text": {"text": "fine"},
        "alpaca": {"instruction": "a", "output": "b"},
        "alpaca-pretrain": {"instruction": "a", "output": "b"},
        "moss": {"chat": {"turn_1": {"Human": "a", "MOSS": "b"}}},
    }[handler]
    encoded = encode_rows(tiny, handler, [good, row, good])
    assert len(encoded.documents) == 2
    (finding,) = encoded.dropped
    assert (finding.reason, finding.number) == (reason, 2)
    assert why in finding.why


def test_the_nearest_column_is_named(encode_rows: Any, tiny: Tokenizer) -> None:
    (finding,) = encode_rows(tiny, "text", [{"id": 1, "txet": "a"}]).dropped
    assert finding.hint == "did you mean 'txet'? (choose the column with --text-key)"


def test_overlong_documents(encode_rows: Any, tiny: Tokenizer, encode: Encode) -> None:
    rows = [{"text": "a b c"}, {"text": "a b"}, {"text": "a b c d"}]
    most = len(encode("a b c"))
    dropped = encode_rows(tiny, "text", rows, LengthLimit(tokens=most, overlong="drop"))
    assert [ids.tolist() for ids, _ in dropped.documents] == [encode("a b c"), encode("a b")]
    (finding,) = dropped.dropped
    assert (finding.reason, finding.number) == ("too_long", 3)

    cut = encode_rows(tiny, "text", rows, LengthLimit(tokens=most, overlong="truncate"))
    assert cut.documents[2].ids.tolist() == encode("a b c d")[:most]
    assert [finding.number for finding in cut.truncated] == [3]
    assert not cut.dropped

    why = rf"data\.jsonl:3: {len(encode('a b c d'))} tokens, --max-length is {most}"
    with pytest.raises(DataError, match=why):
        encode_rows(tiny, "text", rows, LengthLimit(tokens=most, overlong="error"))


def test_truncating_away_every_answer_drops_the_row(encode_rows: Any, tiny: Tokenizer) -> None:
    row = {"instruction": "a long question", "output": "answer"}
    limit = LengthLimit(tokens=4, overlong="truncate")
    encoded = encode_rows(tiny, "alpaca", [row], limit)
    assert not encoded.documents
    assert not encoded.truncated
    assert [finding.reason for finding in encoded.dropped] == ["nothing_trained"]


def test_a_literal_role_token_plays_no_role(
    encode_rows: Any, tiny: Tokenizer, encode: Encode
) -> None:
    row = {"instruction": "x<reserved_107>y", "output": "</s><reserved_106>"}
    (document,) = encode_rows(tiny, "alpaca", [row]).documents
    question = encode("x<") + encode("reserved_107>y")
    answer = encode("<") + encode("/s><") + encode("reserved_106>")
    assert document.ids.tolist() == [195, *question, 196, *answer, 2]


def test_the_error_policy_names_file_and_line(encode_rows: Any, tokenizer_dir: Path) -> None:
    strict = load_tokenizer(tokenizer_dir, "error")
    rows = [{"instruction": "a", "output": "b"}, {"instruction": "c", "output": "<SEP>"}]
    with pytest.raises(DataError, match=r"data\.jsonl:2: the special token <SEP>"):
        encode_rows(strict, "alpaca", rows)


def test_handlers_and_options_that_do_not_fit(encode_rows: Any, tiny: Tokenizer) -> None:
    with pytest.raises(DataError, match="unknown handler 'alpcaa'") as caught:
        encode_rows(tiny, "alpcaa", [])
    assert caught.value.hint == "did you mean 'alpaca'?"
    for handler in ("text", "alpaca-pretrain"):
        with pytest.raises(DataError, match="--template is about conversations"):
            encode_rows(tiny, handler, [], template="baichuan2")
    for handler in ("alpaca", "alpaca-pretrain", "moss", "messages"):
        with pytest.raises(DataError, match="--text-key is about --handler text, not") as refused:
            encode_rows(tiny, handler, [], text_key="chat")
        assert refused.value.hint == "leave --text-key out"


@pytest.fixture(scope="module")
def official(shared: Path) -> Tokenizer:
    return load_tokenizer(shared / "baichuan2")


@pytest.fixture(scope="module")
def official_encode(shared: Path) -> Encode:
    model = str(shared / "baichuan2" / "tokenizer.model")
    return sentencepiece.SentencePieceProcessor(model_file=model).encode  # type: ignore[no-any-return]


def test_real_moss_conversations(
    encode_rows: Any, shared: Path, official: Tokenizer, official_encode: Encode
) -> None:
    lines = (shared / "samples" / "moss-300.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    encoded = encode_rows(official, "moss", rows)
    assert len(encoded.documents) == len(rows) == 300
    for row, document in zip(rows, encoded.documents, strict=True):
        assert plain(document) == expected_moss(row, official_encode)


@pytest.mark.parametrize(
    ("template", "expected"),
    [("baichuan2", expected_alpaca), ("ascendspeed", expected_ascendspeed)],
)
def test_real_alpaca_rows(
    encode_rows: Any,
    shared: Path,
    official: Tokenizer,
    official_encode: Encode,
    template: str,
    expected: Callable[[dict[str, str], Encode], Expected],
) -> None:
    rows = json.loads((shared / "samples" / "alpaca-en-999.json").read_text(encoding="utf-8"))
    encoded = encode_rows(official, "alpaca", rows, template=template)
    assert len(encoded.documents) == len(rows) == 999
    for row, document in zip(rows, encoded.documents, strict=True):
        assert plain(document) == expected(row, official_encode)
