"""Tokenises conversations, packs them, and reads the rows back. Needs bc2-data alone.

python examples/tokenise.py FOLDER
"""

import json
import sys
from pathlib import Path

from bc2_data import train_tokenizer
from bc2_data.indexed import IndexedDataset
from bc2_data.packing import pack
from bc2_data.pipeline import TokenizeConfig, tokenize
from bc2_data.tokenizer import load_tokenizer


def main(folder: Path) -> None:
    """Leaves a tokenizer, a source and two datasets in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    # A stand-in for Baichuan2's own tokenizer, of which you give the downloaded folder.
    texts = [f"What is {a} plus {b}? It is {a + b}." for a in range(30) for b in range(30)]
    train_tokenizer(texts, folder / "tokenizer", vocab_size=490)

    with open(folder / "conversations.jsonl", "w") as file:
        for text in texts:
            question, answer = text.split("? ")
            turns = [
                {"role": "user", "content": f"{question}?"},
                {"role": "assistant", "content": answer},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")

    manifest = tokenize(
        TokenizeConfig(
            inputs=[str(folder / "conversations.jsonl")],
            tokenizer=folder / "tokenizer",
            output_prefix=folder / "single",
            handler="messages",
        )
    )
    print(f"{manifest.documents} conversations, {manifest.tokens} tokens")
    pack(folder / "single", folder / "packed", seq_length=256)

    tokenizer = load_tokenizer(folder / "tokenizer")
    rows = IndexedDataset(folder / "packed_packed_input_ids_document")
    labels = IndexedDataset(folder / "packed_packed_labels_document")
    print(f"{len(rows)} packed rows; the first begins: {tokenizer.decode(rows[0][:24])!r}")
    print(f"{(labels[0] >= 0).mean():.0%} of it is trained")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
