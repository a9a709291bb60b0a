"""Measures conversions of a synthetic Baichuan2 against `cp` and sync of the same bytes.

A Hugging Face directory of .bin shards is made from random bytes, of the dimensions of a preset
with as many layers as asked for. Then, in rounds whose order rotates, each command meets the same
machine: `cp`, Hugging Face to torch-dist, to megatron-legacy, and megatron-legacy to Hugging Face,
all with checksums and with every byte on disk at the end. The source is dropped from the page cache
before each. Peak anonymous memory is RssAnon, sampled every 10 ms; what is mapped from files, which
the kernel takes back when it needs the room, does not count.

    python tools/bench/ckpt.py --layers 2 --rounds 3
    python tools/bench/ckpt.py --layers 32 --folder /scratch   # 15 GB: 46 GB of disk

"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bc2_ckpt.archive import Archive, PendingTensor
from bc2_ckpt.blocks import row_blocks
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.files import write_json
from bc2_ckpt.layout import ParameterLayout

_SHARD_BYTES = 10e9
_NOISE_BYTES = 64 * 2**20
_SAMPLE_SECONDS = 0.01
_CONVERT = "import sys; from bc2_ckpt.cli import main; sys.exit(main())"


@dataclass(frozen=True)
class Run:
    """What was measured of one command: seconds, CPU seconds, bytes of anonymous memory."""

    command: str
    wall: float
    cpu: float
    anonymous: int


def main(argv: Sequence[str] | None = None) -> None:
    """Makes the model, runs the rounds, prints the table and removes everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset", default="baichuan2-7b", help="whose dimensions")
    parser.add_argument("--layers", type=int, default=2, help="layers of the model")
    parser.add_argument("--tp", type=int, default=8, help="tensor-parallel size of megatron-legacy")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where it all goes, for the disk to measure")
    parser.add_argument("--json", action="store_true", help="print all measurements as JSON")
    args = parser.parse_args(argv)
    config = replace(ModelConfig.load(args.preset), num_layers=args.layers)
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="bc2-bench-ckpt-") as folder:
        work = Path(folder)
        size = make_model(config, work / "hf")
        runs = list(measure(work, args.tp, args.rounds))
    if args.json:
        print(json.dumps({"bytes": size, "runs": [asdict(run) for run in runs]}, indent=2))
    else:
        print("\n".join(table(size, runs)))


def make_model(config: ModelConfig, directory: Path) -> int:
    """Writes a Hugging Face directory of .bin shards and returns the bytes of its tensors."""
    noise = torch.randint(0, 256, (_NOISE_BYTES,), dtype=torch.uint8).view(torch.bfloat16)
    shapes = list(ParameterLayout(config).hf_shapes().items())
    directory.mkdir()
    write_json(directory / "config.json", config.to_hf())
    weight_map: dict[str, str] = {}
    total = 0
    while shapes:
        name = f"pytorch_model-{len(set(weight_map.values())) + 1:05d}.bin"
        shard: dict[str, PendingTensor] = {}
        while shapes and sum(tensor.num_bytes for tensor in shard.values()) < _SHARD_BYTES:
            key, shape = shapes.pop(0)
            shard[key] = PendingTensor(shape, torch.bfloat16)
        with open(directory / name, "wb") as file, Archive(file, shard) as archive:
            for tensor in shard.values():
                with archive.fill(tensor) as fill:
                    for block in row_blocks(tensor.num_elements, noise.itemsize):
                        fill(noise[: block.stop - block.start])
            os.fsync(file.fileno())
        weight_map |= dict.fromkeys(shard, name)
        total += sum(tensor.num_bytes for tensor in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(directory / "pytorch_model.bin.index.json", index)
    return total


def measure(work: Path, tp: int, rounds: int) -> Iterator[Run]:
    """Yields every run; the first conversion, which makes the legacy source, is none of them."""
    hf, legacy, output = work / "hf", work / "legacy", work / "output"
    to_legacy = ["megatron-legacy", "--tp", str(tp)]
    run("", convert(hf, legacy, *to_legacy), hf)
    commands: list[tuple[str, list[str], Path]] = [
        ("cp + sync", copy(hf, output), hf),
        ("hf -> torch-dist", convert(hf, output, "torch-dist"), hf),
        (f"hf -> megatron-legacy TP{tp}", convert(hf, output, *to_legacy), hf),
        ("megatron-legacy -> hf", convert(legacy, output, "hf"), legacy),
    ]
    for i in range(rounds):
        for name, command, source in commands[i % 4 :] + commands[: i % 4]:
            yield run(name, command, source)
            shutil.rmtree(output)


def copy(source: Path, destination: Path) -> list[str]:
    """Returns the command that copies a directory and waits for the disk."""
    script = 'cp --reflink=never -r "$0" "$1" && sync "$1"/*'
    return ["sh", "-c", script, str(source), str(destination)]


def convert(source: Path, destination: Path, *to: str) -> list[str]:
    """Returns the command that converts a checkpoint."""
    paths = ["--input", str(source), "--output", str(destination)]
    return [sys.executable, "-c", _CONVERT, "convert", *paths, "--to", *to]


def run(name: str, command: list[str], source: Path) -> Run:
    """Runs a command whose source has to come from the disk.

    Raises:
        RuntimeError: It failed.
    """
    evict(source)
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(_SAMPLE_SECONDS)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"exit status {process.returncode}: {' '.join(command)}")
    return Run(name, wall, usage.ru_utime + usage.ru_stime, peak)


def evict(directory: Path) -> None:
    """Drops the files of a directory from the page cache."""
    for path in directory.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def anonymous_bytes(pid: int) -> int:
    """Returns the anonymous memory of a process; 0 where it has ended."""
    status = Path(f"/proc/{pid}/status").read_text()
    lines = [line for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def table(size: int, runs: Sequence[Run]) -> Iterator[str]:
    """Yields the lines of the result: medians over the rounds, and the ratio to `cp`."""
    names = list(dict.fromkeys(run.command for run in runs))
    by_name = {name: [run for run in runs if run.command == name] for name in names}

    def median(name: str, what: str) -> Any:
        return statistics.median(getattr(run, what) for run in by_name[name])

    floor = median("cp + sync", "wall")
    yield f"{size / 1e9:.2f} GB, {len(runs) // len(names)} rounds, median"
    yield f"{'':<28}{'wall s':>9}{'GB/s':>7}{'x cp':>7}{'CPU s':>9}{'anonymous MB':>14}"
    for name in names:
        wall = median(name, "wall")
        peak = max(run.anonymous for run in by_name[name])
        yield (
            f"{name:<28}{wall:>9.2f}{size / 1e9 / wall:>7.2f}{wall / floor:>7.2f}"
            f"{median(name, 'cpu'):>9.2f}{peak / 1e6:>14.0f}"
        )


if __name__ == "__main__":
    main()
