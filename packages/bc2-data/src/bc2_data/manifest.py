"""PREFIX.manifest.json: what a dataset was made of, and what became of every row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from bc2_data.checksum import DigestWriter
from bc2_data.errors import DataError
from bc2_data.handlers.base import Kind

EXAMPLES = 20
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A file that was read.

    Attributes:
        path: As the user gave it.
        size: Bytes; None where its storage does not tell.
        sha256: 64 hexadecimal digits. None in the manifest of a part of a job, for a file that an
            earlier part begins and so takes the checksum of.
        rows: Rows read, dropped ones included.
    """

    path: str
    size: int | None
    sha256: str | None
    rows: int


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """A file that was written.

    Attributes:
        name: Its name beside the manifest.
        size: Bytes.
        sha256: 64 hexadecimal digits.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class TokenizerUse:
    """The tokenizer and how special tokens in the text were treated.

    Attributes:
        path: The model file.
        sha256: Of the model file, 64 hexadecimal digits.
        vocab_size: Pieces.
        engine: What encoded.
        special_tokens: The policy.
        special_literals: How often each special token stood literally in a text.
    """

    path: str
    sha256: str
    vocab_size: int
    engine: str
    special_tokens: str
    special_literals: Mapping[str, int]


@dataclass(kw_only=True)
class Tally:
    """How many rows, and where the first of them are.

    Attributes:
        count: Rows.
        examples: The first 20, named by file and line with what was wrong.
    """

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """Counts one row."""
        self.add_many(1, [example])

    def add_many(self, count: int, examples: Iterable[str]) -> None:
        """Counts some rows.

        Args:
            count: How many.
            examples: The first of them, taken only as far as they are kept.
        """
        self.count += count
        self.examples += islice(examples, EXAMPLES - len(self.examples))


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How conversations share rows.

    Attributes:
        seq_length: Predictions in a training sample; a row holds up to seq_length + 1 tokens.
        overlong: What became of conversations that are longer than a row.
        conversations: Conversations in all rows.
    """

    seq_length: int
    overlong: str
    conversations: int

    @property
    def capacity(self) -> int:
        """Most tokens in a row."""
        return self.seq_length + 1


@dataclass(frozen=True, kw_only=True)
class PartOfJob:
    """Which part of a job, done on several machines, a dataset is.

    Attributes:
        rank: Number of the part, from 0.
        world_size: Number of parts.
        job: SHA-256 of what the job is; equal in all of its parts.
        first_input: Place of the part's first input among the inputs of the whole job.
    """

    rank: int
    world_size: int
    job: str
    first_input: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that is known about a dataset.

    Attributes:
        bc2_data: Version that wrote it.
        kind: ``pretrain`` or ``instruction``.
        options: What the user asked for, by option.
        inputs: Files read, in order.
        tokenizer: What encoded them.
        outputs: Files written.
        documents: Documents in each dataset.
        tokens: Tokens in each dataset.
        trained_tokens: Predictions that are trained; None for pretraining data, where all are.
        dropped: Rows that gave no document, by reason.
        truncated: Rows whose document lost its end, by reason.
        packing: How conversations share documents; None where each has its own.
        part: Which part of a job this is; None for a whole one.
    """

    bc2_data: str
    kind: Kind
    options: Mapping[str, Any]
    inputs: list[InputFile]
    tokenizer: TokenizerUse
    outputs: list[OutputFile]
    documents: int
    tokens: int
    trained_tokens: int | None
    dropped: Mapping[str, Tally]
    truncated: Mapping[str, Tally]
    packing: Packing | None = None
    part: PartOfJob | None = None

    def check_output(self, path: Path, sha256: str) -> None:
        """Compares a file with what is known about the output of its name.

        Args:
            path: The file.
            sha256: Of its bytes, 64 hexadecimal digits.

        Raises:
            DataError: It is another one.
        """
        if all((file.name, file.sha256) != (path.name, sha256) for file in self.outputs):
            raise DataError(
                f"{path} is not the file that its manifest describes",
                "bc2-data verify tells what is damaged; make it again",
            )

    def to_json(self) -> str:
        """Returns the file's text; equal runs give equal text."""
        content = {"manifest_version": _VERSION, **asdict(self)}
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def written_file(file: DigestWriter) -> OutputFile:
    """Describes a file that was just written, under the name that it has."""
    return OutputFile(name=file.path.name, size=file.size, sha256=file.sha256)


def read_manifest(path: Path) -> Manifest:
    """Reads a manifest.

    Raises:
        DataError: There is none, or it is not one of this version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.pop("manifest_version")
        if version != _VERSION:
            raise DataError(f"{path} has manifest version {version}", "update bc2-data")
        content["inputs"] = [InputFile(**entry) for entry in content["inputs"]]
        content["outputs"] = [OutputFile(**entry) for entry in content["outputs"]]
        content["tokenizer"] = TokenizerUse(**content["tokenizer"])
        if content.get("packing"):
            content["packing"] = Packing(**content["packing"])
        if content.get("part"):
            content["part"] = PartOfJob(**content["part"])
        for name in ("dropped", "truncated"):
            content[name] = {reason: Tally(**tally) for reason, tally in content[name].items()}
        return Manifest(**content)
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist", "the data was not made by bc2-data, or was moved without it"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no manifest of bc2-data: {error}") from error
