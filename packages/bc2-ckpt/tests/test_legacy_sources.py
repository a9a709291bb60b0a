"""Legacy checkpoints that others wrote: AscendSpeed's converter, and training runs."""

from __future__ import annotations

import enum
import os
import random
import sys
import types
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.cli import main
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.convert import convert
from bc2_ckpt.errors import CkptError, DamagedFileError, MismatchError, UnsafeFileError
from bc2_ckpt.formats.megatron_legacy.options import LegacyOptions
from bc2_ckpt.layout import ParameterLayout
from bc2_data.vocab import VOCAB_SIZE

Tensors = dict[str, Tensor]
FILE = "model_optim_rng.pt"
FIRST = f"release/mp_rank_00/{FILE}"


@pytest.fixture
def config() -> ModelConfig:
    return ModelConfig(
        vocab_size=37,
        hidden_size=16,
        intermediate_size=24,
        num_layers=4,
        num_heads=4,
        position_embedding="rotary",
    )


@pytest.fixture
def legacy(
    config: ModelConfig, tensors: Tensors, build_bin: Callable[..., Path], tmp_path: Path
) -> Callable[..., Path]:
    """Returns a function that writes a legacy checkpoint without our own files beside it."""

    def build(**options: Any) -> Path:
        source, output = open_checkpoint(build_bin(config, tensors)), tmp_path / "legacy"
        convert(source, output, "megatron-legacy", legacy=LegacyOptions(**options))
        for path in output.iterdir():
            if path.suffix in (".json", ".model"):
                path.unlink()
        return output

    return build


