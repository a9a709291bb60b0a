"""Is the data of the tokenizer that the model was trained with?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from bc2_data.checksum import sha256
from bc2_data.datasets import manifest_path
from bc2_data.manifest import read_manifest


def of_another_tokenizer(prefixes: Iterable[str], model: Path | None) -> Iterator[str]:
    """Yields what should be said of data that was made with another tokenizer.

    Data without a manifest, or a model without a tokenizer, is taken as it is.

    Args:
        prefixes: The data of the run.
        model: The tokenizer.model of the checkpoint.
    """
    if model is None:
        return
    digest = sha256(model)
    for prefix in prefixes:
        path = manifest_path(Path(prefix))
        if not path.is_file():
            continue
        used = read_manifest(path).tokenizer
        if used.sha256 != digest:
            yield (
                f"{prefix} was made with the tokenizer {used.path}, whose SHA-256 begins with "
                f"{used.sha256[:8]}; that of the model is {model}, {digest[:8]}: unless the two "
                "give the same ids, tokenise the data again"
            )
