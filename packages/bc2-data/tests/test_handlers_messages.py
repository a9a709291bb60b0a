"""Lists of messages: layouts and labels, against straight-line implementations."""

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
from bc2_data.tokenizer import Tokenizer, load_tokenizer

Encode = Callable[[str], list[int]]
Expected = tuple[list[int], list[int]]

# No "<", so that no literal of a special token arises, and the escape policy changes nothing.
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<"), max_size=20)
FLAGS = st.one_of(
    st.just({}),
    st.builds(lambda value: {"train": value}, st.booleans()),
    st.builds(lambda value: {"weight": value}, st.sampled_from([0, 1, 0.0, 1.0, None])),
)
MESSAGE = st.builds(
    lambda role, content, flags: {"role": role, "content": content, **flags},
    st.sampled_from(["user", "assistant"]),
    WORDS,
    FLAGS,
)
SYSTEM = st.lists(st.builds(lambda text: {"role": "system", "content": text}, WORDS), max_size=1)
CONVERSATION = st.tuples(SYSTEM, st.lists(MESSAGE, min_size=1, max_size=5)).map(
    lambda parts: parts[0] + parts[1]
)


def is_trained(message: dict[str, Any]) -> bool:
    flag = message.get("train", message.get("weight"))
    return message["role"] == "assistant" if flag is None else bool(flag)


def expected_baichuan2(messages: list[dict[str, Any]], encode: Encode) -> Expected:
    ids: list[int] = []
    labels: list[int] = []
    ends_answer = True
    for message in messages:
        text = encode(message["content"])
        if message["role"] == "user":
            ids.append(195)
            labels.append(2 if ends_answer else -100)
        if message["role"] == "assistant":
            ids.append(196)
            labels.append(-100)
        ids += text
        labels += text if is_trained(message) else [-100] * len(text)
        ends_answer = message["role"] == "assistant" and is_trained(message)
    return [*ids, 2], [*labels, 2 if ends_answer else -100]


def chat_input(messages: list[dict[str, str]], encode: Encode) -> list[int]:
    """What Baichuan2's generation_utils.build_chat_input gives a model that has room for all."""
    system = ""
    rounds: list[list[dict[str, str]]] = []
    for number, message in enumerate(messages):
        if message["role"] == "system":
            assert number == 0
            system = message["content"]
            continue
        if message["role"] == "user" or not rounds:
            rounds.append([])
        rounds[-1].append(message)
    ids = encode(system)
    for turns in rounds:
        for turn in turns:
            ids = [*ids, 195 if turn["role"] == "user" else 196, *encode(turn["content"])]
    return ids if messages[-1]["role"] == "assistant" else [*ids, 196]


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


@given(messages=CONVERSATION)
def test_baichuan2_layout(
    encode_rows: Any, tiny: Tokenizer, encode: Encode, messages: list[dict[str, Any]]
) -> None:
    encoded = encode_rows(tiny, "messages", [{"messages": messages}])
    says = any(m["content"] for m in messages if m["role"] == "assistant")
    trained = any(m["content"] for m in messages if is_trained(m))
    if says and trained:
        (document,) = encoded.documents
        assert plain(document) == expected_baichuan2(messages, encode)
    else:
        (finding,) = encoded.dropped
        assert finding.reason == ("nothing_trained" if says else "no_text")


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "why"},
    {"role": "assistant", "content": "because"},
]


@pytest.mark.parametrize("first", [0, 1])
def test_ids_are_what_the_official_chat_code_gives(
    encode_rows: Any, tiny: Tokenizer, encode: Encode, first: int
) -> None:
    chat = CHAT[first:]
    (document,) = encode_rows(tiny, "messages", [{"messages": chat}]).documents
    assert document.ids.tolist() == [*chat_input(chat, encode), 2]
    prompt = chat_input(chat[:-1], encode)
    assert document.ids.tolist()[: len(prompt)] == prompt


