"""Plans as text and as JSON."""

from __future__ import annotations

from typing import Any

from bc2_ckpt.config import ModelConfig
from bc2_train import throughput
from bc2_train.planning.devices import GIGA, Device
from bc2_train.planning.search import Plan, Search, stops_paying


def layout_of(plan: Plan) -> str:
    """Returns a layout in short, such as ``TP8 DP2 SP DO micro2``; sizes of 1 are left out."""
    config = plan.config
    parallel = config.parallel
    used = parallel.tensor * parallel.pipeline * parallel.context
    names = []
    if config.engine == "deepspeed":
        names.append(f"ZeRO{config.deepspeed.zero_stage}")
    for name, size in (
        ("TP", parallel.tensor),
        ("PP", parallel.pipeline),
        ("VPP", parallel.virtual_pipeline),
        ("CP", parallel.context),
        ("DP", plan.devices // used),
    ):
        if size > 1:
            names.append(f"{name}{size}")
    if parallel.sequence:
        names.append("SP")
    if parallel.distributed_optimizer:
        names.append("DO")
    if config.train.recompute != "none":
        names.append(f"recompute-{config.train.recompute}")
    return " ".join([*names, f"micro{config.batch.micro}"])


def settings_of(plan: Plan) -> list[str]:
    """Returns the ``--set`` values that give the recipe this layout."""
    config, parallel = plan.config, plan.config.parallel
    common = [f"train.recompute={config.train.recompute}", f"batch.micro={config.batch.micro}"]
    if config.engine == "deepspeed":
        return [f"deepspeed.zero_stage={config.deepspeed.zero_stage}", *common]
    return [
        f"parallel.tensor={parallel.tensor}",
        f"parallel.pipeline={parallel.pipeline}",
        f"parallel.virtual_pipeline={parallel.virtual_pipeline}",
        f"parallel.context={parallel.context}",
        f"parallel.sequence={str(parallel.sequence).lower()}",
        f"parallel.distributed_optimizer={str(parallel.distributed_optimizer).lower()}",
        *common,
    ]


def as_values(plan: Plan, model: ModelConfig) -> dict[str, Any]:
    """Returns a plan for JSON: bytes, seconds and rates."""
    batch, length = plan.config.batch.global_, plan.config.data.seq_length
    flops = throughput.exact_flops(model, batch_size=batch, seq_length=length)
    return {
        "layout": layout_of(plan),
        "settings": settings_of(plan),
        "memory": {**plan.memory.parts(), "total": plan.memory.total},
        "time": {**plan.time.parts(), "total": plan.time.total},
        "tokens_per_second": plan.tokens_per_second,
        "tokens_per_second_per_device": plan.tokens_per_second / plan.devices,
        "tflops_per_device": throughput.tflops_per_device(
            flops, step_time=plan.time.total, devices=plan.devices
        ),
    }


def table(plans: list[Plan], model: ModelConfig) -> list[str]:
    """Returns a table of plans: memory in GB a device, seconds a step, rates."""
    width = max([len(layout_of(plan)) for plan in plans] + [6])
    lines = [
        f"{'layout':{width}}{'GB':>7}{'weights':>9}{'grads':>7}{'optim':>7}{'activ':>7}{'work':>6}"
        f"{'s/step':>9}{'comm':>7}{'bubble':>8}{'tok/s/dev':>11}{'TFLOP/s':>9}"
    ]
    for plan in plans:
        values = as_values(plan, model)
        size = [part / GIGA for part in plan.memory.parts().values()]
        seconds = plan.time
        exchange = seconds.tensor + seconds.pipeline + seconds.data
        lines.append(
            f"{values['layout']:{width}}{plan.memory.total / GIGA:7.1f}"
            f"{size[0]:9.1f}{size[1]:7.1f}{size[2]:7.1f}{size[3]:7.1f}{size[4]:6.1f}"
            f"{seconds.total:9.3g}{exchange / seconds.total:7.0%}"
            f"{seconds.bubble / seconds.total:8.0%}"
            f"{values['tokens_per_second_per_device']:11.0f}{values['tflops_per_device']:9.3g}"
        )
    return lines


def unfit(found: Search, device: Device, top: int) -> list[str]:
    """Returns what does not fit, and why."""
    lines = []
    if found.too_large:
        lines.append(
            f"{len(found.too_large)} layouts need more than {device.budget / GIGA:.1f} GB, "
            f"{device.usable:.0%} of the device's memory:"
        )
    # One line for each division of the model: its smallest layout.
    smallest: dict[tuple[int, int, int, int], Plan] = {}
    for plan in found.too_large:
        parallel = plan.config.parallel
        zero = plan.config.deepspeed.zero_stage
        smallest.setdefault((parallel.tensor, parallel.pipeline, parallel.context, zero), plan)
    for plan in list(smallest.values())[:top]:
        part, size = max(plan.memory.parts().items(), key=lambda item: item[1])
        lines.append(
            f"  {layout_of(plan)}: {plan.memory.total / GIGA:.1f} GB, "
            f"of which {size / GIGA:.1f} GB {part}"
        )
    reasons = sorted(found.impossible.items(), key=lambda item: -item[1])
    if reasons:
        lines.append(f"{sum(found.impossible.values())} layouts are impossible:")
        lines += [f"  {count} times: {reason}" for reason, count in reasons[:top]]
    return lines


def scaling_table(rows: list[tuple[int, Plan | None]]) -> list[str]:
    """Returns how the fastest layout of each number of devices does."""
    lines = [f"{'devices':>8}{'s/step':>10}{'tokens/s':>12}{'tok/s/dev':>11}  layout"]
    for count, plan in rows:
        if plan is None:
            lines.append(f"{count:8}  nothing fits")
            continue
        rate = plan.tokens_per_second
        lines.append(
            f"{count:8}{plan.time.total:10.3g}{rate:12.0f}{rate / count:11.0f}  {layout_of(plan)}"
        )
    end = stops_paying(rows)
    if end is not None:
        lines.append(
            f"beyond {end} devices twice as many are less than 1.5 times as fast at this global "
            "batch"
        )
    return lines
