"""llama.cpp, as the wheel of xllamacpp has it, runs the GGUF file."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import torch

from bc2_data.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from clients.conftest import Standin

pytest.importorskip("gguf", reason="gguf is not installed (pip install 'bc2-ckpt[gguf]')")
xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")

NEW = 16
CONTEXT = 128


class Server:
    """llama.cpp's own server, in this process, in float32 throughout."""

    def __init__(self, model: str) -> None:
        parameters = xllamacpp.CommonParams()
        parameters.model.path = model
        parameters.n_ctx, parameters.n_parallel, parameters.warmup = CONTEXT, 1, False
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
        float32 = xllamacpp.ggml_type.GGML_TYPE_F32
        parameters.cache_type_k = parameters.cache_type_v = float32
        off = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.flash_attn_type = off
        self._server = xllamacpp.Server(parameters)

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            self._server.listening_address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            result: dict[str, Any] = json.load(answer)
        return result

    def complete(self, prompt: list[int], count: int, **more: Any) -> dict[str, Any]:
        settings = {"temperature": 0.0, "return_tokens": True, "cache_prompt": False}
        body = {"prompt": prompt, "n_predict": count, "ignore_eos": True}
        return self.post("/completion", **body, **settings, **more)


@pytest.fixture(scope="module")
def server(standin: Standin) -> Server:
    return Server(str(standin.gguf))


def test_greedy_tokens_are_the_reference_s(standin: Standin, server: Server) -> None:
    for prompt in standin.prompts:
        answer = server.complete(prompt.tolist(), NEW)
        expected = standin.reference.greedy(prompt[None], NEW)[0, len(prompt) :]
        assert answer["tokens"] == expected.tolist()


def test_log_probabilities_are_close_to_the_reference_s(
    standin: Standin, server: Server, record_property: Any
) -> None:
    rows = standin.reference.config.vocab_size
    compared, worst = 0, 0.0
    for prompt in standin.prompts:
        with torch.no_grad():
            expected = standin.reference.logits(prompt[None])[0].log_softmax(-1)
        for length in range(4, len(prompt) + 1, 4):
            answer = server.complete(prompt[:length].tolist(), 1, n_probs=rows)
            if "completion_probabilities" not in answer:  # the token is a part of a character
                continue
            top = answer["completion_probabilities"][0]["top_logprobs"]
            assert len(top) == rows
            found = torch.empty(rows)
            for entry in top:
                found[entry["id"]] = entry["logprob"]
            worst = max(worst, (found - expected[length - 1]).abs().max().item())
            compared += 1
    record_property("log probabilities", compared * rows)
    record_property("largest difference", worst)
    assert compared >= 6
    assert worst < 1e-4


@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox",
        "  two spaces\n\n\tand a tab",
        "北京是中国的首都。",
        "a character that the vocabulary lacks: 😀",
        "<reserved_106>Hello<reserved_107>",
        "3.14159 + 42",
    ],
)
def test_texts_get_the_ids_of_sentencepiece(standin: Standin, server: Server, text: str) -> None:
    ours = load_tokenizer(standin.export, special_tokens="allow", engine="sentencepiece")
    answer = server.post("/tokenize", content=text, add_special=True, parse_special=False)
    assert answer["tokens"] == ours.encode([text])[0].tolist()
    back = server.post("/detokenize", tokens=answer["tokens"])
    assert back["content"] == text
