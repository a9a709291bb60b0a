"""One optimizer step on megatron-core."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.pipeline_parallel.schedules import get_forward_backward_func

from bc2_ckpt.config import ModelConfig
from bc2_data.vocab import IGNORE_INDEX
from bc2_model.megatron.context_parallel import local_part
from bc2_model.weights import WeightSource
from bc2_train import runtime
from bc2_train.checkpoints import PendingSave
from bc2_train.config import RunConfig
from bc2_train.data import Batch
from bc2_train.engines.base import EvaluationResult, Progress, StepResult
from bc2_train.engines.megatron import build, checkpoint


class MegatronEngine:
    """Trains a Baichuan2 model in any megatron-core layout.

    torch.distributed must be initialised and the runtime of the device installed.

    Args:
        config: The run.
        dimensions: Of the whole model.
        weights: Where the initial parameters come from.
        device: This process's device.
    """

    def __init__(
        self,
        config: RunConfig,
        dimensions: ModelConfig,
        weights: WeightSource,
        device: torch.device,
    ) -> None:
        build.process_groups(config)
        self.config = config
        self.device = device
        self.chunks = build.model(config, dimensions, weights, device)
        self.wrapped = build.data_parallel(config, self.chunks)
        self.optimizer = build.optimizer(config, self.wrapped)
        self.data_parallel_rank = parallel_state.get_data_parallel_rank()
        self.data_parallel_size = parallel_state.get_data_parallel_world_size()
        self._forward_backward = get_forward_backward_func()
        parallel = config.parallel
        self._computes_alone = parallel.tensor * parallel.pipeline * parallel.context == 1
        self._met_others = 0.0
        transformer = self.chunks[0].config
        self._finalize = transformer.finalize_model_grads_func
        transformer.finalize_model_grads_func = self._reduce_gradients

    def train_step(self, batches: Sequence[Batch], learning_rate: float) -> StepResult:
        """Computes one optimizer step; see `Engine.train_step`."""
        started = time.perf_counter()
        for chunk in self.wrapped:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        losses = self._compute(batches, forward_only=False)
        runtime.synchronize(self.device)
        computed = time.perf_counter()
        grad_norm = self._update(learning_rate)
        runtime.synchronize(self.device)
        updated = time.perf_counter()
        mean, positions = self._mean_loss(losses)
        return StepResult(
            loss=mean.loss,
            grad_norm=grad_norm,
            tokens=mean.tokens,
            positions=positions,
            skipped=not math.isfinite(grad_norm),
            loss_scale=float(self.optimizer.get_loss_scale()),
            forward_backward_time=computed - started,
            optimizer_time=updated - computed,
            local_time=self._met_others - started if self._computes_alone else math.nan,
        )

    def evaluate(self, batches: Sequence[Batch]) -> EvaluationResult:
        """Computes the loss alone; see `Engine.evaluate`."""
        for chunk in self.wrapped:
            chunk.eval()
        with torch.no_grad():
            losses = self._compute(batches, forward_only=True)
        for chunk in self.wrapped:
            chunk.train()
        mean, _ = self._mean_loss(losses)
        return mean

    def _compute(self, batches: Sequence[Batch], forward_only: bool) -> list[dict[str, Any]]:
        losses: list[dict[str, Any]] = self._forward_backward(
            forward_step_func=_forward_step,
            data_iterator=self._iterators(batches),
            model=self.wrapped,
            num_microbatches=len(batches),
            # What the stages of a pipeline exchange has this length; see `Padding.together`.
            seq_length=batches[0].tokens.shape[1],
            micro_batch_size=self.config.batch.micro,
            forward_only=forward_only,
        )
        return losses

    def _reduce_gradients(self, *args: Any, **kwargs: Any) -> None:
        """Lets megatron-core reduce the gradients, and notes when this rank had its own."""
        self._met_others = time.perf_counter()
        self._finalize(*args, **kwargs)

    @torch.no_grad()
    def _update(self, learning_rate: float) -> float:
        """Clips and takes the optimizer step; returns the gradient norm before clipping.

        megatron-core's own ``step`` would write NaN into every parameter where a gradient is NaN;
        here the update is left out, and the norm says so.
        """
        settings = self.config.optimizer
        if self.optimizer.prepare_grads():
            return math.nan
        grad_norm = float(self.optimizer.get_grad_norm())
        if not math.isfinite(grad_norm):
            return grad_norm
        if settings.clip > 0:
            clip_grad_by_total_norm_fp32(self.optimizer.get_parameters(), settings.clip, grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
            # megatron-core only marks the groups: its scheduler, which is not used, would decay
            # matrices alone.
            group["weight_decay"] = settings.weight_decay * group["wd_mult"]
        self.optimizer.step_with_ready_grads()
        return grad_norm

    def _iterators(self, batches: Sequence[Batch]) -> Any:
        """Returns what megatron-core's schedules read from: one iterator a model chunk."""
        if len(self.wrapped) == 1:
            return iter(batches)
        return [iter(batches) for _ in self.wrapped]

    def save(self, directory: Path, progress: Progress) -> PendingSave:
        """Writes a distributed checkpoint; see `Engine.save`."""
        return checkpoint.save(
            directory,
            self.chunks,
            self.optimizer,
            progress,
            asynchronous=self.config.checkpoint.asynchronous,
        )

    def load(self, directory: Path) -> Progress:
        """Reads a distributed checkpoint; see `Engine.load`."""
        return checkpoint.load(directory, self.chunks, self.optimizer)

    def _mean_loss(self, losses: list[dict[str, torch.Tensor]]) -> tuple[EvaluationResult, int]:
        """Returns the mean loss over the trained tokens of the global batch, and its positions.

        Only the last pipeline stage has losses; every rank gets the mean.
        """
        total = torch.zeros((), dtype=torch.float32, device=self.device)
        counts = torch.zeros(2, dtype=torch.int64, device=self.device)
        for loss in losses:
            total += loss["total"]
            counts += loss["counts"]
        groups = [parallel_state.get_data_parallel_group(with_context_parallel=True)]
        if parallel_state.get_pipeline_model_parallel_world_size() > 1:
            groups.append(parallel_state.get_pipeline_model_parallel_group())
        for group in groups:
            torch.distributed.all_reduce(total, group=group)
            torch.distributed.all_reduce(counts, group=group)
        tokens, positions = counts.tolist()
        return EvaluationResult(loss=total.item() / max(tokens, 1), tokens=tokens), positions


def _forward_step(batches: Iterator[Batch], model: Any) -> tuple[torch.Tensor, Any]:
    batch = next(batches)
    tokens, labels, mask = (_local(x) for x in (batch.tokens, batch.labels, batch.loss_mask))
    # The loss is computed fastest where it knows what is not trained.
    labels = labels.masked_fill(~mask, IGNORE_INDEX)
    output = model(tokens, None, batch.segment_ids, labels=labels)

    def loss(token_losses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        total = (token_losses.float() * mask).sum()
        tokens = mask.sum().int()
        counts = torch.stack([tokens, torch.full_like(tokens, mask.numel())])
        return total, tokens, {"total": total.detach(), "counts": counts}

    return output, loss


def _local(rows: torch.Tensor) -> torch.Tensor:
    """Returns this context-parallel rank's part of (micro, seq) rows."""
    size = parallel_state.get_context_parallel_world_size()
    if size == 1:
        return rows
    return local_part(rows, 1, parallel_state.get_context_parallel_rank(), size).contiguous()
