"""What can be known to fail is said before a byte is written."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.cli import main
from bc2_ckpt.config import PRESETS, ModelConfig
from bc2_ckpt.convert import convert
from bc2_ckpt.errors import CkptError, MismatchError
from bc2_ckpt.formats import FORMATS
from bc2_ckpt.parallel import check_parallel
from bc2_ckpt.preflight import output_bytes, tokenizer_warning

_13B = PRESETS["baichuan2-13b"]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def position_embedding() -> str:
    return "rotary"


@pytest.fixture
def hf(config: ModelConfig, tensors: dict[str, Tensor], build_bin: Callable[..., Path]) -> Path:
    return build_bin(config, tensors)


@pytest.mark.parametrize(
    ("tp", "pp", "vpp"), [(1, 1, 1), (8, 1, 1), (4, 40, 1), (2, 4, 2), (1, 5, 8)]
)
def test_layouts_that_fit_pass(tp: int, pp: int, vpp: int) -> None:
    check_parallel(_13B, tp, pp, vpp, padded_vocab_size=125_696)


@pytest.mark.parametrize(
    ("tp", "pp", "vpp", "rows", "message", "hint"),
    [
        (16, 1, 1, 125_696, "tensor-parallel size 16 does not divide the attention heads, 40", ""),
        (5, 1, 1, 125_700, "does not divide the intermediate size, 13696", "choose a size"),
        (8, 1, 1, 125_700, "does not divide the padded vocabulary, 125700", "pad the vocabulary"),
        (1, 3, 1, 125_696, "40 layers cannot be spread evenly over 3 pipeline ranks", "1, 2, 4, 5"),
        (1, 8, 2, 125_696, "over 8 pipeline ranks of 2 chunks", "1, 2, 4, 5, 8, 10, 20, 40"),
        (1, 1, 2, 125_696, "2 model chunks per pipeline rank need a pipeline", "--pp"),
        (1, 1, 1, 125_695, "padded vocabulary 125695 is smaller than the true 125696", ""),
    ],
)
def test_layouts_that_do_not_fit_are_refused_with_those_that_do(
    tp: int, pp: int, vpp: int, rows: int, message: str, hint: str
) -> None:
    with pytest.raises(MismatchError) as error:
        check_parallel(_13B, tp, pp, vpp, rows)
    assert message in error.value.message
    assert hint in error.value.hint


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tp", "3"], "does not divide the attention heads, 4"),
        (["--tp", "4"], "does not divide the intermediate size, 18"),
        (["--pp", "2"], "3 layers cannot be spread evenly over 2 pipeline ranks"),
        (["--vpp", "3"], "need a pipeline"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_the_command_refuses_such_a_layout_and_writes_nothing(
    hf: Path,
    tmp_path: Path,
    to: str,
    flags: list[str],
    message: str,
    dry: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(tmp_path.rglob("*"))
    arguments = ["convert", "--input", str(hf), "--output", str(tmp_path / "out"), "--to", to]
    assert main([*arguments, *flags, *dry]) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_disk_without_room_is_refused(
    hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> Usage:
        asked.append(path)
        return Usage(10**9, 10**9, 10**6)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(CkptError, match=r"needs 0\.1 GB, but .* has 0\.0 GB free"):
        convert(open_checkpoint(hf), tmp_path / "not/yet/there", "hf")
    assert asked == [tmp_path]
    assert not (tmp_path / "not").exists()


def test_the_space_that_is_needed_covers_what_is_written(hf: Path, tmp_path: Path) -> None:
    reader = open_checkpoint(hf)
    weights = sum(info.num_bytes for info in reader.tensors().values())
    row = 2 * reader.config.hidden_size
    assert output_bytes(reader, 40) - output_bytes(reader) == 2 * 3 * row
    for to in FORMATS:
        convert(reader, tmp_path / to.upper(), to)
        written = sum(p.stat().st_size for p in (tmp_path / to.upper()).rglob("*") if p.is_file())
        assert weights < written < output_bytes(reader, 128)


def test_a_tokenizer_that_is_too_large_is_a_warning(
    hf: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (hf / "tokenizer.model").write_bytes((shared / "baichuan2/tokenizer.model").read_bytes())
    arguments = ["convert", "--input", str(hf), "--output", str(tmp_path / "out"), "--to", "hf"]
    assert main(arguments) == 0
    error = capsys.readouterr().err
    assert "tokenizer.model has 125,696 pieces, but the model has 37 rows for them" in error
    assert error.startswith("warning: ")


def test_a_tokenizer_that_fits_is_none_and_one_that_is_none_is(hf: Path, tmp_path: Path) -> None:
    reader = open_checkpoint(hf)
    assert "cannot be used" in str(tokenizer_warning(reader))
    (hf / "tokenizer.model").unlink()
    assert "there is no tokenizer.model" in str(tokenizer_warning(reader))


def test_overflow_is_refused_by_name_and_leaves_nothing(
    config: ModelConfig,
    tensors: dict[str, Tensor],
    build_bin: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    large = tensors[name].clone()
    large[3, 4] = 1e6
    source = build_bin(config, tensors | {name: large})
    before = sorted(tmp_path.rglob("*"))
    arguments = ["convert", "--input", str(source), "--output", str(tmp_path / "out"), "--to", "hf"]
    assert main([*arguments, "--dtype", "float16"]) == 2
    assert f"error: {name} holds 999424, but float16 ends at 65504" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_tells_the_plan_and_writes_nothing(
    hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    arguments = ["convert", "--input", str(hf), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--to", "hf", "--dtype", "float32", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["from", "to", "tensors", "space", "time"]
    assert "24, 6,960 parameters, float32" in lines[2]
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    assert main([*arguments, "--to", "hf", "--dry-run"]) == 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtype_converts_every_tensor(
    hf: Path, tensors: dict[str, Tensor], tmp_path: Path, dtype: str
) -> None:
    for to in FORMATS:
        output = tmp_path / to.upper()
        arguments = ["convert", "--input", str(hf), "--output", str(output), "--to", to]
        assert main([*arguments, "--dtype", dtype]) == 0
        reader = open_checkpoint(output)
        assert reader.config.dtype == dtype
        for name, tensor in tensors.items():
            assert torch.equal(reader.read(name), tensor.to(getattr(torch, dtype)))