def assert_read(directory: Path, tensors: Tensors, config: ModelConfig | None = None) -> None:
    reader = open_checkpoint(directory, config)
    assert reader.format == "megatron-legacy"
    assert list(reader.tensors()) == list(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(reader.read(name), tensor), name


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Loads a file, lets it be edited, and saves it as torch does."""
    content = torch.load(path, weights_only=True)
    edit(content)
    torch.save(content, path)


def edit_encoder(edit: Callable[[dict[str, Tensor]], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda content: edit(content["model"]["language_model"]["encoder"])


def test_what_the_converter_leaves_empty_on_later_stages(
    config: ModelConfig, tensors: Tensors, legacy: Callable[..., Path]
) -> None:
    directory = legacy(tp=2, pp=2)
    for path in directory.rglob(FILE):
        model = {"embedding": {"word_embeddings": {"weight": {}}}, "output_layer": {}}
        change(
            path,
            lambda c, m=model: c["model"]["language_model"].update(
                {**m, **c["model"]["language_model"]}
            ),
        )
    assert_read(directory, tensors, config)


def test_keys_that_were_flattened_and_values_that_are_no_weights(
    config: ModelConfig, tensors: Tensors, legacy: Callable[..., Path]
) -> None:
    directory = legacy()

    def flatten(content: dict[str, Any]) -> None:
        model = content["model"]["language_model"]
        content["model"] = {
            "language_model.embedding.word_embeddings.weight": torch.nn.Parameter(
                model["embedding"]["word_embeddings"]["weight"]
            ),
            "language_model.output_layer.weight": model["output_layer"]["weight"],
            "language_model.output_layer._extra_state": None,
            "language_model.encoder.layers.0.self_attention.rotary_emb.inv_freq": torch.ones(2),
            "language_model.moe_state_dict": {},
            **{f"language_model.encoder.{k}": v for k, v in model["encoder"].items()},
        }

    change(directory / FIRST, flatten)
    assert_read(directory, tensors, config)


class PositionEmbeddingType(enum.Enum):
    """As AscendSpeed's, which it stores among the arguments."""

    rope = 1
    absolute = 2
    alibi = 3

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return PositionEmbeddingType, (self.value,)  # as Python 3.7 to 3.10 pickle it


@pytest.fixture
def ascendspeed(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """AscendSpeed's module of enumerations, which is importable while a checkpoint is saved."""
    module = types.ModuleType("ascendspeed.enums")
    PositionEmbeddingType.__module__ = module.__name__
    module.PositionEmbeddingType = PositionEmbeddingType  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ascendspeed", types.ModuleType("ascendspeed"))
    monkeypatch.setitem(sys.modules, "ascendspeed.enums", module)
    return module


def arguments(config: ModelConfig, position: object, **more: Any) -> Namespace:
    """The arguments of a training run, as far as they tell the model, and some others."""
    return Namespace(
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        num_attention_heads=config.num_heads,
        ffn_hidden_size=config.intermediate_size,
        position_embedding_type=position,
        make_vocab_size_divisible_by=128,
        params_dtype=torch.bfloat16,
        seq_length=64,
        **more,
    )


def test_what_training_saves(
    config: ModelConfig,
    tensors: Tensors,
    legacy: Callable[..., Path],
    ascendspeed: types.ModuleType,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    directory = legacy(tp=2, pp=2, vpp=2)
    args = arguments(config, PositionEmbeddingType.rope, padded_vocab_size=256)

    def train(content: dict[str, Any]) -> None:
        moments = {0: {"step": 7, "exp_avg": torch.ones(9)}}
        content |= {
            "args": args,
            "iteration": 300,
            "tokens": 1 << 40,
            "optimizer": {"optimizer": {"state": moments, "param_groups": [{"lr": 1e-6}]}},
            "lr_scheduler": {"max_lr": 1e-6, "decay_style": "cosine"},
            "random_rng_state": random.getstate(),
            "np_rng_state": np.random.get_state(),
            "torch_rng_state": torch.get_rng_state(),
            "rng_tracker_states": {"model-parallel-rng": torch.get_rng_state()},
        }

    for path in directory.rglob(FILE):
        change(path, train)
        (path.parent / "distrib_optim.pt").touch()
    (directory / "release").rename(directory / "iter_0000300")
    (directory / "latest_checkpointed_iteration.txt").write_text("300")
    del sys.modules["ascendspeed.enums"]

    for place in (directory, directory / "iter_0000300"):
        assert_read(place, tensors, config)
    reader = open_checkpoint(directory, config)
    assert reader.origin() == {"iteration": 300, "tp": 2, "pp": 2, "vpp": 2}
    (note,) = reader.notes()
    for name in ("optimizer", "lr_scheduler", "np_rng_state", "distrib_optim.pt"):
        assert name in note
    (tmp_path / "config.json").write_text((tmp_path / "hf/config.json").read_text())
    command = ["convert", "--input", str(directory), "--output", str(tmp_path / "out")]
    assert main([*command, "--to", "hf", "--config", str(tmp_path)]) == 0
    assert note in capsys.readouterr().err


class OnNpu:
    """A tensor as torch_npu pickles one that lies on an NPU (``_reduce_ex`` of its storage.py)."""

    def __init__(self, tensor: Tensor, module: types.ModuleType) -> None:
        self.tensor = tensor
        self.module = module

    def __reduce__(self) -> tuple[Any, ...]:
        tensor = self.tensor
        hooks: OrderedDict[str, Any] = OrderedDict()
        place = (tensor.storage_offset(), tuple(tensor.size()), tensor.stride())
        args = (tensor._typed_storage(), *place, False, hooks, self.module.Format.ND)
        return self.module._rebuild_npu_tensor, args


def test_what_was_saved_on_an_npu_needs_none(
    config: ModelConfig,
    tensors: Tensors,
    legacy: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module: Any = types.ModuleType("torch_npu.utils.storage")
    module._rebuild_npu_tensor = lambda *args: pytest.fail("it was called")
    module._rebuild_npu_tensor.__module__ = module.__name__
    module._rebuild_npu_tensor.__qualname__ = "_rebuild_npu_tensor"
    module.Format = enum.Enum("Format", {"ND": 2}, module=module.__name__)
    for name in ("torch_npu", "torch_npu.utils", "torch_npu.utils.storage"):
        monkeypatch.setitem(sys.modules, name, module)

    def move(content: dict[str, Any]) -> None:
        encoder = content["model"]["language_model"]["encoder"]
        shared = torch.cat([tensor.flatten() for tensor in encoder.values()])
        start = 0
        for name, tensor in encoder.items():
            view = shared[start : start + tensor.numel()].view(tensor.shape)
            encoder[name] = OnNpu(view, module)
            start += tensor.numel()

    directory = legacy(tp=2)
    for path in directory.rglob(FILE):
        change(path, move)
    monkeypatch.undo()
    assert_read(directory, tensors, config)


@pytest.mark.parametrize("position", ["rope", "alibi"])
@pytest.mark.parametrize("stored", ["name", "enumeration"])
def test_the_model_is_known_from_the_arguments(
    build_bin: Callable[..., Path],
    ascendspeed: types.ModuleType,
    tmp_path: Path,
    position: str,
    stored: str,
) -> None:
    config = ModelConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=4,
        intermediate_size=4,
        num_layers=1,
        num_heads=2,
        position_embedding="rotary" if position == "rope" else "alibi",
        max_sequence_length=64,
        rms_norm_eps=1e-5,
    )
    tensors = {
        name: torch.zeros(shape, dtype=torch.bfloat16)
        for name, shape in ParameterLayout(config).hf_shapes().items()
    }
    source = open_checkpoint(build_bin(config, tensors))
    convert(source, tmp_path / "out", "megatron-legacy", legacy=LegacyOptions(tp=2))
    (tmp_path / "out/config.json").unlink()
    kind = position if stored == "name" else PositionEmbeddingType[position]
    args = arguments(
        config,
        kind,
        padded_vocab_size=VOCAB_SIZE,
        tensor_model_parallel_size=2,
        layernorm_epsilon=1e-5,
        lm_norm_weight=True,
    )
    for path in (tmp_path / "out").rglob(FILE):
        change(path, lambda content: content.update(args=args))
    assert open_checkpoint(tmp_path / "out").config == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"padded_vocab_size": 999}, "padded vocabulary of 999"),
        ({"position_embedding_type": "absolute"}, "'absolute', not rope or alibi"),
        ({"ffn_hidden_size": None}, "no ffn_hidden_size"),
    ],
)
def test_arguments_that_do_not_tell_the_model(
    config: ModelConfig,
    tensors: Tensors,
    legacy: Callable[..., Path],
    changes: dict[str, Any],
    message: str,
) -> None:
    directory = legacy()
    args = arguments(config, "rope", padded_vocab_size=VOCAB_SIZE, tensor_model_parallel_size=1)
    for name, value in changes.items():
        setattr(args, name, value)
    change(directory / FIRST, lambda content: content.update(args=args))
    with pytest.raises(CkptError, match=message) as error:
        open_checkpoint(directory)
    assert "--config" in error.value.hint
    assert_read(directory, tensors, config)


