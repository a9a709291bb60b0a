"""Times a training step of the transformers model against the same model written the official way.

The official way is tests/reference_model.py: plain float32 PyTorch with a (heads, seq, seq) bias,
whole scores and whole logits. Both take one step of torch's fused AdamW a round, in turns, on the
same tokens.
Tokens a second are of the fastest step, by the wall clock and by the CPU seconds of all threads.
Each peak is measured in a process of its own, as what a step adds to the resident memory: without
the parameters and the optimizer's state, with the gradients.

    python tools/bench/model.py --threads 2
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from model_shape import add_arguments, dimensions
from torch import Tensor

from bc2_model.benchmark.memory import peak_of
from bc2_model.hf import BaichuanConfig, BaichuanForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from reference_model import ReferenceModel

LossOf = Callable[[Tensor], Tensor]


def ours(model: BaichuanForCausalLM) -> tuple[LossOf, Iterable[Tensor]]:
    """Returns the loss and the parameters of the transformers model."""
    return lambda tokens: model(tokens, labels=tokens).loss, model.parameters()


def official(model: BaichuanForCausalLM) -> tuple[LossOf, Iterable[Tensor]]:
    """Returns those of the plain model with the same weights."""
    reference = ReferenceModel(model.config.model, dict(model.named_parameters()))
    return lambda tokens: reference.loss(tokens, tokens), reference.weights.values()


IMPLEMENTATIONS = {"official": official, "bc2": ours}


def stepper(name: str, args: argparse.Namespace) -> Callable[[], float]:
    """Returns a function that takes one training step, always on the same tokens."""
    torch.manual_seed(0)
    model = BaichuanForCausalLM(BaichuanConfig(**dimensions(args).to_hf())).train()
    tokens = torch.randint(1, args.vocabulary, (args.batch, args.seq_length))
    loss_of, parameters = IMPLEMENTATIONS[name](model)
    del model
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

    def step() -> float:
        loss = loss_of(tokens)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def peak_in_a_process(name: str) -> int:
    """Returns the bytes that a step of one implementation adds, measured by a fresh process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", name]
    return int(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def measure(args: argparse.Namespace) -> None:
    """Prints one line an implementation."""
    peaks = {name: peak_in_a_process(name) for name in IMPLEMENTATIONS}
    steps = {name: stepper(name, args) for name in IMPLEMENTATIONS}
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    losses = {}
    for _ in range(args.rounds + 1):
        for name, step in steps.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            losses[name] = step()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - cpu_start)
    tokens = args.batch * args.seq_length
    print(f"{'':10}{'tokens/s':>9}{'/CPU s':>8}{'peak MB':>9}{'speed':>7}{'CPU':>6}{'memory':>8}")
    for name in steps:
        fastest, least = min(wall[name]), min(cpu[name])
        speed = min(wall["official"]) / fastest
        effort = min(cpu["official"]) / least
        memory = peaks[name] / peaks["official"]
        print(
            f"{name:10}{tokens / fastest:9.0f}{tokens / least:8.0f}{peaks[name] / 2**20:9.0f}"
            f"{speed:7.2f}{effort:6.2f}{memory:8.2f}   last loss {losses[name]:.6f}"
        )


def main() -> None:
    """Parses the arguments and measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=3, help="after one to warm up")
    parser.add_argument("--peak-of", choices=IMPLEMENTATIONS, help="print this one's peak alone")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak_of:
        step = stepper(args.peak_of, args)
        step()  # makes the optimizer's state
        print(peak_of(step, torch.device("cpu")))
    else:
        measure(args)


if __name__ == "__main__":
    main()
