"""The command `bc2-model chat` and the conversation behind it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the extra `hf` is not installed")

import torch

from bc2_model.cli import main
from bc2_model.errors import ModelError
from bc2_model.hf import BaichuanForCausalLM, BaichuanTokenizer
from bc2_model.hf.chat import Conversation

USER, ASSISTANT = 195, 196


@pytest.fixture(scope="module")
def tokenizer(vocabulary: Path) -> BaichuanTokenizer:
    return BaichuanTokenizer(str(vocabulary))


def ids(tokenizer: BaichuanTokenizer, *turns: str) -> list[int]:
    """Returns the prompt after these turns, a user's first, in ids of sentencepiece."""
    prompt: list[int] = []
    for index, text in enumerate(turns):
        prompt += [ASSISTANT if index % 2 else USER, *tokenizer.sp_model.encode(text)]
    return [*prompt, ASSISTANT]


def test_turns_are_remembered_until_cleared(tokenizer: BaichuanTokenizer) -> None:
    conversation = Conversation(tokenizer, room=1000)
    assert conversation.ask("the sea") == ids(tokenizer, "the sea")
    conversation.answer([*tokenizer.sp_model.encode("and the river"), tokenizer.eos_token_id])
    want = ids(tokenizer, "the sea", "and the river", "runs")
    assert conversation.ask("runs") == want
    conversation.clear()
    assert conversation.ask("runs") == ids(tokenizer, "runs")


def test_the_oldest_turns_make_room_and_the_system_text_stays(
    tokenizer: BaichuanTokenizer,
) -> None:
    system = tokenizer.sp_model.encode("round")
    latest = ids(tokenizer, "the sea", "runs", "river")
    conversation = Conversation(tokenizer, room=len(system) + len(latest), system="round")
    conversation.ask("the river runs")
    conversation.answer(tokenizer.sp_model.encode("to the sea"))
    conversation.ask("the sea")
    conversation.answer(tokenizer.sp_model.encode("runs"))
    assert conversation.ask("river") == [*system, *latest]


def test_a_message_that_cannot_be_asked_changes_nothing(tokenizer: BaichuanTokenizer) -> None:
    conversation = Conversation(tokenizer, room=30)
    conversation.ask("the sea")
    conversation.answer(tokenizer.sp_model.encode("runs"))
    with pytest.raises(ModelError, match="room for 30"):
        conversation.ask("the river runs to the sea " * 20)
    with pytest.raises(ModelError, match="role token"):
        conversation.ask("<reserved_106>")
    assert conversation.ask("a") == ids(tokenizer, "the sea", "runs", "a")


def test_chat_answers_line_by_line(
    model_directory: Path,
    tokenizer: BaichuanTokenizer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = BaichuanForCausalLM.from_pretrained(model_directory)

    def reply(prompt: list[int]) -> str:
        output = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=6)
        return tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)

    first = reply(ids(tokenizer, "the sea"))
    second = reply(ids(tokenizer, "the sea", first, "runs"))
    third = reply(ids(tokenizer, "runs"))
    written = "the sea\n\n<reserved_106>\nruns\n/clear\nruns\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(written))
    options = ["--temperature", "0", "--max-new-tokens", "6"]
    capsys.readouterr()  # what libraries said on their way
    assert main(["chat", str(model_directory), *options]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{first}\n{second}\n{third}\n"
    assert printed.err.count("error: ") == 1