def test_without_config_and_arguments_the_user_says_which_model_it_is(
    config: ModelConfig, tensors: Tensors, legacy: Callable[..., Path]
) -> None:
    directory = legacy(tp=2)
    with pytest.raises(CkptError, match=r"neither a config\.json nor the arguments") as error:
        open_checkpoint(directory)
    assert "--config" in error.value.hint
    assert_read(directory, tensors, config)
    assert_read(directory / "release", tensors, config)


def drop_rank(directory: Path) -> None:
    (directory / f"release/mp_rank_01/{FILE}").unlink()


def point_elsewhere(directory: Path) -> None:
    (directory / "latest_checkpointed_iteration.txt").write_text("../elsewhere")


def point_to_nothing(directory: Path) -> None:
    (directory / "latest_checkpointed_iteration.txt").write_text("17")


def be_old(directory: Path) -> None:
    change(directory / FIRST, lambda content: content.update(checkpoint_version=1.0))


def lose_the_model(directory: Path) -> None:
    change(directory / FIRST, lambda content: content.update(module=content.pop("model")))


def lose_a_tensor(directory: Path) -> None:
    change(directory / FIRST, edit_encoder(lambda e: e.pop("layers.2.mlp.proj.weight")))


def gain_a_tensor(directory: Path) -> None:
    bias = {"layers.2.mlp.proj.bias": torch.zeros(24)}
    change(directory / FIRST, edit_encoder(lambda e: e.update(bias)))


def change_a_dtype(directory: Path) -> None:
    name = "layers.2.mlp.proj.weight"
    change(directory / FIRST, edit_encoder(lambda e: e.update({name: e[name].float()})))


def hold_no_weight(directory: Path) -> None:
    name = "layers.2.mlp.proj.weight"
    change(directory / FIRST, edit_encoder(lambda e: e.update({name: e[name].int()})))


def be_cut_short(directory: Path) -> None:
    content = (directory / FIRST).read_bytes()
    (directory / FIRST).write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (drop_rank, DamagedFileError, r"mp_rank_01.* is missing"),
        (point_elsewhere, DamagedFileError, "points to '../elsewhere', which is not beside it"),
        (point_to_nothing, DamagedFileError, "points to '17'"),
        (be_old, MismatchError, "checkpoint_version 1.0"),
        (lose_the_model, MismatchError, "holds no model"),
        (lose_a_tensor, MismatchError, "lacks a tensor .*layers.2.mlp.proj.weight"),
        (gain_a_tensor, MismatchError, "does not have: 'language_model.*proj.bias'"),
        (change_a_dtype, MismatchError, "differs in dtype from rank to rank"),
        (hold_no_weight, MismatchError, "no floating-point tensor"),
        (be_cut_short, DamagedFileError, "cut short or damaged"),
    ],
)
def test_damage_is_named(
    config: ModelConfig,
    legacy: Callable[..., Path],
    damage: Callable[[Path], None],
    error: type[Exception],
    message: str,
) -> None:
    directory = legacy(tp=2)
    damage(directory)
    with pytest.raises(error, match=message):
        open_checkpoint(directory, config)


