"""transformers 5 loads an export through its Auto classes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import torch

from bc2_data.tokenizer import load_tokenizer
from bc2_model.hf.generation import Sampling, stream
from bc2_model.hf.loading import load_model
from bc2_model.hf.loading import load_tokenizer as load_our_tokenizer

if TYPE_CHECKING:
    from clients.conftest import Standin

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
NEW = 16


def test_greedy_tokens_are_ours_and_the_reference_s(standin: Standin) -> None:
    from bc2_model.hf import register

    register()
    model = transformers.AutoModelForCausalLM.from_pretrained(standin.export)
    ours, tokenizer = load_model(standin.export), load_our_tokenizer(standin.export)
    for prompt in standin.prompts[:, None]:
        theirs = model.eval().generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            do_sample=False,
        )
        assert torch.equal(theirs, standin.reference.greedy(prompt, NEW))
        sampling = Sampling(max_new_tokens=NEW, temperature=0)
        streamed = stream(ours, tokenizer, prompt[0].tolist(), sampling)
        sys.stdout.flush()
        assert streamed == theirs[0, prompt.shape[1] :].tolist()[: len(streamed)]
        assert len(streamed) == NEW or streamed[-1] == 2


def test_the_tokenizer_gives_the_ids_of_sentencepiece(standin: Standin) -> None:
    from bc2_model.hf import register

    register()
    theirs = transformers.AutoTokenizer.from_pretrained(standin.export)
    ours = load_tokenizer(standin.export, special_tokens="allow", engine="sentencepiece")
    for text in ("The dog\n sleeps", "北京 <reserved_106>x", "  a\t😀"):
        assert theirs(text)["input_ids"] == ours.encode([text])[0].tolist()
        assert theirs.decode(theirs(text)["input_ids"]) == text
