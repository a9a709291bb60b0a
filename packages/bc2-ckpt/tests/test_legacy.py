"""What we write as megatron-legacy, against slicing by hand as AscendSpeed's converter does it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.config import ModelConfig, PositionEmbedding
from bc2_ckpt.convert import convert
from bc2_ckpt.errors import MismatchError
from bc2_ckpt.formats.megatron_legacy.options import NAMES, LegacyOptions

Tensors = dict[str, Tensor]
BuildBin = Callable[..., Path]

LAYOUTS = [
    (tp, pp, vpp) for tp in (1, 2, 4, 8) for pp, vpp in ((1, 1), (2, 1), (4, 1), (2, 2), (4, 2))
]


@pytest.fixture
def config(position_embedding: PositionEmbedding) -> ModelConfig:
    """The heads of the 7B and of the 13B model, 8 layers, an odd vocabulary."""
    heads = {"rotary": 32, "alibi": 40}[position_embedding]
    return ModelConfig(
        vocab_size=37,
        hidden_size=2 * heads,
        intermediate_size=24,
        num_layers=8,
        num_heads=heads,
        position_embedding=position_embedding,
    )


def rank_folder(tp_rank: int, pp_rank: int, pp: int) -> str:
    return f"mp_rank_{tp_rank:02d}" + (f"_{pp_rank:03d}" if pp > 1 else "")


def part(tensor: Tensor, rank: int, size: int, axis: int = 0) -> Tensor:
    """One of `size` equal parts along an axis."""
    width = tensor.shape[axis] // size
    return tensor.narrow(axis, rank * width, width)


def attention(w_pack: Tensor, heads: int, rank: int, tp: int) -> Tensor:
    """This rank's heads, each as its rows of query, key and value."""
    size = len(w_pack) // (3 * heads)
    query, key, value = w_pack.split(len(w_pack) // 3)
    rows = []
    for head in range(rank * heads // tp, (rank + 1) * heads // tp):
        for matrix in (query, key, value):
            rows.append(matrix[head * size : (head + 1) * size])
    return torch.cat(rows)


def padded(tensor: Tensor, multiple: int) -> Tensor:
    """The vocabulary up to a multiple, the last row repeated."""
    while len(tensor) % multiple:
        tensor = torch.cat([tensor, tensor[-1:]])
    return tensor


def layer_of(tensors: Tensors, heads: int, layer: int, rank: int, tp: int) -> dict[str, Tensor]:
    """One layer's tensors under AscendSpeed's names, without ``layers.N``."""
    w = {k.removeprefix(f"model.layers.{layer}."): v for k, v in tensors.items()}
    gate = part(w["mlp.gate_proj.weight"], rank, tp)
    up = part(w["mlp.up_proj.weight"], rank, tp)
    return {
        "self_attention.query_key_value.weight": attention(
            w["self_attn.W_pack.weight"], heads, rank, tp
        ),
        "self_attention.dense.weight": part(w["self_attn.o_proj.weight"], rank, tp, 1),
        "mlp.proj.weight": torch.cat([gate, up]),
        "mlp.dense_4h_to_h.weight": part(w["mlp.down_proj.weight"], rank, tp, 1),
        "input_layernorm.weight": w["input_layernorm.weight"],
        "post_attention_layernorm.weight": w["post_attention_layernorm.weight"],
    }


def chunk_of(
    tensors: Tensors, config: ModelConfig, layers: range, rank: int, tp: int, divisor: int
) -> dict[str, Any]:
    """A model chunk as AscendSpeed nests it."""
    model: dict[str, Any] = {"encoder": {}}
    for local, layer in enumerate(layers):
        for name, tensor in layer_of(tensors, config.num_heads, layer, rank, tp).items():
            model["encoder"][f"layers.{local}.{name}"] = tensor
    if layers.start == 0:
        embedding = padded(tensors["model.embed_tokens.weight"], divisor * tp)
        model["embedding"] = {"word_embeddings": {"weight": part(embedding, rank, tp)}}
    if layers.stop == config.num_layers:
        model["encoder"]["final_layernorm.weight"] = tensors["model.norm.weight"]
        head = padded(tensors["lm_head.weight"], divisor * tp)
        model["output_layer"] = {"weight": part(head, rank, tp)}
    return {"language_model": model}


def flat(value: Any, name: str = "") -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        return {name: value}
    return {k: v for key, inner in value.items() for k, v in flat(inner, f"{name}/{key}").items()}


def assert_same(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    """Asserts equal keys on every level, shapes and bits."""
    ours, theirs = flat(actual), flat(expected)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor), name


@pytest.mark.parametrize(("tp", "pp", "vpp"), LAYOUTS)
def test_every_file_is_what_slicing_by_hand_gives(
    config: ModelConfig,
    tensors: Tensors,
    build_bin: BuildBin,
    tmp_path: Path,
    tp: int,
    pp: int,
    vpp: int,
) -> None:
    options = LegacyOptions(tp=tp, pp=pp, vpp=vpp, vocab_divisor=4)
    source = open_checkpoint(build_bin(config, tensors))
    convert(source, tmp_path / "out", "megatron-legacy", legacy=options)
    share = config.num_layers // (pp * vpp)
    folders = set()
    for tp_rank in range(tp):
        for pp_rank in range(pp):
            folder = rank_folder(tp_rank, pp_rank, pp)
            path = tmp_path / "out/release" / folder / "model_optim_rng.pt"
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None
            content = torch.load(path, weights_only=True)
            assert content.pop("checkpoint_version") == 3.0
            starts = [(chunk * pp + pp_rank) * share for chunk in range(vpp)]
            expected = [
                chunk_of(tensors, config, range(start, start + share), tp_rank, tp, 4)
                for start in starts
            ]
            names = ["model"] if vpp == 1 else [f"model{i}" for i in range(vpp)]
            assert list(content) == names
            for name, chunk in zip(names, expected, strict=True):
                assert_same(content[name], chunk)
            folders.add(folder)
    assert {path.name for path in (tmp_path / "out/release").iterdir()} == folders
    tracker = tmp_path / "out/latest_checkpointed_iteration.txt"
    assert tracker.read_text() == "release\n"
    back = open_checkpoint(tmp_path / "out")
    assert back.format == "megatron-legacy"
    assert back.config == config
    assert all(torch.equal(back.read(name), tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("divisor", [1, 5, 128])
def test_padding_repeats_the_last_true_row(
    config: ModelConfig, tensors: Tensors, build_bin: BuildBin, tmp_path: Path, divisor: int
) -> None:
    options = LegacyOptions(tp=2, vocab_divisor=divisor)
    source = open_checkpoint(build_bin(config, tensors))
    convert(source, tmp_path / "out", "megatron-legacy", legacy=options)
    rows = []
    for rank in range(2):
        path = tmp_path / f"out/release/mp_rank_{rank:02d}/model_optim_rng.pt"
        model = torch.load(path, weights_only=True)["model"]["language_model"]
        rows.append(model["output_layer"]["weight"])
    whole = torch.cat(rows)
    head = tensors["lm_head.weight"]
    assert len(whole) % (2 * divisor) == 0
    assert 0 < len(whole) - len(head) < 2 * divisor
    assert torch.equal(whole[: len(head)], head)
    assert (whole[len(head) :] == head[-1]).all()


RENAMED = {
    "ascendspeed": {},
    "modellink": {
        "mlp.proj.weight": "mlp.dense_h_to_4h.weight",
        "input_layernorm.weight": "input_norm.weight",
        "post_attention_layernorm.weight": "post_attention_norm.weight",
        "final_layernorm.weight": "final_norm.weight",
    },
    "mcore": {
        "self_attention.query_key_value.weight": "self_attention.linear_qkv.weight",
        "self_attention.dense.weight": "self_attention.linear_proj.weight",
        "mlp.proj.weight": "mlp.linear_fc1.weight",
        "mlp.dense_4h_to_h.weight": "mlp.linear_fc2.weight",
        "post_attention_layernorm.weight": "pre_mlp_layernorm.weight",
    },
}


def renamed(chunk: dict[str, Any], names: str) -> dict[str, Any]:
    """A chunk under AscendSpeed's names, merged, under other names."""
    model = chunk["language_model"]
    encoder = {}
    for key, tensor in model["encoder"].items():
        prefix = key[: key.index(".", len("layers.")) + 1] if key.startswith("layers.") else ""
        name = key.removeprefix(prefix)
        encoder[prefix + RENAMED.get(names, {}).get(name, name)] = tensor
        if names == "ascendspeed-unmerged" and name == "mlp.proj.weight":
            del encoder[key]
            gate, up = tensor.chunk(2)
            encoder |= {
                f"{prefix}mlp.gate_proj.weight": gate,
                f"{prefix}mlp.dense_h_to_4h.weight": up,
            }
    if names != "mcore":
        return {"language_model": {**model, "encoder": encoder}}
    return {
        **{f"decoder.{key}": tensor for key, tensor in encoder.items()},
        "embedding.word_embeddings.weight": model["embedding"]["word_embeddings"]["weight"],
        "output_layer.weight": model["output_layer"]["weight"],
    }


@pytest.mark.parametrize("names", NAMES)
def test_each_family_of_names(
    config: ModelConfig, tensors: Tensors, build_bin: BuildBin, tmp_path: Path, names: str
) -> None:
    options = LegacyOptions(tp=2, vocab_divisor=1, names=names)
    source = open_checkpoint(build_bin(config, tensors))
    convert(source, tmp_path / "out", "megatron-legacy", legacy=options)
    for rank in range(2):
        path = tmp_path / f"out/release/mp_rank_{rank:02d}/model_optim_rng.pt"
        expected = chunk_of(tensors, config, range(config.num_layers), rank, 2, 1)
        model = torch.load(path, weights_only=True)["model"]
        assert_same(model, renamed(expected, names))
    back = open_checkpoint(tmp_path / "out")
    assert all(torch.equal(back.read(name), tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tp": 5}, "does not divide"),
        ({"pp": 3}, "8 layers cannot be spread"),
        ({"pp": 4, "vpp": 4}, "8 layers cannot be spread"),
        ({"vpp": 2}, "need a pipeline"),
    ],
)
@pytest.mark.parametrize("to", ["megatron-legacy", "torch-dist"])
def test_what_cannot_be_cut_leaves_nothing_behind(
    config: ModelConfig,
    tensors: Tensors,
    build_bin: BuildBin,
    tmp_path: Path,
    to: str,
    options: dict[str, int],
    message: str,
) -> None:
    source = open_checkpoint(build_bin(config, tensors))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(MismatchError, match=message):
        convert(source, tmp_path / "out", to, legacy=LegacyOptions(**options))
    assert sorted(tmp_path.iterdir()) == before


def test_stacked_tensors_have_one_dtype(
    config: ModelConfig, tensors: Tensors, build_bin: BuildBin, tmp_path: Path
) -> None:
    name = "model.layers.3.mlp.up_proj.weight"
    mixed = tensors | {name: tensors[name].float()}
    source = open_checkpoint(build_bin(config, mixed))
    with pytest.raises(MismatchError, match=r"up_proj.weight differ in dtype"):
        convert(source, tmp_path / "out", "megatron-legacy")
    assert not (tmp_path / "out").exists()
    unmerged = LegacyOptions(names="ascendspeed-unmerged")
    convert(source, tmp_path / "out", "megatron-legacy", legacy=unmerged)
    read = open_checkpoint(tmp_path / "out").read(name)
    assert read.dtype == torch.float32
    assert torch.equal(read, mixed[name])
