"""From rows on disk to micro batches: the shift, the masks, and one order for every layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bc2_data.indexed import IndexedWriter, bin_path, idx_path
from bc2_data.vocab import IGNORE_INDEX as NO
from bc2_train.data import BatchLoader
from bc2_train.data.instruction import InstructionDataset
from bc2_train.data.pretrain import StreamDataset
from bc2_train.errors import TrainError


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

    def test_a_short_row_is_padded_with_segment_zero(self, tmp_path: Path) -> None:
        prefix = write_instruction(tmp_path, [[3, 4, 5]], [[3, 4, 5]], [[1, 1, 1]])
        sample = InstructionDataset(prefix, 4)[0]
        assert sample.tokens.tolist() == [3, 4, 0, 0]
        assert sample.segment_ids is not None
        assert sample.segment_ids.tolist() == [1, 1, 0, 0]
        assert sample.loss_mask.tolist() == [True, True, False, False]

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
    dataset = StreamDataset(str(tmp_path / "text"), 4)
    assert len(dataset) == 2
    assert [dataset[i].labels.tolist() for i in range(2)] == [[2, 3, 4, 5], [6, 7, 8, 9]]
    assert dataset[1].tokens.tolist() == [5, 6, 7, 8]


def loader(folder: Path, **options: object) -> BatchLoader:
    rows = [[number, number] for number in range(12)]
    write_instruction(folder, rows, rows, [[1, 1]] * 12)
    settings = {
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
