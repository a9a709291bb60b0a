"""The commands `bc2-model kernels` and `bc2-model bench`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bc2_model.benchmark.competitors import Competitor, competitors
from bc2_model.benchmark.measure import measure
from bc2_model.benchmark.table import table
from bc2_model.cli import main
from bc2_model.kernels import alibi_slopes, attention
from bc2_model.kernels.backends.registry import BACKENDS

SMALL = ["--heads", "2", "--head-dim", "16", "--device", "cpu"]


def verdicts(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:])


def test_kernels_says_what_runs_and_why_the_rest_does_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["kernels", *SMALL, "--seq-length", "64"]) == 0
    told = verdicts(capsys)
    assert told.pop("cpu") == "runs"
    assert told.pop("reference") == "could run"
    assert {"triton", "flash-attn", "flex", "npu"} <= told.keys()
    assert all(reason.startswith("no: ") for reason in told.values())


def test_kernels_follows_the_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    call = ["kernels", *SMALL, "--seq-length", "64", "--queries", "1", "--kv-heads", "1"]
    assert main([*call, "--segments", "--dtype", "bfloat16", "--batch", "3"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert "bfloat16 q (3, 2, 1, 16), k and v (3, 1, 64, 16) on cpu" in first
    assert first.endswith("causal, ALiBi, segments")
    assert main(["kernels", *SMALL, "--kv-heads", "3"]) == 2
    assert "3 key-value heads do not divide 2" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("command", ["kernels", "bench"])
def test_a_device_that_is_not_there_is_named(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--device", "cuda"]) == 2
    assert "no cuda device" in capsys.readouterr().err


def test_competitors_compute_the_same() -> None:
    q, k, v = (torch.randn(1, 4, 40, 16) for _ in range(3))
    expected = attention(q, k, v, alibi_slopes=alibi_slopes(4), backend="reference")
    found, reasons = competitors(q)
    assert len(found) + len(reasons) == 3 + len(BACKENDS)
    for each in found:
        out = each.prepare()(q, k, v)
        close = torch.allclose(out, expected, atol=1e-5)
        assert close == (each.name != "sdpa, no bias"), each.name


def test_bench_prints_a_table_and_draws_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    picture = tmp_path / "plots" / "alibi.png"
    call = ["bench", *SMALL, "--seq-length", "32", "64", "--rounds", "1", "--plot", str(picture)]
    assert main(call) == 0
    out = capsys.readouterr().out
    for word in ("eager, bias", "sdpa, bias", "sdpa, no bias", "bc2 cpu", "sequence length 64"):
        assert word in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    before = picture.read_bytes()
    assert main(call) == 2
    assert "exists already" in capsys.readouterr().err
    assert picture.read_bytes() == before
    assert main([*call, "--overwrite"]) == 0


def test_a_competitor_that_fails_keeps_its_reason_and_the_others_go_on() -> None:
    def broken(*_: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("no backward pass on this device\nand more")

    inputs = [torch.randn(1, 2, 8, 16) for _ in range(4)]
    found = [Competitor("broken", lambda: broken), competitors(inputs[0])[0][0]]
    for tensor in inputs[:3]:
        tensor.requires_grad_()
    rows = measure(found, inputs, rounds=2)
    lines = list(table(8, rows, {"other": "no such device"}))
    assert lines[2].split(maxsplit=1) == ["broken", "failed: no backward pass on this device"]
    assert len(rows["eager, bias"].forward) == len(rows["eager, bias"].backward) == 2
    assert lines[-1].endswith("not here: no such device")
