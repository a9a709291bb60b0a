"""One optimizer step on DeepSpeed."""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.runtime.fp16.loss_scaler import LossScaler

from bc2_ckpt.config import ModelConfig
from bc2_model.weights import WeightSource
from bc2_train import runtime
from bc2_train.checkpoints import PendingSave
from bc2_train.config import RunConfig
from bc2_train.data import Batch
from bc2_train.engines.base import EvaluationResult, Progress, StepResult
from bc2_train.engines.deepspeed import adapter, checkpoint, model, optimizer, state
from bc2_train.engines.deepspeed.settings import settings
from bc2_train.engines.dtypes import DTYPES
from bc2_train.ranks import DistributedRanks


class DeepSpeedEngine:
    """Trains the Hugging Face model, or adapters beside it, under ZeRO 0 to 3.

    torch.distributed must be initialised and DeepSpeed's accelerator installed.

    Args:
        config: The run.
        dimensions: Of the model.
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
        deepspeed.init_distributed()  # takes over the processes; ``zero.Init`` expects it done
        self.config = config
        self.device = device
        self.data_parallel_rank = dist.get_rank()
        self.data_parallel_size = dist.get_world_size()
        deepspeed_settings = settings(config, dimensions, self.data_parallel_size)
        self.model = model.build(config, dimensions, weights, deepspeed_settings, device)
        if config.lora is not None:
            adapter.attach(self.model, config)
        trained = {
            name if config.lora is None else adapter.stored_name(name): parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }
        self._adamw = optimizer.build(config, trained.values(), device)
        self._computes_alone = config.deepspeed.zero_stage < 3  # else it gathers weights on the way
        self._engine: Any
        self._optimizer: Any
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how much memory it takes
            self._engine, self._optimizer, _, _ = deepspeed.initialize(
                model=model.TokenLoss(self.model), optimizer=self._adamw, config=deepspeed_settings
            )
        # The optimizer of ZeRO 1 in bfloat16 has none.
        self._loss_scaler = getattr(self._optimizer, "loss_scaler", LossScaler())
        # A loss scale that cannot fall further is not the end: the loop counts skipped steps.
        self._loss_scaler.raise_error_at_min_scale = False
        self._training = checkpoint.Training(
            parameters=trained,
            stem="model" if config.lora is None else "adapter_model",
            dtype=DTYPES[config.precision],
            split=config.lora is None,  # PEFT loads adapters from one file only
            state=state.open_state(config.deepspeed.zero_stage, self._optimizer, self._adamw),
            loss_scaler=self._loss_scaler,
        )

    def train_step(self, batches: Sequence[Batch], learning_rate: float) -> StepResult:
        """Computes one optimizer step; see `Engine.train_step`."""
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        tokens, positions = self._count(batches)
        # DeepSpeed takes the mean over the ranks, each of which has summed its own tokens.
        scale = self.data_parallel_size / max(tokens, 1)
        if self.config.deepspeed.zero_stage == 0:  # from ZeRO 1 on, DeepSpeed scales the loss
            scale *= self._loss_scaler.loss_scale
        total = torch.zeros((), device=self.device)
        started = time.perf_counter()
        for number, batch in enumerate(batches, start=1):
            self._engine.set_gradient_accumulation_boundary(number == len(batches))
            loss = self._loss(batch)
            met_others = time.perf_counter()  # gradients are reduced in the last backward pass
            self._engine.backward(loss * scale, scale_wrt_gas=False)
            total += loss.detach()
        runtime.synchronize(self.device)
        computed = time.perf_counter()
        self._engine.step()
        runtime.synchronize(self.device)
        updated = time.perf_counter()
        applied = self._engine.was_step_applied()
        return StepResult(
            loss=self._sum(total).item() / max(tokens, 1),
            grad_norm=float(self._engine.get_global_grad_norm()) if applied else math.nan,
            tokens=tokens,
            positions=positions,
            skipped=not applied,
            loss_scale=float(self._loss_scaler.loss_scale),
            forward_backward_time=computed - started,
            optimizer_time=updated - computed,
            local_time=met_others - started if self._computes_alone else math.nan,
        )

    def evaluate(self, batches: Sequence[Batch]) -> EvaluationResult:
        """Computes the loss alone; see `Engine.evaluate`."""
        tokens, _ = self._count(batches)
        total = torch.zeros((), device=self.device)
        self._engine.eval()
        with torch.no_grad():
            for batch in batches:
                total += self._loss(batch)
        self._engine.train()
        return EvaluationResult(loss=self._sum(total).item() / max(tokens, 1), tokens=tokens)

    def save(self, directory: Path, progress: Progress) -> PendingSave:
        """Writes weights as Hugging Face has them, and optimizer state; see `Engine.save`."""
        if self.config.lora is not None and self.data_parallel_rank == 0:
            adapter.save_settings(self.config, directory)
        return checkpoint.save(
            directory,
            self._training,
            progress,
            DistributedRanks(self.device),
            asynchronous=self.config.checkpoint.asynchronous,
        )

    def load(self, directory: Path) -> Progress:
        """Restores what `save` wrote; see `Engine.load`."""
        return checkpoint.load(directory, self._training)

    def _loss(self, batch: Batch) -> torch.Tensor:
        loss: torch.Tensor = self._engine(
            batch.tokens, batch.labels, batch.loss_mask, batch.segment_ids
        )
        return loss

    def _count(self, batches: Sequence[Batch]) -> tuple[int, int]:
        """Returns the trained tokens, and the positions, of the global batch."""
        trained = torch.stack([batch.loss_mask.sum() for batch in batches]).sum()
        positions = sum(batch.tokens.numel() for batch in batches)
        counts = torch.stack([trained, torch.full_like(trained, positions)])
        tokens, positions = self._sum(counts).tolist()
        return tokens, positions

    def _sum(self, value: torch.Tensor) -> torch.Tensor:
        """Returns the sum over all ranks."""
        dist.all_reduce(value)
        return value
