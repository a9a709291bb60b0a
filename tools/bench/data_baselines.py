"""Other ways to turn JSON Lines into Megatron datasets, each as its users run it, one process.

    python tools/bench/data_baselines.py megatron INPUT TOKENIZER.MODEL OUTPUT_PREFIX

- megatron: as Megatron-LM's tools/preprocess_data.py works: a pool of workers, json.loads a line,
  sentencepiece a document, megatron-core's IndexedDatasetBuilder a document;
- map: as AscendSpeed and ModelLink work: datasets.map with a function that calls the slow
  tokenizer of transformers on one row and copies the labels, then the builder for every row.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

EOS = 2


def megatron(source: Path, model: Path, prefix: Path) -> None:
    """Writes PREFIX_text_document through the objects of preprocess_data.py."""
    with (
        open(source, encoding="utf-8") as lines,
        multiprocessing.Pool(1, initializer=_Line.load, initargs=(model,)) as pool,
    ):
        builder = _builder(prefix)
        for ids in pool.imap(_Line.encode, lines, 32):
            builder.add_document(ids, [len(ids)])
        builder.finalize(f"{prefix}_text_document.idx")


class _Line:
    """What a worker of preprocess_data.py does; its tokenizer belongs to the class."""

    processor: Any

    @classmethod
    def load(cls, model: Path) -> None:
        import sentencepiece

        cls.processor = sentencepiece.SentencePieceProcessor(model_file=str(model))

    @classmethod
    def encode(cls, line: str) -> list[int]:
        return [*cls.processor.encode_as_ids(json.loads(line)["text"]), EOS]


def map_rows(source: Path, model: Path, prefix: Path) -> None:
    """Writes PREFIX_text_document through datasets.map."""
    import datasets
    import torch

    datasets.disable_progress_bars()
    tokenizer = _slow_tokenizer(model)

    def encode(row: dict[str, str]) -> dict[str, list[int]]:
        result = tokenizer(text=row["text"])
        result["labels"] = result["input_ids"].copy()
        for values, end in ((result["input_ids"], EOS), (result["attention_mask"], 1)):
            values.append(end)
        result["labels"].append(EOS)
        return {"text": [result["input_ids"]]}  # of pretraining data the ids alone are kept

    cache = str(prefix.parent / "datasets")
    rows = datasets.load_dataset("json", data_files=str(source), split="train", cache_dir=cache)
    builder = _builder(prefix)
    for row in rows.map(encode, remove_columns=["text"]):
        for sentence in row["text"]:
            builder.add_item(torch.IntTensor(sentence))
        builder.end_document()
    builder.finalize(f"{prefix}_text_document.idx")


def _slow_tokenizer(model: Path) -> Any:
    import sentencepiece
    from transformers import PreTrainedTokenizer

    class BaichuanTokenizer(PreTrainedTokenizer):
        """The methods of the official tokenization_baichuan.py that encoding needs."""

        model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

        def __init__(self) -> None:
            self.sp_model = sentencepiece.SentencePieceProcessor(model_file=str(model))
            super().__init__(
                bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
            )

        @property
        def vocab_size(self) -> int:
            return self.sp_model.get_piece_size()

        def get_vocab(self) -> dict[str, int]:
            return {self.sp_model.IdToPiece(token): token for token in range(self.vocab_size)}

        def _tokenize(self, text: str, **_: Any) -> list[str]:
            return self.sp_model.encode(text, out_type=str)

        def _convert_token_to_id(self, token: str) -> int:
            return self.sp_model.piece_to_id(token)

        def _convert_id_to_token(self, index: int) -> str:
            return self.sp_model.IdToPiece(index)

    return BaichuanTokenizer()


def _builder(prefix: Path) -> Any:
    import numpy as np
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    return IndexedDatasetBuilder(f"{prefix}_text_document.bin", dtype=np.int32)


BASELINES = {"megatron": megatron, "map": map_rows}
NEEDS = {
    "megatron": ("megatron.core", "torch"),
    "map": ("megatron.core", "torch", "transformers", "datasets"),
}
"""What each one imports besides what bc2-data needs."""


if __name__ == "__main__":
    name, *paths = sys.argv[1:]
    BASELINES[name](*map(Path, paths))
