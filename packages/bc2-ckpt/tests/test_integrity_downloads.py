"""`check-download` tells a download from what was published."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from bc2_ckpt.cli import main
from bc2_ckpt.integrity.downloads import published
from bc2_ckpt.integrity.releases import RELEASES

CONTENT = {"pytorch_model.bin": b"weights" * 1000, "tokenizer.model": b"pieces" * 99}


@pytest.fixture
def download(tmp_path: Path) -> Path:
    folder = tmp_path / "download"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    files = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in CONTENT.items()
    }
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"model": "Some-Model", "files": files}))
    return path


@pytest.fixture
def pointers(tmp_path: Path) -> Path:
    """What a clone without the large files leaves."""
    folder = tmp_path / "pointers"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_text(
            "version https://git-lfs.github.com/spec/v1\n"
            f"oid sha256:{hashlib.sha256(content).hexdigest()}\nsize {len(content)}\n"
        )
    (folder / "config.json").write_text("{}")
    (folder / "vocab.txt").write_bytes(b"x" * 5000)
    return folder


def check(folder: Path, source: Path | str) -> int:
    return main(["check-download", str(folder), "--manifest", str(source)])


def test_a_good_download_passes(
    download: Path, manifest: Path, pointers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(download, manifest) == 0
    assert "as published: Some-Model\n" in capsys.readouterr().out
    assert check(download, pointers) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT["pytorch_model.bin"][:-1], "is cut short: 6,999 bytes instead of 7,000"),
        (CONTENT["pytorch_model.bin"] + b"x", "is too long: 7,001 bytes instead of 7,000"),
        (CONTENT["pytorch_model.bin"].replace(b"w", b"v", 1), "has SHA-256 "),
        (b"<!doctype html><html>", "is a web page, not the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"", "is empty"),
        (None, "is missing"),
    ],
)
def test_a_bad_file_is_told(
    download: Path,
    manifest: Path,
    content: bytes | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = download / "pytorch_model.bin"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert check(download, manifest) == 1
    captured = capsys.readouterr()
    assert f"failed   pytorch_model.bin {message}" in captured.out
    assert "ok       tokenizer.model\n" in captured.out
    assert "error: 1 of 2 files are not those of Some-Model" in captured.err


def test_a_release_is_recognised_by_the_names_of_its_weights(download: Path) -> None:
    (download / "pytorch_model-00002-of-00003.bin").touch()
    assert published(download, None).name == "Baichuan2-13B-Chat"
    assert published(download, "Baichuan2-13B-Chat").files is RELEASES["Baichuan2-13B-Chat"]


def test_an_unknown_release_needs_a_manifest(
    download: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-download", str(download)]) == 2
    assert "hint: give --manifest FILE" in capsys.readouterr().err
    assert check(download, "Baichuan2-13B-Chad") == 2
    assert "did you mean 'Baichuan2-13B-Chat'?" in capsys.readouterr().err
    assert check(download / "absent", "Baichuan2-13B-Chat") == 2


GOOD = {"size": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": "x"}, "names no files"),
        ({"files": {}}, "names no files"),
        ({"files": {"a": {"size": "1", "sha256": "0" * 64}}}, "no size and sha256"),
        ({"files": {"a": {"size": 1, "sha256": "0" * 63}}}, "no size and sha256"),
        ({"files": {"a": 3}}, "no size and sha256"),
        ({"files": {"../a": GOOD}}, "'../a', which is no file beside it"),
        ({"files": {"/a": GOOD}}, "'/a', which is no file beside it"),
        ([], "holds no JSON object"),
    ],
)
def test_a_bad_manifest_is_told(
    download: Path,
    manifest: Path,
    content: Any,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest.write_text(json.dumps(content))
    assert check(download, manifest) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_pointers_is_told(
    download: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(download, download) == 2
    assert "holds no Git LFS pointers" in capsys.readouterr().err


def test_the_real_manifest_is_the_built_in_release(shared: Path) -> None:
    real = published(shared, str(shared / "baichuan2/manifest.json"))
    assert real.files == RELEASES[real.name]


def test_the_real_tokenizer_is_that_of_the_release(
    shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(shared / "baichuan2", "Baichuan2-13B-Chat") == 1
    lines = capsys.readouterr().out.splitlines()
    assert "ok       tokenizer.model" in lines
    assert "failed   pytorch_model-00001-of-00003.bin is missing" in lines
