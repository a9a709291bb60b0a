from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.cli import main
from bc2_ckpt.config import ModelConfig


@pytest.fixture
def hf(config: ModelConfig, tensors: dict[str, Tensor], build_bin: Callable[..., Path]) -> Path:
    return build_bin(config, tensors)


def test_convert_there_and_back(
    hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dist, back = str(tmp_path / "dist"), str(tmp_path / "back")
    assert main(["convert", "--input", str(hf), "--output", dist, "--to", "torch-dist"]) == 0
    assert main(["convert", "--input", dist, "--output", back, "--to", "hf"]) == 0
    assert f"{dist} (torch-dist) -> {back} (hf): 24 tensors" in capsys.readouterr().out
    assert open_checkpoint(back).config == open_checkpoint(hf).config
    assert main(["convert", "--input", dist, "--output", back, "--to", "hf"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    again = ["convert", "--input", dist, "--output", back, "--to", "hf", "--overwrite"]
    assert main(again) == 0


def test_convert_with_a_named_config(hf: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (hf / "config.json").rename(tmp_path / "elsewhere/config.json")
    arguments = ["convert", "--input", str(hf), "--output", str(tmp_path / "out"), "--to", "hf"]
    assert main(arguments) == 2
    assert main([*arguments, "--config", "baichuan2-7b"]) == 2
    assert main([*arguments, "--config", str(tmp_path / "elsewhere")]) == 0


def test_inspect_shows_what_there_is(
    hf: Path, config: ModelConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(hf)]) == 0
    text = capsys.readouterr().out
    assert f"parameters  {config.num_parameters:,}\n" in text
    assert "dtype       bfloat16\n" in text
    assert f"vocabulary 37, {config.position_embedding}, NormHead\n" in text
    assert "layout      one copy, for every parallel layout\n" in text
    assert "lm_head.weight " in text
    assert main(["inspect", str(hf), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["format"] == "hf"
    assert facts["parameters"] == config.num_parameters
    assert facts["bytes"] == 2 * config.num_parameters
    assert facts["config"]["num_layers"] == 3
    assert facts["tensors"]["lm_head.weight"] == {
        "shape": [37, config.hidden_size],
        "dtype": "bfloat16",
        "bytes": 2 * 37 * config.hidden_size,
    }


def test_inspect_shows_the_layout_and_the_iteration(
    hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy, run = str(tmp_path / "legacy"), str(tmp_path / "run")
    arguments = ["convert", "--input", str(hf), "--output", legacy, "--to", "megatron-legacy"]
    assert main([*arguments, "--tp", "2", "--pp", "3"]) == 0
    arguments = ["convert", "--input", str(hf), "--output", f"{run}/iter_0000012"]
    assert main([*arguments, "--to", "torch-dist"]) == 0
    capsys.readouterr()
    assert main(["inspect", legacy]) == 0
    sizes = "tensor-parallel size 2, pipeline-parallel size 3, model chunks per pipeline rank 1"
    assert f"layout      {sizes}\n" in capsys.readouterr().out
    assert main(["inspect", run]) == 0
    assert "iteration   12\n" in capsys.readouterr().out
    assert main(["inspect", legacy, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["origin"] == {"tp": 2, "pp": 3, "vpp": 1}


def test_an_unknown_format_names_the_nearest(
    hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_status:
        main(["convert", "--input", str(hf), "--output", str(tmp_path / "o"), "--to", "torch_dist"])
    assert exit_status.value.code == 2
    assert "did you mean 'torch-dist'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *([name, "--help"] for name in ("check-download", "convert", "inspect", "verify")),
    ],
)
def test_help_needs_no_torch(arguments: list[str]) -> None:
    code = (
        "import atexit, sys, bc2_ckpt.cli\n"
        "try: bc2_ckpt.cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage: bc2-ckpt" in done.stdout
