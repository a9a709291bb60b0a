"""A hostile pickle anywhere in a checkpoint is refused, and leaves no trace."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.cli import main
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.convert import convert
from bc2_ckpt.errors import DamagedFileError, UnsafeFileError
from bc2_ckpt.formats.megatron_legacy.options import LegacyOptions
from bc2_ckpt.formats.torch_dist.vetting import vet
from bc2_ckpt.integrity.verification import verify


class Payload:
    """Makes a directory when it is unpickled without care."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.trace,)


@pytest.fixture
def position_embedding() -> str:
    return "rotary"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "executed"


@pytest.fixture
def dist(
    config: ModelConfig,
    tensors: dict[str, Tensor],
    build_bin: Callable[..., Path],
    tmp_path: Path,
) -> Path:
    convert(open_checkpoint(build_bin(config, tensors)), tmp_path / "dist", "torch-dist")
    return tmp_path / "dist"


def read_all(directory: Path) -> None:
    reader = open_checkpoint(directory)
    for name in reader.tensors():
        reader.read(name)


def poison_bin(hf: Path, dist: Path, trace: Path) -> Path:
    torch.save({"model.norm.weight": Payload(trace)}, hf / "pytorch_model-00001-of-00003.bin")
    return hf


def poison_old_bin(hf: Path, dist: Path, trace: Path) -> Path:
    path = hf / "pytorch_model-00002-of-00003.bin"
    torch.save({"x": Payload(trace)}, path, _use_new_zipfile_serialization=False)
    return hf


def poison_metadata(hf: Path, dist: Path, trace: Path) -> Path:
    (dist / ".metadata").write_bytes(pickle.dumps({"a": Payload(trace)}))
    return dist


def poison_within_metadata(hf: Path, dist: Path, trace: Path) -> Path:
    metadata = pickle.loads((dist / ".metadata").read_bytes())
    metadata.planner_data = Payload(trace)
    (dist / ".metadata").write_bytes(pickle.dumps(metadata))
    return dist


def poison_common(hf: Path, dist: Path, trace: Path) -> Path:
    torch.save({"args": Payload(trace)}, dist / "common.pt")
    return dist


def poison_extra_state(hf: Path, dist: Path, trace: Path) -> Path:
    append(dist, "decoder.layers.mlp.linear_fc2._extra_state/shard_1_3", [Payload(trace)])
    return dist


def poison_chunk(hf: Path, dist: Path, trace: Path) -> Path:
    """A tensor's bytes are replaced, which no check of the objects looks at."""
    metadata: Metadata = pickle.loads((dist / ".metadata").read_bytes())
    index = next(i for i in metadata.storage_data if i.fqn == "decoder.final_layernorm.weight")
    with open(dist / "__0_0.distcp", "ab") as file:
        metadata.storage_data[index].offset = file.tell()
        torch.save(Payload(trace), file)
        metadata.storage_data[index].length = file.tell() - metadata.storage_data[index].offset
    (dist / ".metadata").write_bytes(pickle.dumps(metadata))
    return dist


def append(dist: Path, key: str, value: object) -> None:
    """Lets an object's entry point to a new value at the end of the data file."""
    metadata: Metadata = pickle.loads((dist / ".metadata").read_bytes())
    info = metadata.storage_data[MetadataIndex(key)]
    with open(dist / info.relative_path, "ab") as file:
        info.offset = file.tell()
        torch.save(value, file)
        info.length = file.tell() - info.offset
    (dist / ".metadata").write_bytes(pickle.dumps(metadata))


