from __future__ import annotations

import hashlib
import os
from pathlib import Path

from bc2_ckpt.hashing import HashedFile


def test_a_hashed_file_holds_what_was_written_and_knows_its_checksum(tmp_path: Path) -> None:
    parts = [os.urandom(size) for size in (5, 1 << 18, 0, 1 << 17, 70_001, 3)]
    with HashedFile(tmp_path / "file") as file:
        sizes = [file.write(part if len(part) % 2 else memoryview(part)) for part in parts]
        assert file.tell() == sum(sizes)
        digest = file.sha256
    whole = b"".join(parts)
    assert sizes == [len(part) for part in parts]
    assert (tmp_path / "file").read_bytes() == whole
    assert digest == hashlib.sha256(whole).hexdigest()
