"""What the tests across packages share: golden results if present, tiny checkpoints always."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bc2_ckpt.config import ModelConfig, PositionEmbedding
from workers import WorkerGroup

MakeCheckpoint = Callable[..., Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kills", type=int, default=2, help="of every run of faults/test_kills.py; default 2"
    )
    parser.addoption(
        "--soak-minutes",
        type=float,
        default=0.0,
        help="how long faults/test_soak.py goes on killing; default 0, it is skipped then",
    )
    parser.addoption(
        "--kill-seed",
        type=int,
        default=secrets.randbelow(2**32),
        help="repeats the moments of an earlier session",
    )


def pytest_report_header(config: pytest.Config) -> str:
    return f"moments of the kills in faults/: --kill-seed {config.getoption('--kill-seed')}"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden results and official files, which is no part of the repository."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("BC2_SHARED", default))
    if not folder.is_dir():
        pytest.skip(f"golden results not found at {folder}: set BC2_SHARED to their folder")
    return folder


@dataclass(frozen=True)
class Golden:
    """Results of the official modelling code for one tiny model.

    Attributes:
        checkpoint: The model, in the official format.
        recipe: JSON file with the settings of the training run.
        arrays: What golden.npz holds, by name.
        segments: (batch, seq) padding mask (7B) or document ids (13B).
        logits_segments: The logits under that mask; they count where `segments` is positive.
        grad_norms: Norm of the gradient of every parameter.
        gradients: Some gradients whole.
    """

    checkpoint: Path
    recipe: Path
    arrays: dict[str, Tensor]
    segments: Tensor
    logits_segments: Tensor
    grad_norms: dict[str, float]
    gradients: dict[str, Tensor]

    @classmethod
    def load(cls, folder: Path) -> Golden:
        with np.load(folder / "golden.npz") as file:
            names = file["grad_names"].tolist()
            arrays = {name: torch.tensor(file[name]) for name in file if name != "grad_names"}
        padded = "attention_mask" in arrays
        return cls(
            checkpoint=folder / "hf",
            recipe=folder / "recipe.json",
            arrays=arrays,
            segments=arrays["attention_mask" if padded else "doc_ids"],
            logits_segments=arrays["logits_padded" if padded else "logits_docs"],
            grad_norms=dict(zip(names, arrays["grad_norms"].tolist(), strict=True)),
            gradients={
                name.removeprefix("grad/"): array
                for name, array in arrays.items()
                if name.startswith("grad/")
            },
        )

    def __getitem__(self, name: str) -> Tensor:
        return self.arrays[name]


@pytest.fixture(scope="session", params=["baichuan2-7b-tiny", "baichuan2-13b-tiny"])
def golden(request: pytest.FixtureRequest, shared: Path) -> Golden:
    return Golden.load(shared / "golden" / request.param)


@pytest.fixture(scope="session")
def make_checkpoint() -> MakeCheckpoint:
    """See `write_checkpoint`."""
    return write_checkpoint


def write_checkpoint(
    directory: Path,
    position_embedding: PositionEmbedding,
    seed: int = 0,
    *,
    shards: int = 2,
    **dimensions: int | float | bool,
) -> Path:
    """Writes a tiny random checkpoint as the official ones are published, and returns its path.

    Sharded `.bin` files with official tensor names, and a config.json that has ``auto_map`` and
    tells its position embedding only by the presence of ``max_position_embeddings``. The vocabulary
    is a prime, so that it needs padding under tensor parallelism; ten heads are no power of two
    and split by 2 and 5.
    """
    values = {
        "vocab_size": 251,
        "hidden_size": 80,
        "intermediate_size": 200,
        "num_layers": 2,
        "num_heads": 10,
        "max_sequence_length": 128,
    }
    config = ModelConfig(
        **{**values, **dimensions}, position_embedding=position_embedding, dtype="float32"
    )
    directory.mkdir(parents=True, exist_ok=True)
    published = config.to_hf() | {"auto_map": {"AutoConfig": "configuration_baichuan.Absent"}}
    del published["position_embedding"]
    (directory / "config.json").write_text(json.dumps(published))

    tensors = list(random_weights(config, seed).items())
    weight_map = {}
    for shard in range(shards):
        name = f"pytorch_model-{shard + 1:05d}-of-{shards:05d}.bin"
        part = dict(tensors[shard::shards])
        torch.save(part, directory / name)
        weight_map.update(dict.fromkeys(part, name))
    total = sum(tensor.nbytes for _, tensor in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return directory


def random_weights(config: ModelConfig, seed: int) -> dict[str, Tensor]:
    """Returns float32 weights, large enough for attention and norms to matter."""
    hidden, inner, vocab = config.hidden_size, config.intermediate_size, config.vocab_size
    layer = {
        "self_attn.W_pack": (3 * hidden, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (vocab, hidden)}
    for index in range(config.num_layers):
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    shapes |= {"model.norm": (hidden,), "lm_head": (vocab, hidden)}
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{name}.weight": torch.randn(shape, generator=generator) * 0.1 + (len(shape) == 1)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="session")
def workers() -> Iterator[Callable[[int], WorkerGroup]]:
    """Returns the group of so many processes, started at its first use."""
    groups: dict[int, WorkerGroup] = {}
    yield lambda size: groups.setdefault(size, WorkerGroup(size))
    for group in groups.values():
        group.close()
