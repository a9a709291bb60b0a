"""What ``bc2-ckpt verify --against`` checks: do two checkpoints hold the same model, bit by bit?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

import torch

from bc2_ckpt.blocks import read_blocks
from bc2_ckpt.formats.protocol import CheckpointReader
from bc2_ckpt.integrity.files import OnBytes
from bc2_data.checks import Check

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def compare(
    left: CheckpointReader, right: CheckpointReader, on_bytes: OnBytes = lambda count: None
) -> Iterator[Check]:
    """Yields a check for everything that differs, and one for all that does not.

    Vocabulary padding is left out, and so is how each format arranges and shards its tensors.

    Args:
        left: A checkpoint of any format.
        right: Another.
        on_bytes: Called with the number of bytes of everything that is read of `left`.
    """
    ours, theirs = asdict(left.config), asdict(right.config)
    for key in ours.keys() - {"dtype"}:  # that is told tensor by tensor
        if ours[key] != theirs[key]:
            yield Check("failed", f"{key} is {ours[key]} here and {theirs[key]} there")
    equal = 0
    kinds: Counter[str] = Counter()
    for name, info in left.tensors().items():
        other = right.tensors().get(name)
        if other is None:
            yield Check("failed", f"{name} is missing there")
        elif other.shape != info.shape:
            yield Check("failed", f"{name} has shape {info.shape} here and {other.shape} there")
        elif other.dtype != info.dtype:
            kinds[f"{info.dtype_name} here and {other.dtype_name} there"] += 1
        elif difference := _difference(left, right, name):
            yield Check("failed", f"{name}: {difference}")
        else:
            equal += 1
        on_bytes(info.num_bytes)
    yield from (Check("failed", f"{count} tensors are {kind}") for kind, count in kinds.items())
    if equal:
        yield Check("ok", f"{equal} of {len(left.tensors())} tensors are equal bit by bit")


def _difference(left: CheckpointReader, right: CheckpointReader, name: str) -> str:
    """Returns how two tensors of one shape and dtype differ, "" where they do not.

    As numbers they may be equal where bits are not (0 and -0), and differ where bits do not (NaN).
    """
    start, count, first = 0, 0, ""
    for ours, theirs in zip(read_blocks(left, name), read_blocks(right, name), strict=True):
        bits = _BITS[ours.dtype.itemsize]
        a, b = ours.contiguous().view(bits), theirs.contiguous().view(bits)
        if not torch.equal(a, b):
            places = (a != b).nonzero()
            count += len(places)
            place = tuple(places[0].tolist())
            first = first or (
                f"the first at {[place[0] + start, *place[1:]]}: "
                f"{ours[place].item()} here, {theirs[place].item()} there"
            )
        start += len(ours)
    return first and f"{count:,} of {left.tensors()[name].num_elements:,} elements differ, {first}"
