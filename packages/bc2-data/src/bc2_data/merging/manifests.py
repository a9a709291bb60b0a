"""One manifest of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bc2_data import __version__
from bc2_data.manifest import InputFile, Manifest, Tally


def essence(manifest: Manifest) -> dict[str, Any]:
    """Returns what must be equal in datasets that become one."""
    return {
        "kind": manifest.kind,
        "tokenizer": manifest.tokenizer.sha256,
        "special tokens": manifest.tokenizer.special_tokens,
        "options": manifest.options,
        "packing for": manifest.packing and manifest.packing.seq_length,
        "job": manifest.part and manifest.part.job,
    }


def merged_manifest(manifests: Sequence[Manifest]) -> Manifest:
    """Returns the manifest of datasets joined in this order, but for its outputs.

    Of all parts of a job it is the manifest of a single run.
    """
    first = manifests[0]
    literals: Counter[str] = Counter()
    for manifest in manifests:
        literals.update(manifest.tokenizer.special_literals)
    packings = [manifest.packing for manifest in manifests if manifest.packing]
    trained = [manifest.trained_tokens for manifest in manifests]
    return replace(
        first,
        bc2_data=__version__,
        inputs=_merged_inputs(manifests),
        tokenizer=replace(
            first.tokenizer,
            engine=", ".join(sorted({manifest.tokenizer.engine for manifest in manifests})),
            special_literals=dict(sorted(literals.items())),
        ),
        outputs=[],
        documents=sum(manifest.documents for manifest in manifests),
        tokens=sum(manifest.tokens for manifest in manifests),
        trained_tokens=None if first.trained_tokens is None else sum(filter(None, trained)),
        dropped=_merged_tallies(manifest.dropped for manifest in manifests),
        truncated=_merged_tallies(manifest.truncated for manifest in manifests),
        packing=replace(
            packings[0], conversations=sum(packing.conversations for packing in packings)
        )
        if packings
        else None,
        part=None,
    )


def _merged_inputs(manifests: Sequence[Manifest]) -> list[InputFile]:
    """Lists all inputs; a file that several parts of a job share is one."""
    merged: dict[int, InputFile] = {}
    for manifest in manifests:
        first = manifest.part.first_input if manifest.part else len(merged)
        for number, file in enumerate(manifest.inputs, start=first):
            begun = merged.get(number)
            merged[number] = replace(begun, rows=begun.rows + file.rows) if begun else file
    return list(merged.values())


def _merged_tallies(tallies: Iterable[Mapping[str, Tally]]) -> dict[str, Tally]:
    merged: dict[str, Tally] = {}
    for some in tallies:
        for reason, tally in some.items():
            merged.setdefault(reason, Tally()).add_many(tally.count, tally.examples)
    return merged
