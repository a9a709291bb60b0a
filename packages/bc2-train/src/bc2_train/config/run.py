"""The configuration of a whole run: its groups of keys, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bc2_train.config.groups import (
    Batch,
    Checkpoint,
    Data,
    DeepSpeed,
    Evaluation,
    Launch,
    Lora,
    Metrics,
    Model,
    Optimizer,
    Parallel,
    Run,
    Train,
)
from bc2_train.errors import TrainError


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole run."""

    model: Model
    data: Data
    batch: Batch
    optimizer: Optimizer
    train: Train
    run: Run
    engine: Literal["megatron", "deepspeed"] = "megatron"
    device: Literal["auto", "npu", "cuda", "cpu"] = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    parallel: Parallel = field(default_factory=Parallel)
    deepspeed: DeepSpeed = field(default_factory=DeepSpeed)
    lora: Lora | None = None
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    evaluation: Evaluation = field(default_factory=Evaluation)
    metrics: Metrics = field(default_factory=Metrics)
    launch: Launch = field(default_factory=Launch)

    def __post_init__(self) -> None:
        positive = {
            "data.seq_length": self.data.seq_length,
            "batch.micro": self.batch.micro,
            "batch.global": self.batch.global_,
            "parallel.tensor": self.parallel.tensor,
            "parallel.pipeline": self.parallel.pipeline,
            "parallel.virtual_pipeline": self.parallel.virtual_pipeline,
            "parallel.context": self.parallel.context,
            "train.iterations": self.train.iterations,
        }
        for key, value in positive.items():
            if value < 1:
                raise TrainError(f"{key} is {value}, which must be at least 1")
        if not self.launch.hang_timeout > 0:
            raise TrainError(
                f"launch.hang_timeout is {self.launch.hang_timeout}, which must be above 0",
                "give the seconds of silence after which something is wrong",
            )
        if self.evaluation.interval and not (self.evaluation.prefix or self.data.split[1]):
            raise TrainError(
                "evaluation.interval is set, but there is no data to evaluate on",
                "set evaluation.prefix, or a validation share in data.split",
            )
        if self.data.kind == "instruction" and (self.data.blend or self.data.split[1]):
            raise TrainError(
                "data.blend and data.split are about pretraining data",
                "bc2-data merge joins instruction data of the same handler and options; give "
                "evaluation.prefix to evaluate",
            )
        if self.parallel.virtual_pipeline > 1 and self.parallel.pipeline == 1:
            raise TrainError(
                "parallel.virtual_pipeline interleaves the chunks of a pipeline, but there is none",
                "set parallel.pipeline above 1, or parallel.virtual_pipeline to 1",
            )
        if self.parallel.sequence and self.parallel.tensor == 1:
            raise TrainError(
                "parallel.sequence splits the sequence over a tensor-parallel group of one",
                "set parallel.tensor above 1, or parallel.sequence to false",
            )
        if self.engine == "deepspeed":
            self._check_deepspeed()
        if self.lora is not None:
            self._check_lora(self.lora)

    def _check_deepspeed(self) -> None:
        if self.parallel != Parallel():
            raise TrainError(
                "the keys of parallel are about the megatron engine",
                "add --set 'parallel={}': with engine deepspeed every process is data parallel, "
                "and deepspeed.zero_stage says what they divide",
            )
        if self.deepspeed.offload == "optimizer" and self.deepspeed.zero_stage == 0:
            raise TrainError(
                "deepspeed.offload needs a ZeRO stage above 0", "set deepspeed.zero_stage to 1"
            )
        if self.train.recompute == "selective":
            raise TrainError(
                "train.recompute selective is about the megatron engine",
                "set train.recompute to full, or to none",
            )

    def _check_lora(self, lora: Lora) -> None:
        if self.engine != "deepspeed":
            raise TrainError("lora is about the deepspeed engine", "add --set engine=deepspeed")
        if self.model.init == "random":
            raise TrainError(
                "lora trains beside weights that stay as they are, and model.init is random",
                "set model.init to a checkpoint directory",
            )
        if lora.rank < 1 or not lora.targets:
            raise TrainError("lora needs a rank of at least 1 and at least one of its targets")

    @property
    def run_dir(self) -> Path:
        """The run directory."""
        return Path(self.run.dir)

    @property
    def patience(self) -> float:
        """Seconds that ranks wait for each other: some may still start or save."""
        return 6 * self.launch.hang_timeout

    @property
    def data_cache(self) -> Path:
        """The folder of megatron-core's index files."""
        return Path(self.data.cache) if self.data.cache else self.run_dir / "data-cache"

    @property
    def checkpoint_dir(self) -> Path:
        """The directory of the checkpoints."""
        return Path(self.checkpoint.dir) if self.checkpoint.dir else self.run_dir / "checkpoints"
