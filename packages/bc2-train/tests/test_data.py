"""From rows on disk to micro batches: the shift, the masks, and one order for every layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bc2_data.indexed import IndexedWriter, bin_path, idx_path
from bc2_data.vocab import IGNORE_INDEX as NO
from bc2_train.data import BatchLoader, Padding
from bc2_train.data.instruction import InstructionDataset
from bc2_train.data.pretrain import MegatronData, StreamDataset, open_megatron_data
from bc2_train.data.sample import Dataset
from bc2_train.errors import TrainError
from bc2_train.ranks import SingleRank


def write(prefix: Path, rows: list[list[int]]) -> None:
    with IndexedWriter(bin_path(prefix), idx_path(prefix)) as writer:
        writer.add([np.array(row, dtype=np.int32) for row in rows])


def write_instruction(
    folder: Path, tokens: list[list[int]], labels: list[list[int]], masks: list[list[int]]
) -> str:
    for key, rows in (("input_ids", tokens), ("labels", labels), ("attention_mask", masks)):
        write(folder / f"data_packed_{key}_document", rows)
    return str(folder / "data")


class TestInstructionDataset:
    def test_labels_are_shifted_once(self, tmp_path: Path) -> None:
        prefix = write_instruction(
            tmp_path, [[195, 5, 196, 7, 2]], [[NO, NO, NO, 7, 2]], [[1, 1, 1, 1, 1]]
        )
        sample = InstructionDataset(prefix, 4)[0]
        assert sample.tokens.tolist() == [195, 5, 196, 7]
        # The assistant token predicts the first answer token: any second shift breaks this.
        assert sample.labels[sample.loss_mask].tolist() == [7, 2]
        assert sample.loss_mask.tolist() == [False, False, True, True]

    def test_a_sample_is_as_long_as_its_row(self, tmp_path: Path) -> None:
        prefix = write_instruction(tmp_path, [[3, 4, 5]], [[3, 4, 5]], [[1, 1, 1]])
        sample = InstructionDataset(prefix, 4)[0]
        assert sample.tokens.tolist() == [3, 4]
        assert sample.segment_ids is not None
        assert sample.segment_ids.tolist() == [1, 1]
        assert sample.loss_mask.tolist() == [True, True]

    def test_no_prediction_crosses_packed_documents(self, tmp_path: Path) -> None:
        prefix = write_instruction(
            tmp_path, [[3, 4, 5, 6, 0]], [[2, 4, 2, 6, NO]], [[1, 1, 2, 2, 0]]
        )
        sample = InstructionDataset(prefix, 4)[0]
        # Position 1 would predict the second document's first token, whose label is an EOS.
        assert sample.loss_mask.tolist() == [True, False, True, False]

    def test_a_row_of_one_token_more_than_the_length_is_whole(self, tmp_path: Path) -> None:
        rows = [[3, 4, 5, 6, 7], [3, 4, 5, 6, 7, 8]]
        prefix = write_instruction(tmp_path, rows, rows, [[1] * len(row) for row in rows])
        dataset = InstructionDataset(prefix, 4)
        assert dataset.cut == 1
        assert dataset[0].labels.tolist() == dataset[1].labels.tolist() == [4, 5, 6, 7]

    def test_files_of_different_rows(self, tmp_path: Path) -> None:
        prefix = write_instruction(tmp_path, [[3, 4]], [[3, 4, 5]], [[1, 1]])
        with pytest.raises(TrainError, match="do not have the same rows"):
            InstructionDataset(prefix, 4)


def test_a_stream_predicts_every_token_but_the_first_once(tmp_path: Path) -> None:
    write(tmp_path / "text", [[1, 2, 3], [4, 5], [6, 7, 8, 9]])
    dataset = StreamDataset(str(tmp_path / "text"), 4, cross_document_attention=True)
    assert len(dataset) == 2
    assert [dataset[i].labels.tolist() for i in range(2)] == [[2, 3, 4, 5], [6, 7, 8, 9]]
    assert dataset[1].tokens.tolist() == [5, 6, 7, 8]


def test_a_stream_that_ends_attention_with_each_document(tmp_path: Path) -> None:
    write(tmp_path / "text", [[1, 2, 3], [4, 5], [6, 7, 8, 9]])
    dataset = StreamDataset(str(tmp_path / "text"), 4, cross_document_attention=False)
    first, second = dataset[0], dataset[1]
    assert first.segment_ids is not None
    assert second.segment_ids is not None
    assert first.segment_ids.tolist() == [1, 1, 1, 2]
    # Token 3 would predict the first token of the second document.
    assert first.loss_mask.tolist() == [True, True, False, True]
    assert second.segment_ids.tolist() == [1, 2, 2, 2]
    assert second.loss_mask.tolist() == [False, True, True, True]


def megatron_data(folder: Path, **options: object) -> MegatronData:
    draw = np.random.default_rng(0)
    # The first token tells the document: ids of one are never those of another.
    documents = [[100 * n + i for i in range(draw.integers(1, 60))] for n in range(40)]
    write(folder / "text", documents)
    write(folder / "other", [[90_000 + i for i in range(50)] for _ in range(10)])
    settings = {
        "weights": {str(folder / "text"): 1.0},
        "split": (1.0, 0.0, 0.0),
        "seq_length": 16,
        "samples": 200,
        "validation_samples": None,
        "seed": 1,
    }
    return MegatronData(**{**settings, **options})  # type: ignore[arg-type]


def open_data(
    folder: Path, *, crossing: bool = False, **options: object
) -> tuple[Dataset, Dataset | None]:
    data = megatron_data(folder, **options)
    return open_megatron_data(data, SingleRank(), folder / "cache", crossing)


@pytest.fixture(scope="module")
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A group of this process alone: megatron-core's blends ask for their rank."""
    store = torch.distributed.FileStore(str(tmp_path_factory.mktemp("store") / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
class TestMegatronData:
    def test_segments_are_the_documents(self, tmp_path: Path) -> None:
        dataset, _ = open_data(tmp_path)
        several = 0
        for index in range(len(dataset)):
            sample = dataset[index]
            assert sample.segment_ids is not None
            documents = np.append(sample.tokens, sample.labels[-1]) // 100
            restarts = np.append(sample.tokens, sample.labels[-1]) % 100 == 0
            borders = (documents[1:] != documents[:-1]) | restarts[1:]
            assert (np.diff(sample.segment_ids) != 0).tolist() == borders[:-1].tolist()
            assert sample.loss_mask.tolist() == (~borders).tolist()
            several += borders.any()
        assert several > 50

    def test_documents_are_one_to_the_model_by_default(self, tmp_path: Path) -> None:
        sample = open_data(tmp_path, crossing=True)[0][0]
        assert sample.segment_ids is None
        assert sample.loss_mask.all()

    def test_a_blend_has_its_weights(self, tmp_path: Path) -> None:
        weights = {str(tmp_path / "text"): 3.0, str(tmp_path / "other"): 1.0}
        dataset, _ = open_data(tmp_path, weights=weights)
        others = sum(dataset[i].tokens[0] >= 90_000 for i in range(200))
        assert 45 <= others <= 55

    def test_a_split_shares_no_document(self, tmp_path: Path) -> None:
        training, validation = open_data(tmp_path, split=(0.8, 0.2, 0.0), validation_samples=8)
        assert validation is not None
        documents = [
            {int(token) // 100 for i in range(len(part)) for token in part[i].tokens}
            for part in (training, validation)
        ]
        assert not documents[0] & documents[1]


def loader(folder: Path, **options: object) -> BatchLoader:
    rows = [[number, number] for number in range(12)]
    write_instruction(folder, rows, rows, [[1, 1]] * 12)
    settings = {
        "padding": Padding(longest=1),
        "micro": 1,
        "global_": 4,
        "rank": 0,
        "size": 1,
        "shuffle": False,
        "seed": 0,
        "vocab_size": 100,
        "device": torch.device("cpu"),
    }
    dataset = InstructionDataset(str(folder / "data"), 1)
    return BatchLoader(dataset, **{**settings, **options})  # type: ignore[arg-type]


def seen(loaders: list[BatchLoader], step: int) -> set[int]:
    return {int(t) for one in loaders for batch in one.step(step) for t in batch.tokens.flatten()}


class TestBatchLoader:
    @pytest.mark.parametrize("shuffle", [False, True])
    @pytest.mark.parametrize(("size", "micro"), [(1, 1), (1, 4), (2, 1), (2, 2), (4, 1)])
    def test_a_step_has_the_same_samples_in_every_layout(
        self, tmp_path: Path, shuffle: bool, size: int, micro: int
    ) -> None:
        plain = loader(tmp_path, shuffle=shuffle)
        ranks = [
            loader(tmp_path, shuffle=shuffle, size=size, rank=rank, micro=micro)
            for rank in range(size)
        ]
        for step in range(7):  # more than two epochs of three steps
            assert seen(ranks, step) == seen([plain], step)

    def test_every_epoch_has_each_sample_once_in_another_order(self, tmp_path: Path) -> None:
        one = loader(tmp_path, shuffle=True)
        orders = [
            [int(b.tokens) for step in range(3) for b in one.step(3 * epoch + step)]
            for epoch in range(2)
        ]
        assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
        assert orders[0] != orders[1]

    def test_a_step_can_be_asked_for_in_any_order(self, tmp_path: Path) -> None:
        one, other = loader(tmp_path, shuffle=True), loader(tmp_path, shuffle=True)
        later = seen([one], 5)
        assert [seen([other], step) for step in range(6)][5] == later

    def test_ids_beyond_the_vocabulary(self, tmp_path: Path) -> None:
        with pytest.raises(TrainError, match="token id 3, but the vocabulary ends at 2"):
            loader(tmp_path, vocab_size=3).step(0)

    def test_too_little_data(self, tmp_path: Path) -> None:
        with pytest.raises(TrainError, match="12 samples, fewer than one step of 13"):
            loader(tmp_path, global_=13)


class TestPadding:
    """Rows of 1, 2, ... 6 predictions, two in a micro batch, four in a step."""

    @pytest.fixture
    def prefix(self, tmp_path: Path) -> str:
        rows = [list(range(3, 5 + length)) for length in range(6)]
        return write_instruction(tmp_path, rows, rows, [[1] * len(row) for row in rows])

    def lengths(self, prefix: str, padding: Padding) -> list[int]:
        batches = BatchLoader(
            InstructionDataset(prefix, padding.longest),
            padding=padding,
            micro=2,
            global_=6,
            rank=0,
            size=1,
            shuffle=False,
            seed=0,
            vocab_size=100,
            device=torch.device("cpu"),
        ).step(0)
        for batch in batches:
            assert batch.segment_ids is not None
            assert torch.equal(batch.segment_ids, (batch.tokens > 0).long())
            assert torch.equal(batch.loss_mask, batch.tokens > 0)
            assert batch.labels.shape == batch.tokens.shape
        return [batch.tokens.shape[1] for batch in batches]

    @pytest.mark.parametrize(
        ("padding", "expected"),
        [
            (Padding(longest=8), [8, 8, 8]),
            (Padding(longest=8, multiple=1), [2, 4, 6]),
            (Padding(longest=8, multiple=3), [3, 6, 6]),
            (Padding(longest=8, multiple=5), [5, 5, 8]),
            (Padding(longest=8, multiple=3, together=True), [6, 6, 6]),
        ],
    )
    def test_rows_are_as_long_as_the_longest(
        self, prefix: str, padding: Padding, expected: list[int]
    ) -> None:
        assert self.lengths(prefix, padding) == expected
