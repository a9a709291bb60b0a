"""The configuration of a training run: its keys, their defaults, and where they come from.

A run is described by a recipe, a YAML file that ships with the package or belongs to the user, over
which ``--set KEY=VALUE`` has the last word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from bc2_data.errors import nearest
from bc2_train import schema
from bc2_train.errors import TrainError


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model.

    Attributes:
        config: A preset such as ``baichuan2-7b``, or a directory that holds config.json.
        init: ``random``, or a checkpoint directory of any format that bc2-ckpt reads.
    """

    config: str
    init: str = "random"


@dataclass(frozen=True, kw_only=True)
class Data:
    """The training data.

    Attributes:
        kind: ``pretrain`` (one stream of documents) or ``instruction`` (rows with labels).
        prefix: Path prefix: of the .bin and .idx files for pretraining; of their
            ``_packed_..._document`` names for instruction data.
        seq_length: Tokens that a sample predicts.
        shuffle: Whether samples come in a random order, another in every epoch; false = file order.
        blend: Further pretraining data: path prefixes with weights. `prefix` then has weight
            `prefix_weight`; the weights are normalised.
        prefix_weight: See `blend`.
        split: Shares of the documents for training, validation and test, as in Megatron.
        cross_document_attention: Whether pretraining attends, and predicts, across the borders of
            documents, as Megatron does by default.
        cache: Where megatron-core keeps index files; ``data-cache`` in the run directory where
            null. A folder on a disk of each node works as well as a shared one.
    """

    kind: Literal["pretrain", "instruction"]
    prefix: str
    seq_length: int
    shuffle: bool = True
    blend: dict[str, float] = field(default_factory=dict)
    prefix_weight: float = 1.0
    split: tuple[float, float, float] = (1.0, 0.0, 0.0)
    cross_document_attention: bool = True
    cache: str | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Batch sizes in samples.

    Attributes:
        micro: Samples that one device computes at once.
        global_: Samples of one optimizer step, over all devices.
    """

    micro: int
    global_: int


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW and its learning-rate schedule.

    Attributes:
        lr: Largest learning rate.
        min_lr: Learning rate at the end of a decaying schedule.
        schedule: ``constant``, ``cosine``, ``linear``, or ``wsd``: constant, then linear decay over
            the last `decay` iterations.
        warmup: Iterations of linear warm-up.
        decay: Iterations of the decay of ``wsd``.
        weight_decay: Decoupled decay; of matrices only, never of norm weights.
        betas: Decay rates of the two moment estimates.
        eps: Added to the root of the second moment.
        clip: Largest global gradient norm; 0 = no clipping.
    """

    lr: float
    min_lr: float = 0.0
    schedule: Literal["constant", "cosine", "linear", "wsd"] = "constant"
    warmup: int = 0
    decay: int = 0
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    clip: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """Parallel sizes; what they leave of the processes is data parallel.

    Attributes:
        tensor: Processes that share each matrix.
        pipeline: Processes that share the layers.
        virtual_pipeline: Model chunks of each pipeline process, interleaved to shrink the bubble.
        context: Processes that share each sequence.
        sequence: Whether norms and residuals are split along the sequence in the tensor group.
        distributed_optimizer: Whether optimizer state is split over the data-parallel group, and
            its communication hidden behind computation.
    """

    tensor: int = 1
    pipeline: int = 1
    virtual_pipeline: int = 1
    context: int = 1
    sequence: bool = False
    distributed_optimizer: bool = False


@dataclass(frozen=True, kw_only=True)
class DeepSpeed:
    """What the deepspeed engine divides among the processes, all of which are data parallel.

    Attributes:
        zero_stage: 0 = nothing, 1 = optimizer state, 2 = gradients as well, 3 = weights as well.
        offload: ``optimizer`` keeps its state, and takes its step, on the host.
    """

    zero_stage: Literal[0, 1, 2, 3] = 1
    offload: Literal["none", "optimizer"] = "none"


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters, trained in place of the weights (Hu et al., arXiv 2106.09685).

    Attributes:
        rank: Inner dimension of an adapter.
        alpha: An adapter's output is scaled by alpha / rank.
        dropout: Probability with which an input of an adapter is dropped.
        targets: The layers that get one.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[Literal["W_pack", "o_proj", "gate_proj", "up_proj", "down_proj"], ...] = (
        "W_pack",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )


