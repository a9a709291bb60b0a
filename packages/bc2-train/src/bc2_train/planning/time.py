"""The time that a step of a layout takes: computation, communication, bubble.

The model is that of Narayanan et al., "Efficient Large-Scale Language Model Training on GPU
Clusters Using Megatron-LM" (2021), sections 2.2 and 3, with ring collectives. What it leaves out:
matrices that become too small to be fast, congestion, slow devices, and reading data.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from bc2_ckpt.config import ModelConfig
from bc2_train import layout
from bc2_train.config import RunConfig
from bc2_train.planning.devices import Device
from bc2_train.planning.memory import bytes_of, stage_parameters

_BUCKET = 40_000_000
"""Parameters whose gradients megatron-core reduces at once, at least."""

_BYTES_OF_UPDATE = 40
"""Bytes moved for a parameter by clipping and AdamW: gradient, weight and both moments are read
and written, the gradient once more for its norm."""


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of one step; what is hidden behind computation is no part of it.

    Attributes:
        compute: Matrix products of the stage that has most to do, recomputation included.
        tensor: Collectives in each layer, of tensor and context parallelism.
        pipeline: Messages between stages.
        bubble: Waiting for the pipeline to fill and to drain.
        data: Reduction of gradients and gathering of weights.
        optimizer: Clipping and AdamW.
    """

    compute: float
    tensor: float
    pipeline: float
    bubble: float
    data: float
    optimizer: float

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, float]:
        """Returns the seconds by name."""
        return {part.name: getattr(self, part.name) for part in fields(self)}


def of_step(
    config: RunConfig, model: ModelConfig, world_size: int, device: Device, node_size: int
) -> StepTime:
    """Returns what a step will take.

    Args:
        config: The run.
        model: Dimensions of the whole model.
        world_size: Devices.
        device: What each can do.
        node_size: Devices of a node; ranks are numbered tensor, context, data, pipeline parallel,
            as megatron-core does, so that tensor groups are inside a node where they fit.

    Raises:
        TrainError: The layout does not fit together.
    """
    checked = layout.check(config, model, world_size)
    parallel, micro = config.parallel, checked.microbatches
    links = _Links(device, node_size)
    last = parallel.pipeline - 1
    compute = max(_stage_compute(config, model, stage, device) for stage in {0, last})
    tensor = _tensor(config, model, links)
    # Narayanan et al. (2021), section 2.2: (p - 1) / v micro batches are lost.
    lost = last / parallel.virtual_pipeline
    return StepTime(
        compute=micro * compute,
        tensor=micro * tensor,
        pipeline=micro * _pipeline(config, model, world_size, links),
        bubble=lost * (compute + tensor),
        data=_data(config, model, checked, compute, links),
        optimizer=_update(config, model, checked, 0, device),
    )