def test_ranks_with_different_numbers_of_chunks_do_not_belong_together(
    config: ModelConfig, legacy: Callable[..., Path]
) -> None:
    directory = legacy(pp=2, vpp=2)
    path = directory / f"release/mp_rank_00_001/{FILE}"
    change(path, lambda content: content.pop("model1"))
    with pytest.raises(MismatchError, match=r"_001.* has 1 model chunks, but .*_000.* has 2"):
        open_checkpoint(directory, config)


def test_a_config_of_another_model_is_refused(
    config: ModelConfig, legacy: Callable[..., Path]
) -> None:
    directory = legacy(tp=2, vocab_divisor=1)
    with pytest.raises(MismatchError, match=r"19 rows, times 2 ranks, .* asks for 125696"):
        open_checkpoint(directory, ModelConfig.load("baichuan2-7b"))


def test_ranks_that_hold_different_copies_are_found(
    config: ModelConfig, legacy: Callable[..., Path]
) -> None:
    directory = legacy(tp=2)
    norm = "layers.1.input_layernorm.weight"
    change(directory / FIRST, edit_encoder(lambda e: e[norm].mul_(2)))
    reader = open_checkpoint(directory, config)
    with pytest.raises(MismatchError, match="ranks 0 and 1 hold different copies"):
        reader.read("model.layers.1.input_layernorm.weight")


def test_without_a_tracker_the_newest_iteration_is_taken(
    config: ModelConfig, tensors: Tensors, legacy: Callable[..., Path]
) -> None:
    directory = legacy()
    (directory / "latest_checkpointed_iteration.txt").unlink()
    for name in ("iter_0000900", "iter_10000000"):
        (directory / name).mkdir()
        folder = directory / name / "mp_rank_00"
        folder.mkdir()
        os.link(directory / FIRST, folder / FILE)
    assert open_checkpoint(directory, config).source.name == "iter_10000000"
    assert_read(directory, tensors, config)


class Payload:
    """Makes a directory when it is unpickled without care."""

    def __init__(self, call: Callable[..., Any], trace: Path) -> None:
        self.call = call
        self.trace = str(trace)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, (self.trace,)


@pytest.mark.parametrize("key", ["args", "optimizer", "model"])
def test_a_payload_leaves_no_trace(
    config: ModelConfig, legacy: Callable[..., Path], tmp_path: Path, key: str
) -> None:
    directory = legacy()
    trace = tmp_path / "executed"
    change(directory / FIRST, lambda content: content.update({key: Payload(os.mkdir, trace)}))
    with pytest.raises(UnsafeFileError, match=r"posix\.mkdir"):
        open_checkpoint(directory, config)
    assert not trace.exists()


def test_upstream_functions_are_not_called_either(
    config: ModelConfig,
    tensors: Tensors,
    legacy: Callable[..., Path],
    ascendspeed: types.ModuleType,
    tmp_path: Path,
) -> None:
    def evil(trace: str) -> None:
        os.mkdir(trace)

    evil.__module__, evil.__qualname__ = ascendspeed.__name__, "evil"
    ascendspeed.evil = evil  # type: ignore[attr-defined]
    directory = legacy()
    trace = tmp_path / "executed"
    change(directory / FIRST, lambda content: content.update(args=Payload(evil, trace)))
    assert_read(directory, tensors, config)
    assert not trace.exists()
    torch.load(directory / FIRST, weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"tp": 4}, {"tp": 2, "pp": 2, "vpp": 2, "names": "mcore"}),
        ({"pp": 4, "names": "modellink"}, {"tp": 4, "names": "ascendspeed-unmerged"}),
        ({"tp": 2, "pp": 2, "vpp": 2, "vocab_divisor": 3}, {"vocab_divisor": 64}),
    ],
)
def test_resharding(
    config: ModelConfig,
    tensors: Tensors,
    legacy: Callable[..., Path],
    tmp_path: Path,
    before: dict[str, Any],
    after: dict[str, Any],
) -> None:
    source = open_checkpoint(legacy(**before), config)
    for name, reader in (("via", source), ("direct", open_checkpoint(tmp_path / "hf"))):
        convert(reader, tmp_path / name, "megatron-legacy", legacy=LegacyOptions(**after))
    assert_read(tmp_path / "via", tensors)
    for path in (tmp_path / "direct").rglob("*.pt"):
        twin = tmp_path / "via" / path.relative_to(tmp_path / "direct")
        assert twin.read_bytes() == path.read_bytes()
