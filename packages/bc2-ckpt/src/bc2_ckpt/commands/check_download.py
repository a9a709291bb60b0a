"""``bc2-ckpt check-download``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bc2_ckpt.commands.progress import above
from bc2_data.command import add_command

_EXAMPLE = """\
  bc2-ckpt check-download Baichuan2-13B-Chat
  bc2-ckpt check-download Baichuan2-7B-Base --manifest manifest.json
  GIT_LFS_SKIP_SMUDGE=1 git clone https://huggingface.co/baichuan-inc/Baichuan2-7B-Base pointers
  bc2-ckpt check-download Baichuan2-7B-Base --manifest pointers"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "check-download",
        _run,
        "Compare a downloaded release with its published sizes and checksums.",
        _EXAMPLE,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="the download")
    parser.add_argument(
        "--manifest",
        metavar="FILE|DIR|RELEASE",
        help='what was published: a JSON file {"files": {NAME: {"size": N, "sha256": HEX}}}, a '
        "folder of Git LFS pointers, or a release that bc2-ckpt knows (default: the one with "
        "weight files of the same names)",
    )


def _run(args: argparse.Namespace) -> None:
    from bc2_ckpt.errors import CkptError, VerificationError
    from bc2_ckpt.integrity.downloads import published
    from bc2_ckpt.integrity.files import check_files
    from bc2_data.checks import show_checks
    from bc2_data.command import show
    from bc2_data.progress import progress_bar

    if not args.directory.is_dir():
        raise CkptError(f"{args.directory} is no directory", "give the folder of the download")
    release = published(args.directory, args.manifest)
    show([f"as published: {release.name}"])
    total = sum(record.size or 0 for record in release.files.values())
    with progress_bar(total, "B", "check") as bar:
        failed = show_checks(above(bar, check_files(args.directory, release.files, bar.update)))
    if failed:
        raise VerificationError(
            f"{failed} of {len(release.files)} files are not those of {release.name}",
            "download these files again, through /resolve/ and not /blob/ URLs",
        )