@pytest.mark.parametrize(
    "poison",
    [
        poison_bin,
        poison_old_bin,
        poison_metadata,
        poison_within_metadata,
        poison_common,
        poison_extra_state,
        poison_chunk,
    ],
)
def test_a_payload_leaves_no_trace(
    poison: Callable[[Path, Path, Path], Path],
    dist: Path,
    trace: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = poison(tmp_path / "hf", dist, trace)
    with pytest.raises(UnsafeFileError, match=r"posix\.mkdir"):
        read_all(directory)
    before = sorted(tmp_path.iterdir())
    arguments = ["convert", "--input", str(directory), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--to", "hf"]) == 2
    assert "nothing of it was carried out" in capsys.readouterr().err
    assert not trace.exists()
    assert sorted(tmp_path.iterdir()) == before


def test_the_payload_itself_works(trace: Path) -> None:
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.is_dir()


def test_a_class_of_torch_cannot_be_changed_from_within_metadata(dist: Path) -> None:
    stream = (
        b"\x80\x04ctorch.distributed.checkpoint.metadata\nMetadata\n"  # the class itself ...
        b"N}\x8c\x07versionK\x01s\x86b."  # ... given a state (None, {"version": 1})
    )
    (dist / ".metadata").write_bytes(stream)
    with pytest.raises(DamagedFileError):
        open_checkpoint(dist)
    assert Metadata.version is None


@pytest.fixture
def legacy(
    config: ModelConfig,
    tensors: dict[str, Tensor],
    build_bin: Callable[..., Path],
    tmp_path: Path,
) -> Path:
    options = LegacyOptions(tp=2)
    source = open_checkpoint(build_bin(config, tensors, name="source"))
    convert(source, tmp_path / "legacy", "megatron-legacy", legacy=options)
    return tmp_path / "legacy"


@pytest.mark.parametrize("key", ["args", "model", "optimizer", "rng_state"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_payload_in_a_legacy_file_leaves_no_trace(
    legacy: Path, trace: Path, tmp_path: Path, key: str, is_zip: bool
) -> None:
    path = legacy / "release/mp_rank_01/model_optim_rng.pt"
    content = torch.load(path, weights_only=True)
    content[key] = Payload(trace)
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(UnsafeFileError, match=r"posix\.mkdir"):
        open_checkpoint(legacy)
    assert main(["verify", str(legacy)]) == 1
    arguments = ["convert", "--input", str(legacy), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--to", "hf"]) == 2
    assert main(["inspect", str(legacy)]) == 2
    assert not trace.exists()


class CallsNumpy:
    """Asks for a function of numpy that runs a string, as an object of a known package might."""

    def __reduce__(self) -> tuple[Any, ...]:
        return np.testing.rundocs, ("trace",)


def test_a_function_of_a_package_that_training_uses_is_not_called(
    legacy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[object] = []
    monkeypatch.setattr(np.testing, "rundocs", rundocs := lambda *args: called.append(args))
    rundocs.__module__, rundocs.__qualname__ = "numpy.testing", "rundocs"
    path = legacy / "release/mp_rank_00/model_optim_rng.pt"
    content = torch.load(path, weights_only=True)
    torch.save(content | {"args": argparse.Namespace(value=CallsNumpy())}, path)
    torch.load(path, weights_only=False)
    assert called.pop(), "the payload itself works"
    open_checkpoint(legacy)
    assert not called


@pytest.mark.parametrize("text", ["../release", "/etc", "..", "-1", "release/..", "iter_0000009"])
def test_a_tracker_cannot_lead_outside(legacy: Path, text: str) -> None:
    (legacy / "latest_checkpointed_iteration.txt").write_text(text)
    with pytest.raises(DamagedFileError, match="is not beside it"):
        open_checkpoint(legacy)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/hostname", "sub/x.bin", "", ".."])
@pytest.mark.parametrize("index", ["pytorch_model.bin", "model.safetensors"])
def test_an_index_cannot_name_a_file_elsewhere(
    config: ModelConfig,
    tensors: dict[str, Tensor],
    build_bin: Callable[..., Path],
    name: str,
    index: str,
) -> None:
    directory = build_bin(config, tensors, name="indexed")
    weight_map = {"weight_map": {"lm_head.weight": name}}
    (directory / "pytorch_model.bin.index.json").unlink()
    (directory / f"{index}.index.json").write_text(json.dumps(weight_map))
    with pytest.raises(DamagedFileError, match="which is no file beside it"):
        open_checkpoint(directory)


def test_no_member_of_an_archive_is_written_anywhere(
    config: ModelConfig,
    tensors: dict[str, Tensor],
    build_bin: Callable[..., Path],
    tmp_path: Path,
) -> None:
    directory = build_bin(config, tensors, shards=1, name="archive")
    with zipfile.ZipFile(directory / "pytorch_model.bin", "a") as archive:
        archive.writestr("../../escaped", "x")
        archive.writestr("/tmp/escaped", "x")
    before = sorted(tmp_path.rglob("*"))
    assert any(check.state == "failed" for check in verify(directory))
    assert main(["inspect", str(directory)]) == 2
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/escaped").exists()


@pytest.mark.parametrize("outside", ["../elsewhere.distcp", "/etc/hostname"])
def test_metadata_cannot_name_a_file_outside(dist: Path, outside: str) -> None:
    metadata: Metadata = pickle.loads((dist / ".metadata").read_bytes())
    next(iter(metadata.storage_data.values())).relative_path = outside
    (dist / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(DamagedFileError, match="no file beside it"):
        open_checkpoint(dist)


@pytest.mark.parametrize("field", ["offset", "length"])
def test_metadata_cannot_lead_before_the_start_of_a_file(dist: Path, field: str) -> None:
    metadata: Metadata = pickle.loads((dist / ".metadata").read_bytes())
    setattr(next(iter(metadata.storage_data.values())), field, -1)
    (dist / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(DamagedFileError, match=r"\.metadata cannot be read"):
        open_checkpoint(dist)


def test_what_a_trainer_saves_is_let_through(dist: Path) -> None:
    state = [random.getstate(), np.random.get_state(), torch.get_rng_state()]
    append(dist, "decoder.layers.mlp.linear_fc2._extra_state/shard_1_3", state)
    torch.save({"args": argparse.Namespace(seed=1), "iteration": 3}, dist / "common.pt")
    key = "decoder.layers.mlp.linear_fc2._extra_state/shard_1_3"
    assert key in vet(dist).objects
