"""The files of datasets joined, after a look at whether they belong together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bc2_data.atomic import new_files, refuse_existing
from bc2_data.checksum import DigestWriter, sha256
from bc2_data.comparison import first_difference
from bc2_data.datasets import dataset_prefixes, manifest_path
from bc2_data.errors import DataError
from bc2_data.indexed import IndexedDataset, bin_path, idx_path, write_index
from bc2_data.manifest import Manifest, OutputFile, read_manifest, written_file
from bc2_data.merging.manifests import essence, merged_manifest
from bc2_data.outputs import output_paths

_MANIFEST_ENDING = ".manifest.json"
_CHUNK_BYTES = 1 << 20
_CHUNK_LENGTHS = 1 << 18


@dataclass(frozen=True)
class _Dataset:
    """What stands at one of the prefixes that are merged."""

    prefix: Path
    manifest: Manifest

    def path(self, key: str) -> Path:
        """Returns the path of the dataset of a key, without ``.bin`` and ``.idx``."""
        return dataset_prefixes(self.prefix, self.manifest.kind)[key]


def merge(prefixes: Sequence[Path], output_prefix: Path, *, overwrite: bool = False) -> Manifest:
    """Joins the datasets at some prefixes into one set, with a manifest.

    The parts of one job are put in the order of their ranks, and give the bytes, the manifest's
    included, that a single run gives. Other datasets are joined in the order given. The outputs
    appear at the end, the manifest last; on an error nothing does.

    Args:
        prefixes: What the names of each one's files begin with, or the paths of their manifests,
            which a shell can list.
        output_prefix: What the names of the outputs begin with.
        overwrite: Whether existing outputs may be replaced.

    Raises:
        DataError: They are of several kinds, tokenizers or options; parts are missing; a file is
            not the one that its manifest describes; or an output exists already.
    """
    inputs = _in_order(_refuse_differing([_open(path) for path in prefixes]))
    manifest = merged_manifest([dataset.manifest for dataset in inputs])
    if not manifest.documents:
        raise DataError(
            "none of the datasets holds a document", "look at the rows, --handler and --max-length"
        )
    destinations = output_paths(output_prefix, manifest.kind)
    refuse_existing(*destinations, overwrite=overwrite)
    with new_files(*destinations) as (*partials, manifest_partial):
        pairs = zip(partials[::2], partials[1::2], strict=True)
        outputs: list[OutputFile] = []
        for key, (bin_partial, idx_partial) in zip(
            dataset_prefixes(output_prefix, manifest.kind), pairs, strict=True
        ):
            outputs.append(_join_tokens(inputs, key, bin_partial))
            outputs.append(_join_indices(inputs, key, idx_partial))
        named = zip(outputs, destinations, strict=False)  # the manifest is no output of itself
        manifest = replace(
            manifest, outputs=[replace(file, name=path.name) for file, path in named]
        )
        manifest_partial.write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def _open(path: Path) -> _Dataset:
    prefix = path.with_name(path.name.removesuffix(_MANIFEST_ENDING))
    return _Dataset(prefix, read_manifest(manifest_path(prefix)))


def _join_tokens(inputs: Sequence[_Dataset], key: str, path: Path) -> OutputFile:
    with DigestWriter(path) as joined:
        for dataset in inputs:
            tokens = bin_path(dataset.path(key))
            digest = hashlib.sha256()
            with open(tokens, "rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    joined.write(chunk)
                    digest.update(chunk)
            dataset.manifest.check_output(tokens, digest.hexdigest())
        return written_file(joined)


def _join_indices(inputs: Sequence[_Dataset], key: str, path: Path) -> OutputFile:
    for dataset in inputs:
        index = idx_path(dataset.path(key))
        dataset.manifest.check_output(index, sha256(index))
    with DigestWriter(path) as joined:
        write_index(joined.write, _Lengths([dataset.path(key) for dataset in inputs]))
        return written_file(joined)


@dataclass(frozen=True)
class _Lengths:
    """Tokens of each document of some datasets, read anew each time."""

    prefixes: Sequence[Path]

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        for prefix in self.prefixes:
            lengths = IndexedDataset(prefix).lengths
            for first in range(0, len(lengths), _CHUNK_LENGTHS):
                yield lengths[first : first + _CHUNK_LENGTHS]


def _refuse_differing(inputs: Sequence[_Dataset]) -> Sequence[_Dataset]:
    first = inputs[0]
    for other in inputs[1:]:
        difference = first_difference(essence(first.manifest), essence(other.manifest))
        if difference:
            raise DataError(
                f"{first.prefix} and {other.prefix} cannot be one dataset: {difference}",
                "tokenise them alike",
            )
    return inputs


def _in_order(inputs: Sequence[_Dataset]) -> Sequence[_Dataset]:
    """Returns parts of a job by rank, and other datasets as they are.

    Raises:
        DataError: A part is missing, or is there twice.
    """
    part = inputs[0].manifest.part
    if part is None:
        return inputs
    ranks = [dataset.manifest.part.rank for dataset in inputs if dataset.manifest.part]
    missing = sorted({*range(part.world_size)} - {*ranks})
    if missing:
        raise DataError(
            f"parts are missing: rank {', '.join(map(str, missing))} of {part.world_size}",
            "give all parts; tokenize --resume finishes one that was interrupted",
        )
    if len(ranks) > part.world_size:
        raise DataError("a part is given twice", "give each part once")
    return [dataset for _, dataset in sorted(zip(ranks, inputs, strict=True), key=itemgetter(0))]