@dataclass(frozen=True, kw_only=True)
class Train:
    """How long, and from which random state.

    Attributes:
        iterations: Optimizer steps.
        seed: Of random weights and of the order of the data.
        recompute: What the backward pass computes again instead of keeping it: ``none``,
            ``selective`` (attention and MLP inside each layer) or ``full`` (whole layers).
        deterministic: Whether only operators are used that give the same bits every time; an
            operator that has no such form is an error. It costs speed.
        most_skipped: Steps in a row that may be left out because a gradient is not finite.
    """

    iterations: int
    seed: int = 1234
    recompute: Literal["none", "selective", "full"] = "none"
    deterministic: bool = False
    most_skipped: int = 20


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Checkpoints of the run.

    Attributes:
        dir: Where they are; ``checkpoints`` in the run directory where null.
        interval: Iterations between two; the last iteration is always saved. 0 = only that.
        keep: How many of the newest stay; 0 = all.
        keep_every: Checkpoints of iterations divisible by this stay besides; 0 = none.
        asynchronous: Whether files are written in the background while training goes on.
        resume: ``auto`` takes up the newest whole checkpoint; ``never`` starts afresh and refuses a
            directory that holds checkpoints.
    """

    dir: str | None = None
    interval: int = 0
    keep: int = 0
    keep_every: int = 0
    asynchronous: bool = False
    resume: Literal["auto", "never"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Evaluation while training.

    Attributes:
        interval: Iterations between two; 0 = never.
        batches: Global batches of each, always the same ones.
        prefix: Path prefix of data of the kind of `Data`; where null, the validation share of
            ``data.split``.
    """

    interval: int = 0
    batches: int = 10
    prefix: str | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where everything that the run writes goes.

    Attributes:
        dir: The run directory.
    """

    dir: str


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
    def data_cache(self) -> Path:
        """The folder of megatron-core's index files."""
        return Path(self.data.cache) if self.data.cache else self.run_dir / "data-cache"

    @property
    def checkpoint_dir(self) -> Path:
        """The directory of the checkpoints."""
        return Path(self.checkpoint.dir) if self.checkpoint.dir else self.run_dir / "checkpoints"


def recipe_names() -> list[str]:
    """Returns the names of the recipes that ship with the package."""
    folder = resources.files("bc2_train") / "recipes"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load(recipe: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a recipe and the user's overrides.

    Args:
        recipe: The name of a shipped recipe, or the path of a YAML file.
        overrides: ``KEY=VALUE`` each; the value is read as YAML.

    Raises:
        TrainError: There is no such recipe, or a key or value is wrong.
    """
    import yaml

    if recipe in recipe_names():
        text = (resources.files("bc2_train") / "recipes" / f"{recipe}.yaml").read_text("utf-8")
    elif Path(recipe).is_file():
        text = Path(recipe).read_text("utf-8")
    else:
        raise TrainError(
            f"no recipe {recipe!r}: neither a shipped name nor a YAML file",
            nearest(recipe, recipe_names()),
        )
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TrainError(f"{recipe} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise TrainError(f"{recipe} holds no keys")
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise TrainError(f"--set {override} has no value", "write --set KEY=VALUE")
        _assign(values, key, yaml.safe_load(value))
    return schema.build(RunConfig, values)


def one_step(config: RunConfig) -> RunConfig:
    """Returns the configuration of a dry run: one step and one save in a folder of its own."""
    return replace(
        config,
        train=replace(config.train, iterations=1),
        checkpoint=replace(config.checkpoint, dir=None),
        run=Run(dir=str(config.run_dir / "dry-run")),
    )


def save(config: RunConfig, path: Path) -> None:
    """Writes the resolved configuration, which `load` reads back, as YAML."""
    import yaml

    from bc2_data.atomic import write_text

    write_text(path, yaml.safe_dump(schema.dump(config), sort_keys=False))


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        values = values.setdefault(group, {})
        if not isinstance(values, dict):
            raise TrainError(f"unknown key {key!r}: {group} is a value, not a group of keys")
    values[last] = value
