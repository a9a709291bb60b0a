"""The memory that each stage of a layout needs on every one of its devices.

What is counted is what bc2's model keeps: attention without scores and without a bias, a loss
without logits, norms that keep their inputs alone. The accounting follows Korthikanti et
al., "Reducing Activation Recomputation in Large Transformer Models" (2022), and Rajbhandari et al.,
"ZeRO" (2020), for which bytes there are of a parameter.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from bc2_ckpt.config import ModelConfig
from bc2_data.vocab import VOCAB_DIVISOR, padded_vocab_size
from bc2_train import layout
from bc2_train.config import RunConfig

_MLP_TENSORS = 3
"""Tensors of the MLP's width that are kept a token: gate and up, and the product."""


@dataclass(frozen=True, kw_only=True)
class StageMemory:
    """Bytes on a device of one pipeline stage.

    Attributes:
        weights: Parameters in the precision of the run.
        gradients: Gradient buffers, float32.
        optimizer: Both moments of AdamW and, in 16 bits, float32 weights.
        activations: What the micro batches in flight keep for their backward pass.
        workspace: What exists for a moment: a chunk of logits, a gradient before it is added up,
            the layer that is being computed or recomputed, a bucket of ZeRO.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    workspace: float

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, float]:
        """Returns the bytes by name."""
        return {part.name: getattr(self, part.name) for part in fields(self)}


def of_stages(config: RunConfig, model: ModelConfig, world_size: int) -> list[StageMemory]:
    """Returns what the devices of each pipeline stage need, the first stage first.

    Args:
        config: The run.
        model: Dimensions of the whole model.
        world_size: Devices.

    Raises:
        TrainError: The layout does not fit together.
    """
    checked = layout.check(config, model, world_size)
    return [_stage(config, model, checked, stage) for stage in range(config.parallel.pipeline)]


def stage_parameters(config: RunConfig, model: ModelConfig, stage: int) -> int:
    """Returns the parameters on one device of a stage; rows that pad the vocabulary count."""
    parallel = config.parallel
    width, tensor = model.hidden_size, parallel.tensor
    layer = (4 * width**2 + 3 * width * model.intermediate_size) // tensor + 2 * width
    ends = (stage == 0) + (stage == parallel.pipeline - 1)
    norm = width if stage == parallel.pipeline - 1 else 0
    return model.num_layers // parallel.pipeline * layer + ends * _vocabulary(config, model) + norm


def bytes_of(precision: str) -> int:
    """Returns the bytes of a number in the precision of a run."""
    return 4 if precision == "float32" else 2


def _vocabulary(config: RunConfig, model: ModelConfig) -> int:
    """Returns the elements of a device's part of the embedding, or of the output weight."""
    tensor = config.parallel.tensor
    divisor = VOCAB_DIVISOR if config.engine == "megatron" else 1
    rows = padded_vocab_size(model.vocab_size, divisor, tensor) // tensor
    return rows * model.hidden_size


def _stage(
    config: RunConfig, model: ModelConfig, checked: layout.Layout, stage: int
) -> StageMemory:
    parameters = stage_parameters(config, model, stage)
    weights, gradients, optimizer = (
        parameters * size
        for size in _bytes_a_parameter(config, checked.data_parallel * config.parallel.context)
    )
    return StageMemory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=_kept(config, model, checked.microbatches, stage),
        workspace=_workspace(config, model, stage),
    )


def _bytes_a_parameter(config: RunConfig, replicas: int) -> tuple[float, float, float]:
    """Returns the bytes of weight, gradient and optimizer state of a parameter.

    Without sharding 2 + 4 + 12 in 16 bits and 4 + 4 + 8 in float32. megatron-core's distributed
    optimizer divides the last by data times context parallelism (its docs/dist_optimizer.md);
    ZeRO 1 does the same, ZeRO 2 divides the gradients as well and ZeRO 3 the weights. DeepSpeed
    hands out gradients in the precision of the run before they are added up in float32.
    """
    weight = bytes_of(config.precision)
    gradient, optimizer = 4.0, 8.0 + (4.0 if weight == 2 else 0.0)
    if config.engine == "megatron":
        shards = replicas if config.parallel.distributed_optimizer else 1
        return weight, gradient, optimizer / shards
    stage = config.deepspeed.zero_stage
    if config.deepspeed.offload == "optimizer":
        optimizer = 0.0
    return (
        weight / (replicas if stage == 3 else 1),
        gradient / (replicas if stage >= 2 else 1),
        optimizer / (replicas if stage >= 1 else 1),
    )