def test_nothing_is_trained_to_follow_a_system_text(
    encode_rows: Any, tiny: Tokenizer, encode: Encode
) -> None:
    (document,) = encode_rows(tiny, "messages", [{"messages": CHAT}]).documents
    system, question, answer = (len(encode(m["content"])) for m in CHAT[:3])
    before_answer = system + 1 + question + 1
    assert document.labels.tolist()[:before_answer] == [-100] * before_answer
    assert document.labels[before_answer + answer] == 2  # the first answer ends


SHAREGPT = {
    "system": "Be brief.",
    "conversations": [
        {"from": "human", "value": "hi"},
        {"from": "gpt", "value": "hello"},
        {"from": "human", "value": "why"},
        {"from": "gpt", "value": "because"},
    ],
}
MIXED = {"conversations": CHAT, "messages": None, "system": None, "id": 7}
SPELLED = {"conversations": [{"from": "system", "value": "Be brief."}, *SHAREGPT["conversations"]]}


@pytest.mark.parametrize("row", [SHAREGPT, MIXED, SPELLED])
@pytest.mark.parametrize("template", ["baichuan2", "ascendspeed"])
def test_all_spellings_are_the_same_conversation(
    encode_rows: Any, tiny: Tokenizer, row: dict[str, Any], template: str
) -> None:
    rows = [{"messages": CHAT}, row]
    first, second = encode_rows(tiny, "messages", rows, template=template).documents
    assert plain(first) == plain(second)


def test_it_is_the_conversation_that_moss_writes(encode_rows: Any, tiny: Tokenizer) -> None:
    turns = {
        "turn_1": {"Human": "<|Human|>: hi<eoh>\n", "MOSS": "<|MOSS|>: hello<eom>\n"},
        "turn_2": {"Human": "<|Human|>: why<eoh>\n", "MOSS": "<|MOSS|>: because<eom>\n"},
    }
    (moss,) = encode_rows(tiny, "moss", [{"chat": turns}]).documents
    (messages,) = encode_rows(tiny, "messages", [{"messages": CHAT[1:]}]).documents
    assert plain(moss) == plain(messages)


def test_ascendspeed_layout(encode_rows: Any, tiny: Tokenizer, encode: Encode) -> None:
    options = {"template": "ascendspeed", "append_eos": True}
    (document,) = encode_rows(tiny, "messages", [{"messages": CHAT}], **options).documents
    prompt = encode(
        "\nBe brief.\n### Instruction:\nhi\n### Response:\nhello\n"
        "### Instruction:\nwhy\n### Response:\n"
    )
    answer = [*encode("because\n"), 2]
    assert plain(document) == (prompt + answer, [-100] * len(prompt) + answer)


def test_ascendspeed_layout_with_flags(encode_rows: Any, tiny: Tokenizer, encode: Encode) -> None:
    chat = [CHAT[1], {**CHAT[2], "train": True}, CHAT[3], {**CHAT[4], "weight": 0}]
    chat.insert(0, CHAT[0])
    options = {"template": "ascendspeed", "append_eos": True}
    (document,) = encode_rows(tiny, "messages", [{"messages": chat}], **options).documents
    before = encode("\nBe brief.\n### Instruction:\nhi\n### Response:\n")
    answer = encode("hello\n")
    after = [*encode("### Instruction:\nwhy\n### Response:\nbecause\n"), 2]
    assert plain(document) == (
        before + answer + after,
        [-100] * len(before) + answer + [-100] * len(after),
    )


def test_ascendspeed_layout_trains_no_question(encode_rows: Any, tiny: Tokenizer) -> None:
    encoded = encode_rows(tiny, "messages", [{"messages": CHAT[:4]}], template="ascendspeed")
    assert [finding.reason for finding in encoded.dropped] == ["nothing_trained"]


GOOD = {"messages": CHAT}


