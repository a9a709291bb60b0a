"""Low-rank adapters of PEFT on the transformers model."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the extra `hf` is not installed")
peft = pytest.importorskip("peft", reason="PEFT is not installed")

import torch
from torch import Tensor

from bc2_model.errors import ModelError
from bc2_model.hf import BaichuanConfig, BaichuanForCausalLM

TARGETS = ["W_pack", "o_proj", "gate_proj", "up_proj", "down_proj"]


def base() -> BaichuanForCausalLM:
    torch.manual_seed(0)
    config = BaichuanConfig(
        vocab_size=97,
        hidden_size=40,
        intermediate_size=56,
        num_hidden_layers=2,
        num_attention_heads=5,
        torch_dtype="float32",
    )
    return BaichuanForCausalLM(config)


def adapted(targets: list[str]) -> peft.PeftModel:
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=targets)
    return peft.get_peft_model(base(), config)


def tokens() -> Tensor:
    return torch.randint(1, 97, (2, 12), generator=torch.Generator().manual_seed(1))


def steps(model: peft.PeftModel, count: int) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(count):
        loss = model(input_ids=tokens(), labels=tokens()).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("targets", [TARGETS, [*TARGETS, "lm_head"]], ids=["layers", "with head"])
def test_adapters_train_and_the_base_stays(targets: list[str]) -> None:
    model = adapted(targets)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    with torch.no_grad():
        plain = base().train()(tokens(), labels=tokens()).loss
    losses = steps(model.train(), 4)
    assert losses[0] == pytest.approx(plain.item(), rel=1e-6)
    assert losses[-1] < losses[0] - 0.05
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * (2 * len(TARGETS) + ("lm_head" in targets))
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)


def test_a_head_with_an_adapter_gives_the_loss_of_its_logits() -> None:
    model = adapted(["lm_head"])
    steps(model.train(), 3)
    logits = model(input_ids=tokens()).logits[:, :-1]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens()[:, 1:].flatten())
    torch.testing.assert_close(model(input_ids=tokens(), labels=tokens()).loss, expected)


def test_adapters_are_saved_loaded_and_merged(tmp_path: Path) -> None:
    model = adapted(TARGETS)
    steps(model.train(), 3)
    expected = model.eval()(input_ids=tokens()).logits
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(base(), tmp_path).eval()
    assert torch.equal(loaded(input_ids=tokens()).logits, expected)
    merged = loaded.merge_and_unload()(tokens()).logits
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(base().eval()(tokens()).logits, expected, atol=1e-3)


def test_generation_and_hidden_states_go_through_the_adapters() -> None:
    model = adapted(TARGETS).eval()
    output = model.generate(input_ids=tokens(), max_new_tokens=3, do_sample=False)
    assert output.shape == (2, 15)
    states = model(input_ids=tokens(), output_hidden_states=True).hidden_states
    assert len(states) == 3
    assert model(input_ids=tokens(), return_dict=False)[0].shape == (2, 12, 97)


def test_attention_weights_are_refused() -> None:
    with pytest.raises(ModelError, match="never make the attention weights"):
        adapted(TARGETS)(input_ids=tokens(), output_attentions=True)
