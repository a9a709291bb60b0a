"""From what the user names to files of rows: files, folders, patterns and archives."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from bc2_data.errors import DataError, nearest
from bc2_data.sources.archive import member_names
from bc2_data.sources.location import Location, readable
from bc2_data.sources.remote import client_errors, file_system
from bc2_data.sources.stored import Compression, StoredFile

FORMATS = (".parquet", ".arrow", ".feather", ".jsonl", ".json", ".csv", ".txt")
ARCHIVE = ".zip"
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
_KNOWN = f"known: {' '.join(FORMATS)}, each also with {' or '.join(_COMPRESSIONS)}, and {ARCHIVE}"

_MOST_SIBLINGS = 20  # among more of them the nearest name is hardly the one that was meant


def find_files(addresses: Iterable[str]) -> Iterator[tuple[str, StoredFile]]:
    """Yields the files of rows, each with its format, one of `FORMATS`.

    Args:
        addresses: Paths or URLs of files and folders, or patterns of such. The files come in the
            order given, those of a folder or a pattern by name, those of an archive in its order.

    Raises:
        DataError: There is no such file, or it cannot be read, is empty or of unknown type; a
            folder or an archive holds no file of rows, or several types of them.
    """
    for address in addresses:
        for location in _locations(address):
            ending = _ending(location.name)
            if not ending:
                suffix = os.path.splitext(location.name)[1]
                raise DataError(f"{location}: the ending {suffix!r} is unknown", _KNOWN)
            if location.size() == 0:
                raise DataError(f"{location} is empty", "leave the file out, or download it anew")
            if ending == ARCHIVE:
                yield from _members(location)
            else:
                format_, compression = os.path.splitext(ending)
                yield format_, StoredFile(location, _COMPRESSIONS.get(compression))


def _ending(name: str) -> str:
    """Returns the known ending of a name, such as ``.jsonl.gz``; "" where it has none."""
    stem, last = os.path.splitext(name.lower())
    if last in _COMPRESSIONS:
        format_ = os.path.splitext(stem)[1]
        return format_ + last if format_ in FORMATS else ""
    return last if last in (*FORMATS, ARCHIVE) else ""


def _members(archive: Location) -> Iterator[tuple[str, StoredFile]]:
    names = [name for name in member_names(archive) if _ending(name) in FORMATS]
    _refuse_mixture(archive, names)
    for name in names:
        yield _ending(name), StoredFile(archive, "zip", name)


def _refuse_mixture(where: object, names: Iterable[str]) -> None:
    endings = sorted({_ending(name) for name in names})
    if not endings:
        raise DataError(f"{where} holds no file of rows", _KNOWN)
    if len(endings) > 1:
        raise DataError(
            f"{where} holds files of several types: {', '.join(endings)}",
            "name the files that are meant",
        )


def _locations(address: str) -> list[Location]:
    """Returns the files that an address means."""
    location = Location(address.removeprefix("file://"))
    return _local(location) if location.is_local else _remote(location)


def _local(location: Location) -> list[Location]:
    path = location.local_path
    with readable(location):
        if path.is_dir():
            files = [Location(str(file)) for file in _walk(path) if _ending(file.name)]
            _refuse_mixture(location, [file.name for file in files])
            return files
        if path.exists():
            return [location]
        matches = sorted(glob.glob(location.address, recursive=True))
    if not matches:
        raise _missing(path)
    return [file for match in matches for file in _local(Location(match))]


def _missing(path: Path) -> DataError:
    if glob.has_magic(str(path)):
        return DataError(f"no file matches {path}", "put patterns in quotes; ** means any folders")
    parent = path.parent
    siblings = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    return DataError(
        f"{path} does not exist",
        nearest(path.name, siblings)
        if 0 < len(siblings) <= _MOST_SIBLINGS
        else f"look into {parent}",
    )


def _walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yields the files of a folder and those below it, without hidden ones, sorted by name.

    Raises:
        OSError: A folder may not be read: leaving it out unsaid would lose its rows.
    """
    real = folder.resolve()
    if real in above:  # a link to a folder that is being read already
        return
    for name in sorted(entry.name for entry in os.scandir(folder)):
        path = folder / name
        if name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path, (*above, real))
        else:
            yield path


def _remote(location: Location) -> list[Location]:
    with readable(location), client_errors():
        system, path = file_system(location.address)
        if "*" in location.address or "[" in location.address:  # a ? begins a query
            matches = sorted(system.glob(path))
            if not matches:
                raise DataError(f"no file matches {location}", "look into the folder above it")
            urls = [Location(system.unstrip_protocol(match)) for match in matches]
            return [file for url in urls for file in _remote(url)]
        if system.info(path)["type"] != "directory":
            return [location]
        found = [
            Location(system.unstrip_protocol(file))
            for file in sorted(system.find(path))
            if not any(part.startswith(".") for part in file.removeprefix(path).split("/"))
        ]
    files = [file for file in found if _ending(file.name)]
    _refuse_mixture(location, [file.name for file in files])
    return files
