"""Measures real steps of layouts of at least a gigabyte, and what `bc2-train plan` says of them.

Each rank of a layout is a process of its own with one thread. What it needs is the high-water mark
of its resident memory after two steps above what is resident once everything is imported and
connected; the layout's figure is that of the rank that needs most. glibc returns freed pieces of
its heap late; here every larger tensor has memory of its own (MALLOC_MMAP_THRESHOLD_), so that the
figure is what was needed; --heap measures glibc's own way. CPU seconds are those of all ranks in
the faster of the two steps. The first layout, one process, calibrates the speed of the device;
those of the others are predicted with it.

    python tools/bench/plan.py                      # all layouts
    python tools/bench/plan.py tensor pipeline --json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bc2_ckpt.config import ModelConfig
from bc2_train import schema
from bc2_train.config import RunConfig
from bc2_train.planning import memory
from bc2_train.planning import time as cost
from bc2_train.planning.devices import DEVICES

MIB = 2**20


@dataclass(frozen=True)
class Case:
    """A layout that is measured.

    Attributes:
        ranks: Processes.
        shape: Fields of the model that differ from `MODEL`.
        groups: Groups of the run's configuration.
    """

    ranks: int = 1
    shape: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)


MODEL = ModelConfig(
    vocab_size=8192,
    hidden_size=768,
    intermediate_size=2048,
    num_layers=8,
    num_heads=12,
    position_embedding="alibi",
)
"""69 million parameters: 1.1 GB with gradients and optimizer state in float32."""

CASES = {
    "plain": Case(),
    "tensor": Case(
        2,
        {"num_layers": 16},
        {"parallel": {"tensor": 2, "sequence": True}, "batch": {"micro": 2, "global": 2}},
    ),
    "pipeline": Case(
        2, {"num_layers": 16}, {"parallel": {"pipeline": 2}, "batch": {"micro": 1, "global": 2}}
    ),
    "recompute": Case(
        1,
        {"position_embedding": "rotary"},
        {"train": {"recompute": "full"}, "batch": {"micro": 4, "global": 4}},
    ),
    "selective": Case(
        1, {}, {"train": {"recompute": "selective"}, "batch": {"micro": 2, "global": 2}}
    ),
    "distributed-optimizer": Case(
        2,
        {"position_embedding": "rotary"},
        {"parallel": {"distributed_optimizer": True}, "batch": {"micro": 1, "global": 2}},
    ),
}


def configuration(case: Case) -> tuple[RunConfig, ModelConfig]:
    """Returns the run and the model of a case."""
    values: dict[str, Any] = {
        "device": "cpu",
        "precision": "float32",
        "model": {"config": "unused"},
        "data": {"kind": "pretrain", "prefix": "unused", "seq_length": 1024},
        "batch": {"micro": 1, "global": 1},
        "optimizer": {"lr": 1e-4},
        "train": {"iterations": 1},
        "run": {"dir": "unused"},
    }
    for name, group in case.groups.items():
        values[name] = {**values.get(name, {}), **group}
    return schema.build(RunConfig, values), replace(MODEL, **case.shape)


def resident(what: str) -> int:
    """Returns VmRSS or VmHWM of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def work(case: Case, rank: int, store: str) -> None:
    """Takes the steps of one rank; prints what they took as JSON."""
    import logging
    import warnings

    import torch
    import torch.distributed as dist

    from bc2_model.weights import RandomWeights
    from bc2_train import runtime
    from bc2_train.data import Batch

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    runtime.install("cpu")
    from bc2_train.engines.megatron import MegatronEngine

    dist.init_process_group(
        "gloo", store=dist.FileStore(store, case.ranks), rank=rank, world_size=case.ranks
    )
    config, model = configuration(case)
    before = resident("VmRSS")
    engine = MegatronEngine(
        config, model, RandomWeights(model, config.train.seed), torch.device("cpu")
    )
    draw = torch.Generator().manual_seed(rank)
    micro = config.batch.micro
    batches = []
    for _ in range(config.batch.global_ // (micro * engine.data_parallel_size)):
        shape = (micro, config.data.seq_length + 1)
        tokens = torch.randint(3, model.vocab_size, shape, generator=draw)
        trained = torch.ones(micro, config.data.seq_length, dtype=torch.bool)
        batches.append(
            Batch(
                tokens=tokens[:, :-1],
                labels=tokens[:, 1:],
                loss_mask=trained,
                segment_ids=None,
            )
        )
    seconds = []
    for _ in range(2):
        dist.barrier()
        start = time.process_time()
        engine.train_step(batches, config.optimizer.lr)
        seconds.append(time.process_time() - start)
    measured = {"peak": resident("VmHWM") - before, "cpu": seconds}
    sys.stdout.write(f"{json.dumps(measured)}\n")
    sys.stdout.flush()
    dist.barrier()
    dist.destroy_process_group()


def measure(name: str, heap: bool) -> tuple[list[int], float]:
    """Returns the peak of every rank in bytes and the CPU seconds of a step of all of them."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if not heap:
        environment["MALLOC_MMAP_THRESHOLD_"] = str(128 * 1024)
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            subprocess.Popen(
                [sys.executable, __file__, name, "--rank", str(rank), "--store", f"{folder}/store"],
                stdout=subprocess.PIPE,
                env=environment,
            )
            for rank in range(CASES[name].ranks)
        ]
        answers = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        raise SystemExit(f"{name} failed")
    results = [json.loads(answer.splitlines()[-1]) for answer in answers]
    steps = zip(*(result["cpu"] for result in results), strict=True)
    return [result["peak"] for result in results], min(sum(step) for step in steps)


def main() -> None:
    """Measures the layouts and prints a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="LAYOUT")
    parser.add_argument("--json", action="store_true", help="one object a layout")
    parser.add_argument("--heap", action="store_true", help="leave glibc's allocator as it is")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank is not None:
        work(CASES[args.names[0]], args.rank, args.store)
        return
    device = DEVICES["cpu"]
    for name in args.names or CASES:
        config, model = configuration(CASES[name])
        peaks, seconds = measure(name, args.heap)
        planned = [part.total for part in memory.of_stages(config, model, CASES[name].ranks)]
        if name == "plain":
            device = cost.calibrated(device, config, model, CASES[name].ranks, seconds)
        predicted = cost.device_seconds(config, model, CASES[name].ranks, device)
        row = {
            "layout": name,
            "peak_mib": [round(peak / MIB) for peak in peaks],
            "planned_mib": [round(size / MIB) for size in planned],
            "memory_error": round(max(planned) / max(peaks) - 1, 4),
            "cpu_seconds": round(seconds, 2),
            "planned_seconds": round(predicted, 2),
            "time_error": round(predicted / seconds - 1, 4),
            "efficiency": device.efficiency,
        }
        if args.json:
            print(json.dumps(row), flush=True)
        else:
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
