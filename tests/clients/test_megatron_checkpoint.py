"""Plain megatron-core loads the checkpoint of a run, and one that bc2-ckpt converted."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.convert import convert
from bc2_ckpt.layout import ParameterLayout

pytestmark = pytest.mark.skipif(
    find_spec("megatron") is None, reason="megatron-core is not installed"
)

LOAD = Path(__file__).parent / "megatron_load.py"


@pytest.mark.parametrize("written_by", ["bc2-train", "bc2-ckpt"])
def test_every_parameter_has_the_exported_values(
    finished_run: Path, tmp_path: Path, written_by: str
) -> None:
    newest = max((finished_run / "checkpoints").glob("iter_*"))
    export = tmp_path / "export"
    convert(open_checkpoint(finished_run / "checkpoints"), export, "hf")
    source = open_checkpoint(export)
    if written_by == "bc2-ckpt":
        convert(source, tmp_path / "dist", "torch-dist")
        newest = tmp_path / "dist"
    config = source.config
    sizes = (config.vocab_size, config.num_layers, config.hidden_size, config.intermediate_size)
    output = tmp_path / "loaded.pt"
    command = [sys.executable, str(LOAD), str(newest), str(output)]
    command += [str(size) for size in (*sizes, config.num_heads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    loaded = torch.load(output, weights_only=True)
    layout = ParameterLayout(config)
    assert loaded.keys() == {param.megatron for param in layout.params}
    for name, value in loaded.items():
        assert torch.equal(value, layout.megatron_shard(name, source.read, tp_rank=0)), name
