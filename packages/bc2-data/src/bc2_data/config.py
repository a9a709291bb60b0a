"""What a tokenise run is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bc2_data.encoding import LengthLimit
from bc2_data.engines import EngineChoice
from bc2_data.handlers import HandlerOptions
from bc2_data.launchers import LauncherName
from bc2_data.shards.plan import Part
from bc2_data.sources import MAX_ROW_BYTES
from bc2_data.special_tokens import Policy


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """What to tokenise, and how.

    Attributes:
        inputs: Files, folders and URLs, in order.
        tokenizer: Directory with tokenizer.model, or the file.
        output_prefix: Path that the names of all outputs begin with.
        handler: Format of the rows, one of `bc2_data.handlers.HANDLERS`.
        handler_options: What was said about the format.
        limit: Concerning long documents.
        max_row_bytes: A row of more bytes is never held in memory.
        special_tokens: What to do with special tokens that stand literally in a text.
        engine: What encodes; all engines give the same ids.
        pack: Pack conversations into rows for samples of so many predictions; None does not.
        part: The part of the job to do, whose outputs then have its suffix; None for all of it.
        launcher: Where the work is done.
        workers: How many shards are encoded at a time; the outputs do not depend on it.
        log_interval: A line on stderr for every so many documents; None for none.
        resume: Whether to go on with what an interrupted run left.
        overwrite: Whether existing outputs may be replaced.
    """

    inputs: Sequence[Path | str]
    tokenizer: Path
    output_prefix: Path
    handler: str = "text"
    handler_options: HandlerOptions = field(default_factory=HandlerOptions)
    limit: LengthLimit = field(default_factory=LengthLimit)
    max_row_bytes: int = MAX_ROW_BYTES
    special_tokens: Policy = "escape"
    engine: EngineChoice = "auto"
    pack: int | None = None
    part: Part | None = None
    launcher: LauncherName = "local"
    workers: int = 1
    log_interval: int | None = None
    resume: bool = False
    overwrite: bool = False

    @property
    def prefix(self) -> Path:
        """What the names of the outputs really begin with."""
        if self.part is None:
            return self.output_prefix
        return self.output_prefix.with_name(self.output_prefix.name + self.part.suffix)
