"""`verify` finds every change of a checkpoint that bc2 wrote, in whichever byte it is."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.cli import main
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.convert import convert
from bc2_ckpt.errors import NotACheckpointError
from bc2_ckpt.formats import FORMATS
from bc2_ckpt.integrity import manifest
from bc2_ckpt.integrity.manifest import MANIFEST, read_manifest, write_manifest
from bc2_ckpt.integrity.verification import verify
from bc2_data.checksum import sha256

Flip = Callable[[Path, random.Random], None]


@pytest.fixture
def position_embedding() -> str:
    return "rotary"


@pytest.fixture
def hf(config: ModelConfig, tensors: dict[str, Tensor], build_bin: Callable[..., Path]) -> Path:
    return build_bin(config, tensors)


@pytest.fixture(params=FORMATS)
def written(request: pytest.FixtureRequest, hf: Path, tmp_path: Path) -> Path:
    convert(open_checkpoint(hf), tmp_path / "out", request.param)
    return tmp_path / "out"


def failures(directory: Path) -> list[str]:
    return [check.what for check in verify(directory) if check.state == "failed"]


def flip_bit(path: Path, position: int, bit: int) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ (1 << bit)]))


def test_what_was_written_passes(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    states = {check.state for check in verify(written)}
    assert states == {"ok"}
    assert main(["verify", str(written)]) == 0
    assert "tensors have the dtype, shape and SHA-256 written down" in capsys.readouterr().out


def test_a_flipped_bit_is_found_wherever_it_is(written: Path) -> None:
    generator = random.Random(5)
    files = sorted(path for path in written.rglob("*") if path.is_file())
    data = max(files, key=lambda path: path.stat().st_size)
    for attempt in range(100):
        # Half of them anywhere in the weights' file, the others in its ends and in small files.
        path = data if attempt % 2 else generator.choice(files)
        size = path.stat().st_size
        position = generator.randrange(size)
        if attempt % 4 == 2:
            position = generator.choice([position % 300, size - 1 - position % 300]) % size
        bit = generator.randrange(8)
        flip_bit(path, position, bit)
        assert failures(written), f"bit {bit} of byte {position} of {path}"
        flip_bit(path, position, bit)
    assert not failures(written)


def test_the_command_fails_with_status_1_and_names_the_file(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip_bit(written / "config.json", 20, 0)
    assert main(["verify", str(written)]) == 1
    captured = capsys.readouterr()
    assert "failed   config.json has SHA-256" in captured.out
    assert "failed" in captured.err
    assert "hint: " in captured.err


def test_a_missing_a_short_and_a_surplus_file_are_told(written: Path) -> None:
    (written / "tokenizer.model").unlink()
    data = max(written.rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    data.write_bytes(data.read_bytes()[:-1])
    (written / "notes.txt").write_text("mine")
    checks = {check.what: check.state for check in verify(written)}
    assert checks["tokenizer.model is missing"] == "failed"
    name = data.relative_to(written).as_posix()
    assert any(what.startswith(f"{name} is cut short") for what in checks)
    assert checks[f"notes.txt is not in {MANIFEST}"] == "skipped"


def test_tensors_are_checked_as_they_are_read_not_as_files(hf: Path, tmp_path: Path) -> None:
    """A writer that mixed tensors up would give files with the right checksums."""
    convert(open_checkpoint(hf), tmp_path / "out", "hf")
    written_down = read_manifest(tmp_path / "out" / MANIFEST)
    names = ["model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight"]
    tensors = dict(written_down.tensors)
    tensors[names[0]], tensors[names[1]] = tensors[names[1]], tensors[names[0]]
    write_manifest(tmp_path / "out", type(written_down)("hf", tensors, written_down.files))
    assert failures(tmp_path / "out") == [
        f"{name} is not the tensor that was written" for name in names
    ]


def test_checksums_of_tensors_are_the_same_in_every_format(hf: Path, tmp_path: Path) -> None:
    manifests = []
    for to in FORMATS:
        convert(open_checkpoint(hf), tmp_path / f"to-{to}", to)
        manifests.append(read_manifest(tmp_path / f"to-{to}" / MANIFEST))
    assert [each.format for each in manifests] == list(FORMATS)
    assert all(each.tensors == manifests[0].tensors for each in manifests)


def test_the_weights_are_hashed_on_their_way_and_not_read_back(
    hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_back: list[str] = []

    def sha256_read_back(path: Path) -> str:
        read_back.append(path.name)
        return sha256(path)

    monkeypatch.setattr(manifest, "sha256", sha256_read_back)
    for to in FORMATS:
        convert(open_checkpoint(hf), tmp_path / f"to-{to}", to)
    assert "config.json" in read_back
    assert not {"model.safetensors", "__0_0.distcp", "model_optim_rng.pt"} & set(read_back)


def test_a_conversion_refuses_a_source_that_is_not_as_it_was_written(
    written: Path, tensors: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    norm = tensors["model.norm.weight"].view(torch.uint8).numpy().tobytes()
    data = next(p for p in written.rglob("*") if p.is_file() and norm in p.read_bytes())
    flip_bit(data, data.read_bytes().index(norm), 3)
    arguments = ["convert", "--input", str(written), "--output", str(tmp_path / "next")]
    assert main([*arguments, "--to", "hf"]) == 2
    error = capsys.readouterr().err
    assert "error: model.norm.weight in " in error
    assert f"if it was changed on purpose, remove {written / MANIFEST}" in error
    assert not [path for path in tmp_path.iterdir() if "next" in path.name]
    (written / MANIFEST).unlink()
    assert main([*arguments, "--to", "hf"]) == 0


def test_every_file_but_the_manifest_is_in_it(written: Path) -> None:
    written_down = read_manifest(written / MANIFEST)
    files = {path.relative_to(written).as_posix(): path for path in written.rglob("*")}
    expected = {name for name, path in files.items() if path.is_file()} - {MANIFEST}
    assert set(written_down.files) == expected
    for name, record in written_down.files.items():
        assert record.size == files[name].stat().st_size
        assert record.sha256 == sha256(files[name])


def test_a_flipped_bit_in_a_bin_without_manifest_is_found_by_its_crc(
    hf: Path, tensors: dict[str, Tensor]
) -> None:
    assert not failures(hf)
    path = hf / "pytorch_model-00001-of-00003.bin"
    content = path.read_bytes()
    name = next(iter(torch.load(path)))
    position = content.index(tensors[name].view(torch.uint8).numpy().tobytes())
    flip_bit(path, position, 3)
    assert not torch.equal(torch.load(path)[name], tensors[name]), "torch does not notice"
    (failure,) = failures(hf)
    assert failure.startswith("pytorch_model-00001-of-00003.bin: Bad CRC-32")


def test_a_flipped_bit_in_torch_dist_without_manifest_is_found_by_its_crc(
    hf: Path, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    convert(open_checkpoint(hf), tmp_path / "out", "torch-dist")
    (tmp_path / "out" / MANIFEST).unlink()
    assert not failures(tmp_path / "out")
    data = tmp_path / "out/__0_0.distcp"
    norm = tensors["model.norm.weight"].view(torch.uint8).numpy().tobytes()
    flip_bit(data, data.read_bytes().index(norm), 3)
    (failure,) = failures(tmp_path / "out")
    assert "decoder.final_layernorm.weight: Bad CRC-32" in failure


def test_files_of_old_torch_hold_no_checksums(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: Callable[..., Path]
) -> None:
    directory = build_bin(config, tensors, shards=1, name="old")
    path = directory / "pytorch_model.bin"
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    checks = {check.what: check.state for check in verify(directory)}
    assert checks["pytorch_model.bin holds no checksums: torch before 1.6 wrote none"] == "skipped"


def test_the_checksums_of_a_training_run_are_used(hf: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run/iter_0000003"
    convert(open_checkpoint(hf), checkpoint, "torch-dist")
    (checkpoint / MANIFEST).unlink()
    sums = {path.name: sha256(path) for path in checkpoint.iterdir()}
    (checkpoint / "checksums.json").write_text(json.dumps(sums))
    assert {check.state for check in verify(tmp_path / "run")} == {"ok"}
    flip_bit(checkpoint / "common.pt", 700, 2)
    assert any(what.startswith("common.pt has SHA-256") for what in failures(tmp_path / "run"))


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd"])
def test_no_list_of_checksums_leads_outside(written: Path, name: str) -> None:
    written_down = read_manifest(written / MANIFEST)
    record = next(iter(written_down.files.values()))
    write_manifest(written, type(written_down)("hf", written_down.tensors, {name: record}))
    assert any("which is no file beside it" in what for what in failures(written))
    (written / MANIFEST).unlink()
    (written / "checksums.json").write_text(json.dumps({name: record.sha256}))
    assert any("a file beside it" in what for what in failures(written))


def test_a_checkpoint_that_was_moved_passes(written: Path, tmp_path: Path) -> None:
    shutil.move(written, tmp_path / "elsewhere")
    assert not failures(tmp_path / "elsewhere")


def test_no_checkpoint_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(NotACheckpointError):
        list(verify(tmp_path))
    assert main(["verify", str(tmp_path / "absent")]) == 2
