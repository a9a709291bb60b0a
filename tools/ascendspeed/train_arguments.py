"""The arguments of AscendSpeed's pretrain_baichuan.py, and of the ModelLink scripts after it.

Defaults are AscendSpeed's, so that an argument that is left out means what it meant there.
"""

from __future__ import annotations

from ascendspeed.arguments import Argument, flag, refused, setting, value

_CHECKED = "`model.config`: config.json says it; a warning where they differ"
_KERNELS = "none: the best kernel that can run is taken"
_MODEL = "none: part of the model"
_FP16_ALONE = "none: float16 scales its loss dynamically, other precisions need no scale"
_EXACT = "none: gradients are summed in float32"
_WATCH = "none: every step is logged, in metrics.jsonl and in TensorBoard's events"

LAUNCH: tuple[Argument, ...] = (
    value("size", "RECIPE: `baichuan2-7b-pretrain` or `baichuan2-13b-pretrain`"),
    value("--nproc_per_node", "`--nproc-per-node`", type=int, default=1, metavar="N"),
    value("--nnodes", "`--nnodes`", type=int, default=1, metavar="N"),
    value("--node_rank", "`--node-rank`", type=int, default=0, metavar="R"),
    value("--master_addr", "`--master-addr`, of several nodes", default="", metavar="H"),
    value("--master_port", "`--master-port`, of several nodes", type=int, default=29500),
    value(
        "--set",
        "`--set`; bc2's own, for any key; has the last word",
        action="append",
        default=[],
        metavar="KEY=VALUE",
    ),
)

MODEL: tuple[Argument, ...] = (
    value("--num-layers", _CHECKED, type=int, metavar="N"),
    value("--hidden-size", _CHECKED, type=int, metavar="N"),
    value("--ffn-hidden-size", _CHECKED, type=int, metavar="N"),
    value("--num-attention-heads", _CHECKED, type=int, metavar="N"),
    value("--position-embedding-type", _CHECKED, choices=("rope", "alibi")),
    value("--layernorm-epsilon", _CHECKED, type=float, default=1e-5, metavar="EPS"),
    value("--z-loss-weight", _CHECKED, type=float, default=0.0, metavar="W"),
    value("--init-method-std", _CHECKED, type=float, default=0.02, metavar="S"),
    value("--max-position-embeddings", "none: config.json says it", type=int, metavar="N"),
    flag("--lm-norm-weight", "none: NormHead is part of the model"),
    flag("--square-alibi-mask", "none: biases are computed in the kernel, in float32"),
    flag("--fill-neg-inf", "none: goes with `--square-alibi-mask`"),
    value("--normalization", _MODEL, choices=("RMSNorm",)),
    flag("--swiglu", _MODEL),
    flag("--untie-embeddings-and-output-weights", _MODEL),
    flag("--disable-bias-linear", _MODEL),
    value(
        "--make-vocab-size-divisible-by",
        "none: rows are padded as tensor parallelism needs, and have no part in the softmax",
        type=int,
        default=128,
        metavar="N",
    ),
    flag("--mlp-layer-fusion", "none: gate and up are always one matrix"),
    flag("--use-flash-attn", _KERNELS),
    flag("--use-fused-rotary-pos-emb", _KERNELS),
    flag("--use-fused-rmsnorm", _KERNELS),
    flag("--use-fused-swiglu", _KERNELS),
    flag("--no-masked-softmax-fusion", _KERNELS),
    flag("--attention-softmax-in-fp32", "none: softmax is always computed in float32"),
)

DATA: tuple[Argument, ...] = (
    value(
        "--data-path",
        "`data.prefix`; of several, `data.prefix_weight` and `data.blend`",
        nargs="+",
        required=True,
    ),
    flag("--is-instruction-dataset", "`data.kind=instruction`"),
    flag("--padding-attention-mask", "none: attention never sees padding, nor another document"),
    flag("--variable-seq-lengths", "none: rows are as long as the longest of their micro batch"),
    flag("--keep-last-token", "none: labels are shifted once, in the dataset"),
    flag("--reset-attention-mask", "`data.cross_document_attention=false`"),
    flag("--reset-position-ids", "none: goes with `--reset-attention-mask`"),
    value("--split", "`data.split`, which adds up to 1", default="969,30,1", metavar="A,B,C"),
    setting("--seq-length", "data.seq_length", int),
    value(
        "--tokenizer-name-or-path",
        "`model.config`, where the folder holds config.json",
        metavar="DIR",
    ),
    value("--tokenizer-type", "none: the data is tokenised", metavar="NAME"),
    flag("--tokenizer-not-use-fast", "none: the data is tokenised"),
    value("--tokenizer-padding-side", "none: rows are padded on the right", choices=("right",)),
    value("--data-impl", "none: mmap's files are read", choices=("mmap", "infer")),
    value("--num-workers", "none: rows are read from memory-mapped files", type=int, metavar="N"),
    flag("--no-shared-storage", "none: `data.cache` may be on a disk of each node"),
)

