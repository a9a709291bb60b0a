"""Floating-point operations of a training step, and the rates that follow from its time.

Two counts are given: AscendSpeed's, so that numbers can be set beside its README, and the exact
one of Baichuan's matrix products. Both count a multiply-add as two operations and a backward pass
as twice the forward pass. Neither counts norms, softmax, rotary embedding or the optimizer.
"""

from __future__ import annotations

from bc2_ckpt.config import ModelConfig

_TERA = 1e12


def ascendspeed_flops(
    config: ModelConfig,
    *,
    batch_size: int,
    seq_length: int,
    padded_vocab_size: int,
    full_recompute: bool = False,
) -> float:
    """Returns the operations of one step as AscendSpeed's training log counts them.

    With B samples of s tokens, L layers of width h and a padded vocabulary of V rows::

        24 k B s L h^2 (1 + s / (6 h) + V / (16 L h))

    k is 3 (a forward and a backward pass), or 4 where every layer's forward pass is computed a
    second time. The formula takes the MLP for a plain one of width 4 h (Baichuan's gated MLP of
    three h x ffn matrices costs nearly the same) and attention for full (the causal half that is
    masked away counts as work).

    Source: ``throughput_calculator`` of AscendSpeed, which is equation 3 of Narayanan et al.,
    "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM" (2021),
    with k free.

    Args:
        config: The model's dimensions.
        batch_size: Samples a step, over all devices.
        seq_length: Tokens a sample.
        padded_vocab_size: Rows of the output layer, padding rows included.
        full_recompute: Whether activations are checkpointed in every layer.
    """
    passes = 4 if full_recompute else 3
    layers, width = config.num_layers, config.hidden_size
    attention = seq_length / (6 * width)
    output_layer = padded_vocab_size / (16 * layers * width)
    body = 24 * passes * batch_size * seq_length * layers * width**2
    return body * (1 + attention + output_layer)


def exact_flops(config: ModelConfig, *, batch_size: int, seq_length: int) -> int:
    """Returns the operations of one step that Baichuan's matrix products really need.

    With B samples of s tokens, L layers of width h, a gated MLP of width f and V true vocabulary
    rows::

        3 B (s (L (8 h^2 + 6 h f) + 2 h V) + L 2 h s (s + 1))

    Of a layer, 8 h^2 is the four h x h projections of attention, 6 h f the three matrices of
    SwiGLU (Shazeer, "GLU Variants Improve Transformer", 2020), and 2 h s (s + 1) the two products
    of 2 h operations for each of the s (s + 1) / 2 pairs that causal attention keeps. Recomputed
    activations and padded vocabulary rows are no useful work and do not count (model FLOPs,
    appendix B of Chowdhery et al., "PaLM", 2022). Samples are taken for one document each.

    Args:
        config: The model's dimensions.
        batch_size: Samples a step, over all devices.
        seq_length: Tokens a sample.
    """
    width = config.hidden_size
    layer = 8 * width**2 + 6 * width * config.intermediate_size
    products = seq_length * (config.num_layers * layer + 2 * width * config.vocab_size)
    attention = config.num_layers * 2 * width * seq_length * (seq_length + 1)
    return 3 * batch_size * (products + attention)


def tflops_per_device(flops: float, *, step_time: float, devices: int) -> float:
    """Returns flops / (step_time * devices * 10^12), in TFLOP/s.

    Args:
        flops: Operations of one step over all devices.
        step_time: Seconds.
        devices: Number of devices, at least 1.
    """
    return flops / (step_time * devices * _TERA)


def samples_per_second(batch_size: int, *, step_time: float) -> float:
    """Returns batch_size / step_time: samples a second of the whole job.

    The header of AscendSpeed's 13B table says "samples/s/p", yet its 5.149 is 256 / 49.716 s,
    the rate of all 16 devices together, as here.

    Args:
        batch_size: Samples a step, over all devices.
        step_time: Seconds.
    """
    return batch_size / step_time


def tokens_per_second_per_device(
    batch_size: int, seq_length: int, *, step_time: float, devices: int
) -> float:
    """Returns batch_size * seq_length / (step_time * devices).

    Args:
        batch_size: Samples a step, over all devices.
        seq_length: Tokens a sample.
        step_time: Seconds.
        devices: Number of devices, at least 1.
    """
    return batch_size * seq_length / (step_time * devices)
