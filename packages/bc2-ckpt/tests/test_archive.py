"""What is streamed into an archive is what torch.save would have written."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import torch

from bc2_ckpt.archive import Archive, PendingTensor, save_tensor

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def write(path: Path, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    """Writes an archive of two tensors, the first one in two parts, and returns them."""
    matrix, row = torch.randn(5, 3).to(dtype), torch.randn(7).to(dtype)
    a, b = PendingTensor((5, 3), dtype), PendingTensor((7,), dtype)
    content = {"version": 3.0, "model": {"a": a, "inner": {"b": b}}}
    with open(path, "wb") as file, Archive(file, content) as archive:
        with archive.fill(a) as fill:
            fill(matrix[:2])
            fill(matrix[2:])
        with archive.fill(b) as fill:
            fill(row)
    return {"a": matrix, "b": row}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mmap", [False, True])
def test_torch_loads_it(tmp_path: Path, dtype: torch.dtype, mmap: bool) -> None:
    tensors = write(tmp_path / "a.pt", dtype)
    loaded = torch.load(tmp_path / "a.pt", weights_only=True, mmap=mmap)
    assert loaded["version"] == 3.0
    for tensor, expected in (
        (loaded["model"]["a"], tensors["a"]),
        (loaded["model"]["inner"]["b"], tensors["b"]),
    ):
        assert tensor.dtype == dtype
        assert torch.equal(tensor, expected)
        assert tensor.untyped_storage().nbytes() == expected.nbytes


@pytest.mark.parametrize("large_from", [zipfile.ZIP64_LIMIT, 20])
def test_checksums_are_right_and_elements_aligned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large_from: int
) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", large_from)  # 20: as if members were of 2 GiB
    tensors = write(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert archive.testzip() is None
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
    loaded = torch.load(tmp_path / "a.pt", weights_only=True, mmap=True)["model"]
    assert torch.equal(loaded["a"], tensors["a"])
    content = (tmp_path / "a.pt").read_bytes()
    for tensor in tensors.values():
        assert content.index(tensor.view(torch.uint8).numpy().tobytes()) % 64 == 0


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    tensors = write(path)
    content = bytearray(path.read_bytes())
    content[content.index(tensors["b"].view(torch.uint8).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() == "archive/data/1"


def test_archives_can_stand_behind_one_another(tmp_path: Path) -> None:
    storage = torch.randn(1000, 4)
    views = [storage[3:5], storage[:, 2], storage[990:].t()]
    ends = [3]
    with open(tmp_path / "pieces", "wb") as file:
        file.write(b"abc")
        for view in views:
            save_tensor(view, file)
            ends.append(file.tell())
    content = (tmp_path / "pieces").read_bytes()
    for view, start, end in zip(views, ends, ends[1:], strict=False):
        piece = content[start:end]
        assert len(piece) < view.numel() * 4 + 1500
        assert torch.equal(torch.load(io.BytesIO(piece), weights_only=True), view)


def test_what_is_not_filled_as_announced_is_refused() -> None:
    pending = PendingTensor((2, 2), torch.float32)
    with pytest.raises(ValueError, match="never filled"), Archive(io.BytesIO(), {"a": pending}):
        pass
    for part, message in ((torch.ones(2), "8 bytes for"), (torch.ones(2, 2).half(), "float16 for")):
        with (
            pytest.raises(ValueError, match=message),
            Archive(io.BytesIO(), pending) as archive,
            archive.fill(pending) as fill,
        ):
            fill(part)
    with Archive(io.BytesIO(), pending) as archive:
        with archive.fill(pending) as fill:
            fill(torch.ones(2, 2))
        with pytest.raises(ValueError, match="no tensor that is to be filled"):
            archive.fill(pending).__enter__()


def test_an_error_meanwhile_is_the_one_that_is_seen() -> None:
    pending = PendingTensor((2, 2), torch.float32)
    with (
        pytest.raises(OSError, match="disk"),
        Archive(io.BytesIO(), pending) as archive,
        archive.fill(pending),
    ):
        raise OSError("no space left on the disk")
