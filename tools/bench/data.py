"""Compares ``bc2-data tokenize`` with other ways to make Megatron datasets.

All run in turn, round after round, each a whole command in a process of its own, over the same
JSON Lines of Chinese, English and code: the samples, where they are at hand, and files of this
machine, chosen anew in every run. What counts is tokens per CPU-second, user and system time of the
process and its children. Start-up is what the same command takes for one short document. The
outputs are compared byte by byte; the slow tokenizer alone differs, by reading ``<s>`` and the like
out of a text.

    python tools/bench/data.py --tokenizer Baichuan2-7B-Base
    python tools/bench/data.py --tokenizer Baichuan2-7B-Base --size 100 --workers 2 --json out.json

`datasets` and `megatron-core` are needed for the baselines; what is missing is left out, and said.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_baselines import BASELINES, NEEDS
from data_corpus import write_corpus

from bc2_data.checksum import sha256
from bc2_data.indexed import IndexedDataset

LIBRARIES = ("bc2-data", "fastokens", "sentencepiece", "transformers", "datasets", "megatron-core")


@dataclass
class Run:
    """What one command took.

    Attributes:
        cpu: Seconds, user and system, children included.
        wall: Seconds.
        memory: Peak resident bytes of its largest process.
    """

    cpu: float
    wall: float
    memory: int


@dataclass
class Contender:
    """One way to make the dataset.

    Attributes:
        name: As in the table.
        command: The command line; INPUT and PREFIX stand for paths.
        starts: One short document, once a round.
        runs: The whole corpus, once a round.
        tokens: Tokens it wrote.
        digest: SHA-256 of them.
    """

    name: str
    command: Sequence[str]
    starts: list[Run] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    tokens: int = 0
    digest: str = ""

    def rates(self, *, with_start: bool) -> list[float]:
        """Returns million tokens per CPU-second, one figure a round."""
        start = 0.0 if with_start else min(run.cpu for run in self.starts)
        return [self.tokens / 1e6 / (run.cpu - start) for run in self.runs]


def contenders(tokenizer: Path, workers: int) -> list[Contender]:
    """Returns all that can run here; says what cannot."""
    cli = "import sys; from bc2_data.cli import main; sys.exit(main())"
    ours = [sys.executable, "-c", cli, "tokenize", "--input", "INPUT", "--output-prefix", "PREFIX"]
    ours += ["--tokenizer", str(tokenizer), "--append-eos", "--special-tokens", "allow"]
    found = [
        Contender(f"bc2-data, {engine}", [*ours, "--engine", engine])
        for engine in ("fastokens", "sentencepiece")
        if find_spec(engine)
    ]
    if workers > 1:
        command = [*ours, "--workers", str(workers)]
        found.append(Contender(f"bc2-data, {workers} workers", command))
    script = Path(__file__).with_name("data_baselines.py")
    for name in BASELINES:
        missing = [module for module in NEEDS[name] if not _installed(module)]
        if missing:
            print(f"left out: {name}, for want of {', '.join(missing)}")
            continue
        command = [sys.executable, str(script), name, "INPUT", str(tokenizer), "PREFIX"]
        found.append(Contender(name, command))
    return found


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


def run_once(contender: Contender, source: Path) -> tuple[Run, Path]:
    """Runs a command on an input; returns what it took and the prefix of what it wrote."""
    prefix = Path(tempfile.mkdtemp(dir=source.parent)) / "data"
    paths = {"INPUT": str(source), "PREFIX": str(prefix)}
    command = [paths.get(part, part) for part in contender.command]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    complaint = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    if status:
        raise SystemExit(f"{contender.name} failed:\n{complaint}")
    return Run(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * 1024), prefix


def measure(all_of_them: list[Contender], corpus: Path, rounds: int) -> None:
    """Lets the contenders take turns and keeps their times; compares what they wrote."""
    short = corpus.with_name("short.jsonl")
    short.write_text('{"text": "one short document"}\n', encoding="utf-8")
    for number in range(rounds):
        for contender in all_of_them:
            start, _ = run_once(contender, short)
            run, prefix = run_once(contender, corpus)
            contender.starts.append(start)
            contender.runs.append(run)
            dataset = prefix.with_name("data_text_document")
            contender.tokens = IndexedDataset(dataset).num_tokens
            contender.digest = sha256(dataset.with_name("data_text_document.bin"))
            shutil.rmtree(prefix.parent)
            print(f"round {number + 1}: {contender.name}: {run.cpu:.2f} CPU-s", flush=True)


def report(all_of_them: list[Contender]) -> dict[str, Any]:
    """Prints the table and the ratios; returns the ratios, whole command, round by round."""
    print(
        f"\n{'':28}{'CPU s':>8}{'start-up':>10}{'wall s':>8}{'MB':>6}"
        f"{'M tokens/CPU-s':>16}{'without start-up':>20}{'  bytes'}"
    )
    for contender in all_of_them:
        cpu = statistics.median(run.cpu for run in contender.runs)
        start = statistics.median(run.cpu for run in contender.starts)
        wall = statistics.median(run.wall for run in contender.runs)
        memory = max(run.memory for run in contender.runs) / 2**20
        rates = "".join(
            f"{_spread(contender.rates(with_start=with_start)):>18}" for with_start in (True, False)
        )
        same = "same" if contender.digest == all_of_them[0].digest else "DIFFERENT"
        print(f"{contender.name:28}{cpu:8.2f}{start:10.2f}{wall:8.2f}{memory:6.0f}{rates}  {same}")
    ratios: dict[str, Any] = {}
    first, *others = all_of_them
    print(f"\n{first.name} is so many times as fast as (median, least and most of the rounds):")
    for other in others:
        for with_start in (True, False):
            pairs = zip(
                first.rates(with_start=with_start), other.rates(with_start=with_start), strict=True
            )
            ratio = [ours / theirs for ours, theirs in pairs]
            what = "whole command" if with_start else "without start-up"
            ratios[f"{other.name}, {what}"] = ratio
            print(f"{other.name:28}{what:18}{_spread(ratio)}")
    return ratios


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def main() -> None:
    """Parses the arguments, measures and reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", type=Path, required=True, help="a tokenizer.model")
    parser.add_argument("--samples", type=Path, help="folder with text-4mb.jsonl, moss-300.jsonl")
    parser.add_argument("--size", type=int, default=32, help="MB of text (default: 32)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="measure so many workers besides")
    parser.add_argument("--only", nargs="+", help="names, or how they begin")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    args = parser.parse_args()
    model = args.tokenizer / "tokenizer.model" if args.tokenizer.is_dir() else args.tokenizer
    chosen = [
        contender
        for contender in contenders(model, args.workers)
        if not args.only or contender.name.startswith(tuple(args.only))
    ]
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        sizes = write_corpus(corpus, args.size * 1_000_000, args.seed, args.samples)
        shown = ", ".join(f"{size / 1e6:.1f} MB {kind}" for kind, size in sizes.items())
        print(f"seed {args.seed}: {shown}; load {os.getloadavg()[0]:.1f}", flush=True)
        measure(chosen, corpus, args.rounds)
    ratios = report(chosen)
    if args.json:
        versions = {name: importlib.metadata.version(name) for name in LIBRARIES if _known(name)}
        content = {
            "seed": args.seed,
            "bytes": sizes,
            "versions": versions,
            "contenders": [asdict(contender) for contender in chosen],
            "ratios": ratios,
        }
        args.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _known(distribution: str) -> bool:
    return any(importlib.metadata.distributions(name=distribution))


if __name__ == "__main__":
    main()
