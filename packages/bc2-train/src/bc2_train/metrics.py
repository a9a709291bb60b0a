"""What a run says of each step: metrics.jsonl, TensorBoard, and a line in AscendSpeed's shape."""

from __future__ import annotations

import json
import math
import resource
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import torch

from bc2_ckpt.config import ModelConfig
from bc2_data.vocab import padded_vocab_size
from bc2_train import throughput
from bc2_train.config import RunConfig
from bc2_train.engines.base import Progress, StepResult


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """One line of metrics.jsonl.

    Attributes:
        iteration: Counted from 1.
        loss: Mean cross entropy over the trained tokens, in nats.
        grad_norm: Before clipping; NaN, in the file null, where it was not finite.
        lr: Learning rate.
        step_time: Wall time of the step in seconds.
        samples_per_second: Of the whole job.
        tokens_per_second_per_device: Input positions, padding included.
        tflops_per_device: TFLOP/s by AscendSpeed's formula.
        consumed_samples: Since the start of the run.
        consumed_tokens: Input positions since the start of the run.
        skipped: Updates left out since the start of the run.
        memory: Peak bytes of this process: of the GPU's allocator, or resident on a CPU.
    """

    iteration: int
    loss: float
    grad_norm: float
    lr: float
    step_time: float
    samples_per_second: float
    tokens_per_second_per_device: float
    tflops_per_device: float
    consumed_samples: int
    consumed_tokens: int
    skipped: int
    memory: int


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One line of evaluations.jsonl.

    Attributes:
        iteration: Completed training steps.
        loss: Mean cross entropy over the trained tokens of the evaluation batches, in nats.
        tokens: These tokens.
    """

    iteration: int
    loss: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(loss), as far as a float holds it."""
        return math.exp(min(self.loss, 700.0))


def measure(
    config: RunConfig,
    model: ModelConfig,
    *,
    result: StepResult,
    progress: Progress,
    learning_rate: float,
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
        padded_vocab_size=padded_vocab_size(model.vocab_size, 128, config.parallel.tensor),
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


class MetricsWriter:
    """Appends to metrics.jsonl, evaluations.jsonl and TensorBoard's event file.

    Args:
        run_dir: The run directory.
        iteration: Last completed iteration: lines beyond it, which an earlier process wrote after
            its last checkpoint, are dropped, since these steps will be taken again.
    """

    def __init__(self, run_dir: Path, iteration: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._steps = _reopen(run_dir / "metrics.jsonl", iteration)
        self._evaluations = _reopen(run_dir / "evaluations.jsonl", iteration)
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=iteration + 1)

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._steps.close()
        self._evaluations.close()
        self._board.close()

    def write(self, metrics: StepMetrics | Evaluation) -> None:
        """Writes one step or evaluation; a reader sees whole lines only."""
        file = self._steps if isinstance(metrics, StepMetrics) else self._evaluations
        file.write(json.dumps(_finite(asdict(metrics)), allow_nan=False) + "\n")
        file.flush()
        for tag, value in _scalars(metrics):
            self._board.add_scalar(tag, value, metrics.iteration)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the values with null for what JSON has no number for."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def _scalars(metrics: StepMetrics | Evaluation) -> list[tuple[str, float]]:
    """Returns what TensorBoard shows, under the names that AscendSpeed and Megatron give it."""
    if isinstance(metrics, Evaluation):
        return [
            ("lm-loss-validation/lm loss validation", metrics.loss),
            ("lm-loss-validation/lm loss validation ppl", metrics.perplexity),
        ]
    return [
        ("lm-loss-training/lm loss", metrics.loss),
        ("grad-norm/grad-norm", metrics.grad_norm),
        ("learning-rate/learning-rate", metrics.lr),
        ("iteration-time/iteration-time", metrics.step_time),
    ]


def _reopen(path: Path, iteration: int) -> TextIO:
    """Opens a file for appending, without its lines beyond an iteration."""
    kept = _lines_up_to(path, iteration)
    file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - the writer closes it
    file.writelines(kept)
    file.flush()
    return file


def _lines_up_to(path: Path, iteration: int) -> list[str]:
    """Returns the whole lines of a metrics file whose iteration is not beyond the given one."""
    if not path.exists():
        return []
    kept = []
    for line in path.read_text("utf-8").splitlines(keepends=True):
        try:
            known = json.loads(line)["iteration"] <= iteration
        except ValueError:  # a line that a killed process did not finish
            continue
        if known:
            kept.append(line)
    return kept


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