TRAINING: tuple[Argument, ...] = (
    setting("--micro-batch-size", "batch.micro", int),
    value("--global-batch-size", "`batch.global`", type=int, metavar="N"),
    value("--train-iters", "`train.iterations`", type=int, metavar="N"),
    value("--train-samples", "`train.iterations` times `batch.global`", type=int, metavar="N"),
    setting("--seed", "train.seed", int, 1234),
    setting("--lr", "optimizer.lr", float),
    setting("--min-lr", "optimizer.min_lr", float, 0.0),
    Argument(
        "--lr-decay-style",
        "`optimizer.schedule`",
        {"choices": ("constant", "linear", "cosine"), "default": "linear"},
        key="optimizer.schedule",
    ),
    value("--lr-decay-iters", "none: as many as `--train-iters`", type=int, metavar="N"),
    value("--lr-warmup-iters", "`optimizer.warmup`", type=int, default=0, metavar="N"),
    value("--lr-warmup-fraction", "`optimizer.warmup`, in iterations", type=float, metavar="F"),
    setting("--weight-decay", "optimizer.weight_decay", float, 0.01),
    value("--adam-beta1", "`optimizer.betas`, the first", type=float, default=0.9),
    value("--adam-beta2", "`optimizer.betas`, the second", type=float, default=0.999),
    setting("--adam-eps", "optimizer.eps", float, 1e-8),
    setting("--clip-grad", "optimizer.clip", float, 1.0),
    value("--optimizer", "none: AdamW", choices=("adam",)),
    value("--attention-dropout", "none: Baichuan2 has no dropout; 0 is taken", type=float),
    value("--hidden-dropout", "none: Baichuan2 has no dropout; 0 is taken", type=float),
    flag("--bf16", "`precision=bfloat16`; float32 where neither is given"),
    flag("--fp16", "`precision=float16`"),
    value("--initial-loss-scale", _FP16_ALONE, type=float, metavar="S"),
    value("--min-loss-scale", _FP16_ALONE, type=float, metavar="S"),
    value("--loss-scale-window", _FP16_ALONE, type=float, metavar="N"),
    value("--hysteresis", _FP16_ALONE, type=int, metavar="N"),
    flag("--accumulate-allreduce-grads-in-fp32", _EXACT),
    flag("--no-gradient-accumulation-fusion", _EXACT),
)

PARALLEL: tuple[Argument, ...] = (
    setting("--tensor-model-parallel-size", "parallel.tensor", int, 1),
    setting("--pipeline-model-parallel-size", "parallel.pipeline", int, 1),
    value(
        "--num-layers-per-virtual-pipeline-stage",
        "`parallel.virtual_pipeline`, in model chunks",
        type=int,
        metavar="N",
    ),
    setting("--context-parallel-size", "parallel.context", int, 1),
    flag("--sequence-parallel", "`parallel.sequence=true`, where tensor parallelism is above 1"),
    flag(
        "--use-distributed-optimizer",
        "`parallel.distributed_optimizer=true`, which the recipes have: the same steps, in less "
        "memory",
    ),
    flag("--overlap-grad-reduce", "none: goes with `parallel.distributed_optimizer`"),
    value("--DDP-impl", "none: one implementation", choices=("local", "torch")),
    value("--distributed-backend", "none: HCCL, NCCL or Gloo, as `device` needs"),
    flag("--use-mc2", "none: no counterpart, and the same steps without"),
)

MEMORY: tuple[Argument, ...] = (
    flag("--checkpoint-activations", "`train.recompute=full`"),
    value("--recompute-granularity", "`train.recompute`", choices=("selective", "full")),
    value("--recompute-method", "none: `full` is every layer", choices=("uniform", "block")),
    value("--recompute-num-layers", "none: `full` is every layer", type=int, metavar="N"),
    value(
        "--auto-recompute-device-size",
        "none: no memory solver; `train.recompute`, and `bc2-train plan` says what fits",
        type=int,
        metavar="MB",
    ),
    flag("--release-fp32-grad", "none: no counterpart, and the same steps without"),
)

RUN: tuple[Argument, ...] = (
    value("--save", "`checkpoint.dir` and `run.dir`", required=True, metavar="DIR"),
    value("--load", "`model.init`; where it is `--save` too, the run goes on", metavar="DIR"),
    setting("--save-interval", "checkpoint.interval", int),
    flag("--finetune", "none: `model.init` takes weights alone"),
    flag("--no-load-optim", "none: `model.init` takes weights alone"),
    flag("--no-load-rng", "none: `model.init` takes weights alone"),
    setting("--eval-interval", "evaluation.interval", int, 1000),
    setting("--eval-iters", "evaluation.batches", int, 100),
    value("--log-interval", _WATCH, type=int, metavar="N"),
    value("--tensorboard-dir", _WATCH + ", in the run directory", metavar="DIR"),
    flag("--log-throughput", _WATCH),
)

REFUSED: tuple[Argument, ...] = (
    refused("--eod-mask-loss", "`--reset-attention-mask` trains nothing across documents"),
    refused("--pad-vocab-size-to", "config.json says the vocabulary"),
    refused("--group-query-attention", "Baichuan2 has as many keys and values as heads"),
    refused("--fp32-residual-connection", "`--set precision=float32` is all of it in float32"),
    refused("--rampup-batch-size", "train twice, the second run from the first with `--load`"),
    refused("--lr-warmup-samples", "give `--lr-warmup-iters`"),
    refused("--lr-decay-samples", "give `--train-samples`"),
    refused("--no-save-optim", "`bc2-ckpt convert` takes the weights alone out of a checkpoint"),
    refused("--deepspeed", "`bc2-train run` with `engine=deepspeed`, see docs/training.md"),
    refused("--deepspeed_config", "`bc2-train run` with `engine=deepspeed`, see docs/training.md"),
    refused("--zero-stage", "`deepspeed.zero_stage`, see docs/training.md"),
    refused("--lora-r", "`lora.rank`, see docs/fine-tuning.md"),
    refused("--lora-target-modules", "`lora.targets`, see docs/fine-tuning.md"),
)

ARGUMENTS = (*LAUNCH, *MODEL, *DATA, *TRAINING, *PARALLEL, *MEMORY, *RUN, *REFUSED)
