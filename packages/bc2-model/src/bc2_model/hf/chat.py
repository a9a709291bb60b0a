"""A conversation with a chat model, kept short enough for it."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import TemplateError

from bc2_model.errors import ModelError
from bc2_model.hf.tokenization import BaichuanTokenizer


class Conversation:
    """The turns so far, as token ids for the next answer.

    Source: ``build_chat_input`` in the official generation_utils.py, which likewise forgets the
    oldest turns where there is no room for them.

    Args:
        tokenizer: With Baichuan2's chat template.
        room: How many tokens a prompt may have.
        system: Text before the first turn, never forgotten.
    """

    def __init__(self, tokenizer: BaichuanTokenizer, room: int, system: str | None = None) -> None:
        self._tokenizer = tokenizer
        self._room = room
        self._system = [{"role": "system", "content": system}] if system else []
        self._turns: list[dict[str, str]] = []

    def ask(self, text: str) -> list[int]:
        """Adds a user's turn and returns the prompt for its answer.

        Raises:
            ModelError: The text alone has no room, or holds the text of a role token. The
                conversation is then as before.
        """
        turns = [*self._turns, {"role": "user", "content": text}]
        prompt = self._encode(turns)
        while len(prompt) > self._room and len(turns) > 1:
            turns = turns[2:]  # a question and its answer
            prompt = self._encode(turns)
        if len(prompt) > self._room:
            raise ModelError(
                f"the message has {len(prompt)} tokens, and there is room for {self._room}",
                "shorten it, or lower --max-new-tokens",
            )
        self._turns = turns
        return prompt

    def answer(self, tokens: Sequence[int]) -> None:
        """Adds the model's turn, as token ids."""
        text = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        self._turns.append({"role": "assistant", "content": text})

    def clear(self) -> None:
        """Forgets all turns."""
        self._turns = []

    def _encode(self, turns: Sequence[dict[str, str]]) -> list[int]:
        try:
            tokens: list[int] = self._tokenizer.apply_chat_template(
                [*self._system, *turns], add_generation_prompt=True, return_dict=False
            )
        except TemplateError as error:
            raise ModelError(str(error), "write it differently") from error
        return tokens
