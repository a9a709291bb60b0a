"""AscendSpeed's README from its first command to a training run, and bc2's own commands beside it.

Its shell blocks, of which ascendspeed_readme.md is a copy, run as they stand: only `examples/`
becomes `tools/`, programs that download copy small stand-ins, and the environment asks for two
processes and short training. bc2's own commands are those of docs/from-ascendspeed.md.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from ascendspeed_standins import REPOSITORY, make_commands, make_downloads
from bc2_train import config
from runs import finished_losses

COPY = Path(__file__).with_name("ascendspeed_readme.md")
GUIDE = REPOSITORY / "docs" / "from-ascendspeed.md"
HEADINGS = (
    "7B with its weights",
    "7B in bc2's own words",
    "Fine-tuning 13B on conversations",
    "13B in bc2's own words",
)
ITERATIONS = 2
SMALL = {
    "NPUS_PER_NODE": "2",
    "NNODES": "1",
    "TP": "2",
    "MICRO_BATCH": "2",
    "GLOBAL_BATCH": "4",
    "SEQ_LENGTH": "64",
    "TRAIN_ITERS": str(ITERATIONS),
}
SMALL_KEYS = {
    "parallel.tensor": 2,
    "batch.micro": 2,
    "batch.global": 4,
    "data.seq_length": 64,
    "train.iterations": ITERATIONS,
}
ENVIRONMENT_IS_BUILT = "conda"  # in a block that is left out
IS_AN_EDIT = "source /usr/local/Ascend"  # in a block that changes a launch script


def sections(text: str) -> dict[str, list[str]]:
    """Returns the shell blocks of AscendSpeed's README by model."""
    parts = re.split(r"^# (Baichuan2-\w+)$", text, flags=re.M)[1:]
    return {
        title: [
            block
            for block in re.findall(r"^```(?:shell|bash)\n(.*?)^```$", part, re.M | re.S)
            if ENVIRONMENT_IS_BUILT not in block
        ]
        for title, part in zip(parts[::2], parts[1::2], strict=True)
    }


def with_tools(lines: str) -> str:
    """Returns AscendSpeed's commands with the one thing that is different here."""
    return re.sub(r" *$", "", lines.replace("examples/baichuan2/", "tools/baichuan2/"), flags=re.M)


def guide_blocks(heading: str) -> list[str]:
    """Returns the blocks to be run of one section of the guide."""
    _, _, rest = GUIDE.read_text("utf-8").partition(f"\n## {heading}\n")
    return re.findall(r"^```sh\n(.*?)^```$", rest.partition("\n## ")[0], re.M | re.S)


def small(blocks: Sequence[str]) -> str:
    """Returns bc2's own commands, training on two processes of one host, at the small sizes."""
    lines = "".join(blocks).replace("\\\n", " ")
    lines = re.sub(r"--nproc-per-node \d+", "--nproc-per-node 2", lines)
    lines = re.sub(r" +--(nnodes|node-rank|master-addr|master-port) \S+", "", lines)
    options = " ".join(f"--set {key}={value}" for key, value in SMALL_KEYS.items())
    return re.sub(r"^(bc2-train run .*)$", rf"\1 {options}", lines, flags=re.M)


class Root:
    """The root of a repository in which the README is followed."""

    def __init__(self, folder: Path, downloads: Path, **variables: str) -> None:
        self._parent = folder
        self._environment = make_commands(folder / "bin", downloads) | SMALL | variables
        self.path = folder / "AscendSpeed"

    def follow_readme(self, blocks: Sequence[str]) -> str:
        """Runs the blocks in one shell, in the folder into which they clone the repository.

        Returns:
            What they print.
        """
        lines = "".join(block for block in blocks if IS_AN_EDIT not in block)
        return self._run(with_tools(lines), self._parent)

    def run(self, lines: str) -> str:
        """Runs lines in the root of the repository and returns what they print."""
        return self._run(lines, self.path)

    def run_natively(self, blocks: Sequence[str]) -> None:
        """Runs bc2's own commands at the small sizes."""
        self._run(small(blocks), self.path)

    def losses(self, run_dir: str) -> list[tuple[int, float, float]]:
        found = finished_losses(self.path / run_dir)
        assert len(found) == ITERATIONS
        return found

    def _run(self, lines: str, folder: Path) -> str:
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", lines],
            cwd=folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        assert result.returncode == 0, f"{lines}\n{result.stdout}"
        return result.stdout


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_downloads(tmp_path_factory.mktemp("downloads"))


