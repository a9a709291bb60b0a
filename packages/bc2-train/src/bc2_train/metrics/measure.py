"""What is known of a step when it ends, and the log line that says it."""

from __future__ import annotations

import resource

import torch

from bc2_ckpt.config import ModelConfig
from bc2_data.vocab import VOCAB_DIVISOR, padded_vocab_size
from bc2_train import throughput
from bc2_train.config import RunConfig
from bc2_train.engines.base import Progress, StepResult
from bc2_train.metrics.records import StepMetrics


def measure(
    config: RunConfig,
    model: ModelConfig,
    *,
    result: StepResult,
    progress: Progress,
    learning_rate: float,
    data_time: float,
    step_time: float,
    devices: int,
    device: torch.device,
) -> StepMetrics:
    """Returns the metrics of a step that has just ended."""
    samples, length = config.batch.global_, mean_length(config, result)
    flops = throughput.ascendspeed_flops(
        model,
        batch_size=samples,
        seq_length=length,
        padded_vocab_size=padded_vocab_size(
            model.vocab_size, VOCAB_DIVISOR, config.parallel.tensor
        ),
    )
    return StepMetrics(
        iteration=progress.iteration,
        loss=result.loss,
        grad_norm=result.grad_norm,
        lr=learning_rate,
        step_time=step_time,
        samples_per_second=throughput.samples_per_second(samples, step_time=step_time),
        tokens_per_second_per_device=throughput.tokens_per_second_per_device(
            samples, length, step_time=step_time, devices=devices
        ),
        tflops_per_device=throughput.tflops_per_device(flops, step_time=step_time, devices=devices),
        consumed_samples=progress.consumed_samples,
        consumed_tokens=progress.consumed_tokens,
        skipped=progress.skipped,
        memory=_peak_memory(device),
        data_time=data_time,
        forward_backward_time=result.forward_backward_time,
        optimizer_time=result.optimizer_time,
        loss_scale=result.loss_scale,
    )


def mean_length(config: RunConfig, result: StepResult) -> int:
    """Returns how many positions a sample of a step had on average, padding included."""
    return round(result.positions / config.batch.global_)


def log_line(config: RunConfig, metrics: StepMetrics, result: StepResult) -> str:
    """Returns a step's log line, which parsers of AscendSpeed's logs read.

    Source: ``training_log`` in AscendSpeed's training.py.
    """
    fields = (
        f"iteration {metrics.iteration:8d}/{config.train.iterations:8d}",
        f"consumed samples: {metrics.consumed_samples:12d}",
        f"consumed tokens: {metrics.consumed_tokens:12d}",
        f"elapsed time per iteration (ms): {metrics.step_time * 1000:.1f}",
        f"learning rate: {metrics.lr:.3E}",
        f"global batch size: {config.batch.global_:5d}",
        f"lm loss: {metrics.loss:.6E}",
        f"loss scale: {result.loss_scale:.1f}",
        f"grad norm: {metrics.grad_norm:.3f}",
        f"actual seqlen: {mean_length(config, result):5d}",
        f"number of skipped iterations: {metrics.skipped:3d}",
        f"number of nan iterations: {0:3d}",
        f"samples per second: {metrics.samples_per_second:.3f}",
        f"TFLOPs: {metrics.tflops_per_device:.2f}",
    )
    return " " + " | ".join(fields) + " |"


def _peak_memory(device: torch.device) -> int:
    """Returns bytes; ``torch.cuda`` means the NPU where torch_npu's transfer is installed."""
    if device.type in ("cuda", "npu"):
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
