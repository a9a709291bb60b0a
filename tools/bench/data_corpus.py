"""Text for benchmarks of bc2-data: Chinese, English and code that this machine happens to have."""

from __future__ import annotations

import gzip
import json
import random
import re
import sysconfig
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

_CHINESE = re.compile(r"[一-鿿]")
_CODE_ENDINGS = {".c", ".cc", ".cpp", ".el", ".h", ".hpp", ".js", ".pl", ".pm", ".py", ".sh"}
_LONGEST = 1 << 16
_SHORTEST = 200

KINDS = ("Chinese", "English", "code")


def write_corpus(file: Path, size: int, seed: int, samples: Path | None) -> dict[str, int]:
    """Writes documents, one ``{"text": ...}`` a line, in random order.

    The samples come whole; files of the machine fill up the rest, each kind in equal measure as
    long as there is text of it. No text comes twice.

    Args:
        file: Receives the lines.
        size: Bytes of text.
        seed: Decides which files, and in which order.
        samples: A folder with text-4mb.jsonl and moss-300.jsonl, if there is one.

    Returns:
        Bytes of text of each kind.
    """
    rng = random.Random(seed)
    texts = list(_samples(samples)) if samples else []
    sizes = dict.fromkeys(KINDS, 0)
    for text in texts:
        sizes[_kind(text, "")] += len(text.encode())
    sources = {kind: _machine_texts(kind, rng) for kind in KINDS}
    for kind in cycle(KINDS):
        if sum(sizes.values()) >= size or not sources:
            break
        if kind in sources and sizes[kind] <= min(sizes[other] for other in sources):
            text = next(sources[kind], None)
            if text is None:
                del sources[kind]
                continue
            sizes[kind] += len(text.encode())
            texts.append(text)
    rng.shuffle(texts)
    with open(file, "w", encoding="utf-8") as out:
        out.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    return sizes


def _samples(folder: Path) -> Iterator[str]:
    with open(folder / "text-4mb.jsonl", encoding="utf-8") as lines:
        yield from (json.loads(line)["text"] for line in lines)
    with open(folder / "moss-300.jsonl", encoding="utf-8") as lines:
        for line in lines:
            turns = json.loads(line)["chat"].values()
            yield "".join(turn["Human"] + turn["MOSS"] for turn in turns)


def _machine_texts(kind: str, rng: random.Random) -> Iterator[str]:
    share = Path("/usr/share")
    if kind == "Chinese":
        found = [
            *(share / "man").glob("zh*/**/*"),
            *share.glob("vim/**/*zh*"),
            *share.glob("doc/**/*zh*"),
        ]
    elif kind == "English":
        found = [*(share / "doc").rglob("*"), *(share / "man").glob("man*/*")]
    else:
        folders = (sysconfig.get_path("stdlib"), "/usr/include", "/usr/share/perl")
        found = [path for folder in folders for path in Path(folder).rglob("*.[a-z]*")]
    rng.shuffle(found)
    for path in found:
        text = _read(path)
        if text and _kind(text, path.suffix) == kind:
            yield text


def _read(path: Path) -> str | None:
    """Returns the first 64 Ki characters of a text file, None where it is none."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        text = content.decode("utf-8")
    except (OSError, EOFError, ValueError):
        return None
    return text[:_LONGEST] if len(text) >= _SHORTEST and "\0" not in text else None


def _kind(text: str, ending: str) -> str:
    if len(_CHINESE.findall(text)) > len(text) / 10:
        return "Chinese"
    return "code" if ending in _CODE_ENDINGS else "English"
