"""Kills and full disks: an output is whole or not there, and finished work is not lost."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-c", "import sys; from bc2_data.cli import main; sys.exit(main())"]

# Runs a command once for every change of the file system that it makes, and each time ends it there
# as a kill would; then resumes. Forks, because a new interpreter for each would take minutes.
CRASHES = """
import hashlib, itertools, json, os, shutil, sys
from pathlib import Path
from bc2_data.cli import main

before, root, undisturbed, *arguments = sys.argv[1:]
main([*arguments, "--output-prefix", undisturbed])  # imports what each fork would have to

def run(folder, *more, crash_at=None):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    count = itertools.count(1)
    def crashing(function):
        def call(*positional, **named):
            if next(count) == crash_at:
                os._exit(137)
            return function(*positional, **named)
        return call
    os.fsync = lambda descriptor: None  # slow, and of no meaning to a process that is killed
    for name in ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync"):
        setattr(os, name, crashing(getattr(os, name)))
    os._exit(main([*arguments, "--output-prefix", str(folder / "data"), *more]))

def whole(folder):
    manifest = folder / "data.manifest.json"
    return not manifest.exists() or all(
        hashlib.sha256((folder / file["name"]).read_bytes()).hexdigest() == file["sha256"]
        for file in json.loads(manifest.read_text())["outputs"]
    )

for crash_at in itertools.count(1):
    folder = Path(root) / str(crash_at)
    if before:
        shutil.copytree(before, folder)
    status = run(folder, crash_at=crash_at)
    outcome = [status, whole(folder), run(folder, "--resume")]
    print("outcome", json.dumps(outcome), flush=True)
    if status == 0:
        break
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_killed_at_random_moments_the_bytes_are_those_of_an_undisturbed_run(
    large_folder: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    def arguments(to: str) -> list[str]:
        return [
            *("tokenize", "--input", str(large_folder), "--tokenizer", str(tokenizer_dir)),
            *("--output-prefix", str(tmp_path / to / "data"), "--workers", "2", "--resume"),
        ]

    start = time.monotonic()
    subprocess.run(COMMAND + arguments("undisturbed"), check=True, capture_output=True)
    duration = time.monotonic() - start
    expected = contents(tmp_path / "undisturbed")

    seed = random.randrange(2**32)
    moments = random.Random(seed)
    kills = 0
    while kills < 10:
        run = subprocess.Popen(COMMAND + arguments("killed"), stderr=subprocess.PIPE, text=True)
        try:
            _, err = run.communicate(timeout=moments.uniform(0, duration))
        except subprocess.TimeoutExpired:
            run.kill()
            run.communicate()
            kills += 1
        else:
            assert run.returncode == 0, f"seed {seed}, {kills} kills: {err}"
            assert contents(tmp_path / "killed") == expected, f"seed {seed}, {kills} kills"
            shutil.rmtree(tmp_path / "killed")
    sys.stdout.write(f"seed {seed}: ten kills within {duration:.1f} s each\n")
    subprocess.run(COMMAND + arguments("killed"), check=True, capture_output=True)
    assert contents(tmp_path / "killed") == expected, f"seed {seed}"


@pytest.mark.parametrize("replacing", [False, True])
def test_killed_at_any_change_of_the_file_system(
    cli: Any, corpus_folder: Path, tokenizer_dir: Path, tmp_path: Path, replacing: bool
) -> None:
    for path in sorted(corpus_folder.iterdir())[2:]:
        path.unlink()
    arguments = [
        *("tokenize", "--input", str(corpus_folder), "--tokenizer", str(tokenizer_dir)),
        *("--handler", "alpaca", "--engine", "sentencepiece"),  # which is quick to load
    ]
    before = ""
    if replacing:
        arguments += ["--pack", "--seq-length", "200"]
        before = str(tmp_path / "before")
        assert cli(*arguments, "--max-length", 60, "--output-prefix", f"{before}/data").status == 0
        arguments.append("--overwrite")
    places = [before, str(tmp_path / "crashed"), str(tmp_path / "undisturbed" / "data")]
    run = subprocess.run(
        [sys.executable, "-c", CRASHES, *places, *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    expected = contents(tmp_path / "undisturbed")
    lines = [line.split(" ", 1) for line in run.stdout.splitlines()]
    *crashes, last = [json.loads(rest) for word, rest in lines if word == "outcome"]
    assert len(crashes) > 30
    assert crashes == [[137, True, 0]] * len(crashes)
    assert last == [0, True, 0]
    for folder in (tmp_path / "crashed").iterdir():
        assert contents(folder) == expected, folder.name


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system needs root and the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_a_clear_error_and_resume_goes_on(
    cli: Any,
    large_folder: Path,
    tokenizer_dir: Path,
    tmp_path: Path,
    small_disk: Path,
    workers: int,
) -> None:
    for path in sorted(large_folder.iterdir())[3:]:
        path.unlink()
    arguments = ["tokenize", "--input", large_folder, "--tokenizer", tokenizer_dir]
    arguments += ["--workers", workers, "--output-prefix"]
    assert cli(*arguments, tmp_path / "undisturbed" / "data").status == 0
    outcome = cli(*arguments, small_disk / "out" / "data")
    assert outcome.status == 2
    out = small_disk / "out"
    error, *notes = outcome.err.partition("note: ")
    assert error == (
        f"error: {out}: No space left on device\nhint: free some space, or choose another place\n"
    )
    if workers == 1:  # two may both be at their first shard when the disk is full
        assert notes[1].startswith("kept 2 finished shards in ")
    assert not list(small_disk.rglob("*_document.*")) or all(
        ".data.unfinished" in path.parts for path in out.rglob("*_document.*")
    )
    assert not list(small_disk.rglob("*.partial"))  # what was not finished takes no space
    grow = ["mount", "-o", "remount,size=50m", str(small_disk)]
    subprocess.run(grow, check=True)
    assert cli(*arguments, small_disk / "out" / "data", "--resume").status == 0
    assert contents(small_disk / "out") == contents(tmp_path / "undisturbed")
