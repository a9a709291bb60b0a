"""One job: what was asked for, cut into shards, and how it is described."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bc2_data import __version__
from bc2_data.config import TokenizeConfig
from bc2_data.errors import DataError
from bc2_data.handlers.base import Kind
from bc2_data.manifest import (
    InputFile,
    Manifest,
    OutputFile,
    PartOfJob,
    TokenizerUse,
    read_manifest,
)
from bc2_data.shards.plan import Plan
from bc2_data.shards.totals import Totals
from bc2_data.sources import MAX_ROW_BYTES
from bc2_data.tokenizer import Tokenizer


class Job:
    """A job that is about to be done.

    Args:
        config: What was asked for.
        plan: The shards of all inputs.
        tokenizer: Encodes.
        kind: What the handler makes of rows.

    Attributes:
        config: As given.
        plan: As given.
        tokenizer: As given.
        kind: As given.
        shards: The shards to be done here: all of them, or those of one part.
    """

    def __init__(
        self, config: TokenizeConfig, plan: Plan, tokenizer: Tokenizer, kind: Kind
    ) -> None:
        self.config = config
        self.plan = plan
        self.kind = kind
        self.shards = config.part.of(plan.shards) if config.part else plan.shards
        self.tokenizer = tokenizer
        self._inputs = {shard.input: plan.inputs[shard.input] for shard in self.shards}

    @property
    def size(self) -> int:
        """Bytes of input; roughly, of a part."""
        total = sum(file.size or 0 for file in self.plan.inputs)
        return total * len(self.shards) // len(self.plan.shards)

    @property
    def begun_inputs(self) -> list[int]:
        """The inputs whose first shard is to be done here, as indices into the plan's."""
        inputs = set(self._inputs)
        first = self.shards[0].index if self.shards else 0
        if first:  # it may lie within an input that an earlier part begins
            inputs.discard(self.plan.shards[first - 1].input)
        return sorted(inputs)

    def describe(self) -> dict[str, Any]:
        """Returns all that decides what the outputs will be, as JSON can hold it."""
        return {
            **self._describe_whole(),
            "engine": self.tokenizer.engine,
            "modified": {str(file.location): file.modified for file in self.plan.inputs},
            "part": self.config.part.suffix if self.config.part else "",
            "pack": self.config.pack,
        }

    def is_done(self, outputs: Sequence[Path]) -> bool:
        """Tells whether an earlier run finished this job.

        Args:
            outputs: Its files, the manifest at the end.

        Raises:
            DataError: The manifest is damaged.
        """
        if not all(path.is_file() for path in outputs):
            return False
        manifest = read_manifest(outputs[-1])
        finished = outputs[-1].stat().st_mtime_ns
        inputs = self._inputs.values()
        return (
            manifest.bc2_data == __version__
            and manifest.options == self._options()
            and manifest.part == self._part()
            and (manifest.packing and manifest.packing.seq_length) == self.config.pack
            and manifest.tokenizer.sha256 == self.tokenizer.sha256
            and manifest.tokenizer.special_tokens == self.tokenizer.policy
            and [(file.path, file.size) for file in manifest.inputs]
            == [(str(file.location), file.size) for file in inputs]
            and all((file.modified or 0) < finished for file in inputs)
        )

    def manifest(
        self, totals: Totals, checksums: Mapping[int, str], outputs: list[OutputFile]
    ) -> Manifest:
        """Returns the manifest of the finished job.

        Args:
            totals: What became of the rows.
            checksums: SHA-256 of inputs, by index into the plan's.
            outputs: The files written.

        Raises:
            DataError: An input is no longer what it was when the job began.
        """
        for file in self._inputs.values():
            if file.now() != file:
                raise DataError(
                    f"{file.location} was written to while it was read",
                    "run again when it is finished",
                )
        return Manifest(
            bc2_data=__version__,
            kind=self.kind,
            options=self._options(),
            inputs=[
                InputFile(
                    path=str(file.location),
                    size=file.size,
                    sha256=checksums.get(number),
                    rows=totals.rows[number],
                )
                for number, file in self._inputs.items()
            ],
            tokenizer=TokenizerUse(
                path=str(self.tokenizer.path),
                sha256=self.tokenizer.sha256,
                vocab_size=self.tokenizer.vocab_size,
                engine=self.tokenizer.engine,
                special_tokens=self.tokenizer.policy,
                special_literals=dict(sorted(totals.special_literals.items())),
            ),
            outputs=outputs,
            documents=totals.documents,
            tokens=totals.tokens,
            trained_tokens=totals.trained_tokens if self.kind == "instruction" else None,
            dropped=totals.dropped,
            truncated=totals.truncated,
            part=self._part(),
        )

    def _part(self) -> PartOfJob | None:
        part = self.config.part
        if part is None:
            return None
        whole = json.dumps(self._describe_whole(), sort_keys=True).encode()
        return PartOfJob(
            rank=part.rank,
            world_size=part.world_size,
            job=hashlib.sha256(whole).hexdigest(),
            first_input=self.shards[0].input if self.shards else len(self.plan.inputs),
        )

    def _describe_whole(self) -> dict[str, Any]:
        """Returns what is equal on all machines that do a part of the job."""
        return {
            "bc2_data": __version__,
            "tokenizer": self.tokenizer.sha256,
            "special_tokens": self.tokenizer.policy,
            "options": self._options(),
            "shards": len(self.plan.shards),
            "sizes": {str(file.location): file.size for file in self.plan.inputs},
        }

    def _options(self) -> dict[str, Any]:
        """Returns what was asked for and changes the output, by option."""
        config, handler = self.config, self.config.handler_options
        asked = {
            "handler": config.handler,
            "text_key": handler.text_key,
            "template": handler.template,
            "append_eos": handler.append_eos,
            "max_length": config.limit.tokens,
            "overlong": config.limit.overlong,
            "max_row_bytes": (
                None if config.max_row_bytes == MAX_ROW_BYTES else config.max_row_bytes
            ),
        }
        return {name: value for name, value in asked.items() if value is not None}