@pytest.mark.parametrize(
    ("row", "reason", "why"),
    [
        ({}, "bad_row", "no column 'messages' or 'conversations'"),
        ({"messages": None}, "bad_row", "no column 'messages' or 'conversations'"),
        ({"messages": "hi"}, "bad_row", "'messages' holds str, not a list"),
        ({"messages": {"role": "user"}}, "bad_row", "'messages' holds dict, not a list"),
        ({"messages": []}, "no_text", "the assistant says nothing"),
        ({"messages": ["hi"]}, "bad_row", "messages[0] holds str, not an object"),
        ({"messages": [None]}, "bad_row", "messages[0] holds NoneType, not an object"),
        ({"messages": [{"role": "user"}]}, "bad_row", "messages[0]: no column 'content'"),
        ({"conversations": [{"from": "gpt"}]}, "bad_row", "conversations[0]: no column 'value'"),
        ({"messages": [{"content": "a"}]}, "bad_row", "messages[0]: no column 'role'"),
        ({"messages": [{"role": "user", "content": 5}]}, "bad_row", "'content' holds int"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "bad_row", "lone surrogate"),
        ({"messages": [*CHAT, {"role": "tool", "content": "a"}]}, "bad_row", "'tool' is unknown"),
        ({"messages": CHAT[1:] + CHAT[:1]}, "bad_row", "a system message stands behind another"),
        ({"messages": CHAT, "system": "a"}, "bad_row", "a system message stands behind another"),
        ({"messages": CHAT[:2]}, "no_text", "the assistant says nothing"),
        ({"messages": CHAT[:2], "system": 5}, "bad_row", "'system' holds int"),
        ({"messages": [{**CHAT[2], "train": False}]}, "nothing_trained", "no message is to be"),
        ({"messages": [{**CHAT[2], "weight": 0.5}]}, "bad_row", "'weight' is 0.5, neither"),
        ({"messages": [{**CHAT[2], "train": "yes"}]}, "bad_row", "'train' is 'yes', neither"),
        ({"messages": [{**CHAT[2], "train": [1]}]}, "bad_row", "'train' is [1], neither"),
        (
            {"messages": [{**CHAT[2], "train": True, "weight": 0}]},
            "bad_row",
            "messages[0]: 'train' and 'weight' contradict each other",
        ),
    ],
)
def test_rows_without_a_sample(
    encode_rows: Any, tiny: Tokenizer, row: dict[str, Any], reason: str, why: str
) -> None:
    encoded = encode_rows(tiny, "messages", [GOOD, row, GOOD])
    assert len(encoded.documents) == 2
    (finding,) = encoded.dropped
    assert (finding.reason, finding.number) == (reason, 2)
    assert why in finding.why


def test_the_nearest_names_are_hinted_at(encode_rows: Any, tiny: Tokenizer) -> None:
    rows = [{"mesages": []}, {"messages": [{"role": "asistant", "content": "a"}]}]
    column, role = encode_rows(tiny, "messages", rows).dropped
    assert column.hint == "did you mean 'mesages'?"
    assert role.hint == "did you mean 'assistant'?"


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_through_the_command_line(
    cli: Any, write_rows: Any, tokenizer_dir: Path, tmp_path: Path, name: str
) -> None:
    rows = [GOOD, {"messages": [*CHAT[1:], {"role": "assistant", "content": "x", "weight": 0}]}]
    prefix = tmp_path / "out" / "data"
    outcome = cli(
        *("tokenize", "--input", write_rows(name, rows), "--tokenizer", tokenizer_dir),
        *("--output-prefix", prefix, "--handler", "messages"),
    )
    assert outcome.status == 0, outcome.err
    manifest = json.loads(prefix.with_name("data.manifest.json").read_text())
    assert (manifest["documents"], manifest["dropped"]) == (2, {})
    shown = cli("inspect", prefix, "--doc", "0", "--tokenizer", tokenizer_dir).out
    assert "because" in shown
