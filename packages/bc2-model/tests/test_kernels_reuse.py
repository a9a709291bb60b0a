"""Our attention inside two other ALiBi models, transformers' own BLOOM and MPT.

The replacement forward methods are those that docs/kernels.md shows.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the extra `hf` is not installed")

import torch
from torch import Tensor, nn
from transformers import BloomConfig, BloomForCausalLM, MptConfig, MptForCausalLM

from bc2_model.kernels import alibi_slopes, attention


def bloom_attention(
    self, hidden_states, residual, alibi, attention_mask, layer_past=None, **_
):  # BloomAttention.forward
    q, k, v = self._reshape(self.query_key_value(hidden_states))
    if layer_past is not None:
        k, v = layer_past.update(k, v, self.layer_idx)
    # The last query sees every key that is no padding, on whichever side that is.
    ids = None if attention_mask is None else (attention_mask[:, 0, -1] == 0).int()
    slopes = alibi_slopes(self.num_heads).to(q.device)
    mixed = attention(q, k, v, alibi_slopes=slopes, segment_ids=ids)
    return self.dense(mixed.transpose(1, 2).flatten(2)) + residual, None


def mpt_attention(
    self, hidden_states, position_bias, past_key_values=None, attention_mask=None, **_
):  # MptAttention.forward
    packed = self.Wqkv(hidden_states).unflatten(-1, (3, self.n_heads, self.head_dim))
    q, k, v = packed.permute(2, 0, 3, 1, 4)
    if past_key_values is not None:
        k, v = past_key_values.update(k, v, self.layer_idx)
    ids = None if attention_mask is None else (~attention_mask[:, 0, -1]).int()
    slopes = alibi_slopes(self.n_heads).to(q.device)
    mixed = attention(q, k, v, alibi_slopes=slopes, segment_ids=ids, scale=self.softmax_scale)
    return self.out_proj(mixed.transpose(1, 2).flatten(2)), None


def bloom(heads: int) -> nn.Module:
    config = BloomConfig(vocab_size=99, hidden_size=8 * heads, n_layer=2, n_head=heads)
    return BloomForCausalLM(config)


def mpt(heads: int) -> nn.Module:
    config = MptConfig(vocab_size=99, d_model=8 * heads, n_layers=2, n_heads=heads, max_seq_len=320)
    return MptForCausalLM(config)


def with_our_attention(model: nn.Module, forward: Callable[..., tuple[Tensor, None]]) -> int:
    """Replaces the attention of every layer; returns of how many."""
    replaced = 0
    for module in model.modules():
        if type(module).__name__ in ("BloomAttention", "MptAttention"):
            module.forward = types.MethodType(forward, module)
            replaced += 1
    return replaced


@pytest.fixture(params=["bloom", "mpt"])
def make(request: pytest.FixtureRequest) -> tuple[Callable[[int], nn.Module], Callable]:
    return {"bloom": (bloom, bloom_attention), "mpt": (mpt, mpt_attention)}[request.param]


def sharpened(model: nn.Module) -> nn.Module:
    """Draws larger weights, so that attention is far from uniform and a wrong bias shows."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model.eval()


MASKS = {
    "whole": None,
    "left padding": torch.cat([torch.zeros(2, 9), torch.ones(2, 281)], 1).long(),
    "right padding": torch.cat([torch.ones(2, 281), torch.zeros(2, 9)], 1).long(),
}


@pytest.mark.parametrize("heads", [4, 6])
@pytest.mark.parametrize("padding", MASKS)
def test_logits_are_theirs(make: tuple, heads: int, padding: str) -> None:
    build, forward = make
    model = sharpened(build(heads))
    tokens = torch.randint(99, (2, 290))
    mask = MASKS[padding]
    real = torch.ones_like(tokens).bool() if mask is None else mask.bool()
    with torch.no_grad():
        theirs = model(tokens, attention_mask=mask).logits[real]
        assert with_our_attention(model, forward) == 2
        ours = model(tokens, attention_mask=mask).logits[real]
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_their_generation_through_the_cache_is_unchanged(make: tuple) -> None:
    build, forward = make
    model = sharpened(build(4))
    prompt = {
        "input_ids": torch.randint(3, 99, (2, 12)),
        "attention_mask": torch.ones(2, 12).long().index_fill(1, torch.arange(3), 0),
    }
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    theirs = model.generate(**prompt, **options)
    with_our_attention(model, forward)
    assert torch.equal(model.generate(**prompt, **options), theirs)


def test_the_guide_shows_these_very_functions() -> None:
    guide = Path(__file__).parents[3] / "docs" / "kernels.md"
    source = Path(__file__).read_text()
    for name in ("bloom_attention", "mpt_attention"):
        function = source[source.index(f"def {name}(") :].split("\n\n\n")[0]
        assert function in guide.read_text()
