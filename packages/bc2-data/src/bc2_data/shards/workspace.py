"""The hidden folder beside the outputs where a job stands until it is whole.

It outlives a run that was stopped, so that the next one can go on. Its files:

| name | what |
| --- | --- |
| ``lock`` | held by the process at work |
| ``job.json`` | what the job is; only an equal job may go on |
| ``shard-*`` | report of each finished shard, and its columns until they are joined |
| ``lengths`` | of the documents of the shards that are joined |
| ``input-*`` | checksums of inputs |
| ``outputs/`` | what the outputs will be, under their names |
| ``finished`` | says that they are whole and only have to be moved |
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bc2_data.atomic import new_parents, publish_files, remove, sync, write_text
from bc2_data.comparison import first_difference
from bc2_data.errors import DataError
from bc2_data.shards.columns import abandoned
from bc2_data.shards.lock import LOCK_NAME, held
from bc2_data.shards.report import ShardReport


class Workspace:
    """The folder of one job.

    Args:
        folder: Beside the outputs, on their file system.

    Attributes:
        folder: Where shards are written.
        outputs: Where finished files go, under the names that they will have.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outputs = folder / "outputs"
        self._job = folder / "job.json"
        self._finished = folder / "finished"

    def __str__(self) -> str:
        if self.is_finished:
            return f"finished outputs in {self.folder}"
        finished = sum(1 for _ in self._report_files())
        return f"{finished:,} finished shard{'s' if finished != 1 else ''} in {self.folder}"

    @property
    def is_finished(self) -> bool:
        """Whether the outputs are whole and only have to be moved."""
        return self._finished.is_file()

    @property
    def holds_work(self) -> bool:
        """Whether an interrupted run left something to go on with."""
        return self._job.is_file() and (self.is_finished or any(self._report_files()))

    def begin(self, job: Mapping[str, Any]) -> None:
        """Empties the folder and notes which job it is for."""
        self._job.unlink(missing_ok=True)  # first, so that what follows may be cut short
        for path in self.folder.iterdir():
            if path.name != LOCK_NAME:
                remove(path)
        self.outputs.mkdir()
        write_text(self._job, json.dumps(job, indent=1))

    def take_up(self, job: Mapping[str, Any]) -> None:
        """Makes ready to go on.

        Raises:
            DataError: The folder is for another job.
        """
        before = json.loads(self._job.read_text(encoding="utf-8"))
        differing = first_difference(before, json.loads(json.dumps(job)))
        if differing:
            raise DataError(
                f"{self.folder} holds the work of another job: {differing}",
                "give that job's command again to go on, or --overwrite without --resume to drop "
                "its work",
            )
        self.drop_attempts()

    def drop_attempts(self) -> None:
        """Removes what was begun and not finished."""
        for path in abandoned(self.folder):
            path.unlink(missing_ok=True)

    def reports(self) -> Iterator[ShardReport]:
        """Yields the reports of finished shards, in order."""
        for path in sorted(self._report_files()):
            report = ShardReport.load(path)
            if report is not None:
                yield report

    def input_checksums(self) -> dict[int, str]:
        """Returns the SHA-256 of each input that it was taken of."""
        return {
            int(path.stem.removeprefix("input-")): path.read_text(encoding="ascii")
            for path in self.folder.glob("input-*.sha256")
        }

    def keep_input_checksum(self, number: int, sha256: str) -> None:
        """Keeps an input's SHA-256."""
        write_text(self.folder / f"input-{number:06}.sha256", sha256)

    def publish(self, destinations: Sequence[Path]) -> None:
        """Moves the finished outputs to their places.

        It may be cut short at any moment, and called again by a later run.

        Args:
            destinations: Where they go, under their own names; the mark of the whole set is the
                last.
        """
        for path in self.outputs.iterdir():
            sync(path)
        self._finished.touch()
        publish_files(
            {
                self.outputs / path.name: path
                for path in destinations
                if (self.outputs / path.name).exists()
            }
        )

    def discard(self) -> None:
        """Removes the folder."""
        self._job.unlink(missing_ok=True)  # first, so that what follows may be cut short
        remove(self.folder)

    def _report_files(self) -> Iterator[Path]:
        return self.folder.glob("shard-*.json")


@contextmanager
def open_workspace(
    prefix: Path, job: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> Iterator[Workspace]:
    """Yields the workspace of a job, which is removed when the block ends well.

    On an error it is kept if it holds finished work, and the error says so.

    Args:
        prefix: Path that the names of all outputs begin with.
        job: All that decides what the outputs will be, as JSON can hold it.
        resume: Whether to go on with what an interrupted run left.
        overwrite: Whether to drop that; `resume` comes first.

    Raises:
        DataError: Another process is at work on the same outputs; there is work of an interrupted
            run and it was not said what to do with it, or it is of another job; or the disk is
            full.
    """
    folder = prefix.with_name(f".{prefix.name}.unfinished")
    with new_parents(folder), held(folder) as is_ours:
        if not is_ours:
            raise DataError(
                f"another process is at work on {prefix}", "wait for it, or choose another output"
            )
        workspace = Workspace(folder)
        going_on = workspace.holds_work and resume
        if going_on:
            workspace.take_up(job)
        elif workspace.holds_work and not overwrite:
            raise DataError(
                f"an interrupted run for {prefix} left {workspace}",
                "add --resume to go on with it, or --overwrite to begin anew",
            )
        try:
            if not going_on:
                workspace.begin(job)
            yield workspace
        except OSError as error:
            _leave(workspace, error)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _disk_full(workspace, error) from error
            raise
        except BaseException as error:
            _leave(workspace, error)
            raise
        workspace.discard()


def _leave(workspace: Workspace, error: BaseException) -> None:
    """Keeps finished work, and says so, or removes everything."""
    if not workspace.holds_work:
        workspace.discard()
        return
    workspace.drop_attempts()
    error.add_note(f"kept {workspace}: the same command with --resume goes on from there")


def _disk_full(workspace: Workspace, error: OSError) -> DataError:
    full = DataError(
        f"{workspace.folder.parent}: {error.strerror}", "free some space, or choose another place"
    )
    for note in getattr(error, "__notes__", []):
        full.add_note(note)
    return full
