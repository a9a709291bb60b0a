"""Which rectangles of the score matrix the CPU backend computes.

Pure planning on integers: a tile is a range of queries, a range of keys and the word whether the
causal diagonal runs through it. Positions are key indices, see `AttentionProblem.shift`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bc2_model.kernels.problem import AttentionProblem
from bc2_model.kernels.segments import runs

ALIBI_BLOCK = 256
"""Queries a tile with ALiBi: small enough that the bias of the keys near the diagonal, relative to
the tile's centre, rounds well in float32, and large enough for the kernel's matrix products."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One call of the kernel.

    Attributes:
        batch: Index of the sequence in the batch.
        heads: Key-value heads.
        rows: Queries; every one sees at least one of the keys.
        keys: Keys.
        causal: Whether query rows[n] sees keys[0] to keys[n] only, instead of all of them.
    """

    batch: int
    heads: slice
    rows: range
    keys: range
    causal: bool

    @property
    def centre(self) -> int:
        """The key whose bias is zero: near the keys that weigh most in the softmax."""
        if self.causal:
            return self.keys[len(self.keys) // 2]
        return self.keys[-1]


def plan(problem: AttentionProblem) -> Iterator[Tile]:
    """Yields tiles that cover every visible pair of query and key exactly once."""
    heads = slice(0, problem.k.shape[1])
    for batch in range(problem.q.shape[0]):
        for rows, keys in _segment_pairs(problem, batch):
            if problem.causal:
                block = len(rows) if problem.slopes is None else ALIBI_BLOCK
                yield from _causal_tiles(batch, heads, rows, keys, problem.shift, block)
            else:
                yield Tile(batch, heads, rows, keys, causal=False)


def skip_far_keys(
    tiles: Iterator[Tile], windows: Sequence[int], group: int, last_key: int, shift: int
) -> Iterator[Tile]:
    """Yields the tiles without the keys that are too far away to count.

    Args:
        tiles: Tiles of all heads.
        windows: For every key-value head, how many keys before its nearest key a query needs.
        group: Heads that stay together in one tile and share the widest of their windows.
        last_key: The largest key index.
        shift: As in AttentionProblem.
    """
    groups = [
        (slice(start, min(start + group, len(windows))), max(windows[start : start + group]))
        for start in range(0, len(windows), group)
    ]
    for tile in tiles:
        nearest = min(tile.rows[0] + shift, last_key)
        if tile.causal or nearest - min(windows) <= tile.keys[0]:
            yield tile
            continue
        for heads, window in groups:
            keys = range(max(tile.keys[0], nearest - window), tile.keys.stop)
            if keys:
                yield replace(tile, heads=heads, keys=keys)


def _segment_pairs(problem: AttentionProblem, batch: int) -> Iterator[tuple[range, range]]:
    """Yields the queries and the keys that share an id; an id may come back in later runs."""
    if problem.query_ids is None or problem.key_ids is None:
        yield range(problem.q.shape[2]), range(problem.k.shape[2])
        return
    keys_of = defaultdict(list)
    for run in runs(problem.key_ids[batch]):
        keys_of[run.id].append(run.where)
    for run in runs(problem.query_ids[batch]):
        for keys in keys_of[run.id]:
            yield run.where, keys


def _causal_tiles(
    batch: int, heads: slice, rows: range, keys: range, shift: int, block: int
) -> Iterator[Tile]:
    """Yields, block by block of the queries, the square on the diagonal and what is left of it."""
    first = max(rows.start, keys.start - shift)  # the queries above stand before every key
    past = max(first, min(rows.stop, keys.stop - shift))  # from here on they stand after every key
    for start in range(first, past, block):
        stop = min(start + block, past)
        edge = start + shift
        if stop - start == 1:  # a decoding step needs no second tile for its own key
            yield Tile(batch, heads, range(start, stop), range(keys.start, edge + 1), causal=False)
            continue
        if edge > keys.start:
            yield Tile(batch, heads, range(start, stop), range(keys.start, edge), causal=False)
        yield Tile(batch, heads, range(start, stop), range(edge, stop + shift), causal=True)
    if past < rows.stop:
        yield Tile(batch, heads, range(past, rows.stop), keys, causal=False)