def device_seconds(config: RunConfig, model: ModelConfig, world_size: int, device: Device) -> float:
    """Returns the seconds that all devices together compute in a step, without any waiting."""
    checked = layout.check(config, model, world_size)
    stages = config.parallel.pipeline
    return sum(
        (world_size // stages)
        * (
            checked.microbatches * _stage_compute(config, model, stage, device)
            + _update(config, model, checked, stage, device)
        )
        for stage in range(stages)
    )


def calibrated(
    device: Device, config: RunConfig, model: ModelConfig, world_size: int, seconds: float
) -> Device:
    """Returns the device with the efficiency at which `device_seconds` gives a measured time.

    Args:
        device: Its own efficiency does not matter.
        config: The run that was measured.
        model: Its dimensions.
        world_size: Its devices.
        seconds: Of a step, summed over the devices, without waiting.
    """
    ideal = replace(device, efficiency=1.0)
    idle = replace(device, efficiency=float("inf"))
    update = device_seconds(config, model, world_size, idle)
    products = device_seconds(config, model, world_size, ideal) - update
    return replace(device, efficiency=products / (seconds - update))


@dataclass(frozen=True)
class _Links:
    """How long collectives take."""

    device: Device
    node_size: int

    def ring(self, size: int, span: int, amount: float, operations: int = 1) -> float:
        """Returns the seconds of an all-gather or reduce-scatter; an all-reduce takes twice that.

        Each of n ranks sends (n - 1) / n of the whole in n - 1 messages.

        Args:
            size: Ranks of the group.
            span: Ranks from the group's first to its last: whether it leaves a node.
            amount: Bytes of the whole.
            operations: Into how many collectives it is divided.
        """
        if size == 1:
            return 0.0
        bandwidth, latency = self._link(span)
        return (size - 1) * (amount / size / bandwidth + operations * latency)

    def message(self, distance: int, amount: float) -> float:
        """Returns the seconds of a message to the rank so far away."""
        bandwidth, latency = self._link(distance + 1)
        return amount / bandwidth + latency

    def _link(self, span: int) -> tuple[float, float]:
        if span <= self.node_size:
            return self.device.inside, self.device.latency
        return self.device.between, self.device.latency_between


def _stage_compute(config: RunConfig, model: ModelConfig, stage: int, device: Device) -> float:
    """Returns the seconds in which a device computes one micro batch, both passes.

    The forward pass of a layer costs 8 h^2 + 6 h f operations a token and 2 h (s + 1) for causal
    attention (`bc2_train.throughput.exact_flops`); the backward pass twice as much; recomputation
    the forward pass of what it makes again. The head costs 2 h V.
    """
    parallel = config.parallel
    width, length = model.hidden_size, config.data.seq_length
    attention = 2 * width * (length + 1)
    mlp = 6 * width * model.intermediate_size
    layer = 8 * width**2 + mlp + attention
    again = {"none": 0, "selective": mlp + attention, "full": layer}[config.train.recompute]
    operations = (3 * layer + again) * (model.num_layers // parallel.pipeline)
    if stage == parallel.pipeline - 1:
        operations += 3 * 2 * width * model.vocab_size
    tokens = config.batch.micro * length / (parallel.context * parallel.tensor)
    return tokens * operations / device.rate(config.precision)


def _tensor(config: RunConfig, model: ModelConfig, links: _Links) -> float:
    """Returns the seconds of the collectives of one micro batch in the layers of a stage.

    Each pass has two all-reduces of b s h a layer; under sequence parallelism they are an
    all-gather and a reduce-scatter each, and the backward pass gathers two inputs once more
    (Korthikanti et al., 2022, section 4.2). Full recomputation repeats those of the forward pass.
    Context parallelism gathers keys and values, and reduces their gradients.
    """
    parallel = config.parallel
    tensor, context = parallel.tensor, parallel.context
    tokens = config.batch.micro * config.data.seq_length / context
    row = tokens * model.hidden_size * bytes_of(config.precision)
    full = config.train.recompute == "full"
    rings = 2 * (2 + 2 + 2 * full) + (2 if parallel.sequence else 0)
    layer = rings * links.ring(tensor, tensor, row)
    gathered = 2 * row / tensor * context
    layer += (2 + full) * links.ring(context, tensor * context, gathered)
    return model.num_layers // parallel.pipeline * layer


def _pipeline(config: RunConfig, model: ModelConfig, world_size: int, links: _Links) -> float:
    """Returns the seconds in which a stage passes one micro batch on, and its gradient back."""
    parallel = config.parallel
    if parallel.pipeline == 1:
        return 0.0
    tokens = config.batch.micro * config.data.seq_length / parallel.context
    row = tokens * model.hidden_size * bytes_of(config.precision)
    amount = row / (parallel.tensor if parallel.sequence else 1)
    message = links.message(world_size // parallel.pipeline, amount)
    return 2 * parallel.virtual_pipeline * message


def _data(
    config: RunConfig,
    model: ModelConfig,
    checked: layout.Layout,
    compute: float,
    links: _Links,
) -> float:
    """Returns the seconds of reducing gradients and gathering weights that nothing hides.

    megatron-core's distributed optimizer reduces, in float32, while the last micro batch goes
    back, and gathers while the first goes forward. Without it, an all-reduce follows the last.
    ZeRO 3 gathers the weights twice more, for every micro batch (Rajbhandari et al., 2020, section
    7), behind its computation.
    """
    parallel = config.parallel
    size = checked.data_parallel * parallel.context
    span = parallel.tensor * size
    parameters = stage_parameters(config, model, 0)
    buckets = -(-parameters // max(_BUCKET, 1_000_000 * size))
    reduce = links.ring(size, span, 4.0 * parameters, buckets)
    gather = links.ring(size, span, float(bytes_of(config.precision)) * parameters, buckets)
    if config.engine == "deepspeed":
        if config.deepspeed.zero_stage == 3:
            passes = 2 * checked.microbatches
            behind = checked.microbatches * compute
            return reduce + max(0.0, passes * gather - behind)
        return reduce + gather
    if not parallel.distributed_optimizer:
        return 2 * reduce
    return max(0.0, reduce - compute * 2 / 3) + max(0.0, gather - compute / 3)


def _update(
    config: RunConfig, model: ModelConfig, checked: layout.Layout, stage: int, device: Device
) -> float:
    """Returns the seconds of clipping and AdamW, which the memory bounds."""
    shards = 1
    if config.parallel.distributed_optimizer or (
        config.engine == "deepspeed" and config.deepspeed.zero_stage
    ):
        shards = checked.data_parallel * config.parallel.context
    moved = stage_parameters(config, model, stage) * _BYTES_OF_UPDATE / shards
    return moved / device.memory_bandwidth
