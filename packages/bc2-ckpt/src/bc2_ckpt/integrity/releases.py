"""Published sizes and checksums of official releases.

Source: the Git LFS pointers of the repositories in which Baichuan published them. Other releases
can be checked with their own pointers, see `bc2_ckpt.integrity.downloads`.
"""

from __future__ import annotations

from collections.abc import Mapping

from bc2_ckpt.integrity.records import FileRecord

RELEASES: Mapping[str, Mapping[str, FileRecord]] = {
    "Baichuan2-13B-Chat": {
        "pytorch_model-00001-of-00003.bin": FileRecord(
            9_973_568_983, "ed5f863097bc541ff1f47f5d5ac875cbac2c1269c384bc77f540ffca4cc2cb5d"
        ),
        "pytorch_model-00002-of-00003.bin": FileRecord(
            9_947_421_360, "13ac578202dce2688d81fcee55e332d898ad980cec5019a7de386ea9760302c0"
        ),
        "pytorch_model-00003-of-00003.bin": FileRecord(
            7_872_446_643, "95a78916eaeb9891bde335461ba8a474b039e6c5f17a12f987dc03a93372a812"
        ),
        "tokenizer.model": FileRecord(
            2_001_107, "79452955be6b419a65984273a9f08af86042e1c2a75ee3ba989cbf620a133cc2"
        ),
    },
}
"""Files by the release's name."""