@dataclass(frozen=True)
class _Layer:
    """Bytes that one layer keeps of one micro batch.

    Attributes:
        entry: Its input.
        attention: Norm, projections and core attention.
        mlp: The residual in between, its norm, and the MLP.
        selective: All that is left where core attention and MLP are recomputed.
        inner: The wide part of the MLP, which selective recomputation makes again.
    """

    entry: float
    attention: float
    mlp: float
    selective: float
    inner: float

    @property
    def whole(self) -> float:
        return self.entry + self.attention + self.mlp


def _layer(config: RunConfig, model: ModelConfig) -> _Layer:
    """Returns what a layer keeps; b micro batch, s local sequence, h width, f MLP, t tensor.

    Each of the two norms keeps its input (b s h) and hands its output (b s h) to a projection,
    both divided by t under sequence parallelism alone. The projection to q, k and v leaves 3 b s h
    / t, of which attention keeps views; rotary makes q and k anew, and v holds the rest alive.
    Attention keeps its output, 4 bytes a row for the softmax, and under context parallelism the
    gathered keys and values. The MLP keeps `_MLP_TENSORS` b s f / t. This is section 4 of
    Korthikanti et al. (2022) without dropout, scores and biases.
    """
    parallel, size = config.parallel, bytes_of(config.precision)
    tensor, context = parallel.tensor, parallel.context
    tokens = config.batch.micro * config.data.seq_length / context
    row = tokens * model.hidden_size * size
    shared = row / (tensor if parallel.sequence else 1)
    own = row / tensor
    turned = 0 if model.position_embedding == "alibi" else 2 * own
    gathered = 0 if context == 1 else 2 * own * context + own
    softmax = tokens * model.num_heads / tensor * 4
    inner = _MLP_TENSORS * tokens * model.intermediate_size / tensor * size
    return _Layer(
        entry=shared,
        attention=shared + 3 * own + turned + gathered + own + softmax,
        mlp=2 * shared + inner,
        selective=4 * shared + 4 * own,
        inner=inner,
    )


def _kept(config: RunConfig, model: ModelConfig, microbatches: int, stage: int) -> float:
    """Returns the activations of all micro batches in flight.

    Under 1F1B stage i of p has p - i in flight; interleaved with v chunks a stage, of L / (p v)
    layers each, it has 2 (p - i - 1) + (v - 1) p + 1 chunks in flight (Narayanan et al., 2021,
    section 2.2, as megatron-core's schedules count their warm-up).
    """
    parallel = config.parallel
    layer = _layer(config, model)
    kept = {"none": layer.whole, "selective": layer.selective, "full": layer.entry}
    stages, chunks = parallel.pipeline, parallel.virtual_pipeline
    layers = model.num_layers // (stages * chunks)
    if chunks == 1:
        flight = min(stages - stage, microbatches)
    else:
        warm_up = 2 * (stages - stage - 1) + (chunks - 1) * stages + 1
        flight = min(warm_up, microbatches * chunks)
    head = 0.0
    if stage == stages - 1:
        # The last norm's input and its output, which the loss gathers whole, with its gradient.
        row = config.batch.micro * config.data.seq_length / parallel.context * model.hidden_size
        head = 3 * row * bytes_of(config.precision)
    return flight * layers * kept[config.train.recompute] + head


def _workspace(config: RunConfig, model: ModelConfig, stage: int) -> float:
    """Returns the most that exists for a moment beside everything else.

    It is greatest where the backward pass begins: at the last stage the sum of the output weight's
    gradient, float32, with a chunk of logits (`bc2_model.kernels.cross_entropy`); at the others
    the gradients inside a layer, about what the layer keeps, as also where it is recomputed.
    """
    size = bytes_of(config.precision)
    layer = _layer(config, model)
    vocabulary = _vocabulary(config, model)
    moments = [layer.inner + layer.entry]
    if config.train.recompute == "full":
        moments.append(layer.attention + layer.mlp + layer.inner)
    elif config.train.recompute == "selective":
        moments.append(2 * layer.inner)
    if stage == 0:
        moments.append(vocabulary * size)
    if stage == config.parallel.pipeline - 1:
        rows = vocabulary // model.hidden_size
        tokens = config.batch.micro * config.data.seq_length / config.parallel.context
        chunk = min(tokens, max(128, model.hidden_size // 8, 2**22 // rows))
        logits = chunk * rows * (4 if size == 4 else 6)
        moments.append(vocabulary * 4 + logits)
    zero = 0.0
    if config.engine == "deepspeed" and config.deepspeed.zero_stage:
        zero = 2 * min(500_000_000, model.num_parameters) * size
    return max(moments) + zero
