"""From the datasets of a tokenise run to packed ones, all of them or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bc2_data import __version__
from bc2_data.atomic import new_files, refuse_existing
from bc2_data.checksum import sha256
from bc2_data.datasets import (
    ATTENTION_MASK,
    INPUT_IDS,
    LABELS,
    manifest_path,
    open_datasets,
)
from bc2_data.encoding import Overlong
from bc2_data.errors import DataError
from bc2_data.indexed import bin_path, idx_path
from bc2_data.manifest import (
    InputFile,
    Manifest,
    Packing,
    Tally,
    read_manifest,
)
from bc2_data.outputs import output_paths
from bc2_data.packing.bins import best_fit_decreasing
from bc2_data.packing.rows import Datasets, write_rows
from bc2_data.vocab import IGNORE_INDEX

_BATCH_TOKENS = 1 << 20


def pack(
    input_prefix: Path,
    output_prefix: Path,
    seq_length: int,
    *,
    overlong: Overlong = "drop",
    overwrite: bool = False,
    inputs: Sequence[InputFile] | None = None,
) -> Manifest:
    """Packs the instruction data at a prefix into new datasets with a manifest.

    The index is held in memory, the tokens are not. The outputs appear at the end, the manifest
    last; on an error nothing does. Equal data gives equal bytes.

    Args:
        input_prefix: ``--output-prefix`` of a tokenise run.
        output_prefix: Path that the names of all outputs begin with.
        seq_length: Predictions in a training sample, at least 1; a row holds one token more.
        overlong: What becomes of conversations of more than seq_length + 1 tokens.
        overwrite: Whether existing outputs may be replaced.
        inputs: What the manifest names as its inputs. None for the files at `input_prefix`, which
            are then compared with their own manifest; who packs temporary files names the files
            that these were made of.

    Raises:
        DataError: The data is no instruction data, is damaged, or packed already; a conversation
            is too long and `overlong` is ``error``; or an output exists already.
    """
    if manifest_path(input_prefix).resolve() == manifest_path(output_prefix).resolve():
        raise DataError(
            f"{output_prefix} is the input too", "give the packed data a prefix of its own"
        )
    destinations = output_paths(output_prefix, "instruction")
    refuse_existing(*destinations, overwrite=overwrite)
    datasets = open_datasets(input_prefix)
    source = _open_manifest(input_prefix)
    if inputs is None:
        inputs = _describe_inputs(datasets, source)
    _check_unpacked(datasets, input_prefix)

    packing = Packing(seq_length=seq_length, overlong=overlong, conversations=0)
    kept, dropped, truncated = _shortened(datasets, packing, input_prefix)
    conversations = np.flatnonzero(kept)
    rows = best_fit_decreasing(kept[conversations], packing.capacity)
    if not len(rows):
        raise DataError(
            f"no conversation of {input_prefix} fits a row of {packing.capacity:,} tokens",
            "give a larger --seq-length, or --overlong truncate",
        )
    with new_files(*destinations) as (*partials, manifest_partial):
        order = conversations[rows.items]
        trained, written = write_rows(datasets, order, kept[order], rows.starts, partials)
        named = zip(written, destinations, strict=False)  # the manifest does not name itself
        manifest = replace(
            source,
            bc2_data=__version__,
            inputs=list(inputs),
            outputs=[replace(file, name=path.name) for file, path in named],
            documents=len(rows),
            tokens=int(kept.sum()),
            trained_tokens=trained,
            dropped={**source.dropped, **dropped},
            truncated={**source.truncated, **truncated},
            packing=replace(packing, conversations=len(conversations)),
        )
        manifest_partial.write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def _open_manifest(prefix: Path) -> Manifest:
    manifest = read_manifest(manifest_path(prefix))
    if manifest.kind == "pretrain":
        raise DataError(
            f"{prefix} holds pretraining data, which needs no packing",
            "train on it as it is: samples are cut from one stream of all documents",
        )
    if manifest.packing is not None:
        raise _packed_already(prefix)
    if manifest.part is not None:
        raise DataError(
            f"{prefix} is a part of a job, and parts are not packed by themselves",
            "join them with bc2-data merge, and pack what it writes",
        )
    return manifest


def _check_unpacked(datasets: Datasets, prefix: Path) -> None:
    if ATTENTION_MASK not in datasets:
        raise DataError(
            f"{prefix} is one dataset of a run", "give the --output-prefix of the tokenise run"
        )
    mask = datasets[ATTENTION_MASK]
    for start in range(0, mask.num_tokens, _BATCH_TOKENS):
        if (mask.tokens[start : start + _BATCH_TOKENS] != 1).any():
            raise _packed_already(prefix)
        mask.release()
    empty = np.flatnonzero(mask.lengths == 0)
    if len(empty):
        raise DataError(f"conversation {empty[0]} of {prefix} is empty", "tokenise again")


def _packed_already(prefix: Path) -> DataError:
    return DataError(
        f"{prefix} is packed already: its attention mask is not 1 everywhere",
        "pack the data that it was made of",
    )


def _describe_inputs(datasets: Datasets, manifest: Manifest) -> list[InputFile]:
    """Describes the source's files and compares them with the source's manifest."""
    described = []
    for key, dataset in datasets.items():
        for path in (bin_path(dataset.prefix), idx_path(dataset.prefix)):
            digest = sha256(path)
            manifest.check_output(path, digest)
            # The rows are counted once, though all six files hold them.
            rows = len(dataset) if (key, path.suffix) == (INPUT_IDS, ".idx") else 0
            described.append(
                InputFile(path=str(path), size=path.stat().st_size, sha256=digest, rows=rows)
            )
    return described


def _shortened(
    datasets: Datasets, packing: Packing, prefix: Path
) -> tuple[NDArray[np.int64], dict[str, Tally], dict[str, Tally]]:
    """Applies the limit that a row sets.

    Returns:
        How many tokens are kept of each conversation, int64 (conversations,), 0 for those left
        out; and what was dropped and truncated, by reason.
    """
    lengths = datasets[INPUT_IDS].lengths
    kept = np.minimum(lengths, packing.capacity).astype(np.int64)
    dropped: dict[str, Tally] = {}
    truncated: dict[str, Tally] = {}
    for number in np.flatnonzero(lengths > packing.capacity).tolist():
        why = (
            f"{prefix}: conversation {number}: {lengths[number]:,} tokens, a row of "
            f"--seq-length {packing.seq_length:,} holds {packing.capacity:,}"
        )
        if packing.overlong == "error":
            raise DataError(why, "choose --overlong drop or --overlong truncate")
        if packing.overlong == "drop":
            kept[number] = 0
            dropped.setdefault("longer_than_a_row", Tally()).add(why)
        elif (datasets[LABELS][number][1 : packing.capacity] == IGNORE_INDEX).all():
            # Its answer begins beyond the row.
            kept[number] = 0
            dropped.setdefault("nothing_trained_in_a_row", Tally()).add(why)
        else:
            truncated.setdefault("longer_than_a_row", Tally()).add(why)
    return kept, dropped, truncated
