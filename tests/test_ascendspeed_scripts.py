"""The launch scripts and the guide beside the tables that both are about."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ascendspeed_standins import REPOSITORY
from conftest import write_checkpoint

sys.path.insert(0, str(REPOSITORY / "tools"))

from ascendspeed import ckpt, data, train, train_arguments
from ascendspeed.arguments import Argument, DropInError

GUIDE = REPOSITORY / "docs" / "from-ascendspeed.md"
SCRIPTS = REPOSITORY / "tools" / "baichuan2"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def script_arguments(script: Path, *arguments: str, **variables: str) -> list[str]:
    """Returns what a launch script passes on, seen by a `python` that only prints it."""
    program = Path("bin/python")
    program.parent.mkdir(exist_ok=True)
    program.write_text('#!/bin/sh\nshift\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent.absolute()}:{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", script, *arguments],
        env=os.environ | {"PATH": path} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.splitlines()


def test_the_7b_script_is_the_recipe() -> None:
    native = train.translate(script_arguments(SCRIPTS / "pretrain_baichuan2_ptd_7B.sh"))
    assert native.words == ("bc2-train", "run", "baichuan2-7b-pretrain")
    assert native.options[0] == ("--nproc-per-node", "8")
    assert native.options[1:] == (
        ("--set", "data.prefix=./dataset_baichuan2-7B/alpaca_text_document"),
        ("--set", "run.dir=./ckpt"),
        ("--set", "checkpoint.dir=./ckpt"),
        ("--set", "checkpoint.keep=0"),
    )


def test_the_13b_script_is_the_recipe_on_two_nodes() -> None:
    write_checkpoint(Path("baichuan2-13b-merge"), "alibi")
    Path("baichuan2-13b-merge/config.json").unlink()
    script = SCRIPTS / "pretrain_baichuan2_ptd_13B.sh"
    native = train.translate(script_arguments(script, MASTER_ADDR="10.0.0.1", NODE_RANK="1"))
    assert native.words == ("bc2-train", "run", "baichuan2-13b-pretrain")
    data_prefix = "./processed_data_of_moss/processed_data_packed_input_ids_document"
    assert native.options == (
        ("--nproc-per-node", "8"),
        ("--nnodes", "2"),
        ("--node-rank", "1"),
        ("--master-addr", "10.0.0.1"),
        ("--master-port", "12892"),
        ("--set", "model.init=./baichuan2-13b-merge"),
        ("--set", f"data.prefix={data_prefix}"),
        ("--set", "run.dir=./ckpt"),
        ("--set", "checkpoint.dir=./ckpt"),
        ("--set", "checkpoint.keep=0"),
    )


def test_two_nodes_need_an_address() -> None:
    write_checkpoint(Path("baichuan2-13b-merge"), "alibi")
    arguments = script_arguments(SCRIPTS / "pretrain_baichuan2_ptd_13B.sh")
    with pytest.raises(DropInError) as raised:
        train.translate(arguments)
    assert "MASTER_ADDR" in raised.value.hint


def test_arguments_may_be_given_or_inserted() -> None:
    script = SCRIPTS / "pretrain_baichuan2_ptd_7B.sh"
    given = script_arguments(script, "--load", "./weight")
    copy = Path("tools/baichuan2")
    shutil.copytree(SCRIPTS, copy)
    lines = script.read_text().replace("    --bf16\n", "    --bf16\n    --load ./weight\n")
    (copy / script.name).write_text(lines)
    assert script_arguments(copy / script.name) == given
    assert script_arguments(script, LOAD_PATH="./weight") == given
    assert given[-2:] == ["--load", "./weight"]


@pytest.mark.parametrize("size", ["7B", "13B"])
def test_every_variable_of_the_scripts_can_be_given_and_is_documented(size: str) -> None:
    text = (SCRIPTS / f"pretrain_baichuan2_ptd_{size}.sh").read_text()
    defaults = dict(re.findall(r"^(\w+)=\$\{\1:-(.*?)\}", text, re.M))
    table = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*?) \|", GUIDE.read_text(), re.M)
    column = {"7B": 1, "13B": 2}[size]
    documented = {row[0]: re.sub("^none$", "", row[column].strip("`")) for row in table}
    assert documented == defaults
    paths = {name: value for name, value in defaults.items() if name.endswith("_PATH")}
    changed = {name: f"other-{name}" for name in paths}
    passed = script_arguments(SCRIPTS / f"pretrain_baichuan2_ptd_{size}.sh", **changed)
    assert set(changed.values()) <= set(passed)


def test_the_paths_of_the_scripts_are_the_readme_s() -> None:
    readme = Path(__file__).with_name("ascendspeed_readme.md").read_text()
    assigned = re.findall(r"^((?:TOKENIZER|DATA|LOAD)_PATH)=(\S+)", readme, re.M)
    assert len(assigned) == 8
    scripts = "".join(path.read_text() for path in SCRIPTS.glob("pretrain*.sh"))
    for name, path in assigned:
        # The last one is of fine-tuning: the script's header says it.
        assert f"{name}=${{{name}:-{path}}}" in scripts or f"{name}={path}," in scripts, path


def rows(arguments: Sequence[Argument]) -> dict[str, str]:
    return {argument.name: argument.native for argument in arguments}


@pytest.mark.parametrize(
    ("heading", "arguments"),
    [
        ("Arguments of preprocess_data.py", data.ARGUMENTS),
        ("Arguments of convert_weights_from_huggingface.py", ckpt.ARGUMENTS),
        ("Arguments of pretrain_baichuan.py", train_arguments.ARGUMENTS),
    ],
)
def test_the_guide_lists_every_argument(heading: str, arguments: Sequence[Argument]) -> None:
    section = GUIDE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\| `(--[\w-]+|size)` \| (.*) \|$", section, re.M)
    assert dict(found) == rows(arguments)
    assert len(found) == len(arguments)


def test_the_guide_lists_every_handler() -> None:
    found = dict(re.findall(r"^\| `(\w+Handler)` \| (.*) \|$", GUIDE.read_text(), re.M))
    native = {name: f"`--handler {' '.join(words)}`" for name, words in data.HANDLERS.items()}
    reasons = {name: f"refused: {reason}" for name, reason in data.REFUSED_HANDLERS.items()}
    assert found == native | reasons


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        (data.PROGRAM, data.ARGUMENTS),
        (ckpt.PROGRAM, ckpt.ARGUMENTS),
        (train.PROGRAM, train_arguments.ARGUMENTS),
    ],
)
def test_help_shows_what_each_argument_becomes(script: str, arguments: Sequence[Argument]) -> None:
    result = subprocess.run(
        [sys.executable, REPOSITORY / script, "--help"], capture_output=True, text=True, check=True
    )
    shown = " ".join(result.stdout.split()).replace("- ", "-")
    assert script in shown
    for argument in arguments:
        assert argument.name in shown
        assert argument.native.replace("`", "").replace("- ", "-") in shown
