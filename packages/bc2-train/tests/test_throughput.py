"""The published numbers of AscendSpeed's Baichuan2 README, and a count made by hand."""

import pytest

from bc2_ckpt.config import PRESETS, ModelConfig
from bc2_data.vocab import padded_vocab_size
from bc2_train.throughput import (
    ascendspeed_flops,
    exact_flops,
    samples_per_second,
    tflops_per_device,
    tokens_per_second_per_device,
)

RUN_7B = {"batch_size": 128, "seq_length": 4096}
RUN_13B = {"batch_size": 256, "seq_length": 4096}


def test_ascendspeed_count_gives_the_published_7b_rate():
    flops = ascendspeed_flops(
        PRESETS["baichuan2-7b"],
        **RUN_7B,
        padded_vocab_size=padded_vocab_size(125_696, 128, 8),
    )
    assert tflops_per_device(flops, step_time=24.97, devices=8) == pytest.approx(124.45, abs=5e-3)


def test_ascendspeed_count_gives_the_published_13b_rate():
    flops = ascendspeed_flops(
        PRESETS["baichuan2-13b"],
        **RUN_13B,
        padded_vocab_size=padded_vocab_size(125_696, 8, 8),
    )
    rate = tflops_per_device(flops, step_time=49.716, devices=16)
    assert rate == pytest.approx(116.608, abs=5e-4)
    older = tflops_per_device(flops, step_time=76.89, devices=16)  # without flash attention
    assert older == pytest.approx(75.40, abs=5e-3)


def test_full_recompute_counts_the_forward_pass_twice():
    config = PRESETS["baichuan2-13b"]
    plain = ascendspeed_flops(config, **RUN_13B, padded_vocab_size=125_696)
    recomputed = ascendspeed_flops(
        config, **RUN_13B, padded_vocab_size=125_696, full_recompute=True
    )
    assert recomputed / plain == pytest.approx(4 / 3)


def count_forward(config: ModelConfig, seq_length: int) -> int:
    """Counts one sample's multiply-adds matrix by matrix and pair by pair."""
    h, f = config.hidden_size, config.intermediate_size
    total = 0
    for position in range(seq_length):
        for _ in range(config.num_layers):
            total += h * 3 * h  # W_pack
            for _key in range(position + 1):
                total += 2 * config.num_heads * config.head_dim  # score, weighted sum
            total += h * h  # o_proj
            total += h * f + h * f + f * h  # gate_proj, up_proj, down_proj
        total += h * config.vocab_size  # lm_head
    return 2 * total


@pytest.mark.parametrize("seq_length", [1, 7, 32])
def test_exact_count_equals_a_count_by_hand(seq_length):
    config = ModelConfig(
        vocab_size=101,
        hidden_size=24,
        intermediate_size=40,
        num_layers=3,
        num_heads=4,
        position_embedding="alibi",
    )
    counted = 3 * 5 * count_forward(config, seq_length)
    assert exact_flops(config, batch_size=5, seq_length=seq_length) == counted


def test_exact_count_of_the_published_runs():
    flops_7b = exact_flops(PRESETS["baichuan2-7b"], **RUN_7B)
    flops_13b = exact_flops(PRESETS["baichuan2-13b"], **RUN_13B)
    assert tflops_per_device(flops_7b, step_time=24.97, devices=8) == pytest.approx(118.5, abs=0.1)
    assert tflops_per_device(flops_13b, step_time=49.716, devices=16) == pytest.approx(
        111.5, abs=0.1
    )


def test_rates():
    assert samples_per_second(128, step_time=24.97) == pytest.approx(5.126, abs=5e-4)
    assert samples_per_second(256, step_time=49.716) == pytest.approx(5.149, abs=5e-4)
    rate = tokens_per_second_per_device(128, 4096, step_time=24.97, devices=8)
    assert rate == pytest.approx(2624.6, abs=0.05)
    rate = tokens_per_second_per_device(256, 4096, step_time=49.716, devices=16)
    assert rate == pytest.approx(1318.2, abs=0.05)
