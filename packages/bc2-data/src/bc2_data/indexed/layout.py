"""What an .idx looks like, and where the two files of a dataset are.

The .bin holds the tokens and nothing else. The .idx, little endian throughout:

| bytes | what |
| --- | --- |
| 9 | ``MMIDIDX`` and two zero bytes |
| 8 | version, 1 |
| 1 | dtype code, 4 for int32 |
| 8 | number of sequences S |
| 8 | number of document indices D |
| 4 S | int32 length of each sequence, in tokens |
| 8 S | int64 place of each sequence in the .bin, in bytes |
| 8 D | int64 first sequence of each document, and S at the end |
"""

from __future__ import annotations

import struct
from pathlib import Path

MAGIC = b"MMIDIDX\0\0"
VERSION = 1
COUNTS = struct.Struct("<QBQQ")
HEADER_SIZE = len(MAGIC) + COUNTS.size
DTYPES: dict[int, str] = {
    1: "<u1",
    2: "<i1",
    3: "<i2",
    4: "<i4",
    5: "<i8",
    6: "<f8",
    7: "<f4",
    8: "<u2",
}
INT32 = 4  # its code in DTYPES


def bin_path(prefix: Path) -> Path:
    """Returns the path of a dataset's tokens."""
    return prefix.with_name(prefix.name + ".bin")


def idx_path(prefix: Path) -> Path:
    """Returns the path of a dataset's index."""
    return prefix.with_name(prefix.name + ".idx")
