"""Generates text token by token, to be seen as it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TextStreamer

from bc2_model.errors import ModelError
from bc2_model.hf.modeling import BaichuanForCausalLM
from bc2_model.hf.tokenization import BaichuanTokenizer


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen; what is None, the checkpoint's generation_config.json decides.

    Attributes:
        max_new_tokens: Most tokens to generate, at least 1.
        temperature: 0 takes the likeliest token each time, more than 0 samples.
        top_k: Sample among so many likeliest tokens.
        top_p: Sample among the likeliest tokens that together have this probability.
        repetition_penalty: Divides the positive logits of tokens already seen.
        seed: Of the sampling.
    """

    max_new_tokens: int
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    seed: int = 0

    def options(self) -> dict[str, Any]:
        """Returns the arguments of ``generate``."""
        names = ("max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.temperature == 0:
            return {**given, "do_sample": False, "temperature": None, "top_k": None, "top_p": None}
        if given.keys() & {"temperature", "top_k", "top_p"}:
            given["do_sample"] = True
        return given


def stream(
    model: BaichuanForCausalLM,
    tokenizer: BaichuanTokenizer,
    prompt: Sequence[int],
    sampling: Sampling,
) -> list[int]:
    """Prints the continuation of a prompt on stdout while it is made, and returns its ids.

    Args:
        model: In evaluation mode.
        tokenizer: The model's own.
        prompt: Token ids.
        sampling: How tokens are chosen.

    Raises:
        ModelError: The prompt is empty.
    """
    if not prompt:
        raise ModelError("the prompt is empty", "Baichuan2 adds no token of its own: write a text")
    torch.manual_seed(sampling.seed)
    tokens = torch.tensor([list(prompt)], device=model.device)
    output = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True),
        **sampling.options(),
    )
    return output[0, len(prompt) :].tolist()
