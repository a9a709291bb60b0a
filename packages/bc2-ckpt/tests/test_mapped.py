"""The memory of mapped files: given back when it has been used, and never at the data's expense."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.convert import convert
from bc2_ckpt.formats import FORMATS
from bc2_ckpt.formats.megatron_legacy.options import LegacyOptions
from bc2_ckpt.mapped import read_once, use

MEBIBYTE = 2**20


@pytest.fixture
def mapped(tmp_path: Path) -> Tensor:
    """Eight MiB of a file that is on disk, mapped and read."""
    path = tmp_path / "file"
    if _file_system(tmp_path) == "tmpfs":
        pytest.skip("a file in memory has no pages to give back")
    path.write_bytes(bytes(range(256)) * (8 * MEBIBYTE // 256))
    subprocess.run(["sync", path], check=True)
    tensor = torch.from_file(str(path), shared=False, size=8 * MEBIBYTE, dtype=torch.uint8)
    assert tensor.sum(dtype=torch.int64) == 8 * MEBIBYTE // 256 * sum(range(256))
    return tensor


def test_what_was_read_goes_back_but_for_the_last_two_reads(mapped: Tensor) -> None:
    rows = mapped.view(8, MEBIBYTE)
    with read_once():
        for row in rows:
            use([row])
    assert 0 < _resident(mapped) <= 3 * MEBIBYTE
    assert all(torch.equal(row, rows[7]) for row in rows), "it can be read again"


def test_columns_go_back_with_what_lies_between(mapped: Tensor) -> None:
    with read_once():
        for _ in range(3):
            use([mapped.view(8, MEBIBYTE)[:, :256]])
    assert _resident(mapped) <= 2 * MEBIBYTE


def test_nothing_goes_back_where_others_may_read_it(mapped: Tensor) -> None:
    for row in mapped.view(8, MEBIBYTE):
        use([row])
    assert _resident(mapped) == 8 * MEBIBYTE


def test_memory_without_a_file_keeps_what_it_holds() -> None:
    tensor = torch.arange(MEBIBYTE)
    with read_once():
        for _ in range(3):
            use([tensor, torch.empty(0)])
    assert torch.equal(tensor, torch.arange(MEBIBYTE))


def test_the_oldest_read_goes_back_first(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = torch.arange(5)
    given_back: list[int] = []
    monkeypatch.setattr("bc2_ckpt.mapped._give_back", lambda view: given_back.append(view.item()))
    with read_once():
        for read in reads:
            use([read])
    assert given_back == [0, 1, 2]


@pytest.mark.parametrize("source_format", FORMATS)
def test_a_conversion_gives_back_what_it_read(
    config: ModelConfig,
    tensors: dict[str, Tensor],
    build_bin: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source_format: str,
) -> None:
    legacy = LegacyOptions(tp=2, pp=1, vocab_divisor=2)
    source = tmp_path / "source"
    convert(open_checkpoint(build_bin(config, tensors)), source, source_format, legacy=legacy)
    given_back = 0

    def count(view: Tensor) -> None:
        nonlocal given_back
        given_back += view.nbytes

    monkeypatch.setattr("bc2_ckpt.mapped._give_back", count)
    reader = open_checkpoint(source)
    convert(reader, tmp_path / "out", "hf")
    size = sum(info.num_bytes for info in reader.tensors().values())
    assert given_back > size / 2


def _file_system(path: Path) -> str:
    command = ["stat", "--file-system", "--format=%T", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _resident(tensor: Tensor) -> int:
    """Returns how many bytes of the mapping in which a tensor lies are in memory."""
    smaps = Path("/proc/self/smaps").read_text()
    for part in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", smaps, flags=re.MULTILINE)[1:]:
        start, stop = (int(end, 16) for end in part.split(" ", 1)[0].split("-"))
        if start <= tensor.data_ptr() < stop:
            (kilobytes,) = re.findall(r"^Rss: +(\d+) kB", part, flags=re.MULTILINE)
            return int(kilobytes) * 1024
    raise AssertionError("no such mapping")
