from __future__ import annotations

from pathlib import Path

import pytest

from bc2_data.atomic import new_directory, new_files
from bc2_data.errors import Bc2Error


def test_files_appear_together_at_the_end(tmp_path: Path) -> None:
    targets = [tmp_path / "new" / name for name in ("a", "b")]
    with new_files(*targets) as partials:
        for partial in partials:
            partial.write_text("x")
        assert not any(target.exists() for target in targets)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a", "b"]


def test_an_error_removes_files_and_new_folders(tmp_path: Path) -> None:
    def fail() -> None:
        with new_files(tmp_path / "kept" / "x" / "y" / "a") as (partial,):
            partial.write_text("x")
            raise RuntimeError

    (tmp_path / "kept").mkdir()
    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.rglob("*")) == [tmp_path / "kept"]


def test_an_error_keeps_what_stood_there(tmp_path: Path) -> None:
    def fail() -> None:
        with new_files(tmp_path / "a", tmp_path / "mark") as (first, _):
            first.write_text("new")
            raise RuntimeError

    for name in ("a", "mark"):
        (tmp_path / name).write_text("old")
    with pytest.raises(RuntimeError):
        fail()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a": "old",
        "mark": "old",
    }


def test_an_old_mark_never_stands_beside_new_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def overwrite() -> None:
        with new_files(tmp_path / "a", tmp_path / "mark") as partials:
            for partial in partials:
                partial.write_text("new")

    overwrite()
    monkeypatch.setattr("bc2_data.atomic.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        overwrite()
    assert (tmp_path / "a").exists()
    assert not (tmp_path / "mark").exists()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Bc2Error, match="file is no directory"), new_files(tmp_path / "file" / "a"):
        pass


def test_a_directory_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "d"
    target.mkdir()
    (target / "old").touch()
    with new_directory(target) as partial:
        (partial / "new").touch()
        assert (target / "old").exists()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]
