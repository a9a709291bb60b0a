"""Measures the peak memory of ``bc2-data tokenize`` on synthetic text of any size.

The text is made of 200,000 different words, half of them Chinese, so that it is new to every cache
for long. The peak is the resident memory of the largest process of the command, as the system
counts it; with one worker there is only one.

    python tools/bench/data_memory.py --tokenizer Baichuan2-7B-Base --megabytes 2048
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WORDS = 200_000
WORDS_A_ROW = 300
LIMIT_MEGABYTES = 600


def main() -> int:
    """Runs the measurement; returns 1 where the limit was exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--megabytes", type=int, default=2048, help="of text (default: 2048)")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="for the text and the outputs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "text.jsonl"
        rows = write_text(path, args.megabytes << 20)
        start = time.monotonic()
        peak, cpu_seconds = tokenize(path, args.tokenizer, args.workers)
        seconds = time.monotonic() - start
    print(
        f"{args.megabytes:,} MB, {rows:,} rows, {args.workers} workers: peak {peak:,.0f} MB "
        f"(limit {LIMIT_MEGABYTES}), {cpu_seconds:,.0f} CPU seconds, {seconds:,.0f} s"
    )
    return int(peak > LIMIT_MEGABYTES)


def write_text(path: Path, size: int) -> int:
    """Writes rows of text until the file has a size, and returns their number."""
    random = np.random.default_rng(0)
    words = [make_word(random, chinese=bool(number % 2)) for number in range(WORDS)]
    rows = 0
    with open(path, "w", encoding="utf-8") as file:
        while file.tell() < size:
            for picks in random.integers(WORDS, size=(1000, WORDS_A_ROW)):
                text = " ".join([words[pick] for pick in picks])
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                rows += 1
    return rows


def make_word(random: np.random.Generator, chinese: bool) -> str:
    """Returns a word that is likely no other's."""
    if chinese:
        return "".join(map(chr, random.integers(0x4E00, 0x9FA5, size=random.integers(1, 5))))
    return "".join(map(chr, random.integers(ord("a"), ord("z") + 1, size=random.integers(2, 11))))


def tokenize(path: Path, tokenizer: Path, workers: int) -> tuple[float, float]:
    """Returns the peak in MB and the CPU seconds of the command."""
    command = [sys.executable, "-c", "import sys; from bc2_data.cli import main; sys.exit(main())"]
    command += ["tokenize", "--input", str(path), "--tokenizer", str(tokenizer)]
    command += ["--output-prefix", str(path.with_name("out")), "--workers", str(workers)]
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    return usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
