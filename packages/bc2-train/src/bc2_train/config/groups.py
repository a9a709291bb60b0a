"""The groups of keys, and their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


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
class Metrics:
    """Who hears of the metrics besides the files of the run directory.

    Attributes:
        wandb: The Weights & Biases project to send them to; null = none.
        prometheus_port: Port of the first host on which Prometheus may scrape them; 0 = none.
        profile: Steps that the first rank records with the profiler, into ``profile`` in the run
            directory, after a few that pass; 0 = none.
    """

    wandb: str | None = None
    prometheus_port: int = 0
    profile: int = 0


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What the launcher of a host, which starts and watches its ranks, goes by.

    Attributes:
        hang_timeout: Seconds for which a rank may take no step, though never less than ten steps
            need, before it counts as hanging, and another host may be silent. A rank that starts
            or saves has six times as long, as have ranks that wait for each other.
    """

    hang_timeout: float = 300.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where everything that the run writes goes.

    Attributes:
        dir: The run directory.
    """

    dir: str
