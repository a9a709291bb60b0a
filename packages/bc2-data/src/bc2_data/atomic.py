"""Output that appears whole or not at all.

Everything is written under a hidden name beside its destination and renamed at the end. A run that
is killed leaves only the hidden name behind, which the next run of the same job removes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from bc2_data.errors import Bc2Error


def refuse_existing(*paths: Path, overwrite: bool) -> None:
    """Raises where an output exists already and overwriting was not asked for.

    Args:
        *paths: Files or directories that are about to be written; an empty directory is free.
        overwrite: What the user said.

    Raises:
        Bc2Error: Names the first path that exists.
    """
    if overwrite:
        return
    for path in paths:
        if path.is_dir() and not any(path.iterdir()):
            continue
        if path.exists() or path.is_symlink():
            raise Bc2Error(f"{path} exists already", "choose another output, or add --overwrite")


@contextmanager
def new_directory(destination: Path) -> Iterator[Path]:
    """Yields a temporary directory that becomes `destination` when the block ends well.

    What stood at `destination` before is replaced only then. On an error the temporary directory
    is removed and `destination` is untouched.
    """
    partial = _partial(destination)
    remove(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    publish(partial, destination)


def publish(partial: Path, destination: Path) -> None:
    """Gives a finished directory its name, with all of its bytes on disk.

    What stood at `destination` is replaced; a reader sees the old tree or the new one.

    Args:
        partial: A directory on the file system of `destination`.
        destination: Its name from now on.
    """
    _sync_tree(partial)
    replaced = destination.with_name(f".{destination.name}.replaced")
    remove(replaced)
    if destination.exists():
        os.rename(destination, replaced)
    os.rename(partial, destination)
    sync(destination.parent)
    remove(replaced)


@contextmanager
def new_files(*destinations: Path) -> Iterator[list[Path]]:
    """Yields temporary paths that become `destinations` when the block ends well.

    Missing parents are made. The files are renamed in the order given, so the last one is the mark
    of a whole set. On an error the temporary files and the new parents are removed.
    """
    partials = [_partial(path) for path in destinations]
    with new_parents(*destinations):
        try:
            yield partials
            publish_files(dict(zip(partials, destinations, strict=True)))
        except BaseException:
            for partial in partials:
                partial.unlink(missing_ok=True)
            raise


def publish_files(names: Mapping[Path, Path]) -> None:
    """Gives finished files their names, with all of their bytes on disk.

    Args:
        names: The name from now on of each file, both on one file system. The files are renamed in
            this order, so the last one is the mark of a whole set.
    """
    for partial in names:
        sync(partial)
    destinations = list(names.values())
    if len(destinations) > 1:  # an old mark must not stand beside new files, not even for a moment
        destinations[-1].unlink(missing_ok=True)
    for partial, destination in names.items():
        os.replace(partial, destination)
    for parent in {path.parent for path in destinations}:
        sync(parent)


@contextmanager
def new_parents(*paths: Path) -> Iterator[None]:
    """Makes the missing parents of paths, and removes them again where the block fails.

    Raises:
        Bc2Error: A parent is a file.
    """
    made = _make_parents(paths)
    try:
        yield
    except BaseException:
        for folder in reversed(made):
            with suppress(OSError):  # something was put there that stays
                folder.rmdir()
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a small UTF-8 text file atomically."""
    with new_files(path) as (partial,):
        partial.write_text(text, encoding="utf-8")


def remove(path: Path) -> None:
    """Removes a file or a directory tree where it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _make_parents(paths: Iterable[Path]) -> list[Path]:
    """Makes the missing parents of paths and returns them, the outermost first.

    Raises:
        Bc2Error: A parent is a file.
    """
    parents = {parent for path in paths for parent in path.parents}
    for parent in parents:
        if parent.exists() and not parent.is_dir():
            raise Bc2Error(f"{parent} is no directory", "choose another output")
    missing = [parent for parent in parents if not parent.exists()]
    ordered = sorted(missing, key=lambda folder: len(folder.parts))
    for folder in ordered:
        folder.mkdir(exist_ok=True)
    return ordered


def _partial(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}.partial")


def _sync_tree(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            sync(Path(folder) / name)
        sync(Path(folder))


def sync(path: Path) -> None:
    """Makes sure that the bytes of a file, or the names in a directory, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
