"""Baichuan2's tokenizer for transformers, on sentencepiece."""

from __future__ import annotations

from typing import Any

from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if '<reserved_106>' in message['content'] or '<reserved_107>' in message['content'] -%}"
    "{{ raise_exception('a message contains the text of a role token') }}"
    "{%- elif message['role'] == 'system' and loop.first -%}"
    "{{ message['content'] }}"
    "{%- elif message['role'] == 'user' -%}"
    "{{ '<reserved_106>' + message['content'] }}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{ '<reserved_107>' + message['content'] }}"
    "{%- else -%}"
    "{{ raise_exception('roles are user and assistant, and system for the first message') }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt and messages[-1]['role'] != 'assistant' -%}"
    "{{ '<reserved_107>' }}"
    "{%- endif -%}"
)
"""Turns opened by ids 195 (user) and 196 (assistant), nothing in between or at the end.

Source: ``build_chat_input`` in the official generation_utils.py. The role tokens are ordinary
symbols of the vocabulary, so a message that contains their text would open a turn: it is refused.
"""


class BaichuanTokenizer(SentencePieceBackend):
    """Gives the ids of sentencepiece for the whole text, and the text back from them.

    Nothing is added in front or behind, as in all official releases of Baichuan2, and control
    tokens such as ``</s>`` are never read out of a text: written literally they are plain text.

    Args:
        vocab_file: Path of ``tokenizer.model``.
        **options: The keys of tokenizer_config.json.
    """

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012 - transformers wants a list

    def __init__(self, vocab_file: str, **options: Any) -> None:
        options.pop("auto_map", None)  # names code that is never run and not saved along
        options.setdefault("split_special_tokens", True)
        for name, token in (("bos", "<s>"), ("eos", "</s>"), ("unk", "<unk>"), ("pad", "<unk>")):
            options.setdefault(f"{name}_token", token)
        if options.get("chat_template") is None:
            options["chat_template"] = CHAT_TEMPLATE
        super().__init__(vocab_file=vocab_file, **options)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Returns the text of tokens exactly, with spaces and newlines kept.

        Special tokens appear as they are written, with no space around them.
        """
        text, run = "", list[str]()
        for token in tokens:
            if token in self._added_tokens_encoder:
                text += self.sp_model.decode(run) + token
                run = []
            else:
                run.append(token)
        return text + self.sp_model.decode(run)