@pytest.fixture(scope="module")
def readme() -> dict[str, list[str]]:
    found = sections(COPY.read_text("utf-8"))
    assert list(found) == ["Baichuan2-7B", "Baichuan2-13B"]
    return found


def test_the_copy_is_the_readme(readme: dict[str, list[str]], shared: Path) -> None:
    reference = shared / "reference" / "ascendspeed-baichuan2-readme.md"
    assert readme == sections(reference.read_text("utf-8"))


def test_every_block_of_the_guide_is_run() -> None:
    """By the tests below, which take all blocks of these sections."""
    text = GUIDE.read_text("utf-8")
    run = [block for heading in HEADINGS for block in guide_blocks(heading)]
    assert run == re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
    assert re.findall(r"^```(\w*)$", text, re.M).count("text") == 1
    assert "```\n" not in re.sub(r"^```(?:sh|text)\n.*?^```$", "", text, flags=re.M | re.S)


def test_7b(readme: dict[str, list[str]], downloads: Path, tmp_path: Path) -> None:
    """The README's note is followed, to load ./weight; it has converted to ./weight-tp8."""
    (launch,) = guide_blocks(HEADINGS[0])
    assert launch == f"LOAD_PATH=./weight {with_tools(readme['Baichuan2-7B'][-1])}"
    root = Root(tmp_path, downloads, LOAD_PATH="./weight")
    printed = root.follow_readme(readme["Baichuan2-7B"]).splitlines()
    root.run_natively(guide_blocks(HEADINGS[1]))
    assert root.losses("ckpt") == root.losses("runs/7b")

    (shown,) = re.findall(r"^```text\n(.*?)^```$", GUIDE.read_text("utf-8"), re.M | re.S)
    same = re.findall(r"^(?:warning: |# |bc2-|    --|wrote |saved |.* -> ).*$", shown, re.M)
    assert len(same) > 30
    assert [line for line in same if line not in printed] == []


def test_13b(readme: dict[str, list[str]], downloads: Path, tmp_path: Path) -> None:
    root = Root(tmp_path, downloads)
    root.follow_readme(readme["Baichuan2-13B"])
    (fine_tuning,) = [block for block in readme["Baichuan2-13B"] if "--is-instr" in block]
    paths = re.findall(r"^(?:TOKENIZER|DATA|LOAD)_PATH=\S+", fine_tuning, re.M)
    arguments = re.findall(r"^--\S+", fine_tuning, re.M)
    (command,) = guide_blocks(HEADINGS[2])
    for word in (paths[1], *arguments):  # the others are the script's own
        assert word in shlex.split(command)
    root.run("CHECKPOINT_PATH=./ckpt-tuned " + command)

    tokenize, pretrain, tune = guide_blocks(HEADINGS[3])
    root.run_natively([tokenize, pretrain])
    assert root.losses("ckpt") == root.losses("runs/13b")
    assert len(root.losses("ckpt-tuned")) == ITERATIONS
    # The same configuration, weights and data, so the steps need not be taken again.
    words = shlex.split(small([tune]))
    ours = config.load(words[2], [word for last, word in pairwise(words) if last == "--set"])
    theirs = config.load(str(root.path / "ckpt-tuned" / "config.yaml"))
    assert ours == replace(
        theirs,
        model=ours.model,
        data=replace(theirs.data, prefix=ours.data.prefix),
        checkpoint=replace(theirs.checkpoint, dir=None, keep=ours.checkpoint.keep),
        run=ours.run,
    )
    for column in ("input_ids", "labels", "attention_mask"):
        one, other = (
            Path(f"{root.path / prefix}_packed_{column}_document.bin").read_bytes()
            for prefix in (ours.data.prefix, theirs.data.prefix)
        )
        assert one == other
