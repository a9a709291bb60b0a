"""Whole training steps of two-layer models on the NPU path, against the same on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from npu_contract.emulator import Emulator

pytest.importorskip("transformers")
from bc2_model.hf import BaichuanConfig, BaichuanForCausalLM

DOCUMENTS = torch.tensor([[1] * 10 + [2] * 13 + [0], [1] * 4 + [2] * 4 + [3] * 16])


def a_model(position_embedding: str) -> BaichuanForCausalLM:
    torch.manual_seed(0)
    config = BaichuanConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        position_embedding=position_embedding,
    )
    return BaichuanForCausalLM(config).train()


def train(model: BaichuanForCausalLM, device: str, mask: torch.Tensor | None) -> list[float]:
    """Returns the losses of three steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, foreach=False)
    tokens = torch.randint(3, 97, (3, 2, 24), generator=torch.Generator().manual_seed(1))
    losses = []
    for batch in tokens.to(device):
        optimizer.zero_grad()
        loss = model(batch, attention_mask=mask, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach().cpu().item())
    return losses


@pytest.mark.parametrize("documents", [None, DOCUMENTS], ids=["whole", "packed"])
@pytest.mark.parametrize("position_embedding", ["alibi", "rotary"])
def test_steps_equal_those_on_a_cpu(position_embedding: str, documents, emulator: Emulator) -> None:
    on_cpu = a_model(position_embedding)
    expected = train(on_cpu, "cpu", documents)
    on_npu = a_model(position_embedding).to("npu")
    mask = None if documents is None else documents.to("npu")
    assert train(on_npu, "npu", mask) == pytest.approx(expected, rel=1e-5)
    assert emulator.calls["npu_fusion_attention_v2"] == 2 * 3
    assert emulator.calls["npu_fusion_attention_grad_v2"] == 2 * 3
    assert emulator.calls["npu_rms_norm"] == 5 * 3
    assert emulator.calls["npu_rotary_mul"] == (2 * 2 * 3 if position_embedding == "rotary" else 0)
    for got, want in zip(on_npu.parameters(), on_cpu.parameters(), strict=True):
        torch.testing.assert_close(got.detach().cpu(), want.detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("fake_backward")
@pytest.mark.parametrize("position_embedding", ["alibi", "rotary"])
def test_a_step_on_fake_tensors(position_embedding: str) -> None:
    with FakeTensorMode(), torch.device("npu"):
        model = a_model(position_embedding)
        tokens = torch.empty(2, 24, dtype=torch.int64)
        model(tokens).logits.float().logsumexp(-1).sum().backward()
        assert all(x.grad.shape == x.shape for x in model.parameters())
        torch.optim.AdamW(model.parameters(), foreach=False).step()
