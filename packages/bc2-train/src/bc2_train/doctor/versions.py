"""Are the libraries those that bc2 is tested with?"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib import metadata

from bc2_train.doctor.finding import Finding, ok, problem, warning

TESTED = {
    "torch": "2.13.0",
    "megatron-core": "0.16.1",
    "deepspeed": "0.19.8",
    "transformers": "5.23.0",
}
"""What a run needs, in the versions of constraints.txt."""

_PYTHONS = ((3, 11), (3, 13))


def check() -> Iterator[Finding]:
    """Yields a finding for Python and for each library."""
    python = platform.python_version()
    if not _PYTHONS[0] <= sys.version_info[:2] <= _PYTHONS[1]:
        yield problem(f"Python {python} is none of 3.11 to 3.13", "make an environment of 3.11")
    else:
        yield ok(f"Python {python}")
    for name, tested in TESTED.items():
        yield compare(name, installed(name), tested)


def installed(name: str) -> str | None:
    """Returns the version of an installed package, without importing it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def compare(name: str, version: str | None, tested: str) -> Finding:
    """Returns what the version of a package is worth; of ``2.13.0+cpu``, 2.13.0 counts."""
    remedy = f"python3 -m pip install '{name}=={tested}'"
    if version is None:
        return problem(f"{name} is not installed", remedy)
    if version.partition("+")[0] != tested:
        return warning(f"{name} is {version}; bc2 is tested with {tested}", remedy)
    return ok(f"{name} {version}, the tested one")
