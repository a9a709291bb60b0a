"""Instruction tuning: packed equals unpacked, and every trained token weighs the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import jobs
from bc2_data.vocab import IGNORE_INDEX
from conftest import write_checkpoint
from reference_model import ReferenceModel, TrainingRecipe
from runs import run_values, write_dataset
from workers import WorkerGroup

Workers = Callable[[int], WorkerGroup]

STEPS = 3
ROWS = 4
DOCUMENTS_PER_ROW = 3
LENGTH = 65  # tokens of a full row


class Document(NamedTuple):
    ids: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="module", params=["rotary", "alibi"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("hf"), request.param)


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    """Conversations of all lengths, with between none and all of their tokens trained.

    As in Baichuan2's own layout the label of a first token may be an EOS, which must not become
    the target of the document before it.
    """
    draw = np.random.default_rng(5)
    found = []
    for _ in range(STEPS * ROWS * DOCUMENTS_PER_ROW):
        ids = draw.integers(3, 251, draw.integers(4, 22)).astype(np.int32)
        trained = draw.random(len(ids)) < draw.random()
        trained[0] = True
        found.append(Document(ids, np.where(trained, ids, IGNORE_INDEX).astype(np.int32)))
    return found


def packed_rows(documents: Sequence[Document]) -> list[Sequence[Document]]:
    return [
        documents[start : start + DOCUMENTS_PER_ROW]
        for start in range(0, len(documents), DOCUMENTS_PER_ROW)
    ]


def write_rows(prefix: Path, rows: Sequence[Sequence[Document]]) -> None:
    columns: dict[str, list[np.ndarray]] = {"input_ids": [], "labels": [], "attention_mask": []}
    for row in rows:
        segments = [np.full(len(d.ids), n, np.int32) for n, d in enumerate(row, start=1)]
        columns["input_ids"].append(np.concatenate([d.ids for d in row]))
        columns["labels"].append(np.concatenate([d.labels for d in row]))
        columns["attention_mask"].append(np.concatenate(segments))
    for key, arrays in columns.items():
        write_dataset(Path(f"{prefix}_packed_{key}_document"), arrays)


def train(
    workers: Workers,
    size: int,
    checkpoint: Path,
    prefix: Path,
    batch: int,
    engine: str,
    **groups: Any,
) -> list[tuple[float, float]]:
    values = run_values(
        checkpoint,
        prefix,
        TrainingRecipe(),
        batch={"micro": 2, "global": batch},
        **{**groups, "train": {"iterations": STEPS, **groups.get("train", {})}},
    )
    values["engine"] = engine
    results: list[tuple[float, float]] = workers(size).run(jobs.train, values)[0]
    return results


@pytest.mark.parametrize(
    ("size", "engine", "groups"),
    [
        (1, "megatron", {}),
        (2, "megatron", {"parallel": {"tensor": 2, "sequence": True}}),
        (2, "megatron", {"parallel": {"pipeline": 2}}),
        (2, "megatron", {"parallel": {"context": 2}}),
        (2, "megatron", {}),
        (2, "deepspeed", {}),
        (2, "deepspeed", {"deepspeed": {"zero_stage": 3}, "train": {"recompute": "full"}}),
    ],
    ids=["TP1", "TP2+SP", "PP2", "CP2", "DP2", "ZeRO 1", "ZeRO 3 + recompute"],
)
def test_packed_equals_unpacked(
    workers: Workers,
    checkpoint: Path,
    documents: list[Document],
    tmp_path: Path,
    size: int,
    engine: str,
    groups: dict[str, Any],
) -> None:
    write_rows(tmp_path / "packed", packed_rows(documents))
    write_rows(tmp_path / "unpacked", [[document] for document in documents])
    batch = ROWS * DOCUMENTS_PER_ROW
    packed = train(workers, size, checkpoint, tmp_path / "packed", ROWS, engine, **groups)
    unpacked = train(workers, 1, checkpoint, tmp_path / "unpacked", batch, "megatron")
    for (loss, norm), (other_loss, other_norm) in zip(packed, unpacked, strict=True):
        assert loss == pytest.approx(other_loss, rel=1e-5)
        assert norm == pytest.approx(other_norm, rel=1e-5)


@pytest.mark.parametrize("engine", ["megatron", "deepspeed"])
@pytest.mark.parametrize("size", [1, 2])
def test_the_loss_is_the_mean_over_the_trained_tokens_of_the_global_batch(
    workers: Workers,
    checkpoint: Path,
    documents: list[Document],
    tmp_path: Path,
    size: int,
    engine: str,
) -> None:
    rows = packed_rows(documents[: ROWS * DOCUMENTS_PER_ROW])
    write_rows(tmp_path / "packed", rows)
    values = run_values(
        checkpoint,
        tmp_path / "packed",
        TrainingRecipe(),
        batch={"micro": 1, "global": ROWS},
        train={"iterations": 1},
    )
    (loss, _), *_ = workers(size).run(jobs.train, {**values, "engine": engine})[0]

    tokens = torch.zeros(ROWS, LENGTH, dtype=torch.long)
    labels = torch.full((ROWS, LENGTH), IGNORE_INDEX)
    segments = torch.zeros(ROWS, LENGTH, dtype=torch.long)
    for index, row in enumerate(rows):
        start = 0
        for number, document in enumerate(row, start=1):
            stop = start + len(document.ids)
            tokens[index, start:stop] = torch.from_numpy(document.ids)
            labels[index, start + 1 : stop] = torch.from_numpy(document.labels[1:])
            segments[index, start:stop] = number
            start = stop
    expected = ReferenceModel.load(checkpoint).loss(tokens, labels, segments).item()
    assert loss == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("size", "engine", "groups"),
    [
        (2, "megatron", {"parallel": {"tensor": 2, "sequence": True}}),
        (2, "megatron", {"parallel": {"pipeline": 2}}),
        (2, "megatron", {"parallel": {"pipeline": 2, "virtual_pipeline": 2}}),
        (2, "megatron", {"parallel": {"context": 2}}),
        (2, "megatron", {"parallel": {"distributed_optimizer": True}}),
        (2, "deepspeed", {"deepspeed": {"zero_stage": 2}}),
    ],
    ids=["TP2+SP", "PP2", "PP2xVPP2", "CP2", "DP2", "ZeRO 2"],
)
def test_short_rows_are_not_padded_to_the_sequence_length(
    workers: Workers, tmp_path: Path, size: int, engine: str, groups: dict[str, Any]
) -> None:
    checkpoint = write_checkpoint(tmp_path / "hf", "rotary", num_layers=4, max_sequence_length=256)
    draw = np.random.default_rng(5)
    rows = [draw.integers(3, 251, length).astype(np.int32) for length in draw.integers(4, 180, 24)]
    write_rows(tmp_path / "rows", [[Document(ids, ids)] for ids in rows])
    values = run_values(
        checkpoint,
        tmp_path / "rows",
        TrainingRecipe(),
        data={"seq_length": 256},
        batch={"micro": 2, "global": 8},
        train={"iterations": STEPS},
    )
    ((expected, padded),) = workers(1).run(jobs.train_padded, values, full=True)
    values = {**values, **groups, "engine": engine}
    for steps, positions in workers(size).run(jobs.train_padded, values, full=False):
        assert np.array(steps) == pytest.approx(np.array(expected), rel=1e-5)
        assert positions < 0.8 * padded == 0.8 * 256 * 24
