"""How fast the checksums of Python's library are on this machine, in GB/s of CPU time.

python tools/bench/hashes.py
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable

_SIZE = 256 * 2**20
_ROUNDS = 5
_CHECKSUMS: dict[str, Callable[[bytes], object]] = {
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "sha512": lambda data: hashlib.sha512(data).digest(),
    "sha3_256": lambda data: hashlib.sha3_256(data).digest(),
    "blake2b": lambda data: hashlib.blake2b(data).digest(),
    "blake2s": lambda data: hashlib.blake2s(data).digest(),
    "crc32 (finds accidents, not forgeries)": zlib.crc32,
}


def main() -> None:
    """Prints the best of some rounds, the checksums taking turns."""
    data = bytes(range(256)) * (_SIZE // 256)
    best = dict.fromkeys(_CHECKSUMS, 0.0)
    for _ in range(_ROUNDS):
        for name, checksum in _CHECKSUMS.items():
            start = time.thread_time()
            checksum(data)
            best[name] = max(best[name], _SIZE / 1e9 / (time.thread_time() - start))
    for name, speed in best.items():
        print(f"{speed:5.2f}  {name}")


if __name__ == "__main__":
    main()
